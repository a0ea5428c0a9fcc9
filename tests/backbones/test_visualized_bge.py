"""Visualized-BGE beside stock BERT and XLM-RoBERTa, and beside a slow vision tower in float64."""

from __future__ import annotations

import functools
import json
import logging
import math
import os
import pickle
import re
import shutil
from bisect import bisect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
import torch
from PIL import Image
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from transformers import AutoTokenizer, BertConfig, BertModel, XLMRobertaConfig, XLMRobertaModel

from st_modules import CheckpointError, ImageError, InputError, SentenceTransformer
from st_modules.backbones.eva02 import EVA02, EVA02Shape, rotary_table
from tests.helpers.paths import GOLDEN

IMAGE_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
IMAGE_STD = np.array([0.26862954, 0.26130258, 0.27577711])

Weights = dict[str, Any]
Change = Callable[[Weights], Weights]


@dataclass(frozen=True)
class Size:
    """One of the two published models, and what its checkpoint here allows."""

    name: str
    file: str
    config_class: Any
    model_class: Any
    control_tokens: tuple[str, str, str]
    image_tokens: int
    text_limit: int
    fused_limit: int

    @property
    def folder(self) -> Path:
        return GOLDEN / f"bge_visualized_{self.name}"

    @property
    def text_model(self) -> str:
        return self.config_class.model_type

    @property
    def bge(self) -> Path:
        return self.folder / "bge"

    @property
    def model_name(self) -> str:
        return f"bge-visualized-{self.name}"

    def image(self, name: str) -> Path:
        return self.folder / "images" / f"{name}.png"

    def limit(self, has_image: bool) -> int:
        return self.fused_limit if has_image else self.text_limit


BASE = Size("base", "Visualized_base_en_v1.5.pth", BertConfig, BertModel, ("[CLS]", "[SEP]", "[PAD]"), 196, 512, 512)
M3 = Size("m3", "Visualized_m3.pth", XLMRobertaConfig, XLMRobertaModel, ("<s>", "</s>", "<pad>"), 256, 1024, 1026)
SIZES = [BASE, M3]

TEXTS = [
    "a",
    "Are there sidewalks on both sides of the Mid-Hudson Bridge?",
    "",
    "一匹马牵着这辆车",
    "the quick brown fox jumps over the lazy dog, and two small green stars are there too. " * 8,
    " Two  spaces,\na new line and ÉE\u0301. ",
]
LONG_TEXTS = {
    "words": "the quick brown fox jumps over the lazy dog and 2 small, green stars are there too! " * 60,
    "long words": "counterrevolutionaries Antidisestablishmentarianism's " * 150,
    "Chinese": "一匹马牵着这辆车" * 400,
    "odd spaces": "a  car \n\n\t and   a\u3000cat. " * 250,
    "wide letters": "Ｆｕｌｌ ﬁne … " * 300,
}
HOSTILE_TEXTS = [
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "[PAD]",
    "[cls] [Sep] [mask]",
    "<s>",
    "</s>",
    "<mask>",
    "<pad>",
    "<unk>",
    "a [SEP] b [MASK][MASK] [CLS]",
    "a</s>b <mask><mask> <s>",
    "＜mask＞ ＜/s＞",
    "[\u0000SEP] <\u00ad/s>",
]


