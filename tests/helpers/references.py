"""What each row of the catalog is compared with: a small checkpoint, inputs, and the vectors expected of them."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from st_modules import ModelSpec, SentenceTransformer, list_models
from tests.helpers import stock_models, stock_qwen2_vl
from tests.helpers.paths import GOLDEN

TOLERANCE = 1e-5
SEVERAL_IMAGES = frozenset({"gme", "qwen3_vl_embedding", "qwen3_vl_reranker", "ops_mm", "rzen_embed"})
"""Templates that lay out any number of images; the others refuse a second one."""


@dataclass(frozen=True)
class Case:
    """One call and the vectors that it must return.

    Attributes:
        items: What is embedded.
        expected: Vectors of shape (items, dimension).
        side: Name of the method: ``encode``, ``encode_query`` or ``encode_document``.
        prompt: The instruction.
        dimension: How many components the vectors are cut to; ``None`` leaves them whole.
    """

    items: list[dict[str, Any]]
    expected: np.ndarray
    side: str = "encode"
    prompt: str | None = None
    dimension: int | None = None

    @property
    def name(self) -> str:
        """What tells calls apart that :func:`mixed` has made."""
        return f"{self.side}, {self.prompt!r}, {self.dimension}"

    def embed(self, model: SentenceTransformer, batch_size: int) -> np.ndarray:
        cut = {"truncate_dim": self.dimension, "normalize_embeddings": True} if self.dimension else {}
        return getattr(model, self.side)(self.items, prompt=self.prompt, batch_size=batch_size, **cut)


@dataclass(frozen=True)
class Reference:
    """A checkpoint in an upstream's layout.

    Attributes:
        weights: The files of the model's repository.
        cases: The calls by name.
        base_weights: Those of what it is built on.
        images: Folder of pictures.
    """

    weights: Path
    cases: dict[str, Case] = field(repr=False)
    base_weights: Path | None = None
    images: Path = GOLDEN / "gme" / "images"

    def load(self, name: str, attention: str = "sdpa", **options: Any) -> SentenceTransformer:
        return SentenceTransformer(
            name,
            weights=self.weights,
            base_weights=self.base_weights,
            device="cpu",
            model_kwargs={"attn_implementation": attention},
            **options,
        )


ONE_A_TEMPLATE = [
    *{str(spec.options["template"]): spec.name for spec in reversed(list_models()) if spec.repo_id}.values()
]
"""The first row of the catalog for each template."""

_FAMILIES = {
    "gme-2b": "gme",
    "gme-7b": "gme",
    "ops-mm-v1-2b": "ops_mm",
    "ops-mm-v1-7b": "ops_mm",
    "vdr-2b-multi": "vdr",
    "qwen3-vl-embedding-2b": "qwen3_vl_embedding",
    "qwen3-vl-embedding-8b": "qwen3_vl_embedding",
    "vlm2vec-qwen2vl-2b": "vlm2vec",
    "vlm2vec-qwen2vl-7b": "vlm2vec",
    "vlm2vec-v2": "vlm2vec_v2_video",
    "vlm2vec-llava-next": "vlm2vec_llava_next",
    "vlm2vec-phi3.5-v": "vlm2vec_phi3v_full",
    "vlm2vec-phi3.5-v-lora": "vlm2vec_phi3v_lora",
    "bge-vl-base": "bge_vl_clip",
    "bge-vl-large": "bge_vl_clip",
    "bge-vl-mllm-s1": "bge_vl_mllm",
    "bge-vl-mllm-s2": "bge_vl_mllm",
    "bge-vl-v1.5-zs": "bge_vl_mllm",
    "bge-vl-v1.5-mmeb": "bge_vl_mllm",
    "clip-sf-large": "clip_sf",
    "bge-visualized-base": "bge_visualized_base",
    "bge-visualized-m3": "bge_visualized_m3",
    "e5-v": "e5v",
    "dse-phi3": "dse_phi3",
    "dse-phi3-docmatix": "dse_phi3",
}


def _what_is_loaded(spec: ModelSpec) -> str:
    """The small checkpoint of a row, and all of the row that has a say in what is made of it."""
    family = _FAMILIES.get(spec.name, spec.name)
    return repr((family, spec.backbone, spec.options, spec.weights_file, spec.own_modules, spec.least_dimension))


ONE_A_MODEL = [*{_what_is_loaded(spec): spec.name for spec in reversed(list_models()) if spec.repo_id}.values()][::-1]
"""The rows of the catalog without those that make the same of the same small checkpoint as one before.

