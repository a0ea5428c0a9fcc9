"""Throw hostile inputs at the package: each is embedded to finite unit vectors or refused by name, at a bounded cost.

First come the known attacks in their full size, each in a process of its own, with a table of what they cost. Then
hypothesis makes inputs of every kind, and after it atheris, which goes where it sees new code, makes more of the same
kinds. What fails is printed with what makes it again, and the exit code is 1.

Run ``make fuzz``, or for a part of it ``python -m fuzz.run --targets images --minutes 10``. Memory is measured on Linux
alone.
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import warnings
from importlib.util import find_spec

os.environ["HF_HUB_OFFLINE"] = "1"
# Processes are forked, which the threads of OpenMP do not survive.
os.environ["OMP_NUM_THREADS"] = "1"

import torch
from rich.console import Console
from rich.table import Table

from fuzz.bounds import Outcome, run_apart
from fuzz.images import png
from fuzz.outcomes import CHECKPOINTS, golden, tiny
from fuzz.targets import TARGETS, Target

_console = Console(width=160)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--engines", nargs="+", choices=["attacks", "hypothesis", "atheris"], default=None)
    parser.add_argument("--minutes", type=float, default=0.5, help="of each engine for each target")
    parser.add_argument("--patience", type=float, default=120.0, help="seconds after which an attack is killed")
    parser.add_argument("--untimed", action="store_true", help="let known attacks take their time, on a busy machine")
    parser.add_argument("--skip-slow", action="store_true", help="leave out attacks that take seconds to be built")
    parser.add_argument("--only", help="run the known attacks whose name has this in it, and no other")
    arguments = parser.parse_args()
    engines = arguments.engines or ["attacks", "hypothesis", *(["atheris"] if find_spec("atheris") else [])]
    warnings.simplefilter("ignore")
    logging.disable()
    _warm_up()
    if "texts" in arguments.targets:
        for name in CHECKPOINTS:
            golden(name).encode(["a"])
    failed = 0
    if "attacks" in engines:
        failed += sum(_run_attacks(name, TARGETS[name], arguments) for name in arguments.targets)
    for engine in engines:
        if engine != "attacks":
            failed += sum(_run_random(engine, name, arguments.minutes) for name in arguments.targets)
    _console.print(f"{failed} failed" if failed else "Nothing failed.")
    return int(failed > 0)


def _warm_up() -> None:
    # A forked process makes torch's threads anew; several threads that do so at once trip over each other.
    torch.set_num_threads(1)
    tiny().encode(["a", {"image": png()}])


def _run_attacks(name: str, target: Target, arguments: argparse.Namespace) -> int:
    """Run the known attacks of a target, and print what each did; the number of those that failed is returned."""
    table = Table("attack", "outcome", "s", "MiB", "what it says", title=name)
    failed = 0
    for attack, build in target.attacks.items():
        if (arguments.only or "") not in attack or (arguments.skip_slow and "100 megapixels" in attack):
            continue
        value = build(1.0)
        outcome, cost = run_apart(lambda value=value: target.check(value), arguments.patience, _warm_up)
        del value
        if isinstance(outcome, Outcome):
            try:
                cost.check(outcome.pixels, timed=not arguments.untimed)
                kind, words = "embedded" if outcome.embedded else "refused", outcome.words
            except AssertionError as error:
                kind, words = "FAILED", f"{error}; {outcome.words}"
        else:
            kind, words = "FAILED", outcome.strip().splitlines()[-1]
        failed += kind == "FAILED"
        shown = ascii(words.partition("\n")[0][:90])[1:-1].replace("[", r"\[")
        table.add_row(attack, kind, f"{cost.seconds:.1f}", f"{cost.mebibytes:.0f}", shown)
    _console.print(table)
    return failed


def _run_random(engine: str, name: str, minutes: float) -> int:
    """Run an engine on a target in a process of its own; 1 is returned where it found something."""
    _console.print(f"{engine}, {name}: {minutes} minutes", end=" ", highlight=False)
    call = [sys.executable, "-m", "fuzz.random_inputs", engine, name, str(minutes)]
    done = subprocess.run(call, capture_output=True, text=True, errors="replace")
    last = (done.stdout.strip().splitlines() or [""])[-1]
    _console.print(last if not done.returncode else f"FAILED\n{done.stdout}\n{done.stderr[-8000:]}", markup=False)
    return int(done.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
