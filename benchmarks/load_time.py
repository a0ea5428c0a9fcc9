"""Say where the time goes until "tiny" is ready in a fresh process, and embeds its first text.

Run ``python benchmarks/load_time.py``; the median of several processes is printed, of each step by itself. Beside it,
in turns, how much longer ``st-modules embed`` takes for one text than ``import sentence_transformers``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from rich.console import Console
from rich.table import Table

_STEPS = {
    "import torch": "import torch",
    "import sentence_transformers": "import sentence_transformers",
    "import st_modules": "from st_modules import SentenceTransformer",
    'SentenceTransformer("tiny")': 'model = SentenceTransformer("tiny", device="cpu")',
    "the first text": 'model.encode("a red circle")',
}
_PROGRAM = """
import json, time
seconds = []
for step in {steps!r}:
    start = time.perf_counter()
    exec(step)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def compare_command(rounds: int) -> float:
    """Return the median of the times of ``st-modules embed`` over those of the import."""
    ratios: list[float] = []
    with TemporaryDirectory() as folder:
        for number in range(rounds):
            command = "from st_modules.cli import app; app()"
            out = str(Path(folder) / f"{number}.npy")
            seconds = [
                time_process("-c", "import sentence_transformers"),
                time_process("-c", command, "embed", "a red circle", "--model", "tiny", "--out", out),
            ]
            ratios.append(seconds[1] / seconds[0])
    return float(np.median(ratios))


def time_process(*arguments: str) -> float:
    """Return the seconds of a Python process."""
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=5)
    args = parser.parse_args()
    command = [sys.executable, "-c", _PROGRAM.format(steps=list(_STEPS.values()))]
    runs = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(args.processes)
    ]
    table = Table("Step", "seconds")
    for step, seconds in zip(_STEPS, np.median(runs, axis=0), strict=True):
        table.add_row(step, f"{seconds:.2f}")
    table.add_row("together", f"{np.median(np.sum(runs, axis=1)):.2f}")
    Console().print(table)
    ratio = compare_command(args.processes)
    Console().print(f"st-modules embed of one text: {ratio:.2f} times import sentence_transformers")


if __name__ == "__main__":
    main()
