"""What the tests of evaluation share: rankings and scores computed from vectors alone, without mteb."""

from __future__ import annotations

import functools
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes


def items(table: Dataset) -> list[dict[str, Any]]:
    """Return a task's rows as ``encode`` takes them."""
    kinds = [name for name in ("text", "image") if name in table.column_names]
    rows: Any = table
    return [{kind: row[kind] for kind in kinds if row[kind] not in (None, "")} for row in rows]


def _simplest(table: Dataset) -> list[Any]:
    """Rows as texts, where the table has nothing else: some models take texts as strings alone."""
    return items(table) if "image" in table.column_names else list(table["text"])


def similarities(
    model: SentenceTransformer, queries: Dataset, corpus: Dataset, prompt: str | None = None
) -> dict[str, dict[str, float]]:
    """Return the cosine of every query with every document by their ids."""
    asked = model.encode_query(_simplest(queries), prompt=prompt, normalize_embeddings=True)
    found = model.encode_document(_simplest(corpus), normalize_embeddings=True)
    table = np.asarray(asked, dtype=np.float64) @ np.asarray(found, dtype=np.float64).T
    return {
        query: dict(zip(corpus["id"], row.tolist(), strict=True))
        for query, row in zip(queries["id"], table, strict=True)
    }


def ranks(scores: Mapping[str, Mapping[str, float]], right: Mapping[str, str]) -> np.ndarray:
    """Return the rank of each query's right document, the first being 0."""
    return np.array([sum(score > found[right[query]] for score in found.values()) for query, found in scores.items()])


def draw_pictures(folder: Path, names: Sequence[str], seed: int = 5) -> None:
    """Draw a different scene under each name."""
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_picture(number, len(names), seed, path.suffix))


@functools.cache
def _picture(number: int, of: int, seed: int, suffix: str) -> bytes:
    file = io.BytesIO()
    draw(random_scenes(seed, of)[number], seed).save(file, Image.registered_extensions()[suffix])
    return file.getvalue()
