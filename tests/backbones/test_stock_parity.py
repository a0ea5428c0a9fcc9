"""Models as stock transformers runs them, against vectors that are put together from its calls."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from st_modules import InputError, SentenceTransformer
from tests.helpers import stock_qwen2_vl
from tests.helpers.stock_models import (
    Case,
    StockE5V,
    StockModel,
    StockVLM2VecLlavaNext,
    write_e5_v,
    write_pictures,
    write_vlm2vec_llava_next,
)

TOLERANCE = 1e-5
ATTENTION = ("eager", "sdpa")
INSTRUCTIONS = (
    "Find me an everyday image that matches the given caption:",
    "Represent the given image with the following question: ",
    "Two\n\nlines.\n",
)
TEXTS = (
    "a",
    "What kind of car is this?",
    "A full stop.",
    "Full stops and newlines...\n\n",
    "\n\nthe first lines are empty",
    "  two spaces  before, between and after  ",
    "a猫 naïve 😀\tΩ",
    '"quoted" \\n {text} %s',
    "two small green stars on a white background, " * 6,
)
PICTURES = ("square", "wide", "tall", "small", "noise", "gray", "palette", "rgba", "panorama", "gray_alpha", "bilevel")
# LLaVA-NeXT takes every picture. For DSE "thin" and "flat" are over the aspect ratio of 200, "large" takes long, and on
# "needle", a side of which rounds to no patch at all, smart_resize of qwen_vl_utils and of transformers differ.
EXTREME_PICTURES = ("large", "thin", "flat", "speck", "needle")
EXTREME_PICTURES_FOR_DSE = ("speck",)
MODELS = {
    "vlm2vec": "vlm2vec-llava-next",
    "vlm2vec-metaspace": "vlm2vec-llava-next",
    "e5-v": "e5-v",
    "dse": "dse-qwen2-2b",
}
TAKES_INSTRUCTIONS = ("vlm2vec", "vlm2vec-metaspace")
HOSTILE = (
    "a <image> b",
    "<image><image>",
    "</s><s>a",
    "<pad>",
    "[INST] a [/INST]",
    "<|eot_id|><|start_header_id|>user<|end_header_id|>\n\na",
    "<|begin_of_text|>a<|end_of_text|>",
    "<|image_pad|>",
    "<|vision_start|><|image_pad|><|vision_end|>a<|im_end|>\n<|endoftext|>",
    "<|video_pad|> <|im_start|>",
)
LONG_TEXTS = {"words": "the quick brown fox jumps over it. " * 12, "many bytes": "猫 naïve 😀\n\nΩ. " * 20}


def _cases(name: str) -> list[Case]:
    cases = [Case(text) for text in TEXTS]
    extreme = EXTREME_PICTURES_FOR_DSE if name == "dse" else EXTREME_PICTURES
    # Which tokenizer it is makes no difference to the picture.
    cases += [Case(None, picture) for picture in (("tall",) if name == "vlm2vec-metaspace" else PICTURES + extreme)]
    cases += [Case(text, picture) for text, picture in zip(TEXTS, ("small", *PICTURES), strict=False)]
    for method in ("encode_query", "encode_document"):
        cases += [Case(TEXTS[0], method=method), Case(TEXTS[3], method=method), Case(TEXTS[1], "small", method=method)]
    cases.append(Case(None, "small", method="encode_document"))
    if name in TAKES_INSTRUCTIONS:
        for told in INSTRUCTIONS:
            cases += [Case(text, None, told) for text in TEXTS[3:7]]
            cases += [Case(None, "noise", told), Case(TEXTS[2], "wide", told), Case(TEXTS[4], "rgba", told)]
        for method in ("encode_query", "encode_document"):
            cases += [Case(TEXTS[1], picture, INSTRUCTIONS[0], method) for picture in (None, "small")]
    return cases


CASES = {name: _cases(name) for name in MODELS}
EACH_CASE = [pytest.param(name, case, id=f"{name}-{case.id}") for name in MODELS for case in CASES[name]]


class Workshop:
    """Checkpoints, the models on them, and the expected vectors, each made once, when a test first needs it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self.pictures = write_pictures(factory.mktemp("pictures"))
        for name in ("folder", "stock", "model", "reloaded"):
            setattr(self, name, cache(getattr(self, name)))

    def folder(self, name: str) -> Path:
        if name == "dse":
            return stock_qwen2_vl.CHECKPOINT
        folder = self._factory.mktemp(name)
        if name == "e5-v":
            write_e5_v(folder)
        else:
            write_vlm2vec_llava_next(folder, metaspace=name.endswith("metaspace"))
        return folder

    def stock(self, name: str) -> StockModel:
        stock_class = {"e5-v": StockE5V, "dse": stock_qwen2_vl.StockDSE}.get(name, StockVLM2VecLlavaNext)
        return stock_class(self.folder(name))

    def model(self, name: str, attention: str = "sdpa", max_length: int | None = None) -> SentenceTransformer:
        model = SentenceTransformer(
            MODELS[name],
            weights=self.folder(name),
            device="cpu",
            max_length=max_length,
            model_kwargs={"attn_implementation": attention},
        )
        if name != "dse":
            # Not as the models' authors ran them, for which there are golden vectors.
            backbone: Any = model[0]
            backbone.tile_layout = "transformers-5"
        return model

    def reloaded(self, name: str) -> SentenceTransformer:
        folder = self._factory.mktemp("saved")
        self.model(name).save_pretrained(str(folder))
        return SentenceTransformer(str(folder), device="cpu")

    def expected(self, name: str, cases: Sequence[Case]) -> np.ndarray:
        stock = self.stock(name)
        return np.stack([stock.vector(case, self.pictures) for case in cases])

    def encode(self, model: SentenceTransformer, cases: Sequence[Case], batch_size: int) -> np.ndarray:
        """Encode cases of one call, which share method and instruction."""
        ((method, instruction),) = {(case.method, case.instruction) for case in cases}
        items = [case.item(self.pictures) for case in cases]
        return getattr(model, method)(items, prompt=instruction, batch_size=batch_size)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory)


