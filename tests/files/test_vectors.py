"""The files of vectors, and whether they are those of some records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow
import pytest
from pyarrow import parquet

from st_modules import InputError
from st_modules.files.records import BadRecord, Record
from st_modules.files.vectors import check_target, find_rows, list_targets, read_first, write_output

RECORDS = [Record(f"a:{n}", n, f"text {n}", ["a.png"] if n else None, {}, {"n": n}) for n in range(3)]
NAMES = pytest.mark.parametrize("name", ["v.npy", "v.parquet"])


@NAMES
def test_an_output_is_of_its_records_alone(tmp_path: Path, name: str) -> None:
    out = tmp_path / name
    vectors = np.arange(6, dtype=np.float32).reshape(2, 3)
    write_output(tmp_path, out, vectors, RECORDS[1:], [BadRecord("a:0", 0, "bad \ud800")])
    assert find_rows(out, RECORDS) == RECORDS[1:]
    first = read_first(out, 2)
    assert first is not None
    assert first.tolist() == [0, 1, 2]
    assert read_first(out, 1) is None
    for others in (RECORDS[:2], RECORDS[::-1], [*RECORDS, Record("a:3", 3, "more", None, {})]):
        assert find_rows(out, others) == []
    list_targets(out)[-2].unlink()
    assert find_rows(out, RECORDS) == []


@NAMES
@pytest.mark.parametrize("content", [b"", b"x", b"5\n", b"[1]\n", b'{"place": [1]}\n', b"[" * 100_000], ids=len)
def test_a_damaged_output_is_of_no_records(tmp_path: Path, name: str, content: bytes) -> None:
    out = tmp_path / name
    for damaged in list_targets(out):
        write_output(tmp_path, out, np.ones((3, 2), np.float32), RECORDS, [])
        damaged.write_bytes(content)
        skipped = damaged == list_targets(out)[-1]
        assert skipped or not find_rows(out, RECORDS) or read_first(out, 3) is None


@pytest.mark.parametrize("array", [np.ones(()), np.ones(3), np.ones((2, 3)), np.array([{}] * 3), np.array(["a"] * 3)])
def test_an_array_that_is_no_vectors_has_no_first_one(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "v.npy", array)
    assert read_first(tmp_path / "v.npy", 3) is None


def test_a_table_without_vectors_has_no_first_one(tmp_path: Path) -> None:
    for name in ("text", "embedding"):
        parquet.write_table(pyarrow.table({name: ["a"]}), tmp_path / "v.parquet")
        assert read_first(tmp_path / "v.parquet", 1) is None
        assert find_rows(tmp_path / "v.parquet", RECORDS[:1]) == []


@NAMES
def test_what_is_no_regular_file_is_not_written_over(tmp_path: Path, name: str) -> None:
    for number, target in enumerate(list_targets(tmp_path / name)):
        if number % 2:
            target.symlink_to("/dev/full")
        else:
            target.mkdir()
        with pytest.raises(InputError, match=f"{target.name}: not a regular file"):
            check_target(tmp_path / name)
        target.rename(tmp_path / f"away {number}")
    check_target(tmp_path / name)
