"""Pairs of a query and a document, brought into one form for a model that reads the two together."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from st_modules.errors import InputError
from st_modules.inputs.batches import list_inputs
from st_modules.inputs.items import Item, pair_place, parse_item
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.strings import report_lookalikes


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
    values = list_inputs(inputs)
    known: dict[tuple[str, int], Item] = {}
    texts: list[str] = []

    def parse_side(name: str, value: Any, index: int) -> Item:
        key = name, id(value)
        if key not in known:
            item = known[key] = parse_item(value, pair_place(index).within(name), limits, takes_video=takes_video)
            texts.extend([value] if isinstance(value, str) and item.text is not None else [])
        return known[key]

    pairs: list[Item] = []
    for index, value in enumerate(values):
        if isinstance(value, Item) and value.query is not None:
            pairs.append(value)
            continue
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            count = f" of {len(value)}" if isinstance(value, (list, tuple)) else ""
            raise InputError(
                f"of type {type(value).__name__}{count}; pass a pair of a query and a document", pair_place(index)
            )
        query, document = parse_side("query", value[0], index), parse_side("document", value[1], index)
        if document.instruction is not None:
            raise InputError(
                "an instruction belongs to the query; move the system message there",
                pair_place(index).within("document"),
            )
        pairs.append(dataclasses.replace(document, index=index, instruction=query.instruction, query=query))
    report_lookalikes(texts, limits)
    return pairs