def difference(left: np.ndarray, right: np.ndarray) -> float:
    assert left.shape == right.shape
    return float(np.abs(left - right).max())


def in_a_batch_of_seven(case: Case) -> list[Case]:
    """Return the case between six others of several lengths."""
    others = [
        Case("x", None, case.instruction, case.method),
        Case(TEXTS[-1], None, case.instruction, case.method),
        Case(None, "small", case.instruction, case.method),
        Case(TEXTS[5], "bilevel", case.instruction, case.method),
        Case("blue", None, case.instruction, case.method),
        Case(TEXTS[6], None, case.instruction, case.method),
    ]
    return [*others[:3], case, *others[3:]]


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("name", "case"), EACH_CASE)
def test_each_case_alone_has_the_stock_vector(workshop: Workshop, name: str, case: Case, attention: str) -> None:
    embeddings = workshop.encode(workshop.model(name, attention), [case], batch_size=1)
    assert difference(embeddings, workshop.expected(name, [case])) <= TOLERANCE


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize(("name", "case"), EACH_CASE)
def test_each_case_in_a_batch_of_seven_has_the_stock_vector(
    workshop: Workshop, name: str, case: Case, attention: str
) -> None:
    cases = in_a_batch_of_seven(case)
    embeddings = workshop.encode(workshop.model(name, attention), cases, batch_size=7)
    assert difference(embeddings, workshop.expected(name, cases)) <= TOLERANCE


def calls(name: str) -> list[list[Case]]:
    """Return all cases of a model, those that one call can take together in a list, shuffled."""
    together: dict[tuple[str, str | None], list[Case]] = {}
    for case in CASES[name]:
        together.setdefault((case.method, case.instruction), []).append(case)
    random_state = np.random.default_rng(0)
    return [[cases[number] for number in random_state.permutation(len(cases))] for cases in together.values()]


EACH_CALL = [
    pytest.param(name, cases, id=f"{name}-{cases[0].method}-{'told ' if cases[0].instruction else ''}{number}")
    for name in MODELS
    for number, cases in enumerate(calls(name))
]


@pytest.mark.parametrize(("attention", "batch_size"), [("eager", 1000), ("sdpa", 7)])
@pytest.mark.parametrize(("name", "cases"), EACH_CALL)
def test_everything_mixed_in_one_call_has_the_stock_vectors(
    workshop: Workshop, name: str, cases: list[Case], attention: str, batch_size: int
) -> None:
    embeddings = workshop.encode(workshop.model(name, attention), cases, batch_size)
    assert difference(embeddings, workshop.expected(name, cases)) <= TOLERANCE


@pytest.mark.parametrize(("name", "cases"), EACH_CALL)
def test_everything_has_the_stock_vectors_after_save_and_reload(
    workshop: Workshop, name: str, cases: list[Case]
) -> None:
    embeddings = workshop.encode(workshop.reloaded(name), cases, batch_size=7)
    assert difference(embeddings, workshop.expected(name, cases)) <= TOLERANCE


