"""Qwen3-VL-Embedding against stock Qwen3-VL, put together by hand: sizes, rows of any make-up, cut texts, ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from st_modules import EncodeOptions, ImageError, SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.inputs.images import ImageSource
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE, load_once, reference
from tests.helpers.stock_qwen3_vl import CHECKPOINT, TAIL, Stock

NAME = "qwen3-vl-embedding-2b"
RANDOM = np.random.default_rng(3)
WIDE, TALL, SQUARE = (
    Image.fromarray(RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((64, 128), (160, 64), (96, 96))
)


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock()


@pytest.fixture
def model() -> SentenceTransformer:
    return load_once(NAME, "sdpa")


def tokens(model: SentenceTransformer, image: Image.Image) -> int:
    backbone: Any = model[0]
    return backbone.image_tokens(ImageSource(image))


ROWS: list[tuple[str, tuple[Image.Image, ...]]] = [
    ("a lamp", (WIDE, TALL, WIDE)),
    ("", ()),
    ("no picture at all, but a long text", ()),
    ("", (SQUARE, SQUARE)),
    ("two of one size, and one of another", (WIDE, WIDE, SQUARE, WIDE)),
    ("a lamp", ()),
    ("", (TALL,)),
]
SETTINGS = {
    "packed": EncodeOptions(),
    "padded": EncodeOptions(packing=False),
    "whole last layer": EncodeOptions(pruning=False),
    "stock tower": EncodeOptions(fast_vision=False),
    "nothing shared": EncodeOptions(shared_prefix=False),
}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("setting", SETTINGS)
def test_rows_with_any_number_of_pictures_are_stock_rows(stock: Stock, setting: str, attention: str) -> None:
    model = reference(NAME).load(NAME, attention)
    model.encode_options = SETTINGS[setting]
    items = [{"text": text, "image": list(pictures)} if pictures else {"text": text} for text, pictures in ROWS]
    expected = np.stack([stock.vector(text, *pictures) for text, pictures in ROWS])
    assert np.abs(model.encode(items) - expected).max() <= TOLERANCE
    assert np.abs(model.encode(items, batch_size=2) - expected).max() <= TOLERANCE
    # Nothing is carried from call to call.
    assert np.abs(model.encode(items[::-1]) - expected[::-1]).max() <= TOLERANCE
    assert model[0].get_submodule("model").__dict__["rope_deltas"] is None


def test_kept_prefixes_change_nothing(stock: Stock) -> None:
    model = reference(NAME).load(NAME, keep_prefixes=True)
    for text, pictures in ROWS * 2:
        item = {"text": text, "image": list(pictures)} if pictures else {"text": text}
        assert np.abs(model.encode(item) - stock.vector(text, *pictures)).max() <= TOLERANCE
    assert model.keep_prefixes


# ------------------------------------------------------------------------------------------------------- sizes

# Of the function of qwen-vl-utils 0.0.14, for 32 pixels and 4096 to 1843200 of them.
SIZES = {
    (100, 100): (96, 96),
    (48, 80): (64, 64),  # 1.5 rounds to 2, and 2.5 too
    (1, 1): (64, 64),
    (10, 200): (32, 192),  # a side that rounds to nothing is 32 pixels at least, where transformers' rule has 32x288
    (16, 3200): (32, 3200),
    (600, 4): (608, 32),
    (4000, 3000): (1536, 1152),
    (5000, 1200): (2752, 640),
}


@pytest.mark.parametrize(("size", "expected"), SIZES.items())
def test_pictures_are_resized_once_by_the_rule_of_qwen_vl_utils(
    model: SentenceTransformer, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    height, width = size
    picture = Image.new("RGB", (width, height), "teal")
    assert tokens(model, picture) == expected[0] // 32 * (expected[1] // 32)
    grid = model.preprocess([picture])["image_grid_thw"]
    assert grid.tolist() == [[1, expected[0] // 16, expected[1] // 16]]


@pytest.mark.parametrize("size", [(1, 201), (201, 1)])
def test_a_picture_that_is_too_elongated_is_refused_by_its_place(
    model: SentenceTransformer, size: tuple[int, int]
) -> None:
    with pytest.raises(ImageError, match=r"^item 1: .*above 200"):
        model.encode(["a", Image.new("RGB", size)])


def test_the_bounds_of_the_image_processor_are_not_read(tmp_path: Path, stock: Stock) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    path = folder / "preprocessor_config.json"
    changes = {"size": {"shortest_edge": 10**6, "longest_edge": 10**6}, "do_resize": False, "resample": 0}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    model = SentenceTransformer(NAME, weights=folder, device="cpu")
    assert np.abs(model.encode(WIDE) - stock.vector("", WIDE)).max() <= TOLERANCE


def test_how_pixels_are_normalised_is_read_from_the_file(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    path = folder / "preprocessor_config.json"
    changes = {"image_mean": [0.4, 0.5, 0.6], "image_std": [0.3, 0.2, 0.1]}
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    model = SentenceTransformer(NAME, weights=folder, device="cpu")
    assert np.abs(model.encode(WIDE) - Stock(folder).vector("", WIDE)).max() <= TOLERANCE


def test_fewer_and_more_tokens_can_be_asked_for() -> None:
    model = reference(NAME).load(NAME, min_image_tokens=9, max_image_tokens=12)
    assert [tokens(model, Image.new("RGB", size)) for size in ((32, 32), (96, 96), (3200, 3200))] == [9, 9, 9]
    assert tokens(model, Image.new("RGB", (64, 192))) == 12
    with pytest.raises(ImageError, match="too elongated for 12 tokens"):
        tokens(model, Image.new("RGB", (6400, 64)))
    with pytest.raises(ArgumentError, match="min_image_tokens=9 and max_image_tokens=8"):
        reference(NAME).load(NAME, min_image_tokens=9, max_image_tokens=8)


# ------------------------------------------------------------------------------------------------- long texts, ends


def test_a_text_over_the_limit_loses_its_end_where_the_authors_lose_the_end_of_the_turn() -> None:
    (case,) = [
        case
        for case in json.loads((GOLDEN / "qwen3_vl_embedding" / "cases.json").read_text(encoding="utf-8"))["cases"]
        if case["id"] == "text_cut"
    ]
    model = reference(NAME).load(NAME, max_length=case["max_length"])
    ids = model.preprocess([{"text": case["items"][0]["text"]}])["input_ids"][0].tolist()
    whole = model.tokenizer(case["items"][0]["rendered"])["input_ids"]
    tail = model.tokenizer(TAIL)["input_ids"]
    assert len(ids) == case["max_length"] < len(whole)
    assert ids == whole[: len(ids) - len(tail)] + tail


def test_the_limit_is_that_of_the_authors(model: SentenceTransformer) -> None:
    assert model.max_seq_length == 8192


def test_what_the_tokenizer_puts_after_a_text_is_pooled(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHECKPOINT, tmp_path / "checkpoint"))
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    end = {"id": "<|endoftext|>", "type_id": 0}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": end}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": end}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [480], "tokens": ["<|endoftext|>"]}},
    }
    path.write_text(json.dumps(content), encoding="utf-8")
    model = SentenceTransformer(NAME, weights=folder, device="cpu")
    stock = Stock(folder)
    for text, pictures in ROWS:
        item = {"text": text, "image": list(pictures)} if pictures else {"text": text}
        assert model.preprocess([item])["input_ids"][0, -1] == 480
        assert np.abs(model.encode(item) - stock.vector(text, *pictures)).max() <= TOLERANCE
    short = model.preprocess([{"text": "long " * 100}], max_length=40)["input_ids"][0].tolist()
    assert (len(short), short[-1]) == (40, 480)
