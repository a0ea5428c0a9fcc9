"""BGE-VL's CLIP: texts, images and both, beside vectors put together from stock transformers' CLIP."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
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
from tokenizers import Tokenizer
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from st_modules import ImageError, ImageSource, InputError, SentenceTransformer
from tests.helpers.paths import GOLDEN

GOLDEN_CLIP = GOLDEN / "bge_vl_clip"
CHECKPOINT = GOLDEN_CLIP / "checkpoint"
SQUARE, WIDE, TALL, GRAY = (GOLDEN_CLIP / "images" / f"{name}.png" for name in ("square", "wide", "tall", "gray"))
LIMIT = 77

TEXTS: list[Any] = [
    "a car",
    "Are there sidewalks on both sides of the Mid-Hudson Bridge?",
    {"text": ""},
    "一匹马牵着这辆车",
]
IMAGES: list[Any] = [SQUARE, {"image": WIDE}, TALL, GRAY]
FUSED: list[Any] = [
    {"text": "make it blue", "image": SQUARE},
    {"text": "Make the background dark, as if the camera has taken the photo at night", "image": TALL},
    {"text": "一匹马", "image": GRAY},
]
MIXED: list[Any] = [TEXTS[1], IMAGES[0], FUSED[0], TEXTS[2], FUSED[2], IMAGES[1], FUSED[1], TEXTS[0], IMAGES[3]]
LONG_TEXTS = {
    "words": "the quick brown fox jumps over the lazy dog and 2 small, green stars are there too! " * 30,
    "long words": "counterrevolutionaries Antidisestablishmentarianism's " * 200,
    "one word": "blue" * 400,
    "Chinese": "一匹马牵着这辆车" * 100,
    "odd spaces": "a  car \n\n\t and   a\u3000cat. " * 100,
}
HOSTILE_TEXTS = [
    "<|endoftext|>",
    "<|startoftext|>",
    "<|ENDOFTEXT|>",
    "<|StartOfText|>",
    "a<|endoftext|>b",
    "a car <|startoftext|> and <|endoftext|> a cat <|EndOfText|><|endoftext|>",
    "<|startoftext|>a car<|endoftext|>",
]


class Stock:
    """CLIP as transformers has it, one item at a time, without padding."""

    def __init__(self) -> None:
        loaded: Any = CLIPModel.from_pretrained(CHECKPOINT, dtype=torch.float32, attn_implementation="eager")
        self.model = loaded.eval()
        self.tokenizer = Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()
        self.start, self.end = map(self.tokenizer.token_to_id, ("<|startoftext|>", "<|endoftext|>"))
        self.image_processor = CLIPImageProcessorPil.from_pretrained(CHECKPOINT, do_convert_rgb=False)
        self._texts: dict[str, np.ndarray] = {}

    def ids(self, text: str) -> list[int]:
        return self.tokenizer.encode(text).ids

    @torch.inference_mode()
    def text(self, text: str) -> np.ndarray:
        if text not in self._texts:
            features = self.model.get_text_features(input_ids=torch.tensor([self.ids(text)]))
            self._texts[text] = features.pooler_output[0].numpy()
        return self._texts[text]

    @torch.inference_mode()
    def image(self, image: Path | Image.Image) -> np.ndarray:
        picture = Image.open(image) if isinstance(image, Path) else image
        pixels = self.image_processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
        return self.model.get_image_features(pixel_values=pixels).pooler_output[0].numpy()

    def vector(self, item: Any, prompt: str = "") -> np.ndarray:
        fields: dict[str, Any]
        fields = item if isinstance(item, dict) else {"text" if isinstance(item, str) else "image": item}
        raw = np.zeros(self.model.config.projection_dim)
        if "text" in fields:
            raw = raw + self.text(prompt + fields["text"])
        if "image" in fields:
            raw = raw + self.image(fields["image"])
        return unit(raw)

    def fitting_prefixes(self, text: str, limit: int) -> list[str]:
        """Return every prefix of a text whose ids fit, with the end token."""
        return [text[:end] for end in range(limit * 8) if len(self.ids(text[:end])) <= limit]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def close(left: Any, right: Any, tolerance: float = 1e-5) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= tolerance)


def load(folder: Path = CHECKPOINT, **options: Any) -> SentenceTransformer:
    return SentenceTransformer("bge-vl-base", weights=folder, device="cpu", **options)


def copy_checkpoint(folder: Path) -> Path:
    folder.mkdir()
    for path in CHECKPOINT.iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


def row_ids(model: sentence_transformers.SentenceTransformer, item: Any, **options: Any) -> list[int]:
    features = model.preprocess([item], **options)
    return features["input_ids"][0][features["attention_mask"][0].bool()].tolist()


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock()


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return load()


@pytest.fixture(scope="module")
def short_model() -> SentenceTransformer:
    return load(max_length=10)


@pytest.fixture(scope="module")
def embeddings(model: SentenceTransformer) -> np.ndarray:
    return model.encode(MIXED)


@pytest.fixture(scope="module")
def saved(model: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("items", [TEXTS, IMAGES, FUSED], ids=["texts", "images", "fused"])
def test_a_batch_of_one_kind_is_stock_clip(model: SentenceTransformer, stock: Stock, items: list[Any]) -> None:
    assert close(model.encode(items), [stock.vector(item) for item in items])


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_mixed_list_is_stock_clip(model: SentenceTransformer, stock: Stock, batch_size: int) -> None:
    assert close(model.encode(MIXED, batch_size=batch_size), [stock.vector(item) for item in MIXED])


@pytest.mark.parametrize("seed", range(5))
def test_one_mixed_batch_in_any_order_is_stock_clip(model: SentenceTransformer, stock: Stock, seed: int) -> None:
    items = [MIXED[number] for number in np.random.default_rng(seed).permutation(len(MIXED))]
    with torch.inference_mode():
        found = model(model.preprocess(items))["sentence_embedding"]
    assert close(found, [stock.vector(item) for item in items])


@pytest.mark.parametrize("item", [TEXTS[0], IMAGES[1], FUSED[0]], ids=["text", "image", "fused"])
def test_the_module_itself_gives_features_that_are_not_normalised(
    model: SentenceTransformer, stock: Stock, item: Any
) -> None:
    with torch.inference_mode():
        found = model[0](model.preprocess([item]))["sentence_embedding"][0].numpy()
    assert close(unit(found), stock.vector(item))
    assert abs(np.linalg.norm(found) - 1) > 1e-2


def test_an_empty_text_beside_an_image_is_the_image_alone(model: SentenceTransformer, stock: Stock) -> None:
    assert close(model.encode({"text": "", "image": SQUARE}), stock.vector(SQUARE))


def test_normalising_before_the_addition_would_give_another_vector(model: SentenceTransformer, stock: Stock) -> None:
    text, image = "make it blue", SQUARE
    other = unit(unit(stock.text(text)) + unit(stock.image(image)))
    assert not close(model.encode({"text": text, "image": image}), other, 1e-3)


@pytest.mark.parametrize("image", [None, SQUARE], ids=["text", "fused"])
@pytest.mark.parametrize("limit", [10, LIMIT])
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_text_embeds_as_a_prefix_of_it(
    model: SentenceTransformer,
    short_model: SentenceTransformer,
    stock: Stock,
    name: str,
    limit: int,
    image: Path | None,
) -> None:
    text = LONG_TEXTS[name]
    item = {"text": text} if image is None else {"text": text, "image": image}
    raw_image = 0 if image is None else stock.image(image)
    vector = (model if limit == LIMIT else short_model).encode(item)
    prefixes = stock.fitting_prefixes(text, limit)
    hits = [prefix for prefix in prefixes if close(vector, unit(stock.text(prefix) + raw_image))]
    assert hits
    # A shorter prefix may have more tokens; the one that is kept loses next to nothing.
    assert len(stock.ids(hits[-1])) >= max(len(stock.ids(prefix)) for prefix in prefixes) - 2


@pytest.mark.parametrize("image", [None, SQUARE], ids=["text", "fused"])
@pytest.mark.parametrize("limit", [2, 3, 10, LIMIT])
@pytest.mark.parametrize("name", LONG_TEXTS)
def test_a_long_text_keeps_its_end_token(
    model: SentenceTransformer, stock: Stock, name: str, limit: int, image: Path | None
) -> None:
    ids = row_ids(model, {"text": LONG_TEXTS[name], "image": image}, max_length=limit)
    assert len(ids) <= limit
    assert (ids[0], ids[-1]) == (stock.start, stock.end)
    assert stock.end not in ids[:-1]


def test_a_cut_between_words_gives_stock_ids_cut_to_76_and_the_end_token(
    model: SentenceTransformer, stock: Stock
) -> None:
    text = "a car " * 300
    assert row_ids(model, text) == [*stock.ids(text)[:76], stock.end]


def test_long_texts_are_logged_once(model: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    text = LONG_TEXTS["words"]
    with caplog.at_level(logging.WARNING):
        model.encode([text, "a", {"text": text, "image": SQUARE}, SQUARE, text], batch_size=1)
    assert [record.getMessage() for record in caplog.records] == [
        "3 of 5 items are longer than max_length=77 tokens: the end of their text was cut."
    ]


@pytest.mark.parametrize("image", [None, WIDE], ids=["text", "fused"])
def test_a_text_of_exactly_77_tokens_is_not_cut(
    model: SentenceTransformer, stock: Stock, caplog: pytest.LogCaptureFixture, image: Path | None
) -> None:
    text = " ".join(["a", "car", "a"] * 25)
    assert len(stock.ids(text)) == LIMIT
    item = {"text": text} if image is None else {"text": text, "image": image}
    with caplog.at_level(logging.WARNING):
        vector = model.encode(item)
    assert caplog.records == []
    assert row_ids(model, item) == stock.ids(text)
    assert close(vector, stock.vector(item))


def test_a_text_of_78_tokens_is_cut(model: SentenceTransformer, stock: Stock, caplog: pytest.LogCaptureFixture) -> None:
    text = " ".join(["a", "car", "a"] * 25)
    with caplog.at_level(logging.WARNING):
        vector = model.encode(text + " car")
    assert len(caplog.records) == 1
    assert close(vector, stock.vector(text))


def test_a_max_length_over_the_positions_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length=78.*77 positions"):
        load(max_length=78)


def test_setting_max_seq_length_over_the_positions_is_refused(model: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="max_length=78.*77 positions"):
        model.max_seq_length = 78
    assert model.max_seq_length == LIMIT


@pytest.mark.parametrize("image", [None, SQUARE], ids=["text", "fused"])
@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_control_tokens_in_text_stay_text(
    model: SentenceTransformer, stock: Stock, text: str, image: Path | None
) -> None:
    ids = row_ids(model, {"text": text, "image": image})
    assert (ids[0], ids[-1]) == (stock.start, stock.end)
    assert not {stock.start, stock.end} & set(ids[1:-1])
    pieces = "".join(str(stock.tokenizer.id_to_token(number)) for number in ids[1:-1])
    assert pieces.replace("</w>", "") == text.lower().replace(" ", "")


@pytest.mark.parametrize("prompt", HOSTILE_TEXTS)
def test_control_tokens_in_a_prompt_stay_text(model: SentenceTransformer, stock: Stock, prompt: str) -> None:
    ids = row_ids(model, "a car", prompt=prompt)
    assert [number for number, token in enumerate(ids) if token in (stock.start, stock.end)] == [0, len(ids) - 1]


def test_a_control_token_in_a_text_does_not_end_it(model: SentenceTransformer) -> None:
    one, other = model.encode(["a <|endoftext|> red car", "a <|endoftext|> blue cat"])
    assert not close(one, other, 1e-2)


def test_a_prompt_goes_in_front_of_a_text_and_an_image_ignores_it(model: SentenceTransformer, stock: Stock) -> None:
    prompt = "Find a picture of: "
    assert close(model.encode(MIXED, prompt=prompt), [stock.vector(item, prompt) for item in MIXED])


@pytest.mark.parametrize("method", ["encode_query", "encode_document"])
def test_both_sides_are_the_same(model: SentenceTransformer, embeddings: np.ndarray, method: str) -> None:
    assert close(getattr(model, method)(MIXED), embeddings)


def test_a_long_text_is_cut_behind_the_whole_prompt(model: SentenceTransformer, stock: Stock) -> None:
    prompt = "Find a picture of: "
    ids = row_ids(model, "a car " * 300, prompt=prompt)
    assert ids == [*stock.ids(prompt + "a car " * 300)[:76], stock.end]


@pytest.mark.parametrize("option", ["min_image_tokens", "max_image_tokens"])
def test_image_token_options_are_refused(option: str) -> None:
    with pytest.raises(ValueError, match=option):
        load(CHECKPOINT, **{option: 16})


def test_image_token_options_are_refused_for_a_saved_model(saved: Path) -> None:
    with pytest.raises(ValueError, match="max_image_tokens"):
        SentenceTransformer(str(saved), device="cpu", max_image_tokens=16)


@pytest.mark.parametrize("text", [None, "both"])
def test_two_images_in_one_item_are_refused_by_position(model: SentenceTransformer, text: str | None) -> None:
    with pytest.raises(InputError, match="item 2: 2 images"):
        model.encode(["a", SQUARE, {"image": [SQUARE, WIDE], "text": text}])


@pytest.mark.parametrize("mode", ["1", "L"])
@pytest.mark.parametrize("size", [(1, 3_000_000), (3_000_000, 1)])
def test_an_elongated_image_is_refused_before_its_pixels_are_touched(
    model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, mode: str, size: tuple[int, int]
) -> None:
    picture = Image.new(mode, size)
    for name in ("copy", "convert", "resize", "load"):
        monkeypatch.setattr(Image.Image, name, lambda *args, **kwargs: pytest.fail("pixels were touched"))
    with pytest.raises(ImageError, match=f"item 1.*{size[0]}x{size[1]} pixels are too elongated"):
        model.encode(["a", {"text": "both", "image": picture}])


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 1), (3, 2), (63, 65)])
def test_small_and_thin_images_are_stock_clip(model: SentenceTransformer, stock: Stock, size: tuple[int, int]) -> None:
    picture = noise(*size)
    assert close(model.encode({"image": picture}), stock.vector({"image": picture}))


@pytest.mark.parametrize("shortest_edge", [33, 61, 64, 90])
@pytest.mark.parametrize(("size", "mode"), [((187, 303), "RGBA"), ((303, 188), "L"), ((65, 64), "RGB"), ((9, 40), "P")])
def test_pixels_are_those_of_the_processor_by_itself(
    model: SentenceTransformer,
    monkeypatch: pytest.MonkeyPatch,
    shortest_edge: int,
    size: tuple[int, int],
    mode: str,
) -> None:
    backbone: Any = model[0]
    settings = {**backbone.image_processor.to_dict(), "size": {"shortest_edge": shortest_edge}}
    monkeypatch.setattr(backbone, "image_processor", CLIPImageProcessorPil(**settings))
    picture = noise(*size).convert(mode)
    expected = backbone.image_processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"]
    assert torch.equal(backbone.pixel_features(ImageSource(picture))["pixel_values"], expected)


def test_code_beside_a_checkpoint_is_not_run(embeddings: np.ndarray, tmp_path: Path) -> None:
    folder, marker = copy_checkpoint(tmp_path / "checkpoint"), tmp_path / "ran"
    for name in ("modeling_MMRet_CLIP.py", "evil.py"):
        (folder / name).write_text(f"open({str(marker)!r}, 'w').close()\nraise SystemExit('remote code ran')\n")
    for name, kinds in (
        ("config.json", ["AutoConfig", "AutoModel"]),
        ("tokenizer_config.json", ["AutoTokenizer"]),
        ("preprocessor_config.json", ["AutoImageProcessor", "AutoProcessor"]),
    ):
        content = json.loads((folder / name).read_text())
        auto_map = {kind: ["evil.Evil", "evil.Evil"] if kind == "AutoTokenizer" else "evil.Evil" for kind in kinds}
        content["auto_map"] = {**auto_map, **content.get("auto_map", {})}
        (folder / name).write_text(json.dumps(content))
    assert close(load(folder, trust_remote_code=True).encode(MIXED), embeddings)
    assert not marker.exists()


def by_path(folder: Path) -> sentence_transformers.SentenceTransformer:
    return SentenceTransformer(str(folder), device="cpu")


def by_plain_class(folder: Path) -> sentence_transformers.SentenceTransformer:
    return sentence_transformers.SentenceTransformer(str(folder), device="cpu", trust_remote_code=True)


@pytest.mark.parametrize("reload", [by_path, load, by_plain_class])
def test_a_saved_model_gives_the_same_vectors(
    saved: Path, embeddings: np.ndarray, reload: Callable[[Path], sentence_transformers.SentenceTransformer]
) -> None:
    assert close(reload(saved).encode(MIXED), embeddings, 1e-6)


def test_a_saved_model_keeps_its_max_length(short_model: SentenceTransformer, stock: Stock, tmp_path: Path) -> None:
    short_model.save_pretrained(str(tmp_path))
    reloaded = by_path(tmp_path)
    assert reloaded.max_seq_length == 10
    assert row_ids(reloaded, "a car " * 300) == [*stock.ids("a car " * 300)[:9], stock.end]


def test_bfloat16_is_near_float32(embeddings: np.ndarray) -> None:
    half = load(model_kwargs={"dtype": torch.bfloat16})
    assert {parameter.dtype for parameter in half.parameters()} == {torch.bfloat16}
    assert (np.sum(half.encode(MIXED) * embeddings, axis=1) > 0.99).all()


ANCHORS: list[Any] = ["a car", {"text": "make it blue", "image": SQUARE}, "a small cat on the road", GRAY]
POSITIVES: list[Any] = [WIDE, "a blue car", {"image": TALL, "text": "cat"}, SQUARE]


def gradients(model: SentenceTransformer, loss: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    model.zero_grad()
    loss([model.preprocess(ANCHORS), model.preprocess(POSITIVES)], None).backward()
    return {name: None if value.grad is None else value.grad.clone() for name, value in model.named_parameters()}


def test_gradients_reach_every_weight_but_the_scale_of_the_logits() -> None:
    model = load()
    found = gradients(model, MultipleNegativesRankingLoss(model))
    assert [name for name, gradient in found.items() if gradient is None] == ["0.model.logit_scale"]
    # Scores that all move by the same amount leave a softmax as it is: the bias of the keys has no gradient.
    unreached = [name for name, gradient in found.items() if gradient is not None and not gradient.abs().max() > 1e-7]
    assert [name for name in unreached if not name.endswith("k_proj.bias")] == []


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_split_by_rows_has_the_same_gradients(rows: int) -> None:
    model = load()
    expected = gradients(model, MultipleNegativesRankingLoss(model))
    found = gradients(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
    assert {name for name in found if found[name] is None} == {name for name in expected if expected[name] is None}
    assert [name for name, each in expected.items() if each is not None and not close(found[name], each)] == []


def test_vectors_of_tokens_are_refused(model: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="token_embeddings.*this model embeds text and images apart"):
        model.encode("a car", output_value="token_embeddings")
