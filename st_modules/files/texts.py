"""Files of lines: one text a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from st_modules.errors import InputError
from st_modules.files.records import Problems, Reading, Record, make_record
from st_modules.inputs.items import check_text
from st_modules.inputs.limits import ImageLimits

LONGEST_LINE = 2 * ImageLimits.max_bytes
"""In bytes: a line, or a cell of a table, may hold the largest image as a data URI."""


def read_arguments(texts: Sequence[str], skip_bad: bool = False) -> Reading:
    """Turn texts of the command line into records; they are always text, never paths or URLs.

    Raises:
        InputError: Texts cannot be embedded, and ``skip_bad`` does not say to leave them out: one line for each.
    """
    records: list[Record] = []
    problems = Problems(skip_bad)
    for number, text in enumerate(texts, 1):
        place = f"text {number}"
        with problems.collect_record(place):
            check_text(text, place)
            records.append(make_record(place, text))
    problems.raise_all()
    return Reading(records, bad=problems.bad)


def read_texts(stream: BinaryIO, name: str, problems: Problems) -> list[Record]:
    """Read one text a line; empty lines are left out.

    Args:
        stream: UTF-8, with a byte order mark or without.
        name: What error messages call it.
        problems: Takes note of lines that are not UTF-8.

    Raises:
        InputError: A line is too long.
    """
    records: list[Record] = []
    for number, line in number_lines(read_lines(stream, name)):
        with problems.collect_record(f"{name}:{number}"):
            records.append(_read_text(line, f"{name}:{number}"))
    return records


def read_lines(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Yield lines with their ends, without a byte order mark.

    Raises:
        InputError: A line is longer than ``LONGEST_LINE``.
    """
    number = 0
    while line := stream.readline(LONGEST_LINE + 1):
        number += 1
        if len(line) > LONGEST_LINE:
            raise InputError(f"a line of more than {LONGEST_LINE} bytes; cut it.", f"{name}:{number}")
        yield line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def number_lines(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """Number lines from 1, those that a lone carriage return ends among them, and leave out the empty ones."""
    # Split as bytes: str.splitlines also cuts at U+2028 and others, which are legal inside a JSON string.
    parts = (part for line in lines for part in line.splitlines())
    return ((number, part) for number, part in enumerate(parts, 1) if part.strip())


def _read_text(line: bytes, place: str) -> Record:
    try:
        return make_record(place, line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text; save it as UTF-8", place) from error
