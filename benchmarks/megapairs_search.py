"""Time and memory of the search that mining is made of, on random unit vectors.

    python benchmarks/megapairs_search.py --rows 100000 --dimension 128

writes vectors to a temporary file, finds the 20 nearest neighbours within a band for every one of them (or for the
first ``--queries`` of them, the rest of the time being in proportion), and compares a sample with cosines of numpy.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from st_modules.files.arrays import ArrayFile
from st_modules.megapairs.neighbours import NONE, block_rows, neighbours_in_band

LOWER, UPPER, DEPTH = 0.2, 0.9, 20
SAMPLE = 50


def random_vectors(path: Path, rows: int, dimension: int, dtype: str) -> ArrayFile:
    """Fill a file with unit vectors, block by block."""
    file = ArrayFile.create(path, (rows, dimension), dtype)
    rng = np.random.default_rng(0)
    while not file.complete:
        block = rng.standard_normal((min(50_000, rows - file.filled), dimension), dtype=np.float32)
        file.append(block / np.linalg.norm(block, axis=1, keepdims=True))
    return file


def check(vectors: np.ndarray, found: np.ndarray, queries: range) -> None:
    """Stop if a sample of the results is not what numpy finds."""
    for query in np.random.default_rng(1).choice(queries, min(SAMPLE, len(queries)), replace=False):
        cosines = np.concatenate(
            [vectors[start : start + 50_000].astype(np.float32) @ vectors[query].astype(np.float32)
             for start in range(0, len(vectors), 50_000)]
        )  # fmt: skip
        cosines[(cosines < LOWER) | (cosines > UPPER)] = -np.inf
        cosines[query] = -np.inf
        expected = np.sort(cosines)[::-1][:DEPTH]
        row = found[query - queries.start]
        got = np.where(row == NONE, -np.inf, cosines[row])
        assert np.allclose(got, expected, atol=1e-5), (query, got, expected)


def main() -> None:
    """Search, check, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, help="how many of the rows are searched for; all by default")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16"])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(arguments.threads)
    rows, step = arguments.rows, block_rows(arguments.dimension)
    wanted = min(arguments.queries or rows, rows)
    with tempfile.TemporaryDirectory() as folder:
        file = random_vectors(Path(folder) / "vectors.npy", rows, arguments.dimension, arguments.dtype)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.monotonic()
        usable = np.ones(rows, dtype=bool)
        for start in range(0, wanted, step):
            queries = range(start, min(start + step, wanted))
            found = neighbours_in_band(file.rows, queries, usable, DEPTH, LOWER, UPPER)
        seconds = time.monotonic() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        check(file.rows, found, queries)
    print(
        f"{rows} vectors of {arguments.dimension} ({arguments.dtype}), {wanted} queries, {DEPTH} neighbours, "
        f"{arguments.threads} threads: {seconds:.1f} s, peak memory {peak / 2**20:.2f} GiB "
        f"({before / 2**20:.2f} GiB before the search); {SAMPLE} queries checked with numpy"
    )


if __name__ == "__main__":
    main()
