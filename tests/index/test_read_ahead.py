"""What is read ahead comes in order, within its bounds, and ends with who asks for it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from st_modules.index.read_ahead import read_ahead


def test_things_come_in_order() -> None:
    assert list(read_ahead(iter(range(100)), str, len, most=7, most_bytes=10)) == [*map(str, range(100))]


def test_no_more_is_asked_for_than_is_read_ahead() -> None:
    asked: list[int] = []

    def give() -> Iterator[int]:
        for number in range(100):
            asked.append(number)
            yield number

    found = read_ahead(give(), str, len, most=5, most_bytes=1000)
    for number in range(20):
        assert next(found) == str(number)
        assert len(asked) <= number + 5
    found.close()
    assert len(asked) < 30


def test_no_more_is_held_than_the_bytes_that_may_be() -> None:
    held: list[int] = []
    lock = threading.Lock()
    most = 0

    def read(number: int) -> bytes:
        nonlocal most
        with lock:
            held.append(number)
            most = max(most, len(held))
        return bytes(100)

    count = 0
    for _ in read_ahead(iter(range(200)), read, len, most=200, most_bytes=300):
        with lock:
            held.pop()
        count += 1
    assert count == 200
    # Each thread may be past the bound by one.
    assert most <= 3 + 16 + 1


def test_an_error_is_raised_in_its_turn() -> None:
    def read(number: int) -> int:
        if number == 5:
            raise ZeroDivisionError
        return number

    found = read_ahead(iter(range(10)), read, lambda _: 1, most=10, most_bytes=100)
    assert [next(found) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_threads_end_with_who_asks() -> None:
    def names() -> list[str]:
        return [each.name for each in threading.enumerate() if each.name.startswith("st_modules-reader")]

    found = read_ahead(iter(range(50)), lambda _: bytes(100), len, most=50, most_bytes=100)
    next(found)
    assert names()
    found.close()
    assert not names()
