"""Runs that are stopped anywhere, killed ones too, and the ones after them."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from st_modules import InputError
from st_modules.files.atomic import write_atomically
from st_modules.files.partial import open_partial
from st_modules.files.records import BadRecord, Record
from st_modules.files.vectors import list_targets, write_output
from tests.helpers.snapshots import take_snapshots

KEY = {"model": "a", "input": "b"}

WRITER = """
import sys
from itertools import cycle
from pathlib import Path
import numpy as np
from st_modules.files.partial import open_partial
from st_modules.files.records import Record
from st_modules.files.vectors import list_targets, write_output
out = Path(sys.argv[1])
for size in cycle((5, 7, 3)):
    records = [Record(str(n), size, "a", None, {}) for n in range(size)]
    with open_partial(list_targets(out), keep=False) as partial:
        partial.begin({}, resume=False)
        partial.append(np.full((size, 4), size, np.float32), [], size)
        with partial.finish() as folder:
            write_output(folder, out, partial.read_vectors(), records, [])
    print(size, flush=True)
"""


def write(out: Path, size: int, bad: int = 0, resume: bool = False) -> None:
    """Write vectors and records that both say how many they are."""
    records = [Record(str(number), size, "a", None, {}) for number in range(size)]
    skipped = [BadRecord(str(number), size, "bad") for number in range(bad)]
    with open_partial(list_targets(out), keep=resume) as partial:
        partial.begin({"size": str(size)}, resume=resume)
        while partial.done < size:
            partial.append(np.full((1, 4), size, np.float32), [], 1)
        with partial.finish() as folder:
            write_output(folder, out, partial.read_vectors(), records, skipped)


def stop(out: Path) -> None:
    """Leave what a run has done that was stopped after two records."""
    with suppress(KeyboardInterrupt), open_partial(list_targets(out), keep=True) as partial:
        partial.begin(KEY, resume=True)
        partial.append(np.ones((2, 3), np.float32), [(1, BadRecord("b", "b", "bad"))], 3)
        raise KeyboardInterrupt


def read(out: Path) -> set[int]:
    """The sizes that the files which are there speak of; one where they belong together."""
    vectors, records, skipped = list_targets(out)
    found: set[int] = set()
    if vectors.exists():
        found |= {len(np.load(vectors)), *np.load(vectors).ravel().astype(int).tolist()}
    for path in (records, skipped):
        if path.exists():
            lines = path.read_text().splitlines()
            found |= {json.loads(line)["id"] for line in lines} | ({len(lines)} if path == records else set())
    return found


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "v.npy"


def test_files_that_are_there_belong_together_at_every_moment(out: Path, tmp_path: Path) -> None:
    write(out, 5, bad=1)
    with take_snapshots(out.parent, tmp_path) as copies:
        write(out, 3)
    assert len(copies) > 20
    for copy in copies:
        assert read(copy / out.name) in ({5}, {3})
        with open_partial(list_targets(copy / out.name), keep=False):
            pass
        pair = list_targets(copy / out.name)[:2]
        assert [path.exists() for path in pair] == [True, True], copy
        assert read(copy / out.name) in ({5}, {3})
    assert (read(out), [path.name for path in sorted(out.parent.iterdir())]) == ({3}, ["v.jsonl", "v.npy"])


def test_wherever_a_run_is_killed_the_next_one_gives_the_same_files(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", int)  # a kill does not need it, and it may take long
    with take_snapshots(out.parent, tmp_path) as copies:
        write(out, 4, bad=2)
    expected = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    for copy in copies:
        write(copy / out.name, 4, bad=2, resume=True)
        assert {path.name: path.read_bytes() for path in copy.iterdir()} == expected


def test_plain_pairs_of_files_are_never_of_two_runs(out: Path, tmp_path: Path) -> None:
    targets = list_targets(out)[:2]

    def write_pair(content: str) -> None:
        with write_atomically(targets) as parts:
            for part in parts:
                part.write_text(content)

    write_pair("old")
    with take_snapshots(out.parent, tmp_path) as copies:
        write_pair("new")
    for copy in copies:
        there = {(copy / target.name).read_text() for target in targets if (copy / target.name).exists()}
        assert len(there) == 1, copy


def test_killed_at_any_time(out: Path) -> None:
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(out)], stdout=subprocess.PIPE, text=True)
        with process:
            assert process.stdout is not None
            for _ in range(random.randrange(2, 30)):
                process.stdout.readline()
            process.kill()
        assert len(read(out)) <= 1
    write(out, 2)
    assert (read(out), len(list(out.parent.iterdir()))) == ({2}, 2)


def test_what_is_done_is_there_for_the_next_run(out: Path) -> None:
    stop(out)
    with open_partial(list_targets(out), keep=True) as partial:
        partial.begin(KEY, resume=True)
        assert (partial.done, partial.read_vectors().tolist()) == (3, [[1.0] * 3] * 2)
        assert partial.read_bad() == {1: BadRecord("b", "b", "bad")}


@pytest.mark.parametrize("begins", [True, False])
def test_nothing_stays_after_an_error_unless_asked_for(out: Path, begins: bool) -> None:
    def run() -> None:
        with open_partial(list_targets(out), keep=not begins) as partial:
            if begins:
                partial.begin(KEY, resume=False)
                partial.append(np.ones((2, 3), np.float32), [], 2)
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        run()
    assert list(out.parent.iterdir()) == []


def test_a_call_that_does_not_begin_leaves_what_a_stopped_run_has_done(out: Path) -> None:
    stop(out)
    with pytest.raises(OSError, match="typo"), open_partial(list_targets(out), keep=False):
        raise OSError("typo")
    with open_partial(list_targets(out), keep=False) as partial:
        assert partial.done == 3


@pytest.mark.parametrize("key", [{"model": "other", "input": "b"}, {"model": "other", "input": "c"}])
def test_what_was_made_from_something_else_is_not_gone_on_with(out: Path, key: dict[str, str]) -> None:
    stop(out)
    with open_partial(list_targets(out), keep=True) as partial:
        with pytest.raises(InputError, match="made with another model") as caught:
            partial.begin(key, resume=True)
        assert ("another input" in str(caught.value)) == (key["input"] != "b")
        partial.begin(key, resume=False)
        assert (partial.done, len(partial.read_vectors())) == (0, 0)


def test_a_second_run_on_the_same_output_is_told(out: Path) -> None:
    targets = list_targets(out)
    with open_partial(targets, keep=True) as partial:
        partial.begin(KEY, resume=True)
        partial.append(np.ones((2, 3), np.float32), [], 2)
        with pytest.raises(InputError, match="another run is using"), open_partial(targets, keep=False):
            pass
        assert partial.read_vectors().shape == (2, 3)


def test_a_damaged_folder_is_told_or_started_anew(out: Path) -> None:
    stop(out)
    folder = out.with_name("v.npy.partial")
    (folder / "vectors.f32").write_bytes(b"short")
    with open_partial(list_targets(out), keep=True) as partial, pytest.raises(InputError, match="damaged"):
        partial.begin(KEY, resume=True)
    (folder / "state.json").write_text("{")
    with open_partial(list_targets(out), keep=True) as partial:
        partial.begin(KEY, resume=True)
        assert partial.done == 0


@pytest.mark.parametrize("limit", [0, 400, 700])
def test_a_full_disk_is_told_by_the_file(out: Path, limit: int) -> None:
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, usual[1]))
    try:
        with pytest.raises(OSError, match="File too large") as caught:
            write(out, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert str(out) in str(caught.value.filename)
    assert list(out.parent.iterdir()) == []


SOUND = {"key": KEY, "done": 1, "dimension": 1, "vectors_size": 4, "bad_size": 0}


@pytest.mark.parametrize(
    "state",
    [
        "",
        "5",
        "[" * 100_000,
        *(
            json.dumps({**SOUND, **change})
            for change in (
                {"key": 5},
                {"done": "1"},
                {"done": 1.5},
                {"done": -1},
                {"done": True},
                {"dimension": 0},
                {"dimension": 3},
                {"vectors_size": -4},
                {"more": 1},
            )
        ),
    ],
    ids=lambda state: state[:60],
)
def test_a_damaged_state_counts_for_nothing(tmp_path: Path, state: str) -> None:
    out = tmp_path / "v.npy"
    stop(out)
    state_file = tmp_path / "v.npy.partial" / "state.json"
    state_file.write_text(json.dumps(SOUND))
    with open_partial(list_targets(out), keep=True) as partial:
        assert partial.done == 1
    state_file.write_text(state)
    with open_partial(list_targets(out), keep=True) as partial:
        assert partial.done == 0


@pytest.mark.parametrize("line", ["x" * 100, "[0, {}]", "5"])
def test_a_damaged_list_of_bad_records_is_told(tmp_path: Path, line: str) -> None:
    out = tmp_path / "v.npy"
    stop(out)
    bad = tmp_path / "v.npy.partial" / "bad.jsonl"
    bad.write_text(line.ljust(bad.stat().st_size))
    with open_partial(list_targets(out), keep=True) as partial:
        partial.begin(KEY, resume=True)
        with pytest.raises(InputError, match=r"v\.npy\.partial: damaged; leave out --resume"):
            partial.read_bad()
