"""Runs pages of the documentation as they are written: their Python and their commands, one after the other."""

from __future__ import annotations

import contextlib
import gc
import re
import shlex
import shutil
import socket
import subprocess
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from st_modules import cli
from tests.helpers.paths import ROOT
from tests.helpers.remote import listen

_PART = re.compile(
    r"```python\n(?P<python>.*?)```|```bash\n(?P<bash>.*?)```|^    (?P<command>st-modules [^\n]+)$",
    re.DOTALL | re.MULTILINE,
)
_ADDRESS = "http://127.0.0.1:8000"


def read_page(name: str) -> str:
    """Return the text of a page in ``docs/``."""
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def parts(text: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a page that run: blocks of Python and bash, and single commands, each with its kind."""
    for found in _PART.finditer(text):
        yield next((kind, part) for kind, part in found.groupdict().items() if part is not None)


class PageRunner:
    """Runs the parts of one page in the current folder, without other machines.

    What ``st-modules serve`` would serve is answered in a thread, on a free port that the later parts are told.

    Args:
        monkeypatch: Refuses the network, and takes the application that is served.
        cleanup: Ends the servers.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, cleanup: contextlib.ExitStack) -> None:
        self.names: dict[str, Any] = {"__name__": "documentation"}
        self.printed: list[str] = []
        self._cleanup = cleanup
        self._url = _ADDRESS
        monkeypatch.setattr(socket, "getaddrinfo", _local_only(socket.getaddrinfo))
        monkeypatch.setattr("st_modules.serve.process.run", self._serve)

    def run(self, name: str) -> dict[str, int]:
        """Run a page, and return how many parts of each kind it has."""
        ran = {"python": 0, "bash": 0, "command": 0}
        with warnings.catch_warnings():
            # Clients and databases that are left to the garbage collector, as in a program that ends.
            warnings.simplefilter("ignore", ResourceWarning)
            for kind, part in parts(read_page(name)):
                ran[kind] += 1
                getattr(self, f"_run_{kind}")(part.replace(_ADDRESS, self._url), name)
            self.names.clear()
            gc.collect()
        return ran

    def _run_python(self, code: str, page: str) -> None:
        exec(compile(code, page, "exec"), self.names)

    def _run_bash(self, code: str, page: str) -> None:
        if shutil.which("curl") is None:
            pytest.skip("curl is not installed")
        self.printed.append(subprocess.run(["bash", "-ec", code], capture_output=True, text=True, check=True).stdout)

    def _run_command(self, command: str, page: str) -> None:
        result = CliRunner().invoke(cli.app, shlex.split(command, comments=True)[1:])
        assert result.exit_code == 0, (command, result.stderr)
        self.printed.append(result.stdout)

    def _serve(self, app: Any, *_: object) -> None:
        self._url = self._cleanup.enter_context(listen(app))


def _local_only(getaddrinfo: Any) -> Any:
    def refuse_others(host: str | None, *args: Any, **kwargs: Any) -> Any:
        assert host in ("127.0.0.1", "localhost", None), f"{host}: network"
        return getaddrinfo(host, *args, **kwargs)

    return refuse_others
