"""docs/index-and-search.md runs as written: its commands and its Python, one after the other in an empty folder."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from st_modules import cli
from st_modules.index import Index
from tests.helpers.paths import ROOT

PAGE = "docs/index-and-search.md"


def parts(text: str) -> Iterator[tuple[str, str]]:
    """The blocks of a page: each block of Python whole, and each command."""
    for block in re.finditer(r"```python\n(.*?)```|^    (st-modules [^\n]+)$", text, re.DOTALL | re.MULTILINE):
        yield ("python", block[1]) if block[1] else ("command", block[2])


def test_the_page_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "documentation"}
    ran = {"python": 0, "command": 0}
    for kind, block in parts((ROOT / PAGE).read_text(encoding="utf-8")):
        ran[kind] += 1
        if kind == "python":
            exec(compile(block, PAGE, "exec"), names)
            continue
        if "$ID" in block:
            block = block.replace("$ID", Index.open("photos.index").search("a star", 1)[0].id)
        result = CliRunner().invoke(cli.app, shlex.split(block)[1:])
        assert result.exit_code == 0, (block, result.stderr)
    assert ran["python"] >= 10
    assert ran["command"] >= 10
    assert (tmp_path / "answer.html").read_text(encoding="utf-8").count("<img ") == 10


def test_the_readme_says_the_same_four_commands() -> None:
    page, readme = ((ROOT / name).read_text(encoding="utf-8") for name in (PAGE, "README.md"))
    commands = [block for kind, block in parts(page) if kind == "command"][:3]
    assert [command for command in commands if f"    {command}" not in readme] == []
