"""JSON files that a library would read otherwise than another, or not at all, are refused by their names."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from st_modules import CheckpointError
from st_modules.checkpoints import json_files
from st_modules.checkpoints.json_files import read_json, read_json_value

WHOLE: dict[str, Any] = {"name": "ü", "sizes": [1, 2.5, {"deep": [None, True]}], "empty": {}}


def nest(levels: int) -> Any:
    return [nest(levels - 1)] if levels else 1


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.json"


@pytest.mark.parametrize("ascii_alone", [True, False])
def test_a_whole_file_is_read_as_json_reads_it(path: Path, ascii_alone: bool) -> None:
    path.write_text(json.dumps(WHOLE, ensure_ascii=ascii_alone), encoding="utf-8")
    assert read_json(path) == WHOLE


def test_a_value_of_another_kind_is_read_where_it_may_be_one(path: Path) -> None:
    path.write_text("[1, 2]")
    assert read_json_value(path) == [1, 2]


CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "cut": b'{"a": [1, 2',
    "list": b"[]",
    "null": b"null",
    "text": b'"a"',
    "latin": b'{"a": "\xff"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "utf-16": "{}".encode("utf-16"),
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000,
    "deep and closed": b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}",
    "digits": b'{"a": ' + b"9" * 100_000 + b"}",
}


@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_a_damaged_file_is_refused_by_its_name(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize(
    ("content", "place"),
    [('{"a": %s}', "a"), ('{"a": {"b": [1, {"c": %s}]}}', "a.b[1].c"), ('{"a": [[%s]]}', "a[0][0]")],
)
def test_a_number_that_is_not_finite_is_refused_by_its_place(path: Path, number: str, content: str, place: str) -> None:
    path.write_text(content % number)
    with pytest.raises(CheckpointError) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: {place} is ")


def test_as_many_levels_as_files_have_are_read_and_more_are_refused_by_the_field(path: Path) -> None:
    path.write_text(json.dumps({"a": nest(60)}))
    assert read_json(path) == {"a": nest(60)}
    path.write_text(json.dumps({"a": nest(80)}))
    with pytest.raises(CheckpointError, match="config.json: a.*nested more than 64 levels"):
        read_json(path)


def test_a_field_that_is_there_twice_is_refused_where_it_matters(path: Path) -> None:
    path.write_text('{"a": {"b": 1, "b": 1}}')
    assert read_json(path) == {"a": {"b": 1}}
    path.write_text('{"a": {"b": 1, "b": 2}}')
    with pytest.raises(CheckpointError, match="config.json: .*'b'"):
        read_json(path)


def test_a_missing_file_is_refused(path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^{path}: cannot be read"):
        read_json(path)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"^{tmp_path}: not a regular file"):
        read_json(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_refused_and_not_waited_for(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_json(path)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_a_device_is_refused_and_not_read(path: Path) -> None:
    path.symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match="not a regular file"):
        read_json(path)


def test_a_file_that_is_too_large_is_refused_unread(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "_MOST_BYTES", 10)
    path.write_text('{"a": 12}')
    assert read_json(path) == {"a": 12}
    path.write_text('{"a": 1234567}')
    with pytest.raises(CheckpointError, match="config.json: over 10 bytes"):
        read_json(path)
