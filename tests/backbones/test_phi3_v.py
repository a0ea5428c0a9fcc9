"""Phi-3-V: tiles, factors of long texts by row, what its files may say, and the authors' limit for texts."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file as load_arrays
from safetensors.torch import load_file, save_file

from st_modules import CheckpointError, EncodeOptions, ImageError, SentenceTransformer
from st_modules.backbones.long_rope import LongRope
from st_modules.backbones.phi3_v_vision import SIDE, cut_tiles, plan_tiles, resize_and_pad
from st_modules.errors import ArgumentError
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE, golden_cases, load_once, read_item, reference

FULL, LORA, DSE = "vlm2vec-phi3.5-v", "vlm2vec-phi3.5-v-lora", "dse-phi3"
FULL_GOLDEN, LORA_GOLDEN = GOLDEN / "vlm2vec_phi3v_full", GOLDEN / "vlm2vec_phi3v_lora"
CAPTION = "Find me an everyday image that matches the given caption:"


def distance(left: Any, right: Any) -> float:
    return float(np.abs(np.asarray(left) - np.asarray(right)).max())


def items_of(folder: Path, case: dict[str, Any]) -> list[dict[str, Any]]:
    return [read_item(folder, item) for item in case["items"]]


def golden(folder: Path, wanted: str) -> dict[str, tuple[list[dict[str, Any]], np.ndarray]]:
    """Items and vectors of the cases whose names begin so."""
    expected = load_arrays(folder / "expected.safetensors")
    cases = [case for case in golden_cases(folder.name) if case["id"].startswith(wanted)]
    return {case["id"]: (items_of(folder, case), expected[case["id"]]) for case in cases}


def with_files(source: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a checkpoint with other weights."""
    copy = Path(shutil.copytree(source, folder / "copy"))
    weights: dict[str, Any] = load_file(copy / "model.safetensors")
    change(weights)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    return copy


def inside(model: SentenceTransformer) -> Any:
    """The transformer itself."""
    backbone: Any = model[0]
    return backbone.model


def ids_of(model: SentenceTransformer, item: Any, **options: Any) -> list[int]:
    backbone: Any = model[0]
    (ids,) = backbone.preprocess([item], **options)["input_ids"].tolist()
    return ids


def load(weights: Path, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(FULL, weights=weights, device="cpu", **options)


@pytest.fixture
def model() -> SentenceTransformer:
    return load_once(FULL, "sdpa")


@pytest.fixture
def fresh() -> SentenceTransformer:
    """One whose options a test may change."""
    return reference(FULL).load(FULL)


# -------------------------------------------------------------------------------------------------- more parity


def test_cases_of_sixteen_tiles_match_the_reference_after_saving_too(tmp_path: Path) -> None:
    cases = golden(FULL_GOLDEN, "crops16_")
    assert len(cases) == 6
    items = [item for case, _ in cases.values() for item in case]
    expected = np.concatenate([vectors for _, vectors in cases.values()])
    model = reference(FULL).load(FULL, num_crops=16)
    assert distance(model.encode(items), expected) <= TOLERANCE
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert again[0].num_crops == 16
    assert distance(again.encode(items[:2]), expected[:2]) <= TOLERANCE
    assert SentenceTransformer(str(tmp_path), device="cpu", num_crops=4)[0].num_crops == 4


def test_a_plain_lora_adapter_matches_the_reference() -> None:
    cases = golden(LORA_GOLDEN, "lora_")
    model = SentenceTransformer(
        LORA, weights=LORA_GOLDEN / "checkpoint_lora", base_weights=LORA_GOLDEN / "base", device="cpu"
    )
    assert {name: distance(model.encode(items), found) for name, (items, found) in cases.items()} == pytest.approx(
        dict.fromkeys(cases, 0.0), abs=TOLERANCE
    )
    assert len(cases) == 11


def test_an_adapter_with_the_names_of_todays_clip_is_the_same(tmp_path: Path) -> None:
    adapter = Path(shutil.copytree(LORA_GOLDEN / "checkpoint", tmp_path / "adapter"))
    weights = load_file(adapter / "adapter_model.safetensors")
    renamed = {name.replace("img_processor.vision_model.", "img_processor."): each for name, each in weights.items()}
    assert renamed.keys() != weights.keys()
    save_file(renamed, adapter / "adapter_model.safetensors")
    model = SentenceTransformer(LORA, weights=adapter, base_weights=LORA_GOLDEN / "base", device="cpu")
    (items, expected) = golden(LORA_GOLDEN, "dora_crops4_question_wide")["dora_crops4_question_wide"]
    assert distance(model.encode(items), expected) <= TOLERANCE


def test_settings_of_single_layers_of_an_adapter_count(tmp_path: Path) -> None:
    source = LORA_GOLDEN / "checkpoint_lora"
    prefix = "vision_embed_tokens.img_processor.vision_model.encoder.layers.0.self_attn"
    patterns = [{}, {f"model.{prefix}.q_proj": 64}, {f"model.{prefix}.q_proj": 32}]
    vectors: list[Any] = []
    for number, pattern in enumerate(patterns):
        adapter = Path(shutil.copytree(source, tmp_path / str(number)))
        content = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**content, "alpha_pattern": pattern}))
        model = SentenceTransformer(LORA, weights=adapter, base_weights=LORA_GOLDEN / "base", device="cpu")
        vectors.append(model.encode(LORA_GOLDEN / "images" / "wide.png"))
    assert distance(vectors[0], vectors[2]) == 0
    assert distance(vectors[0], vectors[1]) > 1e-6


