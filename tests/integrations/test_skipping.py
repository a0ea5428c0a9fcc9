"""Pieces get smaller around what is wrong until each item has an embedding or an error."""

from __future__ import annotations

import pytest

from st_modules import ImageError, InputError, Place
from st_modules.integrations.skipping import Remaining, put_at


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("bad", [set(), {0}, {3, 4}, set(range(9))])
def test_every_item_ends_with_one_of_both(bad: set[int], exact: bool) -> None:
    remaining = Remaining(list("abcdefghi"), {8: InputError("known", Place(8))}, exact=exact)
    while piece := remaining.take():
        first = next((place for place in piece if place in bad), None)
        if first is None:
            remaining.keep(piece, [[float(place)] for place in piece])
        else:
            remaining.split(piece, InputError("bad", Place(first if exact else 0)))
    wrong = sorted(bad | {8})
    assert [error.index for error in remaining.errors] == wrong
    assert remaining.embeddings == [None if place in wrong else [float(place)] for place in range(9)]


@pytest.mark.parametrize(
    ("place", "text"), [(Place(7, "image 1"), "item 3, image 1: bad"), ("a.png", "a.png: bad"), (None, "item 3: bad")]
)
def test_an_error_is_put_at_a_place(place: Place | str | None, text: str) -> None:
    moved = put_at(ImageError("bad", place), 3)
    assert (type(moved), moved.index, str(moved)) == (ImageError, 3, text)
