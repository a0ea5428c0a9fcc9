"""Time embedding on Ray: one worker and two beside the engine of this process; and what a row takes to be written.

Pictures with texts are embedded by "tiny" with the local engine, with one worker and with two, in turns, on a cluster
that stands already; each worker computes on one core, and so does the local engine. Run ``python benchmarks/scale.py``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

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

from st_modules import BatchEmbedder, SentenceTransformer
from st_modules.index import RayOptions, Sources, build
from st_modules.index.engines import Embedded, EmbedOptions, Engine, LocalEngine
from st_modules.index.entries import Entry
from st_modules.index.ray_engine import ray_engine
from st_modules.integrations.embedder import Embedder

_WAYS: dict[str, RayOptions | None] = {
    "local": None,
    "Ray, one worker": RayOptions(workers=1),
    "Ray, two workers": RayOptions(workers=2),
}
_SIDE = 224
_FIRST = 256
_WRITTEN = 10_000
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


def time_engine(entries: Sequence[Entry], model: SentenceTransformer, way: RayOptions | None) -> tuple[float, float]:
    """Return the seconds until all workers have embedded something, and the entries a second after that."""
    options = EmbedOptions()
    local = nullcontext(LocalEngine(Embedder(model), options, lambda contents: {}))
    start = time.perf_counter()
    with local if way is None else ray_engine(BatchEmbedder("tiny", device="cpu"), options, way) as engine:
        _run(engine, entries[:_FIRST])
        begun = time.perf_counter()
        _run(engine, entries[_FIRST:])
        return begun - start, (len(entries) - _FIRST) / (time.perf_counter() - begun)


def _run(engine: Engine, entries: Sequence[Entry]) -> None:
    found = [each for piece in engine(iter([[*entries]])) for each in piece]
    assert len(found) == len(entries)
    assert all(isinstance(each, Embedded) for each in found)


def time_writing(folder: Path, model: SentenceTransformer, count: int) -> float:
    """Return how many rows a second are read and committed where the vectors are there already."""
    texts = [f"text {number}" for number in range(count)]
    vectors = model.encode_document(texts)
    np.save(folder / "vectors.npy", vectors)
    rows = folder / "vectors.jsonl"
    records = [{"id": str(number), "text": text, "metadata": {}} for number, text in enumerate(texts)]
    rows.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    start = time.perf_counter()
    report = build(rows, folder / "written.index", model, vectors=folder / "vectors.npy", vector_index=None)
    seconds = time.perf_counter() - start
    assert report.added == count, report
    return count / seconds


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def drop_old_versions(index: Path) -> None:
    """Delete what a later run deletes."""
    import lancedb  # warns where Ray starts processes after it

    lancedb.connect(index).open_table("items").cleanup_old_versions(timedelta(0), delete_unverified=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = SentenceTransformer("tiny", device="cpu")
    begun: dict[str, list[float]] = {way: [] for way in _WAYS}
    rates: dict[str, list[float]] = {way: [] for way in _WAYS}
    writing: list[float] = []
    left = kept = 0.0
    console = Console()
    ray.init(address="local", log_to_driver=False, logging_level=logging.ERROR, object_store_memory=_STORE_BYTES)
    with TemporaryDirectory() as name:
        entries = [part for part in Sources(write(Path(name), args.count)) if isinstance(part, Entry)]
        for turn in range(args.rounds):
            with console.status(f"round {turn + 1}"):
                for way in rotate([*_WAYS], turn):
                    seconds, rate = time_engine(entries, model, _WAYS[way])
                    begun[way].append(seconds)
                    rates[way].append(rate)
                folder = Path(name) / str(turn)
                folder.mkdir()
                writing.append(time_writing(folder, model, _WRITTEN))
                left = folder_bytes(folder / "written.index") / _WRITTEN
                drop_old_versions(folder / "written.index")
                kept = folder_bytes(folder / "written.index") / _WRITTEN
    ray.shutdown()
    table = Table("Engine", "Seconds to begin with", "Items a second after that", "Of the local engine's")
    for way, values in rates.items():
        ratios = [value / local for value, local in zip(values, rates["local"], strict=True)]
        table.add_row(way, _spread(begun[way], 1), _spread(values, 0), _spread(ratios, 2))
    console.print(table)
    dimension = model.get_embedding_dimension() or 0
    two_over_one = [two / one for one, two in zip(rates["Ray, one worker"], rates["Ray, two workers"], strict=True)]
    console.print(f"Two workers over one: {_spread(two_over_one, 2)}")
    console.print(f"Rows a second that are written where the vectors are there: {_spread(writing, 0)}")
    console.print(
        f"Bytes a row in the index: {left:.0f} as the run leaves it, {kept:.0f} without the small files that it put "
        f"together; of these, the vector is {4 * dimension}"
    )


def _spread(values: list[float], digits: int) -> str:
    middle, least, most = (f"{each:.{digits}f}" for each in (statistics.median(values), min(values), max(values)))
    return f"{middle} ({least}–{most})"


if __name__ == "__main__":
    main()
