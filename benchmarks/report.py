"""Results as tables, on the terminal and in Markdown, and as JSON."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch
from contest import Result
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from variants import OURS, REFERENCE
from workloads import TITLES

_NONE = "n/a"


@dataclass(frozen=True)
class Table:
    """A table with its title.

    Attributes:
        title: What the table shows.
        header: Names of the columns.
        rows: Cells, as many in each row as there are columns.
    """

    title: str
    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        """Return the table in Markdown."""
        lines = [self.header, ["---", *["--:"] * (len(self.header) - 1)], *self.rows]
        return "\n".join([f"### {self.title}", "", *(f"| {' | '.join(line)} |" for line in lines), ""])

    def show(self) -> None:
        """Print the table on the terminal."""
        table = RichTable(*self.header, title=self.title, title_justify="left", box=box.SIMPLE_HEAD)
        for row in self.rows:
            table.add_row(*row)
        Console(width=max(160, Console().width)).print(table)


def speed_table(results: Sequence[Result]) -> Table:
    """Return the time of every variant, and how many times as long as ours each takes."""
    variants = _variants(results)
    others = [variant for variant in variants if variant != OURS]
    header = ["family", "workload", "items", "tokens", *(f"{variant}, s" for variant in variants)]
    header += [*(f"{variant} / ours" for variant in others), "ours, items/s"]
    return Table(
        "Time: medians, and of each ratio the median (least–most) of the rounds",
        header,
        [
            [
                *_place(result),
                str(result.items),
                str(result.tokens),
                *(f"{result.seconds(each):.2f}" if each in result.samples else _NONE for each in variants),
                *(str(result.ratio(each, OURS)) if each in result.samples else _NONE for each in others),
                f"{result.items / result.seconds(OURS):.1f}",
            ]
            for result in results
        ],
    )


def resource_table(results: Sequence[Result]) -> Table:
    """Return memory, useful operations beside the machine's peak, and how far the vectors are apart."""
    variants = _variants(results)
    return Table(
        "Peak memory above the loaded models; useful operations a second beside matrix products; largest difference "
        "of vectors",
        [
            "family",
            "workload",
            *(f"{variant}, MiB" for variant in variants),
            *(f"{variant}, useful" for variant in variants if variant in (REFERENCE, OURS)),
            "difference",
        ],
        [
            [
                *_place(result),
                *(_mebibytes(result, variant) for variant in variants),
                *(f"{result.efficiency(each):.0%}" for each in variants if each in (REFERENCE, OURS)),
                f"{max(result.differences.values()):.0e}",
            ]
            for result in results
        ],
    )


def legend(results: Sequence[Result]) -> list[str]:
    """Return what the workloads of the results are, a line each."""
    return [f"- {name}: {TITLES[name]}" for name in dict.fromkeys(result.workload for result in results)]


def _variants(results: Sequence[Result]) -> list[str]:
    names = list(dict.fromkeys(variant for result in results for variant in result.samples))
    return [OURS, *sorted(name for name in names if name != OURS)]


def _place(result: Result) -> list[str]:
    return [result.family, result.workload]


def _mebibytes(result: Result, variant: str) -> str:
    peak = result.peak_bytes(variant) if variant in result.samples else None
    return _NONE if peak is None else f"{peak / 2**20:.0f}"


def machine() -> dict[str, str]:
    """Return what the numbers of a run depend on: the machine, the versions, the date, and the command."""
    packages = ("torch", "transformers", "sentence-transformers")
    return {
        "cpu": _cpu_model(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": str(torch.get_num_threads()),
        **{package: importlib.metadata.version(package) for package in packages},
        "date": date.today().isoformat(),
        "command": shlex.join(["python", *sys.argv]),
    }


def _cpu_model() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def write(numbers: Path, page: Path, results: Sequence[Result], parts: Sequence[str | Table]) -> None:
    """Write a run's numbers as JSON, and its tables as Markdown.

    Args:
        numbers: Path of the JSON file.
        page: Path of the Markdown file.
        results: The numbers.
        parts: What the page has: tables, and lines of text.
    """
    about = machine()
    content = {"machine": about, "results": [asdict(result) for result in results]}
    for path in (numbers, page):
        path.parent.mkdir(parents=True, exist_ok=True)
    numbers.write_text(json.dumps(content, indent=2), encoding="utf-8")
    line = ", ".join(f"{key} {value}" for key, value in about.items() if key != "command")
    text = [f"Measured on: {line}; `{about['command']}`.", ""]
    text += [part.markdown() if isinstance(part, Table) else part for part in parts]
    page.write_text("\n".join([*text, ""]), encoding="utf-8")
