"""What each row of the catalog is compared with: a small checkpoint, inputs, and the vectors expected of them."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from st_modules import SentenceTransformer, get_model
from tests.helpers import stock_models
from tests.helpers.paths import GOLDEN

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Case:
    """One call and the vectors that it must return.

    Attributes:
        items: What is embedded.
        expected: Vectors of shape (items, dimension).
        side: Name of the method: ``encode``, ``encode_query`` or ``encode_document``.
        prompt: The instruction.
    """

    items: list[dict[str, Any]]
    expected: np.ndarray
    side: str = "encode"
    prompt: str | None = None

    @property
    def name(self) -> str:
        """What tells calls apart that :func:`mixed` has made."""
        return f"{self.side}, {self.prompt!r}"

    def embed(self, model: SentenceTransformer, batch_size: int) -> np.ndarray:
        return getattr(model, self.side)(self.items, prompt=self.prompt, batch_size=batch_size)


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


_FAMILIES = {
    "gme-2b": "gme",
    "gme-7b": "gme",
    "vlm2vec-qwen2vl-2b": "vlm2vec",
    "vlm2vec-qwen2vl-7b": "vlm2vec",
    "vlm2vec-v2": "vlm2vec_v2_video",
    "bge-vl-base": "bge_vl_clip",
    "bge-vl-large": "bge_vl_clip",
    "bge-vl-mllm-s1": "bge_vl_mllm",
    "bge-vl-mllm-s2": "bge_vl_mllm",
    "bge-vl-v1.5-zs": "bge_vl_mllm",
    "bge-vl-v1.5-mmeb": "bge_vl_mllm",
    "bge-visualized-base": "bge_visualized_base",
    "bge-visualized-m3": "bge_visualized_m3",
}


_STOCK: dict[str, tuple[type[stock_models.StockModel], Callable[[Path], None] | None]] = {
    "vlm2vec-llava-next": (
        stock_models.StockVLM2VecLlavaNext,
        functools.partial(stock_models.write_vlm2vec_llava_next, metaspace=False),
    ),
    "e5-v": (stock_models.StockE5V, stock_models.write_e5_v),
    "dse-qwen2-2b": (stock_models.StockDSE, None),
}
_STOCK_CASES = [
    *(stock_models.Case(None, image) for image in ("square", "wide", "tall", "small", "panorama")),
    *(stock_models.Case(None, image) for image in ("gray", "rgba", "palette")),
    stock_models.Case("What kind of car is this?"),
    stock_models.Case("猫 and a tiger", method="encode_query"),
    stock_models.Case("a", method="encode_document"),
    stock_models.Case("Make the background dark", "square"),
    stock_models.Case("two dogs", "gray", method="encode_document"),
]
_temporary = tempfile.TemporaryDirectory()


def case_ids(name: str) -> list[str]:
    """Return the names of a row's cases, without making its checkpoint."""
    if name in _STOCK:
        return [case.id for case in _STOCK_CASES]
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
    stock_class, write = _STOCK[name]
    folder = stock_models.QWEN2_VL_CHECKPOINT
    if write:
        folder = Path(_temporary.name) / name
        folder.mkdir()
        write(folder)
    stock = stock_class(folder)
    images = stock_models.GOLDEN_IMAGES
    pictures = {path.stem: path for path in images.glob("*.png")}
    cases = {
        case.id: Case([case.item(pictures)], stock.vector(case, pictures)[None], case.method) for case in _STOCK_CASES
    }
    return Reference(folder, cases, images=images)


def _stated(name: str) -> list[dict[str, Any]]:
    return json.loads((GOLDEN / _FAMILIES[name] / "cases.json").read_text(encoding="utf-8"))["cases"]


def _golden_reference(name: str) -> Reference:
    folder = GOLDEN / _FAMILIES[name]
    expected = load_file(folder / "expected.safetensors")
    cases = {case["id"]: _case(folder, case, expected[case["id"]]) for case in _stated(name)}
    if get_model(name).weights_file:
        return Reference(folder, cases, folder / "bge", folder / "images")
    base = folder / "base"
    images = folder / "images"
    if not (images / "gray.png").is_file():  # the pictures of the cases alone
        images = Reference.images
    return Reference(folder / "checkpoint", cases, base if base.is_dir() else None, images)


def _case(folder: Path, case: dict[str, Any], expected: np.ndarray) -> Case:
    # VLM2Vec's cases are the strings that its processor was handed.
    items = [_item(folder, _unrendered(item)) for item in case.get("items", [case])]
    document = case.get("kind") == "document" or case.get("is_query") is False
    side = "encode_document" if document else "encode_query" if case.get("kind") else "encode"
    return Case(items, expected, side, case.get("instruction"))


def _unrendered(item: dict[str, Any]) -> dict[str, Any]:
    if "rendered" not in item:
        return item
    text = item["rendered"].removeprefix("<|image_pad|> ").removeprefix("<|video_pad|> ")
    names = {"image": "image", "frames": "video"}
    return {"text": text, **{name: item[key] for key, name in names.items() if key in item}}


def _item(folder: Path, item: dict[str, Any]) -> dict[str, Any]:
    paths = {"image": lambda value: folder / value, "video": lambda value: [folder / frame for frame in value]}
    return {key: paths[key](value) if key in paths else value for key, value in item.items()}


def mixed(cases: list[Case]) -> list[Case]:
    """Join the cases that one call can embed, their items in another order."""
    groups: dict[tuple[str, str | None], list[Case]] = {}
    for case in cases:
        groups.setdefault((case.side, case.prompt), []).append(case)
    joined: list[Case] = []
    for (side, prompt), group in groups.items():
        items = [item for case in group for item in case.items]
        expected = np.concatenate([case.expected for case in group])
        order = np.random.default_rng(0).permutation(len(items))
        joined.append(Case([items[place] for place in order], expected[order], side, prompt))
    return joined
