"""The record of the MegaPairs dataset, read and written as JSON lines and as Parquet, one at a time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_modules._imports import require
from st_modules.errors import InputError
from st_modules.files.kinds import JSONL_SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 10_000


@dataclass(frozen=True)
class Triplet:
    """A query (picture and instruction), the picture that it asks for, and pictures that it does not ask for.

    The fields are those of `JUNJIE99/MegaPairs <https://huggingface.co/datasets/JUNJIE99/MegaPairs>`_ (Zhou et al.
    2024, arXiv 2412.14475). Pictures are paths below one folder.

    Attributes:
        q_img: The query's picture.
        q_text: Instructions, each of which leads from ``q_img`` to ``t_img``.
        t_img: The target.
        hns: Hard negatives; here, as there, the query's own picture comes first.
    """

    q_img: str
    q_text: tuple[str, ...]
    t_img: str
    hns: tuple[str, ...]

    def to_json(self) -> str:
        """The record as one line of JSON, without the line's end."""
        fields = {"q_img": self.q_img, "q_text": self.q_text, "t_img": self.t_img, "hns": self.hns}
        return json.dumps(fields, ensure_ascii=False)


def parse_triplet(fields: object, place: str) -> Triplet:
    """Check one record.

    Args:
        fields: A mapping with ``q_img``, ``q_text`` (or ``q_texts``, as some copies of the dataset have it; a single
            string is a list of one), ``t_img`` and ``hns``. Other fields are left aside.
        place: What error messages call the record.

    Raises:
        InputError: A field is missing or of another type, or there is no instruction.
    """
    if not isinstance(fields, Mapping):
        raise InputError(f'{place}: not a record; pass {{"q_img": ..., "q_text": [...], "t_img": ..., "hns": [...]}}')
    instructions = fields.get("q_text", fields.get("q_texts"))
    return Triplet(
        q_img=_path(fields, "q_img", place),
        q_text=_texts([instructions] if isinstance(instructions, str) else instructions, "q_text", place, least=1),
        t_img=_path(fields, "t_img", place),
        hns=_texts(fields.get("hns"), "hns", place, least=0),
    )


def _path(fields: Mapping[Any, Any], name: str, place: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InputError(f'{place}: "{name}" must be the path of a picture, not {value!r}')
    return value


def _texts(values: Any, name: str, place: str, least: int) -> tuple[str, ...]:
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, str) and value for value in values):
        raise InputError(f'{place}: "{name}" must be a list of strings that are not empty, not {values!r:.80}')
    if len(values) < least:
        raise InputError(f'{place}: "{name}" is empty; a query needs an instruction')
    return tuple(values)


def read_triplets(path: str | Path) -> Iterator[Triplet]:
    """Read records one by one, those of the published dataset or mined ones.

    Args:
        path: A JSON lines file (``.jsonl``, ``.ndjson``) or a ``.parquet`` file; of a large one, only a part is in
            memory at a time.

    Yields:
        The records, in the file's order.

    Raises:
        InputError: The file is missing or of another kind, or a record is wrong; the message has its line or row.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file.")
    if path.suffix.lower() in JSONL_SUFFIXES:
        return _read_jsonl(path)
    if path.suffix.lower() == ".parquet":
        return _read_parquet(path)
    raise InputError(f"{path}: triplets are read from a .jsonl or a .parquet file.")


def _read_jsonl(path: Path) -> Iterator[Triplet]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            place = f"{path}:{number}"
            if not line.strip():
                continue
            try:
                fields = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{place}: not valid JSON: {error}") from error
            yield parse_triplet(fields, place)


def _read_parquet(path: Path) -> Iterator[Triplet]:
    require("pyarrow", extra="megapairs")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = (row for batch in file.iter_batches(_ROWS_AT_ONCE) for row in batch.to_pylist())
            for number, fields in enumerate(rows, 1):
                yield parse_triplet(fields, f"{path}, row {number}")
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read as Parquet: {error}") from error


def write_parquet(triplets: Iterable[Triplet], path: Path) -> None:
    """Write records as Parquet, a part of them in memory at a time; the same records give the same bytes."""
    require("pyarrow", extra="megapairs")
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    remaining = iter(triplets)
    with pq.ParquetWriter(path, schema) as writer:
        while rows := list(islice(remaining, _ROWS_AT_ONCE)):
            writer.write_table(pa.Table.from_pylist([vars(row) for row in rows], schema=schema))


def _schema() -> pa.Schema:
    import pyarrow as pa

    texts = pa.list_(pa.string())
    return pa.schema({"q_img": pa.string(), "q_text": texts, "t_img": pa.string(), "hns": texts})
