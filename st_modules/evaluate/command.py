"""What ``st-modules evaluate`` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from st_modules.evaluate import (
    BenchmarkDataError,
    Entry,
    Report,
    Suite,
    UnknownBenchmarkError,
    collect,
    evaluate,
    open_benchmark,
    wrap_model,
)
from st_modules.evaluate.files import read_json
from st_modules.evaluate.models import revision_of
from st_modules.model import SentenceTransformer


def open_tasks(benchmark: str, data: Path | None, names: Sequence[str]) -> tuple[Suite, tuple[Entry, ...]]:
    """Open a benchmark and choose of its tasks.

    Args:
        benchmark: Its name.
        data: Folder of its files.
        names: Tasks or groups; each string may be several with commas between.

    Raises:
        MissingExtraError: mteb is not installed.
        UnknownBenchmarkError: A name is unknown.
        BenchmarkDataError: The folder is missing.
    """
    suite = open_benchmark(benchmark, data)
    return suite, suite.select([name.strip() for text in names for name in text.split(",") if name.strip()])


def task_rows(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    """Return a row of a listing for each task."""
    return [(entry.name, entry.group, ", ".join(entry.metrics) or "file for the server") for entry in entries]


def run_tasks(
    model: SentenceTransformer,
    name: str,
    suite: Suite,
    entries: Sequence[Entry],
    out: Path,
    *,
    weights: Path | None,
    base_weights: Path | None,
    instructions: Mapping[str, str] | None,
    batch_size: int,
    overwrite: bool,
    show_progress_bar: bool,
) -> Report:
    """Run tasks, and report their scores and files with those that earlier runs left in the folder.

    See :func:`st_modules.evaluate.evaluate`.
    """
    wrapped = wrap_model(
        model,
        name,
        revision=revision_of(name),
        weights=weights,
        base_weights=base_weights,
        instructions=instructions,
    )
    outcome = evaluate(
        wrapped,
        entries,
        out,
        batch_size=batch_size,
        overwrite=overwrite,
        show_progress_bar=show_progress_bar,
    )
    earlier = collect(wrapped, [entry for entry in suite.entries if entry not in entries], out)
    return Report.of(suite, earlier, outcome)


def read_instructions(path: Path, suite: Suite) -> dict[str, str]:
    """Read instructions by mteb's keys; see :func:`st_modules.evaluate.instructions.find_instruction`.

    Raises:
        BenchmarkDataError: The file is missing, or is no JSON object of strings.
        UnknownBenchmarkError: A key is no task of the benchmark, no type of tasks, and no side.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise BenchmarkDataError(f"{path}: must be a JSON object of instructions, all of them strings.")
    from mteb.abstasks.task_metadata import TaskType

    names = [*(entry.name for entry in suite.entries), *get_args(TaskType)]
    known = {"query", "document", *(name + side for name in names for side in ("", "-query", "-document"))}
    for key in content:
        if key not in known:
            raise UnknownBenchmarkError(f"{path}: {key!r} is no task of {suite.name}, no type of tasks, and no side.")
    return content
