"""The tiles of LLaVA-NeXT by the releases of transformers that lay them out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import LlavaNextImageProcessorPil

from st_modules import CheckpointError, SentenceTransformer
from st_modules.backbones.llava_next_tiles import TILE_LAYOUTS, count_tokens, cut_tiles, embed_tiles, find_grid
from st_modules.errors import ArgumentError
from tests.helpers.references import TOLERANCE, load_once, reference

OLD = ["transformers-4.41", "transformers-4.46"]
SIZES = [(1, 1), (1, 300), (300, 1), (56, 56), (57, 111), (100, 33), (33, 100), (168, 56), (61, 170), (170, 61), (7, 5)]


def picture(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def set_layout(model: SentenceTransformer, layout: str) -> None:
    backbone: Any = model[0]
    backbone.tile_layout = layout


@pytest.fixture(scope="module")
def backbone() -> Any:
    return load_once("e5-v", "sdpa")[0]


@pytest.mark.parametrize("layout", TILE_LAYOUTS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_a_picture_has_as_many_tokens_as_are_counted(backbone: Any, layout: str, height: int, width: int) -> None:
    config, rules = backbone.model.config, TILE_LAYOUTS[layout]
    tiles = cut_tiles(picture(height, width), config, backbone.image_processor, rules)
    sizes = torch.tensor([[height, width], [56, 56]])
    with torch.inference_mode():
        # A second picture with fewer tiles, filled up with zeros.
        both = torch.nn.utils.rnn.pad_sequence([tiles, tiles[:2]], batch_first=True)
        tokens, _ = embed_tiles(backbone.model, both, sizes, rules)
    assert len(tokens) == count_tokens(height, width, config, rules)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_todays_tiles_are_those_of_todays_processor(backbone: Any, height: int, width: int) -> None:
    processor = LlavaNextImageProcessorPil.from_pretrained(reference("e5-v").weights, do_convert_rgb=False)
    expected = processor(picture(height, width), return_tensors="pt")["pixel_values"][0]
    found = cut_tiles(picture(height, width), backbone.model.config, processor, TILE_LAYOUTS["transformers-5"])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("layout", OLD)
def test_an_odd_rest_stretches_the_last_column_of_tiles_and_no_other(backbone: Any, layout: str) -> None:
    # A canvas of 56x168 pixels, of which the picture leaves a rest of one.
    wide, config, processor = picture(56, 167), backbone.model.config, backbone.image_processor
    assert find_grid(56, 167, config) == (1, 3)
    old, new = (cut_tiles(wide, config, processor, TILE_LAYOUTS[name]) for name in (layout, "transformers-5"))
    assert torch.equal(old[:3], new[:3])
    narrow = wide.crop((112, 0, 167, 56)).resize((56, 57), processor.resample).crop((0, 0, 56, 56))
    values = torch.from_numpy(np.array(narrow)).permute(2, 0, 1) / 255
    mean, std = (torch.tensor(each)[:, None, None] for each in (processor.image_mean, processor.image_std))
    assert torch.allclose(old[3], (values - mean) / std, atol=1e-5)
    assert not torch.allclose(old[3], new[3], atol=0.1)


def test_the_layouts_differ_on_a_grid_that_is_not_square_and_agree_on_one_that_is(tmp_path: Path) -> None:
    model = reference("e5-v").load("e5-v")
    vectors: dict[str, np.ndarray] = {}
    for layout in TILE_LAYOUTS:
        set_layout(model, layout)
        vectors[layout] = model.encode([picture(60, 150), picture(112, 112)])
    today = vectors["transformers-5"]
    assert np.abs(vectors["transformers-4.41"] - today).max(axis=1)[0] > 1e-2
    assert max(np.abs(vectors[layout] - today).max(axis=1)[1] for layout in OLD) <= TOLERANCE
    # The last one set is saved.
    model.save_pretrained(str(tmp_path))
    assert np.abs(SentenceTransformer(str(tmp_path), device="cpu").encode(picture(60, 150)) - today[0]).max() < 1e-6


def test_a_model_that_was_saved_without_a_layout_keeps_todays(tmp_path: Path) -> None:
    model = reference("e5-v").load("e5-v")
    set_layout(model, "transformers-5")
    model.save_pretrained(str(tmp_path))
    path = tmp_path / "st_modules_config.json"
    saved = json.loads(path.read_text(encoding="utf-8"))
    del saved["tile_layout"]
    path.write_text(json.dumps(saved), encoding="utf-8")
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert np.abs(again.encode(picture(60, 150)) - model.encode(picture(60, 150))).max() < 1e-6


def test_an_unknown_layout_is_refused(backbone: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="tile_layout='transformers-6'"):
        backbone.tile_layout = "transformers-6"
    load_once("e5-v", "sdpa").save_pretrained(str(tmp_path))
    path = tmp_path / "st_modules_config.json"
    path.write_text(path.read_text(encoding="utf-8").replace("transformers-4.41", "transformers-6"), encoding="utf-8")
    with pytest.raises(CheckpointError, match="tile_layout"):
        SentenceTransformer(str(tmp_path), device="cpu")


# The figures of docs/exactness.md.
@pytest.mark.parametrize(("row", "figure"), [("e5-v", 0.16), ("vlm2vec-llava-next", 0.07)])
def test_todays_layout_is_so_far_from_the_authors_vectors(row: str, figure: float) -> None:
    model = reference(row).load(row)
    set_layout(model, "transformers-5")
    cases = reference(row).cases.values()
    assert round(max(float(np.abs(case.embed(model, 1) - case.expected).max()) for case in cases), 2) == figure
