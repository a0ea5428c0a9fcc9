"""Kill ``st-modules embed``, ``megapairs`` and ``index`` at random moments: what is left is whole, and a rerun goes on.

Run ``python -m fuzz.kills --minutes 5``; ``make fuzz`` runs it too. Every run is a process that is forked from this
one, so that the moments fall into the command itself and not into its imports.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import logging
import os
import random
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
# Processes are forked, which the threads of OpenMP do not survive.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import torch

from fuzz.outcomes import tiny
from st_modules import cli
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption

_PICTURES = 30
_TEXTS = 120
_ITEMS_AT_ONCE = 8
_ROWS_A_COMMIT = 16


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=0.0, help="go on for so long")
    parser.add_argument("--rounds", type=int, default=1, help="or for so many kills of each command")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--only", choices=("embed", "megapairs", "index"), help="kill this command alone")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"--seed {seed}", flush=True)
    moments = random.Random(seed)
    torch.set_num_threads(1)
    tiny().encode(["a"])
    end, rounds = time.monotonic() + 60 * arguments.minutes, 0
    with TemporaryDirectory(prefix="st-modules-kills-") as name:
        folder = Path(name)
        pictures = draw_pictures(folder / "pictures")
        kinds: dict[str, type[KilledEmbed | KilledMegapairs | KilledIndex]] = {
            "embed": KilledEmbed,
            "megapairs": KilledMegapairs,
            "index": KilledIndex,
        }
        tests = [
            kind(folder / name, pictures, moments) for name, kind in kinds.items() if arguments.only in (None, name)
        ]
        while rounds < arguments.rounds or time.monotonic() < end:
            for test in tests:
                test.run()
            rounds += 1
    print(f"{sum(test.kills for test in tests)} kills: what was left was whole, and the next run ended the same.")
    return 0


def draw_pictures(folder: Path) -> Path:
    """Draw pictures with captions into a folder, which is returned."""
    folder.mkdir()
    rows: list[dict[str, str]] = []
    for number, scene in enumerate(random_scenes(7, _PICTURES)):
        draw(scene, seed=5).save(folder / f"{number:02}.png")
        rows.append({"file_name": f"{number:02}.png", "caption": caption(scene)})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def run_command(arguments: Sequence[str], kill_after: float | None = None) -> bool:
    """Run a command in a process of its own.

    Args:
        arguments: What stands after ``st-modules``.
        kill_after: Seconds after which it is killed, if it has not ended by then.

    Returns:
        Whether it was killed.

    Raises:
        AssertionError: It ended with an error.
    """
    # A command that ends with an error returns its status here.
    return run_process(lambda: cli.app(list(arguments), standalone_mode=False), str(arguments), kill_after)


def import_what_runs(arguments: Sequence[str]) -> None:
    """Run a command in this process: those that are forked from it have imported then what it needs."""
    with redirect_stdout(io.StringIO()):
        cli.app(list(arguments), standalone_mode=False)


def run_process(call: Callable[[], int | None], name: str, kill_after: float | None = None) -> bool:
    """Run a function in a process of its own; see :func:`run_command`."""
    with warnings.catch_warnings():
        # LanceDB's, of forks: here nothing of it has run before one.
        warnings.simplefilter("ignore", RuntimeWarning)
        child = os.fork()
    if not child:
        # A forked process makes torch's threads anew; several threads that do so at once trip over each other.
        torch.set_num_threads(1)
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        try:
            code = call()
        except BaseException as error:
            print(f"{name}: {error!r}", file=sys.stderr)
            code = 1
        sys.stderr.flush()
        os._exit(code or 0)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return True
    assert status == 0, f"status {status} of {name}"
    return False


class _Killed:
    """A command that is killed at moments all over the time that it takes."""

    def __init__(self, moments: random.Random) -> None:
        self.moments = moments
        self.kills = 0
        self.in_a_row = 0
        self.seconds = 1.0

    def time_it(self, call: Callable[[], object]) -> None:
        start = time.monotonic()
        call()
        self.seconds = time.monotonic() - start

    def kill(self, arguments: Sequence[str]) -> bool:
        """Run a command that is killed, or that ends before; whether it was killed is returned."""
        # Later from kill to kill: on a machine that has become slower since it was timed, it comes to its end too.
        most = self.seconds * 1.2**self.in_a_row
        killed = run_command(arguments, self.moments.uniform(0, most))
        self.kills += killed
        self.in_a_row = self.in_a_row + 1 if killed else 0
        return killed


class KilledEmbed(_Killed):
    """``embed`` over the files of a run before."""

    def __init__(self, folder: Path, pictures: Path, moments: random.Random) -> None:
        super().__init__(moments)
        folder.mkdir()
        self.out = folder / "vectors.npy"
        self.calls = {
            "few": ["embed", "-q", *(["a red circle"] * 3), "--out", str(self.out), "--force"],
            "many": ["embed", "-q", "--file", str(pictures), "--out", str(self.out), "--force", "--batch-size", "4"],
        }
        self.whole: dict[str, dict[str, bytes]] = {}
        for name, call in self.calls.items():
            import_what_runs(call)
            self.time_it(lambda call=call: run_command(call))
            self.whole[name] = self._read()
        assert self.whole["few"] != self.whole["many"]

    def _read(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.out.parent.iterdir() if path.is_file()}

    def run(self) -> None:
        """Kill a run over another's files; then kill one that goes on, until one ends."""
        run_command(self.calls["few"])
        self.kill(self.calls["many"])
        found = [path for path in (self.out, self.out.with_suffix(".jsonl")) if path.exists()]
        contents = {path.name: path.read_bytes() for path in found}
        assert len(found) < 2 or contents in self.whole.values(), f"{sorted(contents)} do not belong together"
        resuming = [*self.calls["many"], "--resume"]
        while self.kill(resuming):
            pass
        assert self._read() == self.whole["many"], "another result, or something was left behind"