# --------------------------------------------------------------------------------------------------- long texts

SHORT = ["A cat and a dog", "a"]


@pytest.fixture(scope="module")
def long_text() -> tuple[str, np.ndarray]:
    ((item,), vectors) = golden(FULL_GOLDEN, "text_long")["text_long"]
    return item["text"], vectors[0]


def test_a_long_text_has_its_own_factors_beside_short_ones(
    fresh: SentenceTransformer, long_text: tuple[str, np.ndarray]
) -> None:
    fresh.encode_options = EncodeOptions(token_budget=False)
    text, expected = long_text
    vectors = fresh.encode([SHORT[0], text, SHORT[1]])
    assert distance(vectors[1], expected) <= TOLERANCE
    assert distance(vectors[[0, 2]], [fresh.encode(short) for short in SHORT]) <= TOLERANCE


def test_a_long_text_has_its_own_factors_in_a_padded_batch(
    model: SentenceTransformer, long_text: tuple[str, np.ndarray]
) -> None:
    text, expected = long_text
    with torch.inference_mode():
        vectors = model(model.preprocess([SHORT[0], text, SHORT[1]]))["sentence_embedding"]
    assert distance(vectors[1], expected) <= TOLERANCE
    assert distance(vectors[[0, 2]], model.encode(SHORT)) <= TOLERANCE


