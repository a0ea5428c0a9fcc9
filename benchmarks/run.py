"""Time our ``encode`` beside what the models' authors run and beside sentence-transformers' own loop.

Every family of models is a random checkpoint of middling size in the layout in which the models are published. All
ways of embedding give the same vectors to 1e-5, which is checked before a time is shown; they are timed in turns, so
that a busy moment of the machine hits all of them alike.

Run ``make bench``, or for a part of it ``python benchmarks/run.py --families gme --workloads W1 W2``. With
``--options``, our own is timed with each of its ways of saving work switched off, and nothing beside it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

from contest import Result, contest
from encode_options import options_contest, options_table
from families import FAMILIES
from plots import plot_speedups
from report import legend, resource_table, speed_table, write
from rich.console import Console
from transformers.utils.logging import disable_progress_bar
from variants import Loaded, able, load_family, opponents
from workloads import TITLES, Workload

Contest: TypeAlias = Callable[[Workload], Result]

_console = Console(stderr=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--workloads", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.125, help="fraction of the items (1 is 512 short texts)")
    parser.add_argument("--options", action="store_true", help="time our own with each way of saving work off")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    return parser.parse_args()


def by_family(args: argparse.Namespace, prepare: Callable[[Loaded, int], Contest]) -> Iterator[list[Result]]:
    """Yield the results of one family after the other.

    Args:
        args: The command line's.
        prepare: Returns what times a workload of loaded models, in so many rounds.
    """
    with TemporaryDirectory() as photos:
        for name in args.families:
            with load_family(FAMILIES[name], Path(photos)) as models:
                time_workload = prepare(models, args.rounds)
                results: list[Result] = []
                for workload in args.workloads:
                    with _console.status(f"{name}, {workload}: {TITLES[workload]}"):
                        results.append(time_workload(models.workload(workload, args.scale)))
                yield results


def against_opponents(models: Loaded, rounds: int) -> Contest:
    """Return what times ours beside the others."""
    variants = opponents(models)
    return lambda workload: contest(models, workload, able(variants, workload), rounds)


def against_itself(models: Loaded, rounds: int) -> Contest:
    """Return what times ours with each option off."""
    return lambda workload: options_contest(models, workload, rounds)


def report_opponents(found: Iterable[Sequence[Result]], out: Path) -> None:
    """Show and write the results of each family as they come."""
    results: list[Result] = []
    for of_family in found:
        speed_table(of_family).show()
        resource_table(of_family).show()
        results += of_family
        tables = [speed_table(results), resource_table(results)]
        write(out / "results.json", out / "tables.md", results, [*legend(results), "", *tables])
        plot_speedups(results, out / "speedups.svg")


def report_options(found: Iterable[Sequence[Result]], out: Path) -> None:
    """Show and write the results of each family as they come."""
    results: list[Result] = []
    for of_family in found:
        options_table(of_family).show()
        results += of_family
        write(out / "options.json", out / "options.md", results, [*legend(results), "", options_table(results)])


def main() -> None:
    args = parse_arguments()
    disable_progress_bar()
    if args.options:
        report_options(by_family(args, against_itself), args.out)
    else:
        report_opponents(by_family(args, against_opponents), args.out)


if __name__ == "__main__":
    main()
