"""A table of scores, as Markdown and as HTML, beside the published ones."""

from __future__ import annotations

import html
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from st_modules.errors import ArgumentError
from st_modules.evaluate.benchmarks import Entry, Suite
from st_modules.evaluate.metrics import mean

if TYPE_CHECKING:
    from st_modules.evaluate.run import Outcome

AVERAGE = "Average"
_LONGEST_STEM = 240
Row = tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """The scores of a model on a benchmark.

    Attributes:
        suite: The benchmark.
        model: What the model is called.
        scores: Scores by task and name, from 0 to 1.
        errors: What went wrong, by task.
        published_for: The catalog's name of the model, where it is one of the catalog's.
        submissions: Files for servers, by task.
        version: Which weights and options the model had, as :attr:`MTEBModel.version` says it.
    """

    suite: Suite
    model: str
    scores: Mapping[str, Mapping[str, float]]
    errors: Mapping[str, str]
    published_for: str | None = None
    submissions: Mapping[str, Path] = field(default_factory=dict)
    version: str = ""

    @classmethod
    def of(cls, suite: Suite, *outcomes: Outcome) -> Self:
        """Report what came out of runs of one model on a benchmark.

        Args:
            suite: The benchmark.
            *outcomes: At least one, as :func:`st_modules.evaluate.evaluate` returns it. Of a task that is in several
                the last one counts.

        Raises:
            ArgumentError: They are of different models, or of one with other weights, options or instructions.
        """
        models = dict.fromkeys(f"{outcome.model} {outcome.version}".rstrip() for outcome in outcomes)
        if len(models) > 1:
            raise ArgumentError(
                f"A report is of one model, and these outcomes are of {len(models)}: {', '.join(models)}. For a table "
                'with a column for each, call compare(suite, {"before": …, "after": …}).'
            )
        scores, errors, submissions = (
            {task: value for outcome in outcomes for task, value in getattr(outcome, name).items()}
            for name in ("scores", "errors", "submissions")
        )
        last = outcomes[-1]
        return cls(suite, last.model, scores, errors, last.catalog_name, submissions, last.version)

    @property
    def groups_header(self) -> Row:
        """Names of the columns of :meth:`groups`."""
        return ("Group", "Tasks", self.model, *(f"{name}, published" for name in self._columns))

    def groups(self) -> list[Row]:
        """Return a row for each group, and one for the average over all tasks.

        Where tasks of a group have no score, "Tasks" says how many have, and the mean is over those. Tasks without
        public answers are in no group.
        """
        by_group: dict[str, list[Entry]] = {}
        for entry in self._scored:
            by_group.setdefault(entry.group, []).append(entry)
        rows = [self._row(group, entries) for group, entries in by_group.items()]
        return [*rows, self._row(AVERAGE, self._scored)]

    @property
    def tasks_header(self) -> Row:
        """Names of the columns of :meth:`tasks`."""
        return ("Task", "Group", "Score", self.model)

    def tasks(self) -> list[Row]:
        """Return a row for each score of each task that was run, and for each file for a server."""
        return [row for entry in self.suite.entries for row in self._task_rows(entry)]

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# {self._title}", self._note, _markdown(self.groups_header, self.groups())]
        return "\n\n".join([*parts, _markdown(self.tasks_header, self.tasks())]) + "\n"

    def html(self) -> str:
        """Return the report as a page."""
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(self._title)}</title>'
            "<style>body{font-family:sans-serif;margin:2rem}table{border-collapse:collapse;margin:1rem 0}"
            "td,th{border:1px solid #ccc;padding:.3rem .6rem;text-align:left}</style>"
            f"<h1>{html.escape(self._title)}</h1><p>{html.escape(self._note)}</p>"
            f"{_html(self.groups_header, self.groups())}{_html(self.tasks_header, self.tasks())}</html>\n"
        )

    def write(self, folder: Path) -> tuple[Path, Path]:
        """Write both forms to a folder.

        Returns:
            The Markdown file and the HTML file, named for the benchmark and the model.
        """
        folder.mkdir(parents=True, exist_ok=True)
        stem = f"{self.suite.name}-{self.model}".replace("/", "__").replace(" ", "_")
        # A file's name has 255 bytes at most, and folders are told apart by the end of a long path.
        stem = os.fsencode(stem)[-_LONGEST_STEM:].decode("utf-8", "ignore")
        paths = folder / f"{stem}.md", folder / f"{stem}.html"
        for path, text in zip(paths, (self.markdown(), self.html()), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths

    @property
    def _title(self) -> str:
        return f"{self.suite.name}: {self.model}"

    @property
    def _note(self) -> str:
        run = f"Scores in percent; {len(self.scores)} of {len(self._scored)} tasks have one."
        published = f" Published: {self.suite.source}." if self._columns else ""
        return run + published + (f" Weights and options: {self.version}." if self.version else "")

    @property
    def _scored(self) -> list[Entry]:
        return [entry for entry in self.suite.entries if entry.metrics]

    @property
    def _columns(self) -> Sequence[str]:
        """Whose published scores are shown: the model's own, or where it has none everybody's."""
        own = self.published_for or ""
        return [own] if own in self.suite.published else list(self.suite.published)

    def _row(self, group: str, entries: Sequence[Entry]) -> Row:
        found = [self.scores[entry.name][entry.metrics[0]] for entry in entries if entry.name in self.scores]
        count = str(len(entries)) if len(found) == len(entries) else f"{len(found)} of {len(entries)}"
        published = [self.suite.published[name].get(group) for name in self._columns]
        return (group, count, _percent(mean(found)) if found else "–", *map(_given, published))

    def _task_rows(self, entry: Entry) -> list[Row]:
        if entry.name in self.errors:
            return [(entry.name, entry.group, "–", f"failed: {self.errors[entry.name]}")]
        if entry.name in self.submissions:
            return [(entry.name, entry.group, "file for the server", str(self.submissions[entry.name]))]
        scores = self.scores.get(entry.name, {})
        return [(entry.name, entry.group, metric, _percent(score)) for metric, score in scores.items()]


def compare(suite: Suite, outcomes: Mapping[str, Outcome]) -> str:
    """Return the scores of several runs side by side, as a table in Markdown.

    Args:
        suite: The benchmark.
        outcomes: What came out of each run, as :func:`st_modules.evaluate.evaluate` returns it, by the name of its
            column.

    Returns:
        A row for each score of each task that was run, with a column for each outcome: the score in percent, "failed",
        or "–" where the outcome has none.

    Example:
        >>> print(compare(suite, {"before": before, "after": after}))
    """
    rows = [
        (entry.name, entry.group, metric, *(_cell(outcome, entry.name, metric) for outcome in outcomes.values()))
        for entry in suite.entries
        for metric in _metrics(entry, outcomes.values())
    ]
    return _markdown(("Task", "Group", "Score", *outcomes), rows)


def _metrics(entry: Entry, outcomes: Iterable[Outcome]) -> list[str]:
    """Return the names of the scores that any of the outcomes has of a task, or should have."""
    found = (entry.metrics if entry.name in each.errors else each.scores.get(entry.name, ()) for each in outcomes)
    return list(dict.fromkeys(metric for metrics in found for metric in metrics))


def _cell(outcome: Outcome, task: str, metric: str) -> str:
    if task in outcome.errors:
        return "failed"
    score = outcome.scores.get(task, {}).get(metric)
    return "–" if score is None else _percent(score)


def _percent(score: float) -> str:
    return f"{100 * score:.2f}"


def _given(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"


def _markdown(header: Row, rows: Sequence[Row]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _html(header: Row, rows: Sequence[Row]) -> str:
    def line(tag: str, cells: Row) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line('th', header)}{''.join(line('td', row) for row in rows)}</table>"
