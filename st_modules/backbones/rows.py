"""Items that are ready for a backbone but for their pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch

from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.videos import VideoSource

Visual: TypeAlias = ImageSource | VideoSource
"""What is seen of an item."""


@dataclass(frozen=True)
class Row:
    """One item, ready but for its pixels.

    Attributes:
        ids: Token ids, with those of the images and the video that are read among the text.
        visuals: The images and the video, in the row's order, not opened beyond their headers.
        trimmed: Whether the end of the item's text was cut to fit ``max_length``.
        length: Tokens that the row costs, with those of images that are read apart from the text.
        constant: How many of the first ids are the same for every item that has the same instruction, and the same
            query where there is one, and mean the same to the model before whatever comes next.
        common: How many of the first visuals stand among those ids.
        prefix: Ids before those of the row, which are run once for every row that has them.
        prefix_visuals: The visuals that stand among those.
    """

    ids: list[int]
    visuals: tuple[Visual, ...]
    trimmed: bool
    length: int
    constant: int
    common: int = 0
    prefix: tuple[int, ...] = ()
    prefix_visuals: tuple[Visual, ...] = ()


@dataclass(frozen=True)
class Planned:
    """An item and the row that it becomes.

    Attributes:
        item: The item.
        row: Its row.
    """

    item: Item
    row: Row


def visuals_of(rows: Sequence[Row]) -> list[Visual]:
    """Return the images and videos of rows, in order."""
    return [visual for row in rows for visual in row.visuals]


def count_visuals(rows: Sequence[Row], kind: type[Visual]) -> torch.Tensor:
    """Return how many images, or videos, each row has."""
    return torch.tensor([sum(isinstance(visual, kind) for visual in row.visuals) for row in rows])
