"""Triplets as what sentence-transformers trains on: an anchor, a positive, and hard negatives."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from st_modules._imports import require
from st_modules.errors import InputError
from st_modules.megapairs.triplets import Triplet, parse_triplet, read_triplets

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

Records: TypeAlias = "str | Path | Iterable[Triplet | Mapping[str, Any]]"
_ROWS_AT_ONCE = 10_000


def training_rows(records: Records, root: str | Path, negatives: int = 1, seed: int = 0) -> Iterator[dict[str, Any]]:
    """Turn triplets into rows whose columns are what an in-batch ranking loss expects, in its order.

    Args:
        records: A file for :func:`read_triplets`, or the records themselves: triplets, or mappings with their fields.
        root: The folder that the records' paths are below.
        negatives: How many hard negatives a row has: the record's first ones, and so the query's own picture first.
            A record with fewer is left out; how many were is logged as a warning at the end.
        seed: Chooses one of each record's instructions. The same seed chooses the same ones.

    Yields:
        ``{"anchor": {"text": str, "image": Path}, "positive": Path, "negative_1": Path, ...}``. No picture is opened.

    Raises:
        InputError: A record is wrong, or every record has too few hard negatives.
        ValueError: ``negatives`` is below 0.
    """
    if negatives < 0:
        raise ValueError(f"negatives={negatives}: pass 0 or more.")
    return _rows(_triplets(records), Path(root), negatives, seed)


def _triplets(records: Records) -> Iterator[Triplet]:
    if isinstance(records, (str, Path)):
        return read_triplets(records)
    return (
        record if isinstance(record, Triplet) else parse_triplet(record, f"record {number}")
        for number, record in enumerate(records)
    )


def _rows(triplets: Iterator[Triplet], root: Path, negatives: int, seed: int) -> Iterator[dict[str, Any]]:
    used = left_out = 0
    for number, triplet in enumerate(triplets):
        if len(triplet.hns) < negatives:
            left_out += 1
            continue
        used += 1
        text = random.Random(f"{seed} {number}").choice(triplet.q_text)
        yield {
            "anchor": {"text": text, "image": root / triplet.q_img},
            "positive": root / triplet.t_img,
            **{f"negative_{place}": root / path for place, path in enumerate(triplet.hns[:negatives], 1)},
        }
    if left_out and not used:
        raise InputError(f"All {left_out} triplets have fewer than {negatives} hard negatives: ask for fewer.")
    if left_out:
        logger.warning(
            "%d of %d triplets have fewer than %d hard negatives and are left out.",
            left_out,
            used + left_out,
            negatives,
        )


def training_dataset(records: Records, root: str | Path, negatives: int = 1, seed: int = 0) -> Dataset:
    """Turn triplets into a data set for ``SentenceTransformerTrainer`` with a model of this package.

    Rows hold paths, and pictures are read when a batch is made. The rows are kept in memory, some hundred bytes each.

    Args:
        records: As for :func:`training_rows`.
        root: As for :func:`training_rows`.
        negatives: As for :func:`training_rows`.
        seed: As for :func:`training_rows`.

    Returns:
        The columns ``anchor`` (a text and an image), ``positive``, ``negative_1`` … (an image each).

    Raises:
        InputError: A record is wrong, or there is none with enough hard negatives.
        MissingExtraError: ``datasets`` is not installed.
    """
    require("datasets", extra="train")
    import pyarrow as pa
    from datasets import Dataset

    rows = (
        {name: _name_images(item) for name, item in row.items()}
        for row in training_rows(records, root, negatives, seed)
    )
    parts = []
    while part := list(islice(rows, _ROWS_AT_ONCE)):
        parts.append(pa.Table.from_pylist(part))
    if not parts:
        raise InputError("There is no triplet to train on.")
    return Dataset(pa.concat_tables(parts))


def _name_images(item: dict[str, Any] | Path) -> dict[str, str]:
    # A bare path would be a text wherever no such file exists; {"image": path} is an error there.
    return {name: str(value) for name, value in ({"image": item} if isinstance(item, Path) else item).items()}