@pytest.fixture(scope="module")
def soon_long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose rows of more than 64 tokens are long."""
    folder = Path(shutil.copytree(FULL_GOLDEN / "checkpoint", tmp_path_factory.mktemp("phi3") / "copy"))
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "original_max_position_embeddings": 64}))
    return folder


@pytest.mark.parametrize("kept", [False, True])
def test_what_short_texts_begin_with_is_not_shared_with_a_long_one(soon_long: Path, kept: bool) -> None:
    model = load(soon_long, keep_prefixes=kept)
    texts = [*SHORT, "two dogs in the snow", "a tiger, " * 30, "a tiger"]
    lengths = model.preprocess(texts, prompt=CAPTION)["attention_mask"].sum(1)
    assert (lengths > 64).tolist() == [False, False, False, True, False]
    model.encode_options = dataclasses.replace(model.encode_options, shared_prefix=False)
    expected = [model.encode(text, prompt=CAPTION) for text in texts]
    model.encode_options = EncodeOptions()
    for order in (texts, texts[::-1], texts[3:4], texts[:1]):
        wanted = [expected[texts.index(text)] for text in order]
        assert distance(model.encode(order, prompt=CAPTION), wanted) <= TOLERANCE


def test_the_factors_of_one_row_more_or_less_change_at_the_first_length(model: SentenceTransformer) -> None:
    config = inside(model).config.text_config
    rope, most = LongRope(config), config.rope_parameters["original_max_position_embeddings"]
    x = torch.zeros(1)
    packed = torch.cat([torch.arange(most), torch.arange(most + 1), torch.arange(3)])[None]
    cos, _ = rope(x, packed)
    alone = [rope(x, torch.arange(length)[None])[0] for length in (most, most + 1, 3)]
    assert torch.equal(cos, torch.cat(alone, dim=1))
    # Position 1 turns by the first factor alone.
    scale = math.sqrt(1 + math.log(config.max_position_embeddings / most) / math.log(most))
    short, long = (config.rope_parameters[name][0] for name in ("short_factor", "long_factor"))
    found = [row[0, 1, 0].item() for row in alone]
    assert found == pytest.approx([scale * math.cos(1 / factor) for factor in (short, long, short)], abs=1e-6)


# -------------------------------------------------------------------------------------------------------- tiles

SIZES = [(336, 336), (1, 1), (700, 300), (300, 700), (1000, 999), (999, 1000), (3, 400), (400, 3), (2000, 150)]


def authors_rows_and_columns(width: int, height: int, most: int) -> tuple[int, int]:
    """Grid of tiles, counted up as the authors count."""
    transposed = width < height
    if transposed:
        width, height = height, width
    ratio, scale = width / height, 1
    while scale * np.ceil(scale / ratio) <= most:
        scale += 1
    columns = scale - 1
    rows = int(np.ceil(int(columns * 336 / ratio) / 336))
    return (columns, rows) if transposed else (rows, columns)


@pytest.mark.parametrize("most", [1, 2, 4, 7, 16])
@pytest.mark.parametrize("size", SIZES)
def test_an_image_becomes_as_many_tokens_as_are_laid_out(
    model: SentenceTransformer, size: tuple[int, int], most: int
) -> None:
    rows, columns = authors_rows_and_columns(*size, most)
    tiling = plan_tiles(*size, most)
    assert (tiling.rows, tiling.columns) == (rows, columns)
    embedding = inside(model).vision_embed_tokens
    seen = torch.empty(1 + rows * columns, 12, 12, embedding.glb_GN.shape[-1])
    plane = embedding._lay_out(seen[1:], rows, columns)
    assert tiling.tokens == len(plane) + 1 + len(embedding._lay_out(seen[:1], 1, 1))


def test_tokens_are_laid_out_row_by_row_of_the_whole_plane(model: SentenceTransformer) -> None:
    embedding = inside(model).vision_embed_tokens
    rows, columns, width = 2, 3, embedding.sub_GN.shape[-1]
    # Each token says which tile it is of, and its row and column in it.
    tiles = torch.stack(
        [torch.full((width,), 10_000.0 * t + 100 * r + c) for t in range(6) for r in range(12) for c in range(12)]
    ).view(6, 12, 12, width)
    found = embedding._lay_out(tiles, rows, columns)
    expected: list[torch.Tensor] = []
    for row in range(rows * 12):
        expected += [tiles[row // 12 * columns + column // 12, row % 12, column % 12] for column in range(columns * 12)]
        expected.append(embedding.sub_GN[0, 0, 0])
    assert torch.equal(found, torch.stack(expected))


@pytest.mark.parametrize("size", [(500, 300), (300, 500)])
def test_tiles_are_the_squares_of_the_padded_picture(size: tuple[int, int]) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), dtype=np.uint8))
    tiling = plan_tiles(*size, 4)
    padded = resize_and_pad(picture, tiling)
    assert padded.size == (tiling.columns * SIDE, tiling.rows * SIDE)
    pixels = np.asarray(padded, dtype=np.float32)
    rest = padded.height - tiling.height if size[0] > size[1] else padded.width - tiling.width
    first, last = (pixels, pixels[::-1]) if size[0] > size[1] else (pixels.swapaxes(0, 1), pixels.swapaxes(0, 1)[::-1])
    white = {"before": first[: rest // 2], "after": last[: rest - rest // 2]}
    assert {name: bool((part == 255).all()) for name, part in white.items()} == {"before": True, "after": True}
    edges = {"first": first[rest // 2], "last": last[rest - rest // 2]}
    assert {name: bool((part == 255).all()) for name, part in edges.items()} == {"first": False, "last": False}
    tiles = cut_tiles(torch.from_numpy(pixels).permute(2, 0, 1))
    boxes = [
        (column * SIDE, row * SIDE, (column + 1) * SIDE, (row + 1) * SIDE)
        for row in range(tiling.rows)
        for column in range(tiling.columns)
    ]
    expected = np.stack([np.asarray(padded.crop(box), dtype=np.float32) for box in boxes])
    assert np.array_equal(tiles[1:].permute(0, 2, 3, 1).numpy(), expected)


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000)])
def test_an_image_of_which_nothing_would_be_left_is_refused_by_position(
    model: SentenceTransformer, size: tuple[int, int]
) -> None:
    with pytest.raises(ImageError, match=rf"^item 1: {size[0]}x{size[1]} pixels: too elongated"):
        model.encode(["a", Image.new("RGB", size)])


def test_the_pages_of_dse_may_be_as_elongated_as_any(model: SentenceTransformer) -> None:
    page = load_once(DSE, "sdpa")
    assert np.isfinite(page.encode(Image.new("RGB", (2000, 1)))).all()


@pytest.mark.parametrize("value", [0, 17, 1.5, True])
def test_a_number_of_tiles_that_cannot_be_is_named(value: Any) -> None:
    with pytest.raises(ArgumentError, match="^num_crops="):
        reference(FULL).load(FULL, num_crops=value)


def test_the_number_of_tiles_is_no_option_of_other_models() -> None:
    with pytest.raises(ValueError, match="^num_crops: not an option of models on Qwen2VL"):
        reference("gme-2b").load("gme-2b", num_crops=4)


# -------------------------------------------------------------------------------------------------------- files


def test_weights_of_todays_clip_and_no_head_are_the_same(tmp_path: Path, model: SentenceTransformer) -> None:
    def change(weights: dict[str, Any]) -> None:
        del weights["lm_head.weight"]
        for name in list(weights):
            weights[name.replace("img_processor.vision_model.", "img_processor.")] = weights.pop(name)

    image = FULL_GOLDEN / "images" / "wide.png"
    assert (
        distance(load(with_files(FULL_GOLDEN / "checkpoint", tmp_path, change)).encode(image), model.encode(image)) == 0
    )


@pytest.mark.parametrize("added", [0.0, 1.0])
def test_a_second_name_of_the_embeddings_must_be_of_the_same(tmp_path: Path, added: float) -> None:
    def change(weights: dict[str, Any]) -> None:
        weights["model.vision_embed_tokens.wte.weight"] = weights["model.embed_tokens.weight"] + added

    folder = with_files(FULL_GOLDEN / "checkpoint", tmp_path, change)
    if added:
        with pytest.raises(CheckpointError, match=r"vision_embed_tokens\.wte\.weight is another than"):
            load(folder)
    else:
        load(folder)


def test_a_vision_tower_that_heads_do_not_fill_is_refused(tmp_path: Path) -> None:
    def change(weights: dict[str, Any]) -> None:
        name = "model.vision_embed_tokens.img_processor.vision_model.embeddings.class_embedding"
        weights[name] = weights[name][:100].contiguous()

    with pytest.raises(CheckpointError, match="the vision tower is 100 wide"):
        load(with_files(FULL_GOLDEN / "checkpoint", tmp_path, change))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("embd_layer", "use_hd_transform"), False),
        (("embd_layer", "hd_transform_order"), "glb_sub"),
        (("embd_layer", "with_learnable_separator"), False),
        (("embd_layer", "projection_cls"), "linear"),
        (("embd_layer", "embedding_cls"), "default"),
        (("embd_layer",), None),
        (("img_processor", "name"), "siglip"),
        (("img_processor", "layer_idx"), -1),
        (("rope_scaling", "short_factor"), [0.0] * 8),
        (("rope_scaling", "type"), "yarny"),
        (("rope_scaling", "type"), "yarn"),
        (("rope_scaling", "type"), "default"),
        (("rope_scaling", "type"), None),
        (("rope_scaling",), {}),
        (("sliding_window",), 0),
        (("sliding_window",), -1),
        (("rope_scaling", "long_factor"), [1.0] * 3),
        (("pad_token_id",), 5),
        (("pad_token_id",), None),
    ],
    ids=repr,
)
def test_a_configuration_that_says_something_else_is_refused(
    tmp_path: Path, path: Sequence[str], value: object
) -> None:
    copy = Path(shutil.copytree(FULL_GOLDEN / "checkpoint", tmp_path / "copy"))
    content = json.loads((copy / "config.json").read_text())
    part = content
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    (copy / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        load(copy)


def test_a_saved_model_names_no_code(model: SentenceTransformer, tmp_path: Path) -> None:
    model.save_pretrained(str(tmp_path))
    written = [path for path in tmp_path.glob("*.json") if "auto_map" in path.read_text()]
    assert [path.name for path in written if path.name not in ("tokenizer_config.json",)] == []


# -------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("text", ["a </s> b", "</s>", "<|end|>", "<|endoftext|>", "<|user|>\n", "<|image_1|> a", "<s>"])
@pytest.mark.parametrize("name", [FULL, DSE])
def test_control_tokens_of_a_text_are_text(name: str, text: str) -> None:
    model = load_once(name, "sdpa")
    added = {*model.tokenizer.added_tokens_decoder} - {0}
    row, plain = (ids_of(model, {"text": each}) for each in (text, "a"))
    assert [token for token in row if token in added] == [token for token in plain if token in added]


def test_a_picture_and_the_text_after_it_begin_with_a_start_each(model: SentenceTransformer) -> None:
    (row,) = model.preprocess([{"image": FULL_GOLDEN / "images" / "wide.png", "text": "two dogs"}])[
        "input_ids"
    ].tolist()
    encode = model.tokenizer.encode
    (place,) = {*row[1:458]}
    assert place == model.tokenizer.pad_token_id
    assert row == [*encode(""), *[place] * 457, *encode(" two dogs")]


LONG_QUERY = "total revenue in 2019 and costs of 37 percent. " * 20


def test_a_query_is_cut_as_the_authors_cut_it(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    model = reference(DSE).load(DSE)
    whole = model.tokenizer.encode(f"query: {LONG_QUERY}</s>")
    with caplog.at_level(logging.WARNING):
        row = ids_of(model, {"text": LONG_QUERY})
    assert row == whole[:128]
    assert ["1 of 1 items are longer than max_length=128 tokens" in each.getMessage() for each in caplog.records] == [
        True
    ]
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert ids_of(again, {"text": LONG_QUERY}) == row


@pytest.mark.parametrize("most", [60, 200])
def test_a_length_that_is_asked_for_takes_the_place_of_the_authors(most: int) -> None:
    model = reference(DSE).load(DSE, max_length=most)
    whole = model.tokenizer.encode(f"query: {LONG_QUERY}</s>")
    row = ids_of(model, {"text": LONG_QUERY})
    assert most - 2 <= len(row) <= most
    assert row == [*whole[: len(row) - 1], model.tokenizer.convert_tokens_to_ids("</s>")]
    plain = reference(DSE).load(DSE)
    assert ids_of(plain, {"text": LONG_QUERY}, max_length=most) == row
