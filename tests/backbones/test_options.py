"""The options of a backbone: as attributes, and as they were saved."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from st_modules import CheckpointError, SentenceTransformer
from st_modules.backbones import BACKBONES
from st_modules.errors import ArgumentError
from tests.helpers.paths import GOLDEN

OPTIONS, CONFIG = "st_modules_config.json", "config_sentence_transformers.json"
SAVED: dict[str, dict[str, Any]] = {
    "clip": {"template": "clip", "max_length": None, "rounded_crop": True},
    "llava_next": {"template": "e5_v", "max_length": 99, "first_resize": 512},
    "phi3_v": {"template": "dse_phi3", "max_length": 99, "num_crops": 16, "first_resize": 1344, "text_max_length": 128},
    "qwen2_vl": {"template": "gme", "max_length": 99, "first_resize": "gme", "multimodal_positions": True},
    "qwen3_vl": {"template": "qwen3_vl_embedding", "max_length": 99, "min_image_tokens": 4, "max_image_tokens": 9},
    "visualized_bge": {"template": "visualized_bge", "max_length": 99, "text_model": "bert", "head_dim": 64},
}
NO_LENGTHS = [0, -1, 1.5, True, "512", [], {}]
WRONG: dict[str, dict[str, list[Any]]] = {
    **{name: {"template": ["foo", None, 5, []], "max_length": NO_LENGTHS, "unknown": [1]} for name in SAVED},
}
WRONG["clip"]["rounded_crop"] = ["yes", 1, None]
WRONG["llava_next"]["first_resize"] = [*NO_LENGTHS, "gme"]
WRONG["phi3_v"] |= {
    "num_crops": [*NO_LENGTHS, None, 17],
    "first_resize": [*NO_LENGTHS, "gme", 10**9],
    "text_max_length": NO_LENGTHS,
}
WRONG["qwen2_vl"] |= {
    "first_resize": ["foo", 5],
    "resize": ["foo", 5, "vlm2vec"],
    "num_frames": [*NO_LENGTHS, 8],
    "multimodal_positions": ["no", 1, None],
    "min_image_tokens": NO_LENGTHS,
    "max_image_tokens": NO_LENGTHS,
    "image_limits": [{}, None],
    "device": ["cpu"],
}
WRONG["qwen3_vl"] |= dict.fromkeys(("min_image_tokens", "max_image_tokens"), [*NO_LENGTHS, None])
WRONG["visualized_bge"] |= {"text_model": ["gpt", None], "head_dim": [*NO_LENGTHS, None]}


def save_with(tiny: SentenceTransformer, folder: Path, file: str, changes: dict[str, Any]) -> Path:
    """Save the model, and change what one of its files says."""
    tiny.save_pretrained(str(folder), create_model_card=False)
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return path


@pytest.mark.parametrize("name", SAVED)
def test_options_that_are_saved_are_fine(name: str) -> None:
    BACKBONES[name].check_options(SAVED[name])


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [(name, option, value) for name in WRONG for option in WRONG[name] for value in WRONG[name][option]],
)
def test_a_saved_option_that_is_none_is_named(name: str, option: str, value: Any) -> None:
    with pytest.raises(ArgumentError, match=f"^{option}"):
        BACKBONES[name].check_options({**SAVED[name], option: value})


@pytest.mark.parametrize("name", SAVED)
def test_a_template_must_be_saved(name: str) -> None:
    with pytest.raises(ArgumentError, match="^template=None: pass one of "):
        BACKBONES[name].check_options({key: value for key, value in SAVED[name].items() if key != "template"})


@pytest.mark.parametrize(
    "changes",
    [
        {"max_length": 1.5},
        {"max_length": 10**9},
        {"min_image_tokens": 10**9},
        {"image_limits": {}},
        {"template": "foo"},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_a_saved_model_with_such_an_option_is_refused_by_its_file(
    tiny: SentenceTransformer, tmp_path: Path, changes: dict[str, Any]
) -> None:
    path = save_with(tiny, tmp_path, OPTIONS, changes)
    with pytest.raises(CheckpointError) as error:
        SentenceTransformer(str(tmp_path), device="cpu")
    assert str(error.value).startswith(f"{path}: {next(iter(changes))}")


def test_an_argument_takes_the_place_of_what_was_saved_and_is_not_blamed_on_the_file(
    tiny: SentenceTransformer, tmp_path: Path
) -> None:
    save_with(tiny, tmp_path, OPTIONS, {"max_length": 10**9})
    assert SentenceTransformer(str(tmp_path), device="cpu", max_length=99).max_seq_length == 99
    with pytest.raises(ArgumentError, match="^max_length=1000000: "):
        SentenceTransformer(str(tmp_path), device="cpu", max_length=10**6)


@pytest.mark.parametrize("content", ["[]", "5", "{", ""])
def test_saved_options_that_are_no_object_are_refused_by_their_file(
    tiny: SentenceTransformer, tmp_path: Path, content: str
) -> None:
    save_with(tiny, tmp_path, OPTIONS, {}).write_text(content)
    with pytest.raises(CheckpointError, match=OPTIONS):
        SentenceTransformer(str(tmp_path), device="cpu")


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "16", 129])
def test_a_saved_truncation_is_one_of_the_models_dimensions(
    tiny: SentenceTransformer, tmp_path: Path, value: Any
) -> None:
    path = save_with(tiny, tmp_path, CONFIG, {"truncate_dim": value})
    with pytest.raises(CheckpointError) as error:
        SentenceTransformer(str(tmp_path), device="cpu")
    assert str(error.value).startswith(f"{path}: truncate_dim={value!r}: ")


@pytest.fixture
def model(tiny: SentenceTransformer) -> SentenceTransformer:
    return copy.deepcopy(tiny)


@pytest.mark.parametrize("value", [*NO_LENGTHS, 64.0, 4097, 10**9])
def test_a_length_that_is_none_is_refused_and_changes_nothing(model: SentenceTransformer, value: Any) -> None:
    before = model.max_seq_length
    with pytest.raises(ValueError, match="^max_length="):
        model.max_seq_length = value
    with pytest.raises(ValueError, match="^max_length="):
        model[0].max_length = value
    assert model.max_seq_length == before


def test_no_length_is_as_long_as_the_positions_allow(model: SentenceTransformer) -> None:
    backbone: Any = model[0]
    model.max_seq_length = 64
    model.max_seq_length = None
    assert model.max_seq_length == backbone.model.config.get_text_config().max_position_embeddings
    backbone.max_length = 64
    backbone.max_length = None
    assert len(model.preprocess(["word " * 5000])["input_ids"][0]) == model.max_seq_length == 4096


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("min_image_tokens", value) for value in NO_LENGTHS),
        *(("max_image_tokens", value) for value in NO_LENGTHS),
        *(("first_resize", value) for value in ("foo", 5, [])),
        *(("template", value) for value in ("foo", None, 5)),
        *(("multimodal_positions", value) for value in (None, 1, "yes")),
        *(("image_limits", value) for value in ({}, None, 5, "x")),
    ],
    ids=str,
)
def test_an_option_that_cannot_be_is_refused_when_it_is_set_and_changes_nothing(
    model: SentenceTransformer, name: str, value: Any
) -> None:
    before = getattr(model[0], name)
    with pytest.raises(ArgumentError, match=f"^{name}="):
        setattr(model[0], name, value)
    assert getattr(model[0], name) == before


def test_bounds_that_exclude_each_other_are_refused_by_the_next_call(model: SentenceTransformer) -> None:
    backbone: Any = model[0]
    backbone.min_image_tokens = 99
    with pytest.raises(ArgumentError, match="^min_image_tokens=99 and max_image_tokens=16"):
        model.encode("a red circle")
    backbone.max_image_tokens = 99
    assert model.encode("a red circle").shape == (128,)


def test_a_side_that_no_picture_should_be_scaled_to_is_refused() -> None:
    with pytest.raises(ArgumentError, match="^first_resize=1000000000: pass at most 10000 pixels"):
        BACKBONES["llava_next"].check_options({**SAVED["llava_next"], "first_resize": 10**9})


def test_files_that_do_not_fit_the_catalogs_options_are_to_blame(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "gme" / "checkpoint", tmp_path / "checkpoint"))
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "max_position_embeddings": 99}))
    with pytest.raises(CheckpointError, match=f"^{folder}: config.json .*max_length=1800: .* 99 positions"):
        SentenceTransformer("gme-2b", weights=folder, device="cpu")
    assert SentenceTransformer("gme-2b", weights=folder, device="cpu", max_length=99).max_seq_length == 99
    with pytest.raises(ArgumentError, match="^max_length=100: "):
        SentenceTransformer("gme-2b", weights=folder, device="cpu", max_length=100)
