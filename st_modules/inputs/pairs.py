"""Pairs of a query and a document, brought into one form for a model that reads the two together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from st_modules.errors import InputError, Place
from st_modules.inputs.batches import list_inputs
from st_modules.inputs.items import Item, is_sequence, pair_place, parse_item
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.strings import report_lookalikes

_SIDES = ("query", "document")


def parse_pairs(
    inputs: Iterable[object], limits: ImageLimits | None = None, *, takes_video: bool = False
) -> list[Item]:
    """Return one ``Item`` for each pair: the document, with its query. Images are neither read nor fetched yet.

    A side that several pairs have as one object, as a query has it for each of its documents, is parsed once, and its
    images are one. In errors it is that of the first pair.

    Args:
        inputs: Lists or tuples of a query and a document, each of which is what ``parse_items`` takes; or what this
            returned, which stays as it is. An instruction is in the query.
        limits: What images and videos may cost, and where they may come from.
        takes_video: Whether a string may name a video.

    Raises:
        InputError: Something is no pair, or a side is none of these: the message names the pair by its index, and the
            side. Or ``inputs`` is a single pair, or has no order.
    """
    limits = limits or ImageLimits()
    known: dict[tuple[str, int], Item] = {}
    texts: list[str] = []

    def parse_side(name: str, value: object, place: Place) -> Item:
        if (key := (name, id(value))) not in known:
            item = known[key] = parse_item(value, place.within(name), limits, takes_video=takes_video)
            texts.extend([value] if isinstance(value, str) and item.text is not None else [])
        return known[key]

    def parse_pair(value: Any, index: int) -> Item:
        if isinstance(value, Item) and value.query is not None:
            return value
        place = pair_place(index)
        sides = _split(value, place)
        query, document = (parse_side(name, side, place) for name, side in zip(_SIDES, sides, strict=True))
        if document.instruction is not None:
            raise InputError(
                "an instruction belongs to the query; move the system message there", place.within("document")
            )
        return dataclasses.replace(document, index=index, instruction=query.instruction, query=query)

    values = list_inputs(inputs)
    pairs = [parse_pair(value, index) for index, value in enumerate(values)]
    report_lookalikes(texts, limits)
    return pairs


def _split(value: object, place: Place) -> Sequence[object]:
    if is_sequence(value) and len(value) == 2:
        return value
    count = f" and of length {len(value)}" if is_sequence(value) else ""
    raise InputError(f"of type {type(value).__name__}{count}; pass a pair of a query and a document", place)