class KilledMegapairs(_Killed):
    """``megapairs`` that goes on after every kill."""

    def __init__(self, folder: Path, pictures: Path, moments: random.Random) -> None:
        super().__init__(moments)
        folder.mkdir()
        self.folder, self.pictures = folder, pictures
        import_what_runs(self._call("first"))
        self.time_it(lambda: run_command(self._call("whole")))
        self.whole = (folder / "whole" / "triplets.jsonl").read_bytes()

    def _call(self, name: str) -> list[str]:
        (self.folder / name).mkdir(exist_ok=True)
        encoders = ["-e", "tiny:visual:0.5:0.97", "-e", "tiny:caption:0.5:0.97"]
        out = self.folder / name / "triplets.jsonl"
        # One that is killed at its very end has written its output already.
        return ["megapairs", str(self.pictures), *encoders, "-q", "--device", "cpu", "--out", str(out), "--force"]

    def run(self) -> None:
        """Kill a run, and those that go on, until one ends."""
        call = self._call("killed")
        while self.kill(call):
            pass
        assert (self.folder / "killed" / "triplets.jsonl").read_bytes() == self.whole
        shutil.rmtree(self.folder / "killed")


class KilledIndex(_Killed):
    """``index`` over a collection that has changed since its last run: rows are added, replaced and dropped."""

    def __init__(self, folder: Path, pictures: Path, moments: random.Random) -> None:
        importlib.import_module("lancedb.index")  # once: it is used in the forked processes alone
        super().__init__(moments)
        folder.mkdir()
        self.folder = folder
        self.log = folder / "embedded.log"
        self.sources = folder / "sources"
        self._commit_often()
        self._collect(pictures)
        run_command(self._call("old"))
        self._change()
        shutil.copytree(folder / "old", folder / "whole")
        self.log.write_text("")
        self.time_it(lambda: run_command(self._call("whole")))
        self.embedded = self._count()
        self.whole = self._read("whole")
        assert len(self.whole["id"]) == len(set(self.whole["id"]))
        assert self.embedded > _TEXTS

    def _commit_often(self) -> None:
        from st_modules.index import engines, rows
        from st_modules.integrations.embedder import Embedder

        engines._LEAST_AT_ONCE = _ITEMS_AT_ONCE
        engines._BATCHES_AT_ONCE = 1
        rows._MOST_ROWS = _ROWS_A_COMMIT
        rows._COMMITS_TO_TIDY = 4
        encode = Embedder.encode

        def count(embedder: Embedder, items: Sequence[Any], *arguments: Any, **options: Any) -> np.ndarray:
            with self.log.open("a") as stream:
                stream.write(f"{len(items)}\n")
            return encode(embedder, items, *arguments, **options)

        setattr(Embedder, "encode", count)  # noqa: B010 - for a type checker, it would be another method
        logging.disable(logging.WARNING)

    def _collect(self, pictures: Path) -> None:
        shutil.copytree(pictures, self.sources, ignore=shutil.ignore_patterns("*.jsonl"))
        rows = [{"text": f"text {number}", "n": number} for number in range(_TEXTS)]
        (self.sources / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _change(self) -> None:
        """Rename, copy, replace and delete pictures; change, add and delete rows, and the type of their column."""
        found = sorted(self.sources.glob("*.png"))
        found[0].rename(self.sources / "renamed.png")
        shutil.copy(found[1], self.sources / "copied.png")
        for number, path in enumerate(found[2:12]):
            draw(next(iter(random_scenes(100 + number, 1))), seed=6).save(path)
        for path in found[12:18]:
            path.unlink()
        rows: list[dict[str, Any]] = [{"text": f"text {number}", "n": number} for number in range(20, _TEXTS)]
        rows += [{"text": f"new text {number}", "n": number + 0.5} for number in range(_TEXTS)]
        rows += [{"text": "text 30", "n": "another"}]
        (self.sources / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def _call(self, name: str) -> list[str]:
        options = ["--prune", "-q", "--device", "cpu", "--batch-size", str(_ITEMS_AT_ONCE)]
        return ["index", str(self.sources), str(self.sources / "rows.jsonl"), "--to", str(self.folder / name), *options]

    def _count(self) -> int:
        return sum(map(int, self.log.read_text().split()))

    def _read(self, name: str) -> dict[str, Any]:
        """The rows of an index, in the order of their ids; read by another process, as this one is forked."""
        out = self.folder / "read.npz"

        def read() -> None:
            from st_modules.index.table import open_items

            rows = open_items(str(self.folder / name))[0].to_arrow().sort_by("id")
            texts = {column: rows[column].to_pylist() for column in ("id", "text", "source", "n")}
            np.savez(out, vectors=np.array(rows["vector"].to_pylist()), rest=json.dumps(texts))

        run_process(read, "reading")
        with np.load(out) as found:
            return {"vectors": found["vectors"], **json.loads(str(found["rest"]))}

    def run(self) -> None:
        """Kill a run, and those that go on, until one ends."""
        shutil.copytree(self.folder / "old", self.folder / "killed")
        self.log.write_text("")
        kills = 0
        while self.kill(self._call("killed")):
            kills += 1
        found = self._read("killed")
        vectors, whole = found.pop("vectors"), dict(self.whole)
        expected = whole.pop("vectors")
        assert found == whole, "another result"
        assert np.abs(vectors - expected).max() < 1e-5, "other vectors"
        # A killed run loses what it has in hand and what it has not committed.
        most = self.embedded + kills * (_ITEMS_AT_ONCE + _ROWS_A_COMMIT + _ITEMS_AT_ONCE)
        assert self._count() <= most, f"{self._count()} items embedded for {kills} kills, and not at most {most}"
        shutil.rmtree(self.folder / "killed")


if __name__ == "__main__":
    sys.exit(main())
