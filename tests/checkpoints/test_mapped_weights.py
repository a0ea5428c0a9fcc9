"""Weights lie in the checkpoint's file, mapped into memory: they are not read as a whole, and never held twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.references import reference

MAPS = Path("/proc/self/maps")
ROWS = [
    "gme-2b",
    "qwen3-vl-embedding-2b",
    "bge-vl-base",
    "bge-vl-mllm-s1",
    "e5-v",
    "clip-sf-large",
    "bge-visualized-base",
    "bge-visualized-m3",
]


def mapped(folder: Path) -> list[tuple[int, int]]:
    """Return the address ranges where files of a folder are in this process."""
    lines = [line.split(maxsplit=5) for line in MAPS.read_text(encoding="utf-8").splitlines()]
    ranges = [line[0].split("-") for line in lines if len(line) == 6 and Path(line[5]).is_relative_to(folder)]
    return [(int(start, 16), int(end, 16)) for start, end in ranges]


@pytest.mark.skipif(not MAPS.exists(), reason="only Linux lists a process's mappings")
@pytest.mark.parametrize("row", ROWS)
def test_every_weight_is_in_the_file(row: str) -> None:
    source = reference(row)
    model = source.load(row)
    ranges = mapped(source.weights if source.weights.is_dir() else source.weights.parent)
    elsewhere = [
        name
        for name, weight in model.named_parameters()
        if not any(start <= weight.data_ptr() < end for start, end in ranges)
    ]
    assert elsewhere == []
