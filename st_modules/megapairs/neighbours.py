"""Exact nearest neighbours within a band of similarity; memory depends on the blocks, not on the collection."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from st_modules._imports import require

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Numbers: TypeAlias = npt.NDArray[np.integer[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]

NONE = -1
"""Fills up a row that has fewer neighbours than others."""

BLOCK_BYTES = 256 * 2**20
"""Most bytes of vectors in a block, and of results that are kept at a time."""

_RESULT_BYTES = 12


def block_rows(dimension: int) -> int:
    """How many vectors of a dimension make a block."""
    return max(1, BLOCK_BYTES // (4 * dimension))


def neighbours_in_band(
    vectors: Floats, queries: range, usable: Mask, depth: int, lower: float, upper: float, rows: int | None = None
) -> Numbers:
    """Find, for some of the vectors, the nearest other ones whose cosine is within a band.

    As many as ``depth`` nearest ones are looked at first, and as many more as it takes where they are over the band,
    so that near-duplicates take nobody's place.

    Args:
        vectors: Unit vectors of shape (n, d); a file mapped into memory is read block by block.
        queries: Whose neighbours to find.
        usable: Shape (n,); vectors where it is false have no neighbours and are none.
        depth: Most neighbours of each.
        lower: Lowest cosine.
        upper: Highest cosine.
        rows: Vectors in a block; ``BLOCK_BYTES`` of them where it is left out.

    Returns:
        Shape (len(queries), depth), int32: numbers of vectors, the nearest first, then :data:`NONE`.
    """
    require("faiss", extra="megapairs")
    rows = rows or block_rows(vectors.shape[1])
    found = np.full((len(queries), depth), NONE, dtype=np.int32)
    pending = np.flatnonzero(usable[queries.start : queries.stop])
    width = min(2 * depth + 1, len(vectors))
    while len(pending):
        at_once = max(1, BLOCK_BYTES // (_RESULT_BYTES * width))
        left = []
        for part in np.split(pending, range(at_once, len(pending), at_once)):
            asked = part + queries.start
            cosines, nearest = _nearest(vectors, vectors[asked], width, rows)
            fits = (cosines >= lower) & (cosines <= upper) & (nearest != asked[:, None]) & usable[nearest]
            done = (fits.sum(axis=1) >= depth) | (cosines[:, -1] < lower) | (width == len(vectors))
            for row in np.flatnonzero(done):
                chosen = nearest[row, fits[row]][:depth]
                found[part[row], : len(chosen)] = chosen
            left.append(part[~done])
        pending, width = np.concatenate(left), min(4 * width, len(vectors))
    return found


def _nearest(vectors: Floats, queries: Floats, width: int, rows: int) -> tuple[Floats, Numbers]:
    """Cosines and numbers of the nearest vectors of each query, the most similar first, equal ones by number.

    Each block is searched as FAISS's ``IndexFlatIP`` searches, without the copy of the block that an index makes.
    """
    import faiss

    queries = np.ascontiguousarray(queries, dtype=np.float32)
    best = faiss.ResultHeap(len(queries), width, keep_max=True)
    for start in range(0, len(vectors), rows):
        block = np.ascontiguousarray(vectors[start : start + rows], dtype=np.float32)
        cosines, numbers = faiss.knn(queries, block, min(width, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
        best.add_result(cosines, numbers + start)
    order = np.lexsort((best.I, -best.D), axis=-1)
    return np.take_along_axis(best.D, order, axis=1), np.take_along_axis(best.I, order, axis=1)
