"""The tables of an index in LanceDB: made, opened, looked into and written to."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Self

from st_modules._imports import import_extra
from st_modules.errors import InputError, STModulesError, in_one_line
from st_modules.index.columns import Columns
from st_modules.index.model_facts import ModelFacts
from st_modules.index.schema import ERRORS, ITEMS, MODEL_KEY, error_fields, item_fields

_EXTRA = "index"
# A condition of so many values is parsed in a millisecond.
_VALUES_AT_ONCE = 1000
_SCANNED_AT_ONCE = 8192
# Deeper conditions overflow the stack of LanceDB's parser.
_PAIRS_AT_ONCE = 50
# From here on, finding an id by scanning the column takes longer than the look-up itself.
_LARGE = 50_000
_KEPT_VERSIONS = timedelta(hours=1)
_INDEXED = ("id", "state", "content", "source")
# Where in its own sources an error of LanceDB comes from.
_ORIGIN = re.compile(r", \S+\.rs:\d+:\d+.*", re.DOTALL)


class IndexStorageError(STModulesError):
    """The tables of an index cannot be read or written: the disk is full, damaged, or cannot be reached."""


@contextmanager
def name_storage(path: str) -> Generator[None, None, None]:
    """Have an error of LanceDB say which index it is about, and what to do.

    Args:
        path: The index.

    Raises:
        IndexStorageError: LanceDB raises something within.
    """
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, STModulesError):
            raise
        reason = in_one_line(RuntimeError(_ORIGIN.sub("", str(error))) if str(error) else error)
        raise IndexStorageError(
            f"{path}: the index cannot be read or written: {reason}. What was committed before is there; when the "
            "cause is mended, the same call goes on from it."
        ) from error


def connect(path: str) -> Any:
    """Connect to a database of LanceDB: a folder, or what else it takes.

    Raises:
        MissingExtraError: LanceDB is not installed.
    """
    return import_extra("lancedb", extra=_EXTRA).connect(path)


def has_items(database: Any) -> bool:
    """Whether a database holds an index."""
    return _has(database, ITEMS)


def open_items(path: str) -> tuple[Any, ModelFacts]:
    """Open the table of an index.

    Args:
        path: The index.

    Returns:
        LanceDB's table of the items, and what is known of their model.

    Raises:
        InputError: There is no index, or a damaged or newer one.
        MissingExtraError: LanceDB is not installed.
    """
    table = _open(connect(path), ITEMS)
    if table is None:
        raise InputError(f"{path}: no index there; `st-modules index` makes one.")
    return table, _read_facts(table, path)


def open_errors(path: str) -> Any | None:
    """Open the table of what could not be embedded; ``None`` where nothing ever failed."""
    return _open(connect(path), ERRORS)


def quote(value: str) -> str:
    """Write a string for a condition of LanceDB."""
    return "'" + value.replace("'", "''") + "'"


def is_any(column: str, values: Sequence[str]) -> str:
    """Return the condition that a column of the index's own has one of some values."""
    return f"{column} IN ({', '.join(map(quote, values))})"


