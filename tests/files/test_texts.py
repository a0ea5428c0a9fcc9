"""Texts, one a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_modules import InputError
from st_modules.files import texts
from st_modules.files.texts import read_arguments
from tests.helpers.files import Read


def test_lines_are_numbered_as_an_editor_does(tmp_path: Path, read: Read) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\ntwo\rthree\n  \n\xc3\xa9\xe2\x80\xa8four")
    found = [(record.place, record.text) for record in read(path).records]
    assert found == [(f"{path}:1", "one"), (f"{path}:3", "two"), (f"{path}:4", "three"), (f"{path}:6", "é\u2028four")]


def test_a_line_without_end_costs_no_more_than_the_longest(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(texts, "LONGEST_LINE", 10)
    (tmp_path / "a.txt").write_text("0123456789\n")
    (tmp_path / "b.txt").write_text("012345678\n0123456789a\n")
    with pytest.raises(InputError, match=r"a.txt:1: a line of more than 10 bytes"):
        read(tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"b.txt:2: a line of more than 10 bytes"):
        read(tmp_path / "b.txt")


def test_a_file_of_empty_lines_has_nothing_to_embed(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_text("\n \n")
    with pytest.raises(InputError, match=r"a.txt: nothing to embed"):
        read(tmp_path / "a.txt")


def test_of_many_problems_a_hundred_are_told(tmp_path: Path, read: Read) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\n" * 103)
    with pytest.raises(InputError) as caught:
        read(tmp_path / "a.txt")
    problem = "not UTF-8 text; save it as UTF-8"
    expected = [f"{tmp_path / 'a.txt'}:{number}: {problem}" for number in range(1, 101)]
    assert str(caught.value).splitlines() == [*expected, "… and 3 more."]


def test_an_argument_with_a_lone_surrogate_is_told() -> None:
    with pytest.raises(InputError, match="text 2: character 1 "):
        read_arguments(["fine", "a\ud800"])
