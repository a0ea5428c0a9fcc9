"""``st-modules index``: what it tells, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from st_modules.cli import app
from tests.helpers.collections import by_source, draw_picture, read_items, write_jsonl
from tests.helpers.paths import ROOT

pytest.importorskip("lancedb")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        draw_picture(folder / f"{number}.png", number)
    return folder


def index(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["index", *map(str, arguments), "--device", "cpu", "-q"])


def test_it_tells_what_it_did(photos: Path, tmp_path: Path) -> None:
    done = index(photos, "--to", tmp_path / "x.index")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path / 'x.index'}: 3 added, 0 updated, 0 unchanged, 0 removed, 0 repeated.\n"
    (photos / "1.png").unlink()
    again = index(photos, "--to", tmp_path / "x.index", "--prune")
    assert again.stdout == f"{tmp_path / 'x.index'}: 0 added, 0 updated, 2 unchanged, 1 removed, 0 repeated.\n"


def test_it_tells_what_could_not_be_embedded_and_ends_well(photos: Path, tmp_path: Path) -> None:
    (photos / "1.png").write_bytes(b"no picture")
    done = index(photos, "--to", tmp_path / "x.index")
    assert done.exit_code == 0
    first, last = done.stderr.splitlines()
    assert first.startswith(f"{photos / '1.png'}: ")
    assert last == f"1 could not be embedded; `st-modules errors {tmp_path / 'x.index'}` lists them all."


def test_what_could_not_be_embedded_is_listed(photos: Path, tmp_path: Path) -> None:
    for name in ("1.png", "2.png"):
        (photos / name).write_bytes(b"no picture \x1b[31m")
    index(photos, "--to", tmp_path / "x.index")
    told = CliRunner().invoke(app, ["errors", str(tmp_path / "x.index"), "--json"])
    found = [json.loads(line) for line in told.stdout.splitlines()]
    assert [(error["place"], error["source"]) for error in found] == [(str(photos / f"{n}.png"),) * 2 for n in (1, 2)]
    table = CliRunner().invoke(app, ["errors", str(tmp_path / "x.index")]).stdout
    assert all(table.count(error["reason"][:12]) == 2 for error in found)  # the rest may be in other lines
    draw_picture(photos / "1.png", 1)
    draw_picture(photos / "2.png", 2)
    index(photos, "--to", tmp_path / "x.index")
    assert CliRunner().invoke(app, ["errors", str(tmp_path / "x.index")]).stderr == "Everything could be embedded.\n"


def test_it_tells_what_it_left_out(photos: Path, tmp_path: Path) -> None:
    (photos / "table.csv").write_text("text\na\n")
    done = index(photos, "--to", tmp_path / "x.index")
    assert "table.csv" in done.stderr


def test_options_reach_the_index(photos: Path, tmp_path: Path) -> None:
    made = ["--dtype", "float16", "--truncate-dim", "32", "--thumbnails", "8", "--vector-index", "none"]
    assert index(photos, "--to", tmp_path / "x.index", *made).exit_code == 0
    row = by_source(tmp_path / "x.index")["1.png"]
    assert len(row["vector"]) == 32
    assert row["thumbnail"].startswith(b"\xff\xd8")


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"name": "a", "sku": "s1", "price": 1, "colour": "red"}])
    names = ["--text", "name", "--id", "sku", "--metadata", "colour"]
    assert index(path, "--to", tmp_path / "x.index", *names).exit_code == 0
    row = read_items(tmp_path / "x.index")["s1"]
    assert (row["text"], row["colour"]) == ("a", "red")
    assert "price" not in row


def test_what_embed_wrote_is_taken(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    embed = ["embed", "-f", str(photos), "-o", str(out), "--document", "--device", "cpu", "-q"]
    assert CliRunner().invoke(app, embed).exit_code == 0
    done = index(tmp_path / "out.jsonl", "--vectors", out, "--to", tmp_path / "x.index")
    assert done.stdout.startswith(f"{tmp_path / 'x.index'}: 3 added")
    found = [row["vector"] for row in read_items(tmp_path / "x.index").values()]
    np.testing.assert_allclose(sorted(found), sorted(np.load(out).tolist()), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["nowhere", "--to", "x.index"], "nowhere: no such file", 1),
        (["", "--to", "x.index"], "An empty path", 2),
        ([".", "--to", ""], "An empty path", 2),
        ([".", "--to", "x.index", "--model", "gme-2"], "gme-2b", 2),
        ([".", "--to", "x.index", "--device", "toaster"], "--device toaster", 2),
        (["0.png", "--to", "x.index", "--prompt", "a", "--prompt-name", "t2i"], "two ways to say the same", 1),
        (["0.png", "--to", "x.index", "--truncate-dim", "1000"], "truncate_dim=1000", 1),
        (["0.png", "--to", "x.index", "--root", "nowhere"], "--root nowhere: no such folder", 2),
        (["0.png", "--to", "0.png"], "an index is a folder", 1),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    photos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str, code: int
) -> None:
    monkeypatch.chdir(photos)
    done = CliRunner().invoke(app, ["index", "--device", "cpu", *arguments])
    assert done.exit_code == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr


_STOPPED = """
import os, signal, sys
from st_modules.cli import app
from st_modules.index import rows

add = rows.Rows.add
number = int(sys.argv.pop(1))

def add_and_stop(self, results):
    add(self, results)
    os.kill(os.getpid(), number)

rows.Rows.add = add_and_stop
app()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals end a process at once there")
@pytest.mark.parametrize(
    ("number", "code", "words"),
    [(signal.SIGINT, 130, "Stopped by Ctrl-C."), (signal.SIGTERM, 143, "Stopped by SIGTERM.")],
)
def test_a_run_that_is_stopped_keeps_what_is_done_and_says_so(
    photos: Path, tmp_path: Path, number: int, code: int, words: str
) -> None:
    target = tmp_path / "x.index"
    call = [sys.executable, "-c", _STOPPED, str(int(number)), "index", str(photos), "--to", str(target), "-q"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*call, "--device", "cpu"], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == code, done.stderr
    lines = done.stderr.splitlines()
    assert lines[-2:] == [f"What is done is in {target}; the same command goes on from there.", f"Error: {words}"]
    assert len(read_items(target)) == 3
