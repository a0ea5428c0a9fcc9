"""Running a benchmark: one task after the other, results in mteb's cache, so that a stopped run goes on."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import datasets
import mteb
from mteb.abstasks.abstask import AbsTask
from mteb.models import EncoderProtocol
from mteb.results import TaskResult
from mteb.types import EncodeKwargs

from st_modules.errors import ArgumentError, STModulesError, shorten
from st_modules.evaluate.benchmarks import Entry
from st_modules.evaluate.files import BenchmarkDataError
from st_modules.evaluate.models import MTEBModel
from st_modules.evaluate.submissions import SubmissionTask, write_submission


@dataclass(frozen=True)
class Outcome:
    """What came out of a run.

    Attributes:
        model: What the model is called.
        catalog_name: Its name in the catalog; ``None`` for others.
        scores: The scores of each task that has them by their names, from 0 to 1.
        errors: What went wrong with each of the others.
        results: mteb's results, which have every other score too.
        submissions: The files for servers, of the tasks whose answers they have.
        version: Which weights and options the model had, as :attr:`MTEBModel.version` says it.
    """

    model: str
    catalog_name: str | None = None
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    results: dict[str, TaskResult] = field(default_factory=dict)
    submissions: dict[str, Path] = field(default_factory=dict)
    version: str = ""


def evaluate(
    model: MTEBModel,
    entries: Sequence[Entry],
    folder: Path,
    *,
    batch_size: int = 32,
    overwrite: bool = False,
    show_progress_bar: bool = True,
) -> Outcome:
    """Run tasks, and keep their results.

    A task whose results are in the folder is not run again, unless its data or the model's weights are others than
    then. A task that fails does not stop the others.

    Args:
        model: The model.
        entries: The tasks, as :meth:`Suite.select` returns them.
        folder: Where mteb's ``ResultCache`` keeps results: ``results/MODEL/REVISION/TASK.json``. Files for servers are
            ``submissions/MODEL/REVISION/TASK-DATA.json`` in it.
        batch_size: Most items in a batch.
        overwrite: Whether to run tasks again that have results.
        show_progress_bar: Whether to show how far a task is.

    Returns:
        Scores, files and errors by task.

    Raises:
        ArgumentError: Two tasks have the same name, under which their results would be kept.
    """
    _check_names(entries)
    model.update_revision()
    cache = mteb.ResultCache(folder)
    outcome = Outcome(model.label, model.catalog_name, version=model.version)
    encode_kwargs = {"batch_size": batch_size, "show_progress_bar": show_progress_bar}
    for entry in entries:
        try:
            with _progress_bars_of_datasets(show_progress_bar):
                task = entry.make()
                if isinstance(task, SubmissionTask):
                    outcome.submissions[entry.name] = _submit(model, task, cache, encode_kwargs, overwrite)
                else:
                    _add(outcome, entry, _run(model, task, cache, encode_kwargs, overwrite))
        except Exception as error:
            outcome.errors[entry.name] = _tell(error)
    return outcome


def _check_names(entries: Sequence[Entry]) -> None:
    places: dict[str, int] = {}
    for place, entry in enumerate(entries):
        first = places.setdefault(entry.name, place)
        if first != place:
            raise ArgumentError(
                f"entries[{first}] and entries[{place}] are both called {shorten(entry.name)}; give each a name of its "
                "own, such as that of FolderTask(folder, name)."
            )


def collect(model: MTEBModel, entries: Sequence[Entry], folder: Path) -> Outcome:
    """Return the scores and files that a folder has of earlier runs on the same data; nothing is run.

    Args:
        model: The model.
        entries: The tasks.
        folder: As for :func:`evaluate`.
    """
    model.update_revision()
    cache = mteb.ResultCache(folder)
    outcome = Outcome(model.label, model.catalog_name, version=model.version)
    for entry in entries:
        kept = cache.load_task_result(entry.name, model.meta)
        if kept and _is_whole(kept, entry):
            _add(outcome, entry, kept)
        elif not entry.metrics and (path := _kept_submission(model, entry, cache)):
            outcome.submissions[entry.name] = path
    return outcome


def _kept_submission(model: MTEBModel, entry: Entry, cache: mteb.ResultCache) -> Path | None:
    try:
        path = _submission_path(model, entry.make(), cache)
    except BenchmarkDataError:
        return None
    return path if path.is_file() else None


def _is_whole(kept: TaskResult, entry: Entry) -> bool:
    """Whether results are those of all the data that the task has now."""
    try:
        task = entry.make()
    except BenchmarkDataError:
        return False
    return not _is_stale(kept, task) and not kept.get_missing_evaluations(task)


def _add(outcome: Outcome, entry: Entry, result: TaskResult) -> None:
    found = [metric for metric in entry.optional_metrics if _has(result, metric)]
    outcome.scores[entry.name] = {metric: score(result, metric) for metric in (*entry.metrics, *found)}
    outcome.results[entry.name] = result


def _has(result: TaskResult, metric: str) -> bool:
    return all(metric in scores for split in result.scores.values() for scores in split)


def score(result: TaskResult, metric: str) -> float:
    """Return a task's score: the mean over its splits and subsets.

    Raises:
        KeyError: mteb's results have no such score.
    """
    return float(result.get_score(getter=lambda scores: scores[metric]))


@contextmanager
def _progress_bars_of_datasets(shown: bool) -> Generator[None, None, None]:
    change = not shown and datasets.are_progress_bars_disabled() is False
    if change:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if change:
            datasets.enable_progress_bars()


def _submit(
    model: MTEBModel, task: SubmissionTask, cache: mteb.ResultCache, encode_kwargs: Mapping[str, Any], overwrite: bool
) -> Path:
    path = _submission_path(model, task, cache)
    if overwrite or not path.is_file():
        write_submission(model, task, path, encode_kwargs)
    return path


def _submission_path(model: MTEBModel, task: AbsTask, cache: mteb.ResultCache) -> Path:
    """Name a file as mteb names results, and for its data, so that it is not taken for that of other data."""
    path = cache.get_task_result_path(f"{task.metadata.name}-{task.metadata.revision}", model.meta)
    return cache.cache_path / "submissions" / path.relative_to(cache.cache_path / "results")


def _run(
    model: MTEBModel, task: AbsTask, cache: mteb.ResultCache, encode_kwargs: Mapping[str, Any], overwrite: bool
) -> TaskResult:
    fresh = overwrite or _is_stale(cache.load_task_result(task.metadata.name, model.meta), task)
    (result,) = mteb.evaluate(
        cast("EncoderProtocol", model),
        task,
        cache=cache,
        overwrite_strategy="always" if fresh else "only-missing",
        encode_kwargs=cast("EncodeKwargs", dict(encode_kwargs)),
        show_progress_bar=encode_kwargs["show_progress_bar"],
        co2_tracker=False,
    ).task_results
    return result


def _is_stale(kept: TaskResult | None, task: AbsTask) -> bool:
    # mteb compares the data's revision only where a split or a subset is missing.
    return kept is not None and kept.dataset_revision != task.metadata.revision


def _tell(error: Exception) -> str:
    text: Any = str(error).strip().partition("\n")[0]
    return text if isinstance(error, STModulesError) else f"{type(error).__name__}: {text}"