def layer_norm(hidden: np.ndarray, weights: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    centred = hidden - hidden.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


@functools.cache
def slow_angles(grid: int, head_dim: int) -> np.ndarray:
    """Return the angle of every pair of every patch: the first half turns by the row, the second by the column."""
    pairs = head_dim // 2
    angles = np.zeros((grid * grid, pairs))
    for patch in range(grid * grid):
        for pair in range(pairs):
            index = patch // grid if pair < pairs // 2 else patch % grid
            angles[patch, pair] = index / grid * 16 * 10000 ** -(2 * (pair % (pairs // 2)) / pairs)
    return angles


def slow_rotation(vectors: np.ndarray) -> np.ndarray:
    """Turn neighbouring pairs as complex numbers; the first vector is that of no patch."""
    angles = slow_angles(math.isqrt(len(vectors) - 1), vectors.shape[1])
    turned = (vectors[1:, 0::2] + 1j * vectors[1:, 1::2]) * np.exp(1j * angles)
    return np.concatenate([vectors[:1], np.stack([turned.real, turned.imag], -1).reshape(vectors[1:].shape)])


def slow_attention(weights: Mapping[str, np.ndarray], block: str, heads: int, hidden: np.ndarray) -> np.ndarray:
    query = hidden @ weights[f"{block}.attn.q_proj.weight"].T + weights[f"{block}.attn.q_bias"]
    key = hidden @ weights[f"{block}.attn.k_proj.weight"].T
    value = hidden @ weights[f"{block}.attn.v_proj.weight"].T + weights[f"{block}.attn.v_bias"]
    attended = []
    for head in np.split(np.arange(hidden.shape[1]), heads):
        scores = slow_rotation(query[:, head]) @ slow_rotation(key[:, head]).T / math.sqrt(len(head))
        exponentials = np.exp(scores - scores.max(-1, keepdims=True))
        attended.append(exponentials / exponentials.sum(-1, keepdims=True) @ value[:, head])
    joined = layer_norm(np.concatenate(attended, -1), weights, f"{block}.attn.inner_attn_ln")
    return joined @ weights[f"{block}.attn.proj.weight"].T + weights[f"{block}.attn.proj.bias"]


def slow_tower(weights: Mapping[str, np.ndarray], heads: int, pixels: np.ndarray) -> np.ndarray:
    """Run a tower on one image in float64, by the names of the published weights."""
    kernel = weights["patch_embed.proj.weight"]
    side = kernel.shape[-1]
    grid = pixels.shape[-1] // side
    squares = pixels.reshape(3, grid, side, grid, side).transpose(1, 3, 0, 2, 4).reshape(grid * grid, -1)
    patches = squares @ kernel.reshape(len(kernel), -1).T + weights["patch_embed.proj.bias"]
    hidden = np.concatenate([weights["cls_token"][0], patches]) + weights["pos_embed"][0]
    for number in range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))):
        block = f"blocks.{number}"
        hidden = hidden + slow_attention(weights, block, heads, layer_norm(hidden, weights, f"{block}.norm1"))
        normed = layer_norm(hidden, weights, f"{block}.norm2")
        gate = normed @ weights[f"{block}.mlp.w1.weight"].T + weights[f"{block}.mlp.w1.bias"]
        up = normed @ weights[f"{block}.mlp.w2.weight"].T + weights[f"{block}.mlp.w2.bias"]
        inner = layer_norm(gate / (1 + np.exp(-gate)) * up, weights, f"{block}.mlp.ffn_ln")
        hidden = hidden + inner @ weights[f"{block}.mlp.w3.weight"].T + weights[f"{block}.mlp.w3.bias"]
    return hidden[1:]


def slow_pixels(path: Path) -> np.ndarray:
    picture = Image.open(path)
    short = min(picture.size)
    width, height = (int(224 * length / short) for length in picture.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    square = picture.resize((width, height), Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
    return ((np.asarray(square.convert("RGB")) / 255 - IMAGE_MEAN) / IMAGE_STD).transpose(2, 0, 1)


class Stock:
    """Plain BGE as transformers has it, one item at a time, without padding."""

    def __init__(self, size: Size) -> None:
        self.size = size
        published = read_weights(size)
        self.model = size.model_class(size.config_class.from_pretrained(size.bge), add_pooling_layer=False).eval()
        self.model.load_state_dict(
            {
                name.removeprefix("bge_"): weight
                for name, weight in published.items()
                if name.startswith(("bge_embeddings.", "bge_encoder."))
            }
        )
        self.tokenizer = AutoTokenizer.from_pretrained(size.bge)
        self.first, self.last, self.placeholder = self.tokenizer.convert_tokens_to_ids(list(size.control_tokens))
        self.tower = {
            name.removeprefix("model_visual.visual."): weight.double().numpy()
            for name, weight in published.items()
            if name.startswith("model_visual.visual.")
        }
        self.heads = self.tower["cls_token"].shape[-1] // self.tower["rope.freqs_cos"].shape[1]
        self.projection = [published[f"visual_proj.{name}"].double().numpy() for name in ("weight", "bias")]
        self._patches: dict[Path, torch.Tensor] = {}

    def ids(self, text: str) -> list[int]:
        return self.tokenizer(text, verbose=False).input_ids

    def prefix_with_ids(self, text: str, ids: list[int]) -> str | None:
        """Return a prefix of a text that has these ids; those that are tried have about as many."""
        start = bisect(range(len(text)), len(ids) - 20, key=lambda end: len(self.ids(text[:end])))
        prefixes = [text[:end] for end in range(start, min(start + 300, len(text)))]
        return next((prefix for prefix in prefixes if self.ids(prefix) == ids), None)

    @torch.inference_mode()
    def text(self, text: str) -> np.ndarray:
        hidden = self.model(input_ids=torch.tensor([self.ids(text)])).last_hidden_state
        return torch.nn.functional.normalize(hidden[0, 0], dim=0).numpy()

    def patches(self, image: Path) -> torch.Tensor:
        if image not in self._patches:
            weight, bias = self.projection
            projected = slow_tower(self.tower, self.heads, slow_pixels(image)) @ weight.T + bias
            self._patches[image] = torch.from_numpy(projected).float()[None]
        return self._patches[image]

    @torch.inference_mode()
    def fused(self, text: str, image: Path) -> np.ndarray:
        embeddings = self.model.embeddings
        words = embeddings.word_embeddings(torch.tensor([self.ids(text)]))
        patches = self.patches(image) - embeddings.token_type_embeddings.weight[0]
        joined = torch.cat([words[:, :1], patches, words[:, 1:]], dim=1)
        hidden = self.model(inputs_embeds=joined, position_ids=torch.arange(joined.shape[1])[None]).last_hidden_state
        return torch.nn.functional.normalize(hidden[0, 0], dim=0).numpy()

    def vector(self, item: Any, prompt: str = "") -> np.ndarray:
        fields: dict[str, Any]
        fields = item if isinstance(item, dict) else {"text" if isinstance(item, str) else "image": item}
        text = prompt + fields["text"] if "text" in fields else ""
        return self.fused(text, fields["image"]) if fields.get("image") else self.text(text)


def read_weights(size: Size) -> Weights:
    return dict(torch.load(size.folder / size.file, weights_only=True))


def load(size: Size, weights: Path | None = None, **options: Any) -> SentenceTransformer:
    return SentenceTransformer(
        size.model_name,
        **{"weights": weights or size.folder, "base_weights": size.bge, "device": "cpu", **options},
    )


def load_changed(size: Size, folder: Path, change: Change) -> SentenceTransformer:
    path = folder / size.file
    torch.save(change(read_weights(size)), path)
    return load(size, path)


def without(*prefixes: str) -> Change:
    return lambda weights: {name: weight for name, weight in weights.items() if not name.startswith(prefixes)}


def copy_files(source: Path, folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names or [path.name for path in source.iterdir()]:
        shutil.copyfile(source / name, folder / name)
    return folder


def close(left: Any, right: Any, tolerance: float = 1e-5) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= tolerance)


def row_ids(model: SentenceTransformer, item: Any, **options: Any) -> list[int]:
    features = model.preprocess([item], **options)
    return features["input_ids"][0][features["attention_mask"][0].bool()].tolist()


def mixed_items(size: Size) -> list[Any]:
    return [
        TEXTS[1],
        size.image("square"),
        {"text": "make it blue", "image": size.image("wide")},
        {"text": ""},
        {"text": TEXTS[3], "image": size.image("tall")},
        TEXTS[4],
        {"image": size.image("gray")},
        "a",
    ]


@pytest.fixture(params=SIZES, ids=lambda size: size.name)
def size(request: pytest.FixtureRequest) -> Size:
    return request.param


# Both sizes at once: a module's fixture with parameters would be made anew each time that the order changes the size.
@pytest.fixture(scope="module")
def models() -> dict[Size, SentenceTransformer]:
    return {size: load(size) for size in SIZES}


@pytest.fixture(scope="module")
def stocks() -> dict[Size, Stock]:
    return {size: Stock(size) for size in SIZES}


@pytest.fixture(scope="module")
def all_embeddings(models: dict[Size, SentenceTransformer]) -> dict[Size, np.ndarray]:
    return {size: model.encode(mixed_items(size)) for size, model in models.items()}


@pytest.fixture(scope="module")
def saved_folders(
    models: dict[Size, SentenceTransformer], tmp_path_factory: pytest.TempPathFactory
) -> dict[Size, Path]:
    folders = {size: tmp_path_factory.mktemp(size.name) for size in SIZES}
    for size, model in models.items():
        model.save_pretrained(str(folders[size]))
    return folders


@pytest.fixture
def model(models: dict[Size, SentenceTransformer], size: Size) -> SentenceTransformer:
    return models[size]


@pytest.fixture
def stock(stocks: dict[Size, Stock], size: Size) -> Stock:
    return stocks[size]


@pytest.fixture
def embeddings(all_embeddings: dict[Size, np.ndarray], size: Size) -> np.ndarray:
    return all_embeddings[size]


@pytest.fixture
def saved(saved_folders: dict[Size, Path], size: Size) -> Path:
    return saved_folders[size]


@pytest.mark.parametrize("batch_size", [1, 32])
def test_texts_alone_are_plain_bge(model: SentenceTransformer, stock: Stock, batch_size: int) -> None:
    assert close(model.encode(TEXTS, batch_size=batch_size), [stock.text(text) for text in TEXTS])


@pytest.mark.parametrize("seed", range(4))
def test_one_mixed_batch_in_any_order_is_stock(model: SentenceTransformer, stock: Stock, size: Size, seed: int) -> None:
    items = mixed_items(size)
    items = [items[number] for number in np.random.default_rng(seed).permutation(len(items))]
    with torch.inference_mode():
        found = model(model.preprocess(items))["sentence_embedding"]
    assert close(found, [stock.vector(item) for item in items])


def test_texts_beside_the_longest_image_row_are_plain_bge(model: SentenceTransformer, stock: Stock, size: Size) -> None:
    full = {"text": LONG_TEXTS["words"], "image": size.image("square")}
    with torch.inference_mode():
        features = model.preprocess([*TEXTS, full])
        assert features["input_ids"].shape[1] == size.fused_limit
        found = model(features)["sentence_embedding"][:-1]
    assert close(found, [stock.text(text) for text in TEXTS])


@pytest.mark.parametrize("name", ["square", "tall", "palette"])
def test_an_empty_text_beside_an_image_is_the_image_alone(model: SentenceTransformer, size: Size, name: str) -> None:
    image = size.image(name)
    alone, fused, other = model.encode([image, {"text": "", "image": image}, {"text": "a", "image": image}])
    assert close(alone, fused, 1e-6)
    assert not close(alone, other, 1e-3)


def test_a_prompt_goes_in_front_of_a_text_and_an_image_alone_ignores_it(
    model: SentenceTransformer, stock: Stock, size: Size
) -> None:
    prompt = "Represent this sentence: "
    items = ["a car", size.image("wide"), {"text": "make it blue", "image": size.image("square")}]
    assert close(model.encode(items, prompt=prompt), [stock.vector(item, prompt) for item in items])


def test_two_images_in_one_item_are_refused_by_position(model: SentenceTransformer, size: Size) -> None:
    image = size.image("square")
    with pytest.raises(InputError, match="item 1: 2 images"):
        model.encode(["a", {"image": [image, image]}])


def test_an_elongated_image_is_refused_by_position(model: SentenceTransformer) -> None:
    with pytest.raises(ImageError, match="item 1.*1x3000000 pixels are too elongated"):
        model.encode(["a", {"image": Image.new("1", (1, 3_000_000))}])


@pytest.mark.parametrize("has_image", [False, True], ids=["text", "fused"])
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_text_embeds_as_a_prefix_of_it(
    model: SentenceTransformer, stock: Stock, size: Size, name: str, has_image: bool
) -> None:
    text, image = LONG_TEXTS[name], size.image("square")
    item = {"text": text, "image": image} if has_image else {"text": text}
    ids = row_ids(model, item)
    assert size.limit(has_image) - 2 <= len(ids) <= size.limit(has_image)
    words = ids[:1] + ids[1 + size.image_tokens * has_image :]
    assert (words[0], words[-1]) == (stock.first, stock.last)
    prefix = stock.prefix_with_ids(text, words)
    assert prefix is not None
    assert close(model.encode(item), stock.vector({**item, "text": prefix}))


@pytest.mark.parametrize("has_image", [False, True], ids=["text", "fused"])
def test_long_texts_are_logged_once(
    model: SentenceTransformer, size: Size, caplog: pytest.LogCaptureFixture, has_image: bool
) -> None:
    item = {"text": LONG_TEXTS["words"], **({"image": size.image("square")} if has_image else {})}
    with caplog.at_level(logging.WARNING):
        model.encode([item, "a", item], batch_size=1)
    assert [record.getMessage() for record in caplog.records] == [
        f"2 of 3 items are longer than max_length={size.text_limit} tokens: the end of their text was cut."
    ]


@pytest.mark.parametrize("has_image", [False, True], ids=["text", "fused"])
def test_a_text_that_fills_every_position_is_not_cut(
    model: SentenceTransformer, stock: Stock, size: Size, caplog: pytest.LogCaptureFixture, has_image: bool
) -> None:
    image = {"image": size.image("square")} if has_image else {}
    words = size.limit(has_image) - 2 - size.image_tokens * has_image
    item = {"text": " ".join(["a"] * words), **image}
    with caplog.at_level(logging.WARNING):
        vector = model.encode(item)
    assert caplog.records == []
    assert len(row_ids(model, item)) == size.limit(has_image)
    assert close(vector, stock.vector(item))


@pytest.mark.parametrize("has_image", [False, True], ids=["text", "fused"])
def test_one_word_more_than_the_positions_is_cut(
    model: SentenceTransformer, stock: Stock, size: Size, caplog: pytest.LogCaptureFixture, has_image: bool
) -> None:
    image = {"image": size.image("square")} if has_image else {}
    words = ["a"] * (size.limit(has_image) - 2 - size.image_tokens * has_image)
    with caplog.at_level(logging.WARNING):
        vector = model.encode({"text": " ".join([*words, "b"]), **image})
    assert len(caplog.records) == 1
    assert close(vector, stock.vector({"text": " ".join(words), **image}))


def test_a_long_text_is_cut_behind_the_whole_prompt(model: SentenceTransformer, stock: Stock, size: Size) -> None:
    prompt, text = "Represent this sentence: ", "a car " * 1000
    assert row_ids(model, text, prompt=prompt) == [*stock.ids(prompt + text)[: size.text_limit - 1], stock.last]


@pytest.mark.parametrize("excess", [1, 2, 1000])
def test_a_max_length_over_the_positions_is_refused(size: Size, excess: int) -> None:
    with pytest.raises(ValueError, match=f"this model has {size.text_limit} positions"):
        load(size, max_length=size.text_limit + excess)


@pytest.mark.parametrize("text", ["", "a car " * 400], ids=["image", "fused"])
def test_a_max_length_counts_image_tokens(model: SentenceTransformer, size: Size, text: str) -> None:
    limit = size.image_tokens + 9
    ids = row_ids(model, {"text": text, "image": size.image("square")}, max_length=limit)
    assert len(ids) == (limit if text else size.image_tokens + 2)


def test_a_max_length_is_kept_by_saving(stock: Stock, size: Size, tmp_path: Path) -> None:
    text = "a car " * 200
    short = load(size, max_length=64)
    short.save_pretrained(str(tmp_path))
    reloaded = SentenceTransformer(str(tmp_path), device="cpu")
    assert reloaded.max_seq_length == short.max_seq_length == 64
    assert row_ids(reloaded, text) == [*stock.ids(text)[:63], stock.last]
    assert close(reloaded.encode([text, "a"]), short.encode([text, "a"]), 1e-6)


@pytest.mark.parametrize("text", [None, "", "a car"], ids=["image", "empty text", "fused"])
def test_an_image_over_the_max_length_is_refused_by_position(size: Size, text: str | None) -> None:
    short = load(size, max_length=size.image_tokens + 1)
    with pytest.raises(InputError, match=f"item 2: its {size.image_tokens} image tokens.*max_length="):
        short.encode(["a", "b", {"text": text, "image": size.image("square")}])


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


MALICIOUS: dict[str, Callable[[Payload, Weights, Path], object]] = {
    "instead of weights": lambda payload, weights, path: torch.save(payload, path),
    "among weights": lambda payload, weights, path: torch.save({**weights, "extra": payload}, path),
    "in the old format": lambda payload, weights, path: torch.save(
        {**weights, "extra": payload}, path, _use_new_zipfile_serialization=False
    ),
    "a plain pickle": lambda payload, weights, path: path.write_bytes(pickle.dumps(payload)),
}


@pytest.mark.parametrize("form", MALICIOUS)
def test_code_in_the_weights_file_is_refused_and_not_run(size: Size, tmp_path: Path, form: str) -> None:
    path, marker = tmp_path / size.file, tmp_path / "marker"
    MALICIOUS[form](Payload(marker), read_weights(size), path)
    with pytest.raises(CheckpointError, match="cannot be read as a dictionary of tensors"):
        load(size, path)
    assert not marker.exists()
    # The file would have run it.
    with suppress(Exception):
        torch.load(path, weights_only=False)
    assert marker.exists()


@pytest.mark.parametrize(
    "content",
    [[torch.zeros(1)], torch.zeros(1), {"visual_proj.bias": 3}, {1: torch.zeros(1)}],
    ids=["list", "tensor", "a number in it", "a number as a name"],
)
def test_a_weights_file_without_a_dictionary_of_tensors_is_refused(size: Size, tmp_path: Path, content: Any) -> None:
    content = {**read_weights(size), **content} if isinstance(content, dict) else content
    torch.save(content, tmp_path / size.file)
    with pytest.raises(CheckpointError, match=f"{size.file}: it holds something else than a dictionary of tensors"):
        load(size, tmp_path)


def test_a_weights_file_of_the_oldest_format_loads(size: Size, tmp_path: Path) -> None:
    torch.save(read_weights(size), tmp_path / size.file, _use_new_zipfile_serialization=False)
    assert load(size, tmp_path).get_embedding_dimension() == 64


def test_a_tower_without_blocks_is_refused(size: Size, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"missing: tower\.blocks\.0"):
        load_changed(
            size, tmp_path, lambda weights: {name: weights[name] for name in weights if ".blocks." not in name}
        )


@pytest.mark.parametrize("name", ["pos_embed", "patch_embed.proj.weight", "rope.freqs_cos", "blocks.0.mlp.w1.weight"])
@pytest.mark.parametrize("change", [torch.flatten, lambda weight: weight[None], lambda _: torch.zeros(())])
def test_a_weight_with_another_number_of_dimensions_is_refused(
    size: Size, tmp_path: Path, name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    name = f"model_visual.visual.{name}"
    with pytest.raises(CheckpointError, match=size.file):
        load_changed(size, tmp_path, lambda weights: {**weights, name: change(weights[name]).clone()})


@pytest.mark.parametrize("kept", [0, 1, 1000, -1000])
def test_a_truncated_weights_file_is_refused(size: Size, tmp_path: Path, kept: int) -> None:
    (tmp_path / size.file).write_bytes((size.folder / size.file).read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=f"{size.file}: cannot be read"):
        load(size, tmp_path)


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ("bge_embeddings.word_embeddings.weight", "embeddings.word_embeddings.weight"),
        ("bge_encoder.layer.1.output.dense.bias", "encoder.layer.1.output.dense.bias"),
        ("model_visual.visual.blocks.1.mlp.w2.weight", "blocks.1.mlp.w2.weight"),
        ("model_visual.visual.blocks.0.attn.q_bias", "blocks.0.attn.q_proj.bias"),
        ("model_visual.visual.cls_token", "cls_token"),
        ("model_visual.visual.pos_embed", "pos_embed"),
        ("model_visual.visual.patch_embed.proj.weight", "patch_embed.proj.weight"),
        ("model_visual.visual.patch_embed.proj.bias", "patch_embed.proj.bias"),
        ("model_visual.visual.rope.freqs_cos", "rope.freqs_cos"),
        ("model_visual.visual.rope.freqs_sin", "rope.freqs_sin"),
        ("visual_proj.weight", "projection.weight"),
        ("visual_proj.bias", "projection.bias"),
    ],
)
def test_a_missing_weight_is_refused_by_name(size: Size, tmp_path: Path, theirs: str, named: str) -> None:
    with pytest.raises(CheckpointError, match=f"{size.file}: .*missing: [^ ,;]*{named}\\.$"):
        load_changed(size, tmp_path, without(theirs))


@pytest.mark.parametrize(
    "name",
    [
        "bge_encoder.layer.1.extra.weight",
        "bge_encoder.layer.2.output.dense.weight",
        "model_visual.visual.blocks.1.extra.weight",
        "model_visual.text.extra",
        "visual_proj.extra",
        "extra.weight",
    ],
)
def test_a_superfluous_weight_is_refused_by_name(size: Size, tmp_path: Path, name: str) -> None:
    ending = name.removeprefix("bge_").removeprefix("model_visual.visual.").removeprefix("visual_proj.")
    with pytest.raises(CheckpointError, match=f"{size.file}: .*unexpected: [^ ,;]*{ending}\\.$"):
        load_changed(size, tmp_path, lambda weights: {**weights, name: torch.zeros(2)})


@pytest.mark.parametrize(
    ("theirs", "named"),
    [
        ("bge_embeddings.position_embeddings.weight", "embeddings.position_embeddings.weight"),
        ("bge_encoder.layer.0.attention.self.query.weight", "encoder.layer.0.attention.self.query.weight"),
        ("model_visual.visual.blocks.1.attn.k_proj.weight", "blocks.1.attn.k_proj.weight"),
        ("model_visual.visual.cls_token", "cls_token"),
        ("visual_proj.weight", "projection.weight"),
    ],
)
def test_a_weight_of_another_shape_is_refused_by_name(size: Size, tmp_path: Path, theirs: str, named: str) -> None:
    shape = r"\(\[[\d, ]+\] in the file, \[[\d, ]+\] in the model\)\.$"
    with pytest.raises(CheckpointError, match=f"of another shape: [^ ,;]*{named} {shape}"):
        load_changed(
            size, tmp_path, lambda weights: {**weights, theirs: torch.cat([weights[theirs], weights[theirs]], -1)}
        )


def test_a_position_table_of_another_grid_is_refused_by_name(size: Size, tmp_path: Path) -> None:
    name = "model_visual.visual.pos_embed"
    with pytest.raises(CheckpointError, match="of another shape: .*pos_embed"):
        load_changed(size, tmp_path, lambda weights: {**weights, name: weights[name][:, :-1].clone()})


@pytest.mark.parametrize("place", ["rope.", "blocks.1.attn.rope."])
@pytest.mark.parametrize("table", ["freqs_cos", "freqs_sin"])
@pytest.mark.parametrize(
    "change",
    [lambda table: table * 1.1, lambda table: table.flip(0), lambda table: table[:, :16]],
    ids=["scaled", "reversed", "cut"],
)
def test_changed_rotary_tables_are_refused(
    size: Size, tmp_path: Path, place: str, table: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    name = f"model_visual.visual.{place}{table}"
    with pytest.raises(CheckpointError, match=f"{size.file}: {name} is not the rotary table of EVA-02"):
        load_changed(size, tmp_path, lambda weights: {**weights, name: change(weights[name]).clone()})


@pytest.mark.parametrize(
    "prefix",
    ["bge_pooler.", "model_visual.logit_scale", "model_visual.visual.norm.", "model_visual.visual.head."],
)
def test_unused_weights_may_be_missing(size: Size, embeddings: np.ndarray, tmp_path: Path, prefix: str) -> None:
    change = without(prefix)
    assert len(change(read_weights(size))) < len(read_weights(size))
    assert close(load_changed(size, tmp_path, change).encode(mixed_items(size)), embeddings, 1e-6)


def test_the_weights_file_itself_will_do(size: Size, embeddings: np.ndarray) -> None:
    assert close(load(size, size.folder / size.file).encode(mixed_items(size)), embeddings, 1e-6)


def test_without_base_weights_and_network_the_error_says_what_to_pass(size: Size, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{size.model_name}: BAAI/bge-\S+ .* pass base_weights= with"):
        load(size, base_weights=None, cache_folder=str(tmp_path))


def test_a_base_folder_without_files_is_refused(size: Size, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=rf"{re.escape(str(tmp_path))}: no config\.json in it.*BAAI/bge-.*{size.file}"
    ):
        load(size, base_weights=tmp_path)


@pytest.mark.parametrize("model_type", ["roberta", "clip", None])
def test_a_base_of_another_architecture_is_refused(size: Size, tmp_path: Path, model_type: str | None) -> None:
    folder = copy_files(size.bge, tmp_path / "bge")
    content = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**content, "model_type": model_type}))
    with pytest.raises(CheckpointError, match=f"model_type is {model_type!r}, .* needs {size.text_model!r}"):
        load(size, base_weights=folder)


@pytest.mark.parametrize(("size", "other"), [(BASE, M3), (M3, BASE)], ids=["base", "m3"])
def test_the_base_of_the_other_size_is_refused(size: Size, other: Size) -> None:
    with pytest.raises(CheckpointError, match=f"model_type is {other.text_model!r}, .* needs {size.text_model!r}"):
        load(size, base_weights=other.bge)


@pytest.mark.parametrize(("size", "other"), [(BASE, M3), (M3, BASE)], ids=["base", "m3"])
def test_the_weights_file_of_the_other_size_is_refused(size: Size, other: Size) -> None:
    with pytest.raises(CheckpointError, match=f"model_type is .* needs {size.text_model!r}"):
        load(size, other.folder / other.file, base_weights=other.bge)


def test_a_folder_without_the_weights_file_is_told_which_one(size: Size, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{re.escape(str(tmp_path))}: neither {size.file} nor a saved model"):
        load(size, tmp_path, base_weights=None)


def test_saving_writes_safetensors_configuration_and_tokenizer(saved: Path) -> None:
    files = {path.name for path in saved.iterdir()}
    assert {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "modules.json",
        "st_modules_config.json",
    } <= files
    assert not [name for name in files if name.endswith((".pth", ".bin", ".pt", ".py"))]


RELOADS: dict[str, Callable[[Size, Path], sentence_transformers.SentenceTransformer]] = {
    "by path": lambda size, folder: SentenceTransformer(str(folder), device="cpu"),
    "by name": lambda size, folder: load(size, folder, base_weights=None),
    "plain class": lambda size, folder: sentence_transformers.SentenceTransformer(
        str(folder), device="cpu", trust_remote_code=True
    ),
}


@pytest.mark.parametrize("reload", RELOADS)
def test_a_saved_model_gives_the_same_vectors(size: Size, embeddings: np.ndarray, saved: Path, reload: str) -> None:
    assert close(RELOADS[reload](size, saved).encode(mixed_items(size)), embeddings, 1e-6)


def test_a_model_saved_twice_gives_the_same_vectors(
    size: Size, embeddings: np.ndarray, saved: Path, tmp_path: Path
) -> None:
    SentenceTransformer(str(saved), device="cpu").save_pretrained(str(tmp_path))
    assert close(SentenceTransformer(str(tmp_path), device="cpu").encode(mixed_items(size)), embeddings, 1e-6)


def test_base_weights_for_a_saved_model_are_refused(size: Size, saved: Path) -> None:
    with pytest.raises(ValueError, match="base_weights="):
        load(size, saved)


@pytest.mark.parametrize(
    ("size", "name"),
    [(BASE, "bge-visualized-m3"), (BASE, "bge-vl-base"), (M3, "bge-visualized-base"), (M3, "gme-2b")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_saved_model_under_anothers_name_is_refused(saved: Path, name: str) -> None:
    with pytest.raises(
        CheckpointError,
        match=f"{re.escape(str(saved))}: it was saved from a model with the (template|text_model) .*{name}",
    ):
        SentenceTransformer(name, weights=saved, device="cpu")


@pytest.mark.parametrize("name", ["bge-visualized-m3", "bge-vl-base"])
def test_the_published_base_folder_under_anothers_name_is_refused(name: str) -> None:
    with pytest.raises(
        CheckpointError, match=rf"{re.escape(str(BASE.folder))}: (no config\.json|neither Visualized_m3\.pth)"
    ):
        SentenceTransformer(name, weights=BASE.folder, device="cpu")


def test_a_vocabulary_without_tokenizer_json_will_do(all_embeddings: dict[Size, np.ndarray], tmp_path: Path) -> None:
    folder = copy_files(BASE.bge, tmp_path / "bge", "config.json", "vocab.txt")
    vectors = load(BASE, base_weights=folder).encode(mixed_items(BASE))
    assert close(vectors, all_embeddings[BASE], 1e-6)


@pytest.mark.parametrize("has_image", [False, True], ids=["text", "fused"])
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_control_tokens_in_text_stay_text(
    model: SentenceTransformer, stock: Stock, size: Size, text: str, has_image: bool
) -> None:
    image_tokens = size.image_tokens * has_image
    ids = row_ids(model, {"text": text, "image": size.image("square") if has_image else None}, prompt=f"{text} ")
    assert [place for place, token in enumerate(ids) if token == stock.first] == [0]
    assert [place for place, token in enumerate(ids) if token == stock.last] == [len(ids) - 1]
    places = [place for place, token in enumerate(ids) if token == stock.placeholder]
    assert places == list(range(1, 1 + image_tokens))
    assert len(ids) > 2 + image_tokens


def test_bfloat16_is_near_float32_in_every_part(size: Size, embeddings: np.ndarray) -> None:
    half = load(size, model_kwargs={"dtype": torch.bfloat16})
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    vectors = half.encode(mixed_items(size))
    assert vectors.dtype == np.float32
    assert (np.sum(vectors * embeddings, axis=1) > 0.99).all()


def test_a_device_map_is_refused(size: Size) -> None:
    with pytest.raises(ValueError, match="device_map"):
        load(size, model_kwargs={"device_map": "cpu"})


def test_a_device_map_is_refused_for_a_saved_model(saved: Path) -> None:
    with pytest.raises(ValueError, match="device_map"):
        SentenceTransformer(str(saved), device="cpu", model_kwargs={"device_map": "cpu"})


def gradients(model: SentenceTransformer, size: Size, loss: torch.nn.Module) -> dict[str, torch.Tensor]:
    wide, square, tall, gray = (size.image(name) for name in ("wide", "square", "tall", "gray"))
    anchors = ["a car", {"text": "make it blue", "image": square}, "a small cat on the road", gray]
    positives = [wide, "a blue car", {"image": tall, "text": "cat"}, square]
    # The losses split dropout's random numbers otherwise; without dropout the two can be compared.
    model.eval()
    model.zero_grad()
    loss([model.preprocess(anchors), model.preprocess(positives)], None).backward()
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def test_gradients_reach_every_weight(size: Size) -> None:
    model = load(size)
    found = gradients(model, size, MultipleNegativesRankingLoss(model))
    assert found.keys() == dict(model.named_parameters()).keys()
    # Scores that all move by the same amount leave a softmax as it is: the bias of the keys has no gradient.
    unreached = [name for name, gradient in found.items() if not gradient.abs().max() > 1e-7]
    assert [name for name in unreached if not name.endswith("self.key.bias")] == []


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_split_by_rows_has_the_same_gradients(size: Size, rows: int) -> None:
    model = load(size)
    expected = gradients(model, size, MultipleNegativesRankingLoss(model))
    found = gradients(model, size, CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
    assert found.keys() == expected.keys()
    assert [name for name, gradient in expected.items() if not close(found[name], gradient)] == []


SHAPES = [
    EVA02Shape(width=16, layers=1, heads=2, hidden=11, patch=4, grid=3),
    EVA02Shape(width=24, layers=3, heads=1, hidden=40, patch=2, grid=5),
    EVA02Shape(width=64, layers=2, heads=4, hidden=170, patch=14, grid=16),
]


def random_tower(shape: EVA02Shape) -> tuple[EVA02, dict[str, np.ndarray]]:
    """Return a tower with random weights, and the weights in float64 by their published names."""
    generator = torch.Generator().manual_seed(shape.width)
    tower = EVA02(shape).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    weights = {
        name.replace("q_proj.bias", "q_bias").replace("v_proj.bias", "v_bias"): weight.double().numpy()
        for name, weight in tower.state_dict().items()
    }
    return tower, weights


@pytest.mark.parametrize("head_dim", [4, 8, 32, 64])
@pytest.mark.parametrize("grid", [1, 3, 14, 16])
def test_the_rotary_table_is_its_definition(grid: int, head_dim: int) -> None:
    cos, sin = rotary_table(grid, head_dim)
    assert cos.shape == sin.shape == (grid * grid, head_dim)
    angles = np.repeat(slow_angles(grid, head_dim), 2, axis=1)
    assert close(cos, np.cos(angles))
    assert close(sin, np.sin(angles))


@pytest.mark.parametrize(
    ("shape", "number"), [(shape, number) for shape in SHAPES for number in range(shape.layers)], ids=str
)
def test_attention_is_an_explicit_softmax(shape: EVA02Shape, number: int) -> None:
    tower, weights = random_tower(shape)
    blocks: list[Any] = list(tower.blocks)
    assert len(blocks) == shape.layers
    hidden = np.random.default_rng(0).standard_normal((2, 1 + shape.grid**2, shape.width))
    with torch.inference_mode():
        found = blocks[number].attn(torch.from_numpy(hidden).float(), tower.cos, tower.sin)
    assert close(found, [slow_attention(weights, f"blocks.{number}", shape.heads, image) for image in hidden])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_tower_is_its_definition(shape: EVA02Shape) -> None:
    tower, weights = random_tower(shape)
    pixels = np.random.default_rng(1).standard_normal((2, 3, shape.image_side, shape.image_side))
    with torch.inference_mode():
        found = tower(torch.from_numpy(pixels).float())
    expected = np.stack([slow_tower(weights, shape.heads, image) for image in pixels])
    assert found.shape == expected.shape
    assert close(found / np.abs(expected).max(), expected / np.abs(expected).max())


@pytest.mark.parametrize("kept", [None, 0, 1000])
def test_a_saved_folder_with_damaged_weights_is_refused(
    size: Size, saved: Path, tmp_path: Path, kept: int | None
) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").unlink()
    if kept is not None:
        (copy / "model.safetensors").write_bytes(content[:kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        SentenceTransformer(str(copy), device="cpu")


@pytest.mark.parametrize("head_dim", [0, 2, 7, 28, 10**9, "64", None])
def test_a_saved_folder_with_heads_that_the_tower_cannot_have_is_refused(
    size: Size, saved: Path, tmp_path: Path, head_dim: Any
) -> None:
    copy = Path(shutil.copytree(saved, tmp_path / "copy"))
    path = copy / "st_modules_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "head_dim": head_dim}))
    with pytest.raises(CheckpointError, match=r"st_modules_config\.json: .*head_dim"):
        SentenceTransformer(str(copy), device="cpu")


def test_a_text_model_without_its_vocabulary_is_refused(size: Size, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(size.bge, tmp_path / "bge"))
    for name in ("vocab.txt", "tokenizer.json", "sentencepiece.bpe.model"):
        (copy / name).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"no tokenizer\.json \(or (vocab\.txt|sentencepiece\.bpe\.model)\)"):
        load(size, size.folder, base_weights=copy)
