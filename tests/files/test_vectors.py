"""The files of vectors, and whether they are those of some records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
    assert read_first(out).tolist() == [0, 1, 2]
    for others in (RECORDS[:2], RECORDS[::-1], [*RECORDS, Record("a:3", 3, "more", None, {})]):
        assert find_rows(out, others) == []
    list_targets(out)[-2].unlink()
    assert find_rows(out, RECORDS) == []


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
