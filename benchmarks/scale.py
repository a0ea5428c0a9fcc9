"""Time the index on Ray: one worker and two beside the engine of this process, and what a row takes.

Pictures with texts are indexed by "tiny" with the local engine, with one worker and with two, in turns, on a cluster
that stands already; each worker has one core, and so has the local engine. Run ``python benchmarks/scale.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import numpy as np
import ray
import torch
from measure import rotate
from rich.console import Console
from rich.table import Table
from workloads import picture

from st_modules import SentenceTransformer
from st_modules.index import RayOptions, build

_WAYS: dict[str, RayOptions | None] = {
    "local": None,
    "Ray, one worker": RayOptions(workers=1),
    "Ray, two workers": RayOptions(workers=2),
}
_SIDE = 224
_STORE_BYTES = 300 * 2**20


def write(folder: Path, count: int) -> Path:
    """Write pictures, none the same as another, and a file of rows that names them."""
    generator = np.random.default_rng(0)
    rows: list[dict[str, str]] = []
    for number in range(count):
        picture(generator, _SIDE, _SIDE).save(folder / f"{number}.jpg", quality=90)
        rows.append({"text": f"picture {number}", "image": f"{number}.jpg"})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder / "rows.jsonl"


def time_build(rows: Path, index: Path, model: SentenceTransformer, way: RayOptions | None) -> float:
    """Return the seconds that an index takes, the loading of the model in workers included."""
    here: dict[str, Any] = {"model": model}
    there: dict[str, Any] = {"model": "tiny", "device": "cpu", "engine": way}
    start = time.perf_counter()
    report = build(rows, index, **(here if way is None else there))
    assert report.failed == 0
    return time.perf_counter() - start


def time_writing(folder: Path, model: SentenceTransformer, count: int) -> float:
    """Return how many rows a second are read and committed where the vectors are there already."""
    texts = [f"text {number}" for number in range(count)]
    vectors = model.encode_document(texts)
    np.save(folder / "vectors.npy", vectors)
    rows = folder / "vectors.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    start = time.perf_counter()
    build(rows, folder / "written.index", model, vectors=folder / "vectors.npy", vector_index=None)
    return count / (time.perf_counter() - start)


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = SentenceTransformer("tiny", device="cpu")
    few, many = args.count // 4, args.count
    seconds: dict[tuple[str, int], list[float]] = {(way, count): [] for way in _WAYS for count in (few, many)}
    writing: list[float] = []
    ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR, object_store_memory=_STORE_BYTES)
    row_bytes = 0.0
    console = Console()
    for turn in range(args.rounds):
        with TemporaryDirectory() as name, console.status(f"round {turn + 1}"):
            for count in (few, many):
                (Path(name) / str(count)).mkdir()
                rows = write(Path(name) / str(count), count)
                for way in rotate([*_WAYS], turn):
                    index = Path(name) / f"{way} {count}.index"
                    seconds[way, count].append(time_build(rows, index, model, _WAYS[way]))
                    row_bytes = folder_bytes(index) / count
            writing.append(time_writing(Path(name), model, 5 * many))
    ray.shutdown()
    table = Table("Engine", "Seconds to begin with", "Items a second after that", "Of the local engine's")
    rates = {
        way: [(many - few) / (whole - part) for part, whole in zip(seconds[way, few], seconds[way, many], strict=True)]
        for way in _WAYS
    }
    for way, values in rates.items():
        begin = [part - few / rate for part, rate in zip(seconds[way, few], values, strict=True)]
        ratios = [value / local for value, local in zip(values, rates["local"], strict=True)]
        table.add_row(way, _spread(begin, 1), _spread(values, 0), _spread(ratios, 2))
    console.print(table)
    two_over_one = [two / one for one, two in zip(rates["Ray, one worker"], rates["Ray, two workers"], strict=True)]
    dimension = model.get_embedding_dimension() or 0
    console.print(f"Two workers over one: {_spread(two_over_one, 2)}")
    console.print(f"Rows a second that are written where the vectors are there: {_spread(writing, 0)}")
    console.print(f"Bytes a row in the index: {row_bytes:.0f}, of which the vector is {4 * dimension}")


def _spread(values: list[float], digits: int) -> str:
    middle, least, most = (f"{each:.{digits}f}" for each in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least}–{most})"


if __name__ == "__main__":
    main()