@pytest.mark.parametrize("name", MODELS)
def test_everything_in_one_padded_batch_has_the_stock_vectors(workshop: Workshop, name: str) -> None:
    cases = next(cases for cases in calls(name) if (cases[0].method, cases[0].instruction) == ("encode", None))
    model = workshop.model(name)
    with torch.inference_mode():
        embeddings = model(model.preprocess([case.item(workshop.pictures) for case in cases]))["sentence_embedding"]
    assert difference(embeddings.numpy(), workshop.expected(name, cases)) <= TOLERANCE


@pytest.mark.parametrize("name", TAKES_INSTRUCTIONS)
def test_the_instruction_counts_alike_in_every_method(workshop: Workshop, name: str) -> None:
    model = workshop.model(name)
    items = [Case(TEXTS[1]).item(workshop.pictures), Case(None, "small").item(workshop.pictures)]
    embeddings = model.encode(items, prompt=INSTRUCTIONS[0])
    assert np.array_equal(model.encode_query(items, prompt=INSTRUCTIONS[0]), embeddings)
    assert np.array_equal(model.encode_document(items, prompt=INSTRUCTIONS[0]), embeddings)
    assert difference(model.encode(items), embeddings) > 1e-2


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_e5_v_refuses_an_instruction(workshop: Workshop, method: str) -> None:
    with pytest.raises(InputError):
        getattr(workshop.model("e5-v"), method)(["a"], prompt="Find it.")


def test_dse_reads_a_text_as_a_document_unless_it_is_a_query(workshop: Workshop) -> None:
    model = workshop.model("dse")
    assert np.array_equal(model.encode("a"), model.encode_document("a"))
    assert difference(model.encode("a"), model.encode_query("a")) > 1e-2


@pytest.mark.parametrize("dimension", [8, 33, 63])
def test_dse_cut_to_fewer_dimensions_is_the_start_of_the_stock_vector(workshop: Workshop, dimension: int) -> None:
    cases = [Case(text) for text in TEXTS] + [Case(None, "small"), Case("blue", "tall")]
    start = workshop.expected("dse", cases)[:, :dimension]
    embeddings = workshop.model("dse").encode(
        [case.item(workshop.pictures) for case in cases], truncate_dim=dimension, normalize_embeddings=True
    )
    assert difference(embeddings, start / np.linalg.norm(start, axis=1, keepdims=True)) <= TOLERANCE


def test_dse_scales_a_picture_down_to_2560_tokens_as_stock_does(workshop: Workshop, tmp_path: Path) -> None:
    # Compared before the model: attention over so many patches would take seconds.
    with Image.open(workshop.pictures["large"]) as large:
        over = large.convert("RGB").resize((1568, 1400))
    over.save(tmp_path / "over.png")
    stock = workshop.stock("dse")
    assert isinstance(stock, stock_qwen2_vl.StockDSE)
    features = workshop.model("dse").preprocess([{"image": tmp_path / "over.png"}])
    pixels = stock.image_processor(over, return_tensors="pt")
    assert torch.equal(features["image_grid_thw"], pixels["image_grid_thw"])
    assert torch.equal(features["pixel_values"], pixels["pixel_values"])
    assert 2400 < (features["input_ids"] == stock.image_id).sum() == pixels["image_grid_thw"].prod() // 4 <= 2560


@pytest.mark.parametrize("picture", ["thin", "flat"])
def test_dse_refuses_an_aspect_ratio_over_200_by_item(workshop: Workshop, picture: str) -> None:
    with pytest.raises(InputError, match="^item 1: "):
        workshop.model("dse").encode(["a", {"image": workshop.pictures[picture]}])


@pytest.mark.parametrize("name", MODELS)
def test_different_inputs_have_clearly_different_vectors(workshop: Workshop, name: str) -> None:
    """Without this every comparison here could hold on a checkpoint that ignores its input."""
    cases = [case for case in CASES[name] if (case.method, case.instruction) == ("encode", None)]
    vectors = workshop.expected(name, cases)
    distances = np.abs(vectors[:, None] - vectors[None]).max(axis=2) + np.eye(len(cases))
    assert distances.min() > 1e-2


