"""What every command does about errors, signals, and names with control characters."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from st_modules import InputError, cli
from st_modules.cli.shared import as_cells, make_table, one_line_errors, say


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.npy"), 1, "No space left on device: a.npy"),
        (OSError(errno.EIO, "Input/output error", "a\x1b.npy"), 1, r"Input/output error: a\x1b.npy"),
        (OSError("told\nat length"), 1, "told"),
        (MemoryError(), 1, "Not enough memory: none is left"),
        (MemoryError("Unable to allocate 9 GiB"), 1, "Not enough memory: Unable to allocate 9 GiB"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "Not enough memory: Default"),
        (ImportError("x.so: failed to map segment from shared object"), 1, "Not enough memory: x.so"),
        (RecursionError(), 1, "nested too deeply"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 1, "surrogates not allowed"),
        (OSError(errno.EIO, "Input/output error"), 1, "Error: Input/output error"),
        (InputError("line\nby line", "a.txt:1"), 1, "a.txt:1: line"),
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_are_told_in_lines(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(typer.Exit) as caught, one_line_errors():
        raise error
    told = capsys.readouterr().err
    assert (caught.value.exit_code, line in told.splitlines()[0]) == (code, True), told
    assert all(each.startswith("Error: ") for each in told.splitlines())


@pytest.mark.parametrize("error", [RuntimeError("a bug"), KeyError("a bug"), ImportError("a bug"), ValueError("a bug")])
def test_bugs_keep_their_tracebacks(error: Exception) -> None:
    with pytest.raises(type(error), match="a bug"), one_line_errors():
        raise error


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_clean_up(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    number, cleaned = getattr(signal, name), []
    # Under nohup, say, the tests themselves ignore one.
    before = signal.signal(number, signal.SIG_DFL)

    def run() -> None:
        with one_line_errors():
            try:
                signal.raise_signal(number)
            finally:
                cleaned.append(True)

    try:
        with pytest.raises(typer.Exit) as caught:
            run()
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert (caught.value.exit_code, cleaned) == (128 + number, [True])
    assert capsys.readouterr().err == f"Error: Stopped by {name}.\n"


def test_a_signal_that_is_ignored_stays_so() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with one_line_errors():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("target", ["/dev/full", "closed"])
def test_standard_output_that_takes_nothing(target: str) -> None:
    code = (
        "from st_modules.cli.shared import one_line_errors, say\nwith one_line_errors():\n    say('a')\n"
        if target != "closed"
        else "from st_modules.cli import app\napp(['list'])\n"
    )
    if target == "closed":
        reader, writer = os.pipe()
        os.close(reader)
    else:
        writer = os.open(target, os.O_WRONLY)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert done.returncode == 1
    assert "Exception ignored" not in done.stderr
    assert ("standard output" in done.stderr) == (target != "closed")


def test_names_do_not_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("Wrote a\x1b[31m\u202e\u200b.npy")
    assert capsys.readouterr().out == r"Wrote a\x1b[31m\u202e\u200b.npy" + "\n"


def test_cells_of_tables_are_literal() -> None:
    table = make_table("Name")
    table.add_row(*as_cells(["[red]a\x1b[31m"]))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    assert r"[red]a\x1b[31m" in console.export_text()


def test_logs_of_libraries_are_printable(caplog: pytest.LogCaptureFixture) -> None:
    with one_line_errors():
        logging.getLogger("st_modules.x").warning("%s\nsecond", "a\x1b[31m")
    logging.getLogger("st_modules.x").warning("%s", "\x1b")
    assert [record.getMessage() for record in caplog.records] == ["a\\x1b[31m\nsecond", "\x1b"]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/full", "fifo"])
def test_devices_are_neither_read_nor_written(path: str, tmp_path: Path) -> None:
    if path == "fifo":
        os.mkfifo(tmp_path / path)
    result = CliRunner().invoke(cli.app, ["embed", "--file", str(tmp_path / path), "--out", str(tmp_path / "v.npy")])
    assert (result.exit_code, result.stderr.count("\n"), "not a regular file" in result.stderr) == (1, 1, True)
    (tmp_path / "w.npy").symlink_to(tmp_path / path)
    result = CliRunner().invoke(cli.app, ["embed", "hello", "--force", "--out", str(tmp_path / "w.npy")])
    assert (result.exit_code, result.stderr.count("\n"), "not a regular file" in result.stderr) == (1, 1, True)
