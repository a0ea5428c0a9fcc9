"""Files that are written all together or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_modules.files.atomic import write_atomically


@pytest.fixture
def targets(tmp_path: Path) -> list[Path]:
    targets = [tmp_path / "vectors.npy", tmp_path / "vectors.jsonl"]
    targets[0].write_text("before")
    return targets


def contents(targets: list[Path]) -> list[str | None]:
    return [target.read_text() if target.exists() else None for target in targets]


def test_files_take_their_places_when_all_are_written(targets: list[Path]) -> None:
    with write_atomically(targets) as parts:
        for number, part in enumerate(parts):
            part.write_text(f"after {number}")
        assert contents(targets) == ["before", None]
    assert contents(targets) == ["after 0", "after 1"]


def test_what_was_there_stays_where_writing_fails(targets: list[Path], tmp_path: Path) -> None:
    def write_and_fail() -> None:
        with write_atomically(targets) as (part, _):
            part.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_and_fail()
    assert contents(targets) == ["before", None]
    assert list(tmp_path.iterdir()) == [targets[0]]


def test_a_file_that_was_not_written_is_an_error_and_leaves_nothing_behind(targets: list[Path], tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), write_atomically([targets[1]]):
        pass
    assert list(tmp_path.iterdir()) == [targets[0]]


@pytest.mark.parametrize("name", ["n" * 255, "é" * 127])
def test_names_as_long_as_they_can_be(tmp_path: Path, name: str) -> None:
    targets = [tmp_path / name, tmp_path / f"{name[:-1]}x"]
    with write_atomically(targets) as parts:
        for part, content in zip(parts, "ab", strict=True):
            part.write_text(content)
    assert [target.read_text() for target in targets] == ["a", "b"]
    assert sorted(tmp_path.iterdir()) == sorted(targets)
