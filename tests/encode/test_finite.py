"""An embedding that is not finite is an error that names the item and the likely cause, and is never returned."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from st_modules import CheckpointError, InputError, SentenceTransformer
from tests.helpers.inputs import OFF, PICTURES
from tests.helpers.paths import GOLDEN
from tests.helpers.references import reference

NAMES = ["gme-2b", "qwen3-vl-embedding-2b", "bge-vl-mllm-s1", "bge-vl-base", "bge-visualized-base", "bge-visualized-m3"]
INPUTS: list[Any] = ["a cat", PICTURES[0], "a much longer text about a cat"]


def part(model: SentenceTransformer, name: str) -> torch.nn.Module:
    backbone: Any = model[0]
    return backbone.model.get_submodule(name)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_not_finite_are_named(name: str, plain: bool, value: float) -> None:
    model = reference(name).load(name)
    if plain:
        model.encode_options = OFF
    tower: Any = model[0].towers
    key, weight = list(part(model, tower.language).named_parameters())[-1]
    weight.data.fill_(value)
    with pytest.raises(InputError, match=rf"item \d.*not finite.*weight .*{key}") as error:
        model.encode(INPUTS)
    assert error.value.index in (0, 1, 2)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["encode", "encode_query", "encode_document"])
def test_the_item_is_named_whose_image_it_is(name: str, how: str) -> None:
    model = reference(name).load(name)
    tower: Any = model[0].towers
    next(part(model, tower.vision).parameters()).data.fill_(math.nan)
    with pytest.raises(InputError) as error:
        getattr(model, how)(["a cat", "a dog", PICTURES[0], "a cat"])
    assert error.value.index == 2
    assert model.encode(["a cat", "a dog"]).shape[0] == 2


@pytest.mark.parametrize("output_value", [None, "token_embeddings"])
def test_other_outputs_are_checked_too(output_value: str | None) -> None:
    model = reference("gme-2b").load("gme-2b")
    next(part(model, "visual").parameters()).data.fill_(math.nan)
    with pytest.raises(InputError, match="not finite") as error:
        model.encode(["a cat", {"image": PICTURES[0]}], output_value=output_value)  # type: ignore[arg-type]
    assert error.value.index == 1
    assert len(model.encode(["a cat", "a dog"], output_value=output_value)) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")
@pytest.mark.parametrize(("setting", "value"), [("image_std", 0.0), ("image_mean", math.nan), ("image_std", math.nan)])
def test_an_image_processor_that_was_changed_is_named(name: str, setting: str, value: float) -> None:
    model = reference(name).load(name)
    processor: Any = model[0].processor
    setattr(processor, setting, [value] * 3)
    with pytest.raises(InputError, match=f"item 1.*not finite.*image processor.*{setting}"):
        model.encode(INPUTS)


@pytest.mark.parametrize("scale", [1e30, 0.0])
@pytest.mark.parametrize("output_value", ["sentence_embedding", None])
def test_vectors_without_a_direction_are_told(scale: float, output_value: Any) -> None:
    model = reference("bge-vl-base").load("bge-vl-base")
    projection: Any = part(model, "text_projection")
    projection.weight.data *= scale
    with pytest.raises(InputError, match="item 0.*not finite, or zero"):
        model.encode(["a cat"], output_value=output_value)


def test_what_truncation_cuts_off_is_told_too() -> None:
    model = reference("gme-2b").load("gme-2b")
    norm: Any = part(model, "language_model.norm")
    norm.weight.data[-1] = math.inf
    with pytest.raises(InputError, match="item 0.*not finite"):
        model.encode(["a cat"], truncate_dim=8)


def test_numbers_that_are_too_large_for_half_precision_are_told() -> None:
    model = reference("bge-vl-base").load("bge-vl-base")
    projection: Any = part(model, "text_projection")
    projection.weight.data = 60000 * projection.weight.data.sign()
    assert model.encode(["a cat"]).shape
    with pytest.raises(InputError, match="item 0.*float16"):
        model.half().encode(["a cat"])


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1", "bge-vl-base"])
@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("image_std", [0.5, 0, 0.5]),
        ("image_std", [0.5, 0.5]),
        ("image_std", "0.5"),
        ("image_mean", [math.nan, 0.5, 0.5]),
        ("image_mean", [0.5, None, 0.5]),
        ("rescale_factor", math.inf),
    ],
)
def test_a_file_by_which_no_pixel_can_be_normalised_is_refused(
    name: str, setting: str, value: object, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(reference(name).weights, tmp_path / "model"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), setting: value}))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json.*{setting}"):
        SentenceTransformer(name, weights=folder, device="cpu")


def test_pixels_that_are_not_normalised_need_no_numbers(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bge_vl_clip" / "checkpoint", tmp_path / "model"))
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_normalize": False, "image_std": None}))
    assert SentenceTransformer("bge-vl-base", weights=folder, device="cpu").encode([PICTURES[0]]).shape
