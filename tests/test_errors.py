"""Where an input stands, in the exceptions that are about it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import pytest

from st_modules import ImageError, InputError, Place, SentenceTransformer
from st_modules.errors import list_errors, name_inputs


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (Place(3), "item 3: unreadable"),
        (Place(3, "image 1"), "item 3, image 1: unreadable"),
        (Place(3, "image 1", "data.jsonl:4"), "data.jsonl:4, image 1: unreadable"),
        (Place(3).within("user message").within("part 2"), "item 3, user message, part 2: unreadable"),
        ("the prompt", "the prompt: unreadable"),
        (None, "unreadable"),
    ],
    ids=str,
)
def test_the_message_begins_with_the_place(place: Place | str | None, message: str) -> None:
    assert str(InputError("unreadable", place)) == message


@pytest.mark.parametrize(
    ("place", "index"), [(Place(0), 0), (Place(7, "image 1"), 7), ("the prompt", None), (None, None)]
)
def test_the_index_is_that_of_the_place(place: Place | str | None, index: int | None) -> None:
    assert InputError("unreadable", place).index == index


def test_what_a_problem_names_already_is_named_once() -> None:
    assert str(InputError("a.png: no such file", "a.png")) == "a.png: no such file"
    assert str(InputError("b.png: no such file", "a.png")) == "a.png: b.png: no such file"


def test_a_shifted_error_is_about_an_input_further_on() -> None:
    shifted = ImageError("unreadable", Place(3, "image 1")).shift(10)
    assert (type(shifted), shifted.index, str(shifted)) == (ImageError, 13, "item 13, image 1: unreadable")


def test_a_renamed_error_keeps_its_index_and_its_part() -> None:
    renamed = ImageError("unreadable", Place(3, "image 1")).rename("data.jsonl:4")
    assert (type(renamed), renamed.index, str(renamed)) == (ImageError, 3, "data.jsonl:4, image 1: unreadable")


@pytest.mark.parametrize(
    "change", [lambda error: error.shift(1), lambda error: error.rename("b")], ids=["shift", "rename"]
)
def test_a_copy_has_the_cause(change: Callable[[InputError], InputError]) -> None:
    error = InputError("unreadable", Place(3))
    error.__cause__ = KeyError("x")
    assert change(error).__cause__ is error.__cause__


@pytest.mark.parametrize(
    "change", [lambda error: error.shift(1), lambda error: error.rename("b")], ids=["shift", "rename"]
)
def test_an_error_without_a_position_is_copied_as_it_is(change: Callable[[InputError], InputError]) -> None:
    assert str(change(InputError("unreadable", "the prompt"))) == "the prompt: unreadable"


@pytest.mark.parametrize("place", [Place(3, "image 1", "a"), "the prompt", None], ids=str)
def test_a_pickled_error_is_the_same(place: Place | str | None) -> None:
    error = ImageError("unreadable", place)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.place, str(again)) == (ImageError, place, str(error))


def test_errors_about_inputs_are_named_as_the_caller_knows_them() -> None:
    with pytest.raises(InputError, match=r"^row 12: unreadable$") as caught, name_inputs("row {}".format, offset=10):
        raise InputError("unreadable", Place(2))
    assert caught.value.index == 12


def test_an_error_about_no_single_input_is_left_as_it_is() -> None:
    with pytest.raises(InputError, match=r"^unreadable$"), name_inputs("row {}".format, offset=10):
        raise InputError("unreadable")


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (None, "item 2: None has nothing to embed"),
        ({"image": "absent.png"}, "item 2: absent.png: no such file"),
        ({"image": ["absent.png", b""]}, "item 2, image 0: absent.png: no such file"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], "item 2, user message, part 0: of type int"),
        ({"text": "\ud800"}, "item 2: character 0 of the text is a lone surrogate"),
    ],
    ids=["none", "image", "second image", "message", "surrogate"],
)
def test_an_error_of_encode_has_the_index_of_the_input(tiny: SentenceTransformer, item: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        tiny.encode(["a", "b", item])
    assert caught.value.index == 2
    assert str(caught.value).startswith(message)


def test_a_list_of_errors_is_bounded_in_length_and_complete_in_number() -> None:
    errors = [InputError("x" * 90, Place(index)) for index in range(3000)]
    *listed, more = list_errors(errors, "\n").splitlines()
    assert listed == [str(error) for error in errors[: len(listed)]]
    assert more == f"and {3000 - len(listed)} more"
    assert 10_000 < len("".join(listed)) <= 20_000
    assert list_errors(errors[:2], "; ") == f"{errors[0]}; {errors[1]}"
    assert list_errors([InputError("y" * 30_000)], "; ") == "y" * 30_000
