"""Small checkpoints of Qwen3-VL-Reranker, made of the embedder's, and what the authors' code gives for them."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tests.helpers.paths import GOLDEN
from tests.helpers.stock_qwen3_vl import CHECKPOINT

IMAGES = GOLDEN / "qwen3_vl_embedding" / "images"
HEADS = {"qwen3-vl-reranker-2b": "tied", "qwen3-vl-reranker-8b": "untied"}
"""The names of the catalog, and which head their published models have: the embeddings, or one of its own."""
WORDS = {"ass": ("as", "s"), "assistant": ("ass", "istant"), "yes": ("y", "es"), "no": ("n", "o")}
"""What stands in the place of the last words of the embedder's vocabulary, and what each is merged of.

The answers must be words, and the end of a turn five tokens, as they are in the published tokenizer.
"""
LAST = 5
"""Tokens that the authors leave at the end of a row, which they do not count."""


def write_checkpoint(folder: Path, head: str) -> Path:
    """Write a checkpoint in the published layout.

    Args:
        folder: Where it goes; not there yet.
        head: ``"tied"`` or ``"untied"``.
    """
    shutil.copytree(CHECKPOINT, folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
    last = sorted(vocabulary, key=vocabulary.__getitem__)[-len(WORDS) :]
    for old, new in zip(last, WORDS, strict=True):
        vocabulary[new] = vocabulary.pop(old)
    merges[-len(WORDS) :] = [list(parts) for parts in WORDS.values()]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    if head == "untied":
        weights = load_file(folder / "model.safetensors")
        shape = weights["model.language_model.embed_tokens.weight"].shape
        weights["lm_head.weight"] = np.random.default_rng(7).standard_normal(shape).astype(np.float32) / 8
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        change_json(folder / "config.json", tie_word_embeddings=False)
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Change fields of a file, those of ``text_config`` of the same names too."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content.update(changes)
    text = content.get("text_config", {})
    text.update({name: value for name, value in changes.items() if name in text})
    path.write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """A query and its documents, as the authors' code was given them.

    Attributes:
        query: As ``predict`` takes it.
        documents: Likewise.
        options: The ``prompt``, where there is one.
        stated: What else ``cases.json`` says.
    """

    query: dict[str, Any]
    documents: list[dict[str, Any]]
    options: dict[str, Any]
    stated: dict[str, Any]

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        return [(self.query, document) for document in self.documents]


def _read_side(stated: dict[str, Any]) -> dict[str, Any]:
    def locate(value: Any) -> Any:
        return [IMAGES / each for each in value] if isinstance(value, list) else IMAGES / value

    return {name: value if name == "text" else locate(value) for name, value in stated.items()}


def _read_cases() -> dict[str, Case]:
    stated = json.loads((GOLDEN / "qwen3_vl_reranker" / "cases.json").read_text(encoding="utf-8"))["cases"]
    return {
        case["id"]: Case(
            _read_side(case["query"]),
            [_read_side(document) for document in case["documents"]],
            {"prompt": case["instruction"]} if "instruction" in case else {},
            case,
        )
        for case in stated
    }


CASES = _read_cases()
EXPECTED = load_file(GOLDEN / "qwen3_vl_reranker" / "expected.safetensors")
"""HEAD.CASE of shape (2, documents): the logits, and the scores."""
