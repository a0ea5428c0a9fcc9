"""Small collections, what an index has of them, and counting what is embedded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.table import open_errors, open_items


def draw_picture(path: Path, seed: int) -> Path:
    """Write a small picture of noise, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_items(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an index by id; an id that is there twice fails."""
    rows = open_items(str(path))[0].to_arrow().to_pylist()
    assert len({row["id"] for row in rows}) == len(rows)
    return {row["id"]: row for row in rows}


def by_source(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of an index by the names of their files, of which each has one."""
    rows = read_items(path).values()
    found = {Path(row["source"]).name: row for row in rows}
    assert len(found) == len(rows)
    return found


def read_errors(path: Path) -> list[dict[str, Any]]:
    table = open_errors(str(path))
    return [] if table is None else table.to_arrow().to_pylist()


class Parts:
    """A collection of what is given, whose sources begin as they are told to."""

    def __init__(self, parts: Sequence[Entry | Unreadable | Finished], beginning: str = "words") -> None:
        self.parts = parts
        self.beginning = beginning

    def __iter__(self) -> Iterator[Entry | Unreadable | Finished]:
        return iter(self.parts)

    def covers(self, source: str) -> bool:
        return source.startswith(self.beginning)

    def estimate(self) -> int | None:
        return None
