"""Say where the time goes until "tiny" is ready in a fresh process, and embeds its first text.

Run ``python benchmarks/load_time.py``; the median of several processes is printed, of each step by itself.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

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


if __name__ == "__main__":
    main()
