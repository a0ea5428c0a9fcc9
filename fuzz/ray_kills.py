"""Kill workers, machines and the command itself while ``st-modules index --engine ray`` runs, at random moments.

What the command leaves when it ends is the index that the local engine builds, row by row. The machines are nodes of a
Ray cluster in this one. Run ``python -m fuzz.ray_kills --kills 20``; it is no part of ``make fuzz``, for it takes half
a minute a kill.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from fuzz.ray_cluster import STORE_BYTES, kill_worker, run_cluster

_ROWS = 3000
_KILLS = {"worker": 5, "machine": 3, "command": 2}
"""What is killed, and how often among ten kills."""
_KILLS_A_RUN = 4
"""Ray gives up after more over the same entries."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    print(f"--seed {seed}", flush=True)
    # LanceDB warns of processes that are forked; these become other programs at once.
    warnings.filterwarnings("ignore", "lancedb fork support")
    with TemporaryDirectory(prefix="st-modules-kills-") as name, run_cluster(nodes=2, connect=False) as cluster:
        campaign = Campaign(Path(name), cluster, random.Random(seed))
        while campaign.kills.total() < arguments.kills:
            campaign.run()
            print(f"{dict(campaign.kills)} so far; a run takes {campaign.seconds:.0f} s undisturbed", flush=True)
    print(f"{campaign.kills.total()} kills: every index was the one that is built here.")
    return 0


class Campaign:
    """Runs of the command, of which each is disturbed until it ends."""

    def __init__(self, folder: Path, cluster: Any, moments: random.Random) -> None:
        self.kills: Counter[str] = Counter()
        self._cluster = cluster
        self._moments = moments
        self._folder = folder
        self._rows = folder / "rows.jsonl"
        rows = [{"text": f"text {number % (_ROWS - 100)}", "n": number} for number in range(_ROWS)]
        rows[70]["text"] = ""
        self._rows.write_text("".join(json.dumps(row) + "\n" for row in rows))
        assert self._start("whole", "local").wait() == 0
        self._whole = self._read("whole")
        started = time.monotonic()
        assert self._start("undisturbed", "ray").wait() == 0
        self.seconds = time.monotonic() - started
        self._compare("undisturbed")

    def run(self) -> None:
        """Let the command run, and go on, until it has ended; and compare what it has left."""
        name = f"index-{self.kills.total()}"
        most = self.kills.total() + _KILLS_A_RUN
        while not self._disturb(self._start(name, "ray"), most):
            pass
        self._compare(name)

    def _disturb(self, command: subprocess.Popen[bytes], most: int) -> bool:
        """Kill something every now and then; return whether the command has come to its end."""
        while True:
            pause = self._moments.uniform(1, self.seconds / 2) if self.kills.total() < most else None
            try:
                code = command.wait(pause)
            except subprocess.TimeoutExpired:
                kind = self._moments.choices([*_KILLS], [*_KILLS.values()])[0]
                self.kills[kind] += self._kill(kind, command)
                if kind == "command":
                    return False
            else:
                assert code == 0, f"the command ended with {code}"
                return True

    def _kill(self, kind: str, command: subprocess.Popen[bytes]) -> bool:
        if kind == "worker":
            return kill_worker(self._moments)
        if kind == "machine":
            machine = self._moments.choice([*self._cluster.worker_nodes])
            self._cluster.remove_node(machine, allow_graceful=False)
            self._cluster.add_node(num_cpus=1, object_store_memory=STORE_BYTES)
        else:
            command.send_signal(signal.SIGKILL)
            command.wait()
        return True

    def _start(self, name: str, engine: str) -> subprocess.Popen[bytes]:
        call = ["index", str(self._rows), "--to", str(self._folder / name), "-q", "--device", "cpu", "--model", "tiny"]
        if engine == "ray":
            call += ["--engine", "ray", "--address", self._cluster.address, "--workers", "2"]
        program = "import sys; from st_modules.cli import app; app(sys.argv[1:])"
        return subprocess.Popen([sys.executable, "-c", program, *call], stdout=subprocess.DEVNULL)

    def _read(self, name: str) -> tuple[dict[str, Any], np.ndarray]:
        import lancedb

        rows = lancedb.connect(self._folder / name).open_table("items").to_arrow().sort_by("id")
        return rows.drop_columns("vector").to_pydict(), np.array(rows["vector"].to_pylist())

    def _compare(self, name: str) -> None:
        (found, vectors), (expected, expected_vectors) = self._read(name), self._whole
        for column in expected:
            assert sorted(found["n"]) == sorted(expected["n"]), _describe(found["n"], expected["n"])
            assert found[column] == expected[column], f"{column}: {_describe(found[column], expected[column])}"
        assert np.abs(vectors - expected_vectors).max() < 1e-5, "other vectors"


def _describe(found: list[Any], expected: list[Any]) -> str:
    more, less = Counter(found) - Counter(expected), Counter(expected) - Counter(found)
    return f"{more.total()} that should not be there, as {[*more][:5]}; {less.total()} missing, as {[*less][:5]}"


if __name__ == "__main__":
    sys.exit(main())
