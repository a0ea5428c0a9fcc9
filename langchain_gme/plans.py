"""What is written of a batch: each row once, in parts of a size, and which row is which item's."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from langchain_gme.batches import Batch, Encoded
from langchain_gme.content import find_place, name_document
from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.quirks import Quirks
from langchain_gme.rows import Row, list_unique, make_row
from st_modules import InputError, Place, list_errors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Part:
    """Rows that are written at once.

    Args:
        rows: The rows.
        embeddings: float32 of shape (rows, dimensions).
    """

    rows: Sequence[Row]
    embeddings: np.ndarray

    @property
    def texts(self) -> list[str]:
        """The texts of the rows."""
        return [row.text for row in self.rows]

    @property
    def columns(self) -> dict[str, Any]:
        """The arguments of ``add_texts`` besides the texts."""
        return {"metadatas": [dict(row.metadata) for row in self.rows], "ids": self.keys}

    @property
    def keys(self) -> list[str]:
        """The ids that the store takes for the rows."""
        return [row.key for row in self.rows]


@dataclass(frozen=True)
class Plan:
    """What is written, and which row is which item's.

    Args:
        parts: The rows, each once.
        rows: The row of each item that was embedded, in the items' order.
        skipped: Why others were left out, in order.
        count: How many items there were.
    """

    parts: list[Part]
    rows: list[Row]
    skipped: list[InputError]
    count: int

    def answer(self, written: Sequence[str]) -> list[str]:
        """Return the id of each item that was embedded, from what the store returned for each row."""
        in_store = dict(zip((key for part in self.parts for key in part.keys), written, strict=True))
        return [in_store[row.key] if row.key == row.id else row.id for row in self.rows]

    def report_skipped(self) -> None:
        """Log which items were left out, and why."""
        if self.skipped:
            logger.warning(
                "%d of %d items cannot be embedded and were left out:\n%s",
                len(self.skipped),
                self.count,
                list_errors(self.skipped, "\n"),
            )


def make_plan(owner: GMEEmbeddings, encoded: Encoded, quirks: Quirks) -> Plan:
    """Return what is written of a batch.

    Args:
        owner: The store's embeddings.
        encoded: The batch.
        quirks: How the store is to be treated.

    Raises:
        InputError: An id was given twice, the caller has two embeddings of one item, or an image cannot be read any
            more.
    """
    batch = encoded.batch
    left_out = {error.index for error in encoded.errors}
    numbers = [number for number in range(len(batch.items)) if number not in left_out]
    errors = [_move(error, batch) for error in encoded.errors]
    rows: list[Row] = []
    kept: list[int] = []
    for position, number in enumerate(numbers):
        try:
            rows.append(_make_row(owner, batch, number, quirks))
            kept.append(position)
        except InputError as error:
            if batch.on_error == "raise":
                raise
            errors.append(error)
    embeddings = encoded.embeddings[kept]
    places = [batch.places[numbers[position]] for position in kept]
    unique = list_unique(rows, places)
    if encoded.is_given:
        _check_repeated(rows, places, embeddings)
    chunks = (unique[start : start + batch.size] for start in range(0, len(unique), batch.size))
    return Plan(
        parts=[Part([rows[number] for number in chunk], embeddings[chunk]) for chunk in chunks],
        rows=rows,
        skipped=sorted([*batch.errors, *errors], key=lambda error: error.index or 0),
        count=len(batch.values),
    )


def _move(error: InputError, batch: Batch) -> InputError:
    """An error about one of the batch's items as one about the value that it is of."""
    if error.index is None:
        return error
    return name_document(error.shift(batch.places[error.index] - error.index), batch.values, batch.ids)


def _make_row(owner: GMEEmbeddings, batch: Batch, number: int, quirks: Quirks) -> Row:
    place, item = batch.places[number], batch.items[number]

    def identify() -> str:
        try:
            return owner.embedder.identify([item])[0]
        except InputError as error:
            raise name_document(error.shift(place - (error.index or 0)), batch.values, batch.ids) from error

    given_id = batch.ids[place] if batch.ids is not None else None
    return make_row(
        batch.values[place],
        item,
        batch.metadatas[place] if batch.metadatas is not None else None,
        given_id,
        identify,
        quirks,
        find_place(batch.values[place], place, given_id),
    )


def _check_repeated(rows: Sequence[Row], places: Sequence[int], embeddings: np.ndarray) -> None:
    firsts: dict[str, int] = {}
    for number, row in enumerate(rows):
        first = firsts.setdefault(row.key, number)
        if not np.array_equal(embeddings[first], embeddings[number]):
            raise InputError(
                f"it is item {places[first]} again, with another embedding; give each an id of its own",
                Place(places[number]),
            )
