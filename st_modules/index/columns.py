"""The columns of metadata: each of one field, named as it is if that can be, and of one type that its values fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from st_modules._imports import import_extra
from st_modules.errors import shorten
from st_modules.index.schema import ON_ITS_WAY

logger = logging.getLogger(__name__)

_EXTRA = "index"
_OWN = frozenset({"id", "vector", "text", "image", "thumbnail", "source", "page", "content", "state"})
# LanceDB adds columns of such names to what it finds.
_OF_LANCE = ("_row", "_distance", "_score", "_relevance_score")
_REPLACED = str.maketrans(dict.fromkeys(".`\0", "_"))
# Of the metadata of a column whose field has another name.
_FIELD_KEY = b"st_modules.field"
_INT64 = range(-(2**63), 2**63)
_SQL = {"float": "DOUBLE", "string": "STRING"}


class Columns:
    """The columns of metadata of a table.

    Args:
        table: LanceDB's table of items.

    Attributes:
        types: The type of each: ``"bool"``, ``"int"``, ``"float"`` or ``"string"``.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._finish_casts()
        self._columns = {_read_field(field): field.name for field in table.schema if field.name not in _OWN}
        self.types = {field.name: name_type(str(field.type)) for field in table.schema if field.name not in _OWN}

    def widen(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Have a column for every field of some rows, of a type that takes its values too."""
        fields: dict[str, str] = {}
        for row in rows:
            for name, value in row.items():
                if kind := _type_of(value):
                    fields[name] = _join(fields.get(name, kind), kind)
        self._name(name for name in fields if name not in self._columns)
        needed = {self._columns[name]: kind for name, kind in fields.items()}
        added = {name: kind for name, kind in needed.items() if name not in self.types}
        if added:
            pa = import_extra("pyarrow", extra=_EXTRA)
            self._table.add_columns(pa.schema([pa.field(name, _arrow(pa, kind)) for name, kind in added.items()]))
            self.types.update(added)
            for name in fields:
                if (column := self._columns[name]) in added and column != name:
                    self._keep_field(column, name)
        for name, kind in needed.items():
            joined = _join(self.types[name], kind)
            if joined != self.types[name]:
                self._cast(name, joined)

    def arrays(self, pa: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Return the values of some rows by column; :meth:`widen` has been called with them."""
        renamed = [self.rename(row) for row in rows]
        return {
            name: pa.array([_convert(row.get(name), kind) for row in renamed], _arrow(pa, kind))
            for name, kind in self.types.items()
        }

    def rename(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Name the fields of a row as their columns are; a field that no row has a value in has none."""
        return {self._columns[name]: value for name, value in row.items() if name in self._columns}

    def _name(self, fields: Iterable[str]) -> None:
        """Decide which columns some fields get, once and for all rows."""
        taken = set(self._columns.values())
        # What can be a column's name keeps it.
        for name in sorted(fields, key=lambda name: _name_column(name) != name):
            column = _name_column(name)
            while column in taken:
                column += "_"
            taken.add(column)
            self._columns[name] = column
            if column != name:
                logger.warning("The field %s is the column %s of the index.", shorten(name), shorten(column))

    def _keep_field(self, column: str, name: str) -> None:
        """Have the table know which field a column of another name is of."""
        self._table.update_field_metadata({"path": column, "metadata": {_FIELD_KEY.decode(): name}})

    def _cast(self, name: str, kind: str) -> None:
        # LanceDB's alter_columns casts no integers to floating point, and nothing to strings.
        if kind == "string":
            logger.warning("The field %s has values of several types: its column is %s now.", shorten(name), kind)
        copy = f"{ON_ITS_WAY}{name}"
        self._table.add_columns({copy: f"CAST(`{name}` AS {_SQL[kind]})"})
        for field, column in self._columns.items():
            if column == name != field:
                self._keep_field(copy, field)
        self._table.drop_columns([name])
        self._table.alter_columns({"path": copy, "rename": name})
        self.types[name] = kind

    def _finish_casts(self) -> None:
        """Go on with what a run was killed at."""
        names = set(self._table.schema.names)
        for copy in [name for name in names if name.startswith(ON_ITS_WAY)]:
            name = copy.removeprefix(ON_ITS_WAY)
            if name in names:
                self._table.drop_columns([copy])
            else:
                self._table.alter_columns({"path": copy, "rename": name})


def _name_column(name: str) -> str:
    # LanceDB refuses a dot, cuts a name at a NUL, and a backtick ends one in its conditions. The star is all columns.
    column = name.translate(_REPLACED)
    if column.startswith(ON_ITS_WAY):
        column = column.lstrip("_")
    return f"{column}_" if column in _OWN or column in ("", "*") or column.startswith(_OF_LANCE) else column


def _read_field(column: Any) -> str:
    """Return the name of the field that a column of the table is of."""
    return (column.metadata or {}).get(_FIELD_KEY, column.name.encode()).decode()


def _type_of(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if value in _INT64 else "string"
    return "float" if isinstance(value, float) else "string"


def _join(one: str, other: str) -> str:
    if one == other:
        return one
    return "float" if {one, other} == {"int", "float"} else "string"


def _convert(value: Any, kind: str) -> Any:
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return float(value) if kind == "float" else value


def _arrow(pa: Any, kind: str) -> Any:
    return {"bool": pa.bool_(), "int": pa.int64(), "float": pa.float64(), "string": pa.string()}[kind]


def name_type(name: str) -> str:
    """Name a type of Arrow's as :attr:`Columns.types` does."""
    return {"bool": "bool", "int32": "int", "int64": "int", "double": "float"}.get(name, "string")
