"""Numbers, flags and choices are what their names say, or an error has the name and the value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from st_modules.arguments import check_choice, check_flag, check_integer, check_optional_integer, check_seconds
from st_modules.errors import ArgumentError

NO_NUMBERS = [True, False, "5", b"5", [5], {}, np.array([5])]


@pytest.mark.parametrize("value", [1, 7, 10**30, np.int64(7), np.uint8(7)])
def test_an_integer_comes_back_as_an_int(value: Any) -> None:
    found = check_integer("rows", value)
    assert (type(found), found) == (int, int(value))


@pytest.mark.parametrize("value", [0, -1, 1.5, 2.0, math.nan, math.inf, None, np.bool_(True), *NO_NUMBERS], ids=repr)
def test_what_is_no_integer_of_at_least_one_is_named(value: Any) -> None:
    with pytest.raises(ArgumentError, match=r"^rows=.*: pass an integer of at least 1\.$"):
        check_integer("rows", value)


def test_the_least_integer_is_the_callers_to_say() -> None:
    assert check_integer("rows", 0, least=0) == 0
    with pytest.raises(ArgumentError, match="rows=-1: pass an integer of at least 0"):
        check_integer("rows", -1, least=0)


def test_an_optional_integer_may_be_none() -> None:
    assert check_optional_integer("rows", None) is None
    with pytest.raises(ArgumentError, match="rows=0"):
        check_optional_integer("rows", 0)


@pytest.mark.parametrize("value", [1, 0.25, np.float64(3), 10**9])
def test_seconds_are_numbers_over_zero(value: Any) -> None:
    check_seconds("wait", value)


@pytest.mark.parametrize("value", [0, -0.5, math.nan, math.inf, 1e10, None, *NO_NUMBERS], ids=repr)
def test_what_cannot_be_waited_for_is_named(value: Any) -> None:
    with pytest.raises(ArgumentError, match="^wait=.*: pass a number of seconds"):
        check_seconds("wait", value)


@pytest.mark.parametrize("value", [0, 1, None, "", "true", "False", [], math.nan], ids=repr)
def test_what_is_no_bool_is_named(value: Any) -> None:
    check_flag("loud", True)
    check_flag("loud", False)
    with pytest.raises(ArgumentError, match="^loud=.*: pass True or False"):
        check_flag("loud", value)


@pytest.mark.parametrize("value", ["blu", "Blue", "", None, 5, ["blue"], np.array(["blue", "red"])], ids=repr)
def test_what_is_none_of_the_choices_is_told_them(value: Any) -> None:
    check_choice("colour", "blue", ["red", "blue"])
    with pytest.raises(ArgumentError, match=r"(?s)^colour=.*: pass one of 'red', 'blue'\.$"):
        check_choice("colour", value, ["red", "blue"])


@pytest.mark.parametrize(
    "check", [check_integer, check_seconds, check_flag, lambda name, value: check_choice(name, value, ["red"])]
)
def test_a_value_of_any_length_is_named_in_short(check: Callable[[str, Any], Any]) -> None:
    with pytest.raises(ArgumentError) as error:
        check("colour", "x" * 10**6)
    assert len(str(error.value)) < 150