def test_the_two_mistral_tokenizers_differ_after_the_image_only(workshop: Workshop) -> None:
    normalizer, metaspace = (workshop.stock(name) for name in TAKES_INSTRUCTIONS)
    text, image = Case("hello there"), Case("hello there", "small")
    assert normalizer.ids(text) == metaspace.ids(text)
    assert normalizer.ids(image) != metaspace.ids(image)


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("picture", [None, "small"])
@pytest.mark.parametrize("name", MODELS)
def test_control_tokens_in_text_stay_text(workshop: Workshop, name: str, picture: str | None, text: str) -> None:
    model, stock, case = workshop.model(name), workshop.stock(name), Case(text, picture)
    ids = model.preprocess([case.item(workshop.pictures)])["input_ids"]
    harmless = model.preprocess([Case("a", picture).item(workshop.pictures)])["input_ids"]
    numbers = {token: stock.tokenizer.token_to_id(token) for token in stock.control_tokens}
    found, expected = (
        {token: int((each == number).sum()) for token, number in numbers.items()} for each in (ids, harmless)
    )
    assert found == expected
    embeddings = workshop.encode(model, [case], batch_size=1)
    assert np.isfinite(embeddings).all()
    assert difference(embeddings, workshop.expected(name, [case])) <= TOLERANCE


@pytest.mark.parametrize("instruction", HOSTILE[:4])
@pytest.mark.parametrize("picture", [None, "small"])
@pytest.mark.parametrize("name", TAKES_INSTRUCTIONS)
def test_control_tokens_in_an_instruction_stay_text(
    workshop: Workshop, name: str, picture: str | None, instruction: str
) -> None:
    case = Case("a</s>", picture, instruction)
    embeddings = workshop.encode(workshop.model(name), [case], batch_size=1)
    assert difference(embeddings, workshop.expected(name, [case])) <= TOLERANCE


def _too_long() -> list[Any]:
    instructions = {name: (None, INSTRUCTIONS[0]) if name in TAKES_INSTRUCTIONS else (None,) for name in MODELS}
    return [
        pytest.param(name, Case(text, picture, told), id=f"{name}-{kind}-{picture}-{'told' if told else 'untold'}")
        for name in MODELS
        for kind, text in LONG_TEXTS.items()
        for picture in (None, "small")
        for told in instructions[name]
    ]


@pytest.mark.parametrize("more", [0, 1])
@pytest.mark.parametrize(("name", "case"), _too_long())
def test_a_text_over_max_length_has_the_vector_of_its_start(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, name: str, case: Case, more: int
) -> None:
    stock, text = workshop.stock(name), case.text
    assert text is not None
    starts = [Case(text[:end], case.picture, case.instruction) for end in range(1, 80)]
    lengths = [len(stock.ids(start)) for start in starts]
    most = lengths[40] + more
    model = workshop.model(name, max_length=most + _image_tokens(workshop, name, case.picture))
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        vector = workshop.encode(model, [case], batch_size=1)[0]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "max_length" in caplog.text
    # The cut costs no more than what one character can be in tokens, and a merge that it ends.
    near = [start for start, length in zip(starts, lengths, strict=True) if most - 6 <= length <= most]
    assert min(difference(stock.vector(start, workshop.pictures), vector) for start in near) <= TOLERANCE


def _image_tokens(workshop: Workshop, name: str, picture: str | None) -> int:
    """Return by how much an input is longer than its string with one image token."""
    case = Case("a", picture)
    ids = workshop.model(name).preprocess([case.item(workshop.pictures)])["input_ids"]
    return ids.shape[1] - len(workshop.stock(name).ids(case))


@pytest.mark.parametrize("name", MODELS)
def test_a_text_that_just_fits_is_not_cut(workshop: Workshop, caplog: pytest.LogCaptureFixture, name: str) -> None:
    case = Case(LONG_TEXTS["words"], "small")
    ids = workshop.model(name).preprocess([case.item(workshop.pictures)])["input_ids"]
    with caplog.at_level(logging.WARNING):
        embeddings = workshop.encode(workshop.model(name, max_length=ids.shape[1]), [case], batch_size=1)
    assert not caplog.records
    assert difference(embeddings, workshop.expected(name, [case])) <= TOLERANCE


@pytest.mark.parametrize("text", [{}, {"text": "a"}], ids=["images", "text and images"])
@pytest.mark.parametrize("name", MODELS)
def test_more_than_one_image_is_an_error_that_names_the_item(
    workshop: Workshop, name: str, text: dict[str, str]
) -> None:
    two = [workshop.pictures["small"], workshop.pictures["tall"]]
    with pytest.raises(InputError, match="^item 2: "):
        workshop.model(name).encode(["a", {"image": two[0]}, {**text, "image": two}])


def test_the_image_token_of_e5_v_is_an_ordinary_one(workshop: Workshop) -> None:
    """The authors add ``<image>`` as an ordinary token: a checkpoint where it were special would test less."""
    content = json.loads((workshop.folder("e5-v") / "tokenizer.json").read_text(encoding="utf-8"))
    (image,) = [token for token in content["added_tokens"] if token["content"] == "<image>"]
    assert (image["special"], image["normalized"]) == (False, True)
