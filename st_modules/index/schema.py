"""Columns of an index: those of its own, and those of metadata beside them."""

from __future__ import annotations

from typing import Any

ITEMS = "items"
"""Name of the table of items."""
ERRORS = "errors"
"""Name of the table of what could not be embedded."""
MODEL_KEY = b"st_modules"
"""Key of the table's schema metadata under which the model is described, as JSON."""

ON_ITS_WAY = "_st_modules_cast_"
"""What the name of a column begins with that is on its way to another type."""


def item_fields(pa: Any, dimension: int, dtype: str) -> list[Any]:
    """Return the columns that every index has.

    Args:
        pa: The module pyarrow.
        dimension: Dimension of the vectors.
        dtype: ``"float32"`` or ``"float16"``.
    """
    kind = {"float32": pa.float32(), "float16": pa.float16()}[dtype]
    return [
        pa.field("id", pa.string(), nullable=False),
        pa.field("vector", pa.list_(kind, dimension), nullable=False),
        pa.field("text", pa.string()),
        pa.field("image", pa.string()),
        pa.field("thumbnail", pa.binary()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("page", pa.int32()),
        # What tells that an item is the same as before: content of what was embedded, state of everything.
        pa.field("content", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
    ]


def error_fields(pa: Any) -> list[Any]:
    """Return the columns of the table of errors."""
    return [
        pa.field("place", pa.string(), nullable=False),
        pa.field("id", pa.string()),
        pa.field("source", pa.string(), nullable=False),
        pa.field("page", pa.int32()),
        pa.field("reason", pa.string(), nullable=False),
    ]