class Items:
    """The table of items, as the one process that writes to it sees it.

    Every method raises ``IndexStorageError`` where LanceDB fails.

    Attributes:
        table: LanceDB's.
        facts: What is known of the model.
        path: The index, for messages.
        columns: The columns of metadata.
    """

    def __init__(self, table: Any, facts: ModelFacts, path: str) -> None:
        self.table = table
        self.facts = facts
        self.path = path
        with name_storage(path):
            self.columns = Columns(table)

    @classmethod
    def create(cls, database: Any, facts: ModelFacts, path: str) -> Self:
        """Make an empty table.

        Args:
            database: Where.
            facts: What is to be known of the model.
            path: The index, for messages.
        """
        pa = import_extra("pyarrow", extra=_EXTRA)
        own = item_fields(pa, facts.dimension, facts.dtype)
        schema = pa.schema(own, metadata={MODEL_KEY: facts.to_json().encode()})
        with name_storage(path):
            table = database.create_table(ITEMS, schema=schema)
        return cls(table, facts, path)

    @classmethod
    def open(cls, database: Any, path: str) -> Self:
        """Open the table that is there.

        Raises:
            InputError: It is damaged, or of a later version of this package.
        """
        with name_storage(path):
            table = database.open_table(ITEMS)
        return cls(table, _read_facts(table, path), path)

    def __len__(self) -> int:
        with name_storage(self.path):
            return self.table.count_rows()

    def find(self, column: str, values: Iterable[str], returned: Sequence[str]) -> list[dict[str, Any]]:
        """Look rows up.

        Args:
            column: ``id``, ``state``, ``content`` or ``source``.
            values: The values of it that are looked for.
            returned: Which columns of them are returned.

        Returns:
            The rows that there are, in no order.
        """
        wanted = list(dict.fromkeys(values))
        found: list[dict[str, Any]] = []
        for start in range(0, len(wanted), _VALUES_AT_ONCE):
            condition = is_any(column, wanted[start : start + _VALUES_AT_ONCE])
            with name_storage(self.path):
                query = self.table.search().where(condition).select(list(returned)).limit(None)
                found += query.to_arrow().to_pylist()
        return found

    def find_vectors(self, contents: Iterable[str]) -> dict[str, Any]:
        """Return the vectors of what is in the table already, by the digest of the content."""
        import numpy as np

        rows = self.find("content", contents, ["content", "vector"])
        return {row["content"]: np.asarray(row["vector"], self.facts.dtype) for row in rows}

    def scan(self, returned: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
        """Yield some columns of all rows, some thousand rows at a time."""
        with name_storage(self.path):
            for batch in self.table.search().select(list(returned)).limit(None).to_batches(batch_size=_SCANNED_AT_ONCE):
                yield batch.to_pylist()

    def merge(self, rows: Sequence[Mapping[str, Any]], metadata: Sequence[Mapping[str, Any]]) -> None:
        """Write rows in one commit, each in the place of the one with its id, where there is one.

        Args:
            rows: The columns of the index's own, each id once. ``vector`` is an array.
            metadata: The other fields of each row.
        """
        import numpy as np

        pa = import_extra("pyarrow", extra=_EXTRA)
        with name_storage(self.path):
            self.columns.widen(metadata)
            schema = self.table.schema
        vectors = np.stack([row["vector"] for row in rows]).astype(self.facts.dtype, copy=False)
        arrays = {
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]),
            **self.columns.arrays(pa, metadata),
        }
        for field in schema:
            if field.name not in arrays:
                arrays[field.name] = pa.array([row[field.name] for row in rows], field.type)
        batch = pa.table([arrays[field.name] for field in schema], schema=schema)
        with name_storage(self.path):
            merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(batch)

    def delete(self, ids: Sequence[str]) -> None:
        """Delete rows by their ids."""
        with name_storage(self.path):
            for start in range(0, len(ids), _VALUES_AT_ONCE):
                self.table.delete(is_any("id", ids[start : start + _VALUES_AT_ONCE]))

    def tidy(self) -> None:
        """Put the small files of many commits together, and have look-ups in a large table use an index."""
        with name_storage(self.path):
            indexed = {name for index in self.table.list_indices() for name in index.columns}
            if self.table.count_rows() >= _LARGE:
                for column in _INDEXED:
                    if column not in indexed:
                        btree = import_extra("lancedb.index", extra=_EXTRA).BTree()
                        self.table.create_index(column, config=btree)
            self.table.optimize(cleanup_older_than=_KEPT_VERSIONS)


class Errors:
    """The table of what could not be embedded, a row for each source and place; it is made when it is needed.

    Every method raises ``IndexStorageError`` where LanceDB fails.

    Args:
        database: The database of an index.
        path: The index, for messages.
    """

    def __init__(self, database: Any, path: str) -> None:
        self._database = database
        self._path = path
        with name_storage(path):
            self._table = _open(database, ERRORS)

    def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write rows, each in the place of the one about the same source and place.

        Args:
            rows: The columns; a source and a place once.
        """
        pa = import_extra("pyarrow", extra=_EXTRA)
        schema = pa.schema(error_fields(pa))
        with name_storage(self._path):
            if self._table is None:
                self._table = self._database.create_table(ERRORS, schema=schema)
            merge = self._table.merge_insert(["source", "place"])
            merge.when_matched_update_all().when_not_matched_insert_all().execute(
                pa.Table.from_pylist(list(rows), schema=schema)
            )

    def scan(self) -> Iterator[list[tuple[str, str]]]:
        """Yield the source and the place of all rows, some thousand at a time."""
        if self._table is None:
            return
        with name_storage(self._path):
            query = self._table.search().select(["source", "place"]).limit(None)
            for batch in query.to_batches(batch_size=_SCANNED_AT_ONCE):
                yield [(row["source"], row["place"]) for row in batch.to_pylist()]

    def delete(self, keys: Sequence[tuple[str, str]]) -> None:
        """Delete rows by their source and their place."""
        for start in range(0, len(keys), _PAIRS_AT_ONCE):
            part = keys[start : start + _PAIRS_AT_ONCE]
            pairs = [f"(source = {quote(source)} AND place = {quote(place)})" for source, place in part]
            assert self._table is not None
            with name_storage(self._path):
                self._table.delete(" OR ".join(pairs))


def _has(database: Any, name: str) -> bool:
    token = None
    while True:
        page = database.list_tables(page_token=token)
        if name in page.tables:
            return True
        token = page.page_token
        if not token:
            return False


def _open(database: Any, name: str) -> Any | None:
    return database.open_table(name) if _has(database, name) else None


def _read_facts(table: Any, path: str) -> ModelFacts:
    try:
        described = (table.schema.metadata or {}).get(MODEL_KEY)
    except RuntimeError as error:
        raise InputError(f"{path}: damaged: {in_one_line(error)}") from error
    if described is None:
        raise InputError(f"{path}: a table of LanceDB, and none that st-modules made.")
    return ModelFacts.parse(described, path)
