"""The columns of metadata: named as in the source, and each of one type that all of its values fit."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from st_modules._imports import import_extra
from st_modules.errors import shorten
from st_modules.index.schema import ON_ITS_WAY

logger = logging.getLogger(__name__)

_EXTRA = "index"
_OWN = frozenset({"id", "vector", "text", "image", "thumbnail", "source", "page", "content", "state"})
# LanceDB adds columns of such names to what it finds.
_OF_LANCE = ("_row", "_distance", "_score", "_relevance_score")
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
        self._told: set[str] = set()
        self._finish_casts()
        self.types = {field.name: name_type(str(field.type)) for field in table.schema if field.name not in _OWN}

    def widen(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Have a column for every field of some rows, of a type that takes its values too."""
        needed: dict[str, str] = {}
        for row in rows:
            for name, value in self.rename(row).items():
                if kind := _type_of(value):
                    needed[name] = _join(needed.get(name, kind), kind)
        added = {name: kind for name, kind in needed.items() if name not in self.types}
        if added:
            pa = import_extra("pyarrow", extra=_EXTRA)
            self._table.add_columns(pa.schema([pa.field(name, _arrow(pa, kind)) for name, kind in added.items()]))
            self.types.update(added)
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
        """Name the fields of a row as their columns are."""
        renamed: dict[str, Any] = {}
        for name, value in row.items():
            column = _name_column(name)
            while column in renamed:
                column += "_"
            if column != name and name not in self._told:
                self._told.add(name)
                logger.warning("The field %s is the column %s of the index.", shorten(name), shorten(column))
            renamed[column] = value
        return renamed

    def _cast(self, name: str, kind: str) -> None:
        # LanceDB's alter_columns casts no integers to floating point, and nothing to strings.
        if kind == "string":
            logger.warning("The field %s has values of several types: its column is %s now.", shorten(name), kind)
        copy = f"{ON_ITS_WAY}{name}"
        self._table.add_columns({copy: f"CAST(`{name}` AS {_SQL[kind]})"})
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
    # LanceDB refuses a dot, and a backtick ends a name in its conditions.
    column = name.replace(".", "_").replace("`", "_")
    reserved = column in _OWN or not column or column.startswith((*_OF_LANCE, ON_ITS_WAY))
    return f"{column}_" if reserved else column


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