Of a model of 7B there is the checkpoint of that of 2B: but for its name, the two are one here.
"""

# Their cases are the strings that a processor was handed: what comes after the image is the text.
_IMAGE_TOKENS = {
    "vlm2vec": "<|image_pad|> ",
    "vlm2vec_v2_video": "<|image_pad|> ",
    "vlm2vec_llava_next": "<image> ",
    "vlm2vec_phi3v_full": "<|image_1|> ",
    "vlm2vec_phi3v_lora": "<|image_1|> ",
}
# Cases, by family, with what is none of ours. Of Phi-3-V: control tokens in a text, and pictures behind one. Of
# Qwen3-VL-Embedding: an item with nothing in it, and a long row of which the end is cut off, where that of the text is
# here (tests/backbones/test_qwen3_vl.py).
_NOT_OURS = re.compile(
    r"vlm2vec_phi3v_\w+/.*(text_6|image_last|image_middle)|dse_phi3/query_(6|batch)"
    r"|qwen3_vl_embedding/(nothing|text_cut)"
)
# What would take long in a batch with all others, or needs other options or an adapter of its own.
_APART = re.compile(r".*text_long|.*crops16_.*|lora_.*")


_STOCK_CASES = [
    *(stock_models.Case(None, image) for image in ("square", "wide", "tall", "small", "panorama")),
    *(stock_models.Case(None, image) for image in ("gray", "rgba", "palette")),
    stock_models.Case("What kind of car is this?"),
    stock_models.Case("猫 and a tiger", method="encode_query"),
    stock_models.Case("a", method="encode_document"),
    stock_models.Case("Make the background dark", "square"),
    stock_models.Case("two dogs", "gray", method="encode_document"),
    stock_models.Case(""),
]
_SEVERAL_AND_INSTRUCTED = [
    stock_models.Case(None, "small,gray"),
    stock_models.Case("two dogs", "wide,square", method="encode_query"),
    *(
        stock_models.Case(text, image, "Find it: ", method)
        for method in ("encode_query", "encode_document")
        for text, image in (("猫 and a tiger", None), (None, "tall"), ("two dogs", "gray"), ("", None))
    ),
]
_STOCK = {
    "dse-qwen2-2b": (stock_qwen2_vl.StockDSE, _STOCK_CASES),
    "rzen-embed": (stock_qwen2_vl.StockRzenEmbed, _STOCK_CASES + _SEVERAL_AND_INSTRUCTED),
    "unite-qwen2vl-2b": (stock_qwen2_vl.StockUnite, _STOCK_CASES),
}


def case_ids(name: str) -> list[str]:
    """Return the names of a row's cases, without making its checkpoint."""
    if name in _STOCK:
        return [case.id for case in _STOCK[name][1]]
    return [case["id"] for case in _stated(name)]


@functools.cache
def reference(name: str) -> Reference:
    """Return what the catalog's row ``name`` is compared with."""
    return _stock_reference(name) if name in _STOCK else _golden_reference(name)


@functools.cache
def load_once(name: str, attention: str) -> SentenceTransformer:
    """Return the model of a row, which tests share: none of them changes it."""
    return reference(name).load(name, attention)


def _stock_reference(name: str) -> Reference:
    folder = stock_qwen2_vl.CHECKPOINT
    make, stated = _STOCK[name]
    stock = make(folder)
    images = stock_models.GOLDEN_IMAGES
    pictures = {path.stem: path for path in images.glob("*.png")}
    cases = {
        case.id: Case([case.item(pictures)], stock.vector(case, pictures)[None], case.method, case.instruction)
        for case in stated
    }
    return Reference(folder, cases, images=images)


def _stated(name: str) -> list[dict[str, Any]]:
    return [case for case in golden_cases(_FAMILIES[name]) if not _APART.fullmatch(case["id"])]


def golden_cases(family: str) -> list[dict[str, Any]]:
    """Return what was handed to the authors' code of a family, as far as it can be handed to ours."""
    cases = json.loads((GOLDEN / family / "cases.json").read_text(encoding="utf-8"))["cases"]
    return [case for case in cases if not _NOT_OURS.fullmatch(f"{family}/{case['id']}")]


def _golden_reference(name: str) -> Reference:
    folder = GOLDEN / _FAMILIES[name]
    expected = load_file(folder / "expected.safetensors")
    cases = {case["id"]: _case(folder, case, expected[case["id"]]) for case in _stated(name)}
    if (folder / "bge").is_dir():
        return Reference(folder, cases, folder / "bge", folder / "images")
    base = folder / "base"
    images = folder / "images"
    if not ((images / "small.png").is_file() and (images / "gray.png").is_file()):  # the pictures of the cases alone
        images = Reference.images
    return Reference(folder / "checkpoint", cases, base if base.is_dir() else None, images)


def _case(folder: Path, case: dict[str, Any], expected: np.ndarray) -> Case:
    stated = case.get("items", [case])
    items = [read_item(folder, item) for item in stated]
    kind = case.get("kind") or case.get("side") or case.get("role")
    document = kind in ("document", "candidate") or case.get("is_query") is False
    side = "encode_document" if document else "encode_query" if kind else "encode"
    told = case.get("instruction")
    instructions = told if isinstance(told, list) else [item.get("instruction", told) for item in stated]
    if len(set(instructions)) == 1:
        return Case(items, expected, side, instructions[0], case.get("dimension"))
    return Case([*map(_message, items, instructions)], expected, side)


def _message(item: dict[str, Any], instruction: str | None) -> Any:
    """An item with an instruction of its own."""
    images = item.get("image", [])
    parts = [{"type": "image", "image": image} for image in (images if isinstance(images, list) else [images])]
    parts += [{"type": "text", "text": item["text"]}] if "text" in item else []
    system = [] if instruction is None else [{"role": "system", "content": instruction}]
    return [*system, {"role": "user", "content": parts}]


def read_item(folder: Path, stated: dict[str, Any]) -> dict[str, Any]:
    item: dict[str, Any] = {"image": folder / stated["image"]} if "image" in stated else {}
    if images := stated.get("images"):
        item["image"] = [folder / image for image in images]
    if "frames" in stated:
        item["video"] = [folder / frame for frame in stated["frames"]]
    if token := _IMAGE_TOKENS.get(folder.name):
        item["text"] = stated["rendered"].removeprefix(token).removeprefix("<|video_pad|> ")
    elif "text" in stated:
        text = stated["text"]
        item["text"] = text if isinstance(text, str) else "".join(text)
    return item


def mixed(cases: list[Case]) -> list[Case]:
    """Join the cases that one call can embed, their items in another order."""
    groups: dict[tuple[str, str | None, int | None], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.side, case.prompt, case.dimension), []).append(case)
    joined: list[Case] = []
    for call, group in groups.items():
        items = [item for case in group for item in case.items]
        expected = np.concatenate([case.expected for case in group])
        order = np.random.default_rng(0).permutation(len(items))
        joined.append(Case([items[place] for place in order], expected[order], *call))
    return joined
