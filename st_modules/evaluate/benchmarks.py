"""The benchmarks by name: their tasks, in which group a task counts, and what is published for whom."""

from __future__ import annotations

import copy
import difflib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import mteb
from mteb.abstasks.abstask import AbsTask

from st_modules.errors import UnknownNameError
from st_modules.evaluate import mmeb, umrb
from st_modules.evaluate.circo import CIRCO, CIRCO_ASPECT_METRICS, CIRCO_METRICS, CIRCOTest
from st_modules.evaluate.cirr import CIRR, CIRRSubset, CIRRSubsetTest, CIRRTest
from st_modules.evaluate.drawings import DRAWINGS
from st_modules.evaluate.fashioniq import FashionIQ
from st_modules.evaluate.files import BenchmarkDataError
from st_modules.evaluate.folder import FolderTask, check_task_name, read_folder
from st_modules.evaluate.local_task import LocalTask


class UnknownBenchmarkError(UnknownNameError):
    """A benchmark or a task of it that does not exist."""


@dataclass(frozen=True)
class Entry:
    """A task of a benchmark.

    Attributes:
        name: Name of the task, also in mteb's results.
        group: What its score is averaged in.
        metrics: The scores that are shown; the first is the one that counts. Empty where a server has the answers, and
            a file for it is written.
        make: Makes the task.
        optional_metrics: Scores that are shown too where the results have them.
    """

    name: str
    group: str
    metrics: tuple[str, ...]
    make: Callable[[], AbsTask] = field(repr=False)
    optional_metrics: tuple[str, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A benchmark, ready to run.

    Attributes:
        name: Its name.
        entries: Its tasks.
        published: Scores in percent by the catalog's names and by group; ``Average`` is over all tasks.
        source: Where they are published.
    """

    name: str
    entries: tuple[Entry, ...]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups, in the order of their tasks."""
        return tuple(dict.fromkeys(entry.group for entry in self.entries))

    def select(self, names: Sequence[str]) -> tuple[Entry, ...]:
        """Return the tasks of these names or groups; all that have scores where none is named.

        Args:
            names: Names of tasks and groups; ``->`` is read as the arrow of groups such as ``T→VD``.

        Raises:
            UnknownBenchmarkError: A name is neither (near names are suggested).
        """
        if not names:
            return tuple(entry for entry in self.entries if entry.metrics)
        names = [name.replace("->", "→") for name in names]
        known = [*self.groups, *(entry.name for entry in self.entries)]
        for name in names:
            if name not in known:
                near = _did_you_mean(name, known)
                raise UnknownBenchmarkError(f"{self.name} has no task {name!r}.{near} `--list` shows its tasks.")
        return tuple(entry for entry in self.entries if entry.name in names or entry.group in names)


BENCHMARKS: Mapping[str, str] = {
    "drawings": "four small tasks on drawings, made on the spot; for trying out, on any model",
    "umrb": "the 47 tasks of the GME paper, from mteb; downloads their data",
    "mmeb": "36 choices among candidates, from the files of TIGER-Lab/MMEB-eval (--data)",
    "circo": "composed retrieval with several answers, from CIRCO's files (--data)",
    "cirr": "composed retrieval, and in the subset, from CIRR's files (--data)",
    "fashioniq": "composed retrieval of clothes, from FashionIQ's files (--data)",
}
"""The benchmarks of this package, and what they are; :func:`open_benchmark` takes those of mteb too."""


def open_benchmark(name: str, data: Path | None = None) -> Suite:
    """Look a benchmark up. Nothing is downloaded, and no picture is opened.

    Args:
        name: One of :data:`BENCHMARKS`, the path of a folder that :class:`FolderTask` reads, or one of mteb's own
            benchmarks, as ``MIEB(lite)``.
        data: Folder of the published files, for those that need it.

    Raises:
        UnknownBenchmarkError: There is no such benchmark (near names are suggested), or it takes no folder.
        BenchmarkDataError: It needs a folder, or the folder is missing, or a table of a folder of one's own is wrong.
    """
    if name in _FROM_FILES:
        return _FROM_FILES[name](_require_folder(name, data))
    if data is not None:
        raise UnknownBenchmarkError(f"{name!r} reads no folder: leave --data out. {', '.join(_FROM_FILES)} do.")
    if name == "drawings":
        return Suite(
            name,
            tuple(_local(task, task.metadata.category or "", ("ndcg_at_10", "recall_at_1"), task) for task in DRAWINGS),
        )
    if name == "umrb":
        return _umrb()
    if Path(name).is_dir():
        return _of_folder(Path(name))
    return _of_mteb(name)


def _require_folder(name: str, data: Path | None) -> Path:
    if data is None:
        raise BenchmarkDataError(f"{name!r} is read from its published files: pass their folder as --data.")
    if not data.is_dir():
        raise BenchmarkDataError(f"{data}: no such folder.")
    return data


def _local(task: type[LocalTask], group: str, metrics: tuple[str, ...], make: Callable[[], AbsTask]) -> Entry:
    return Entry(task.metadata.name, group, metrics, make)


def _umrb() -> Suite:
    entries = tuple(
        Entry(task.name, task.setting, (task.metric,), functools.partial(mteb.get_task, task.name))
        for task in umrb.UMRB
    )
    return Suite("umrb", entries, umrb.PUBLISHED, "model cards of GME-Qwen2-VL")


def _circo(data: Path) -> Suite:
    scored = Entry("CIRCO", "CIRCO", CIRCO_METRICS, functools.partial(CIRCO, data), CIRCO_ASPECT_METRICS)
    return Suite("circo", (scored, *_for_servers(data / "annotations" / "test.json", data, CIRCOTest)))


def _cirr(data: Path) -> Suite:
    return Suite(
        "cirr",
        (
            _local(
                CIRR,
                "Recall@5",
                ("recall_at_5", "recall_at_1", "recall_at_10", "recall_at_50"),
                functools.partial(CIRR, data),
            ),
            _local(
                CIRRSubset,
                "Recall_subset@1",
                ("recall_at_1", "recall_at_2", "recall_at_3"),
                functools.partial(CIRRSubset, data),
            ),
            *_for_servers(data / "cirr" / "captions" / "cap.rc2.test1.json", data, CIRRTest, CIRRSubsetTest),
        ),
    )


def _for_servers(
    queries_file: Path, data: Path, *tasks: type[CIRCOTest | CIRRTest | CIRRSubsetTest]
) -> tuple[Entry, ...]:
    if not queries_file.is_file():
        return ()
    return tuple(_local(task, "test split", (), functools.partial(task, data)) for task in tasks)


def _fashioniq(data: Path) -> Suite:
    return Suite(
        "fashioniq",
        (_local(FashionIQ, "FashionIQ", ("recall_at_10", "recall_at_50"), functools.partial(FashionIQ, data)),),
    )


def _mmeb(data: Path) -> Suite:
    entries = tuple(
        Entry(mmeb.mmeb_task_name(dataset), group, ("accuracy",), functools.partial(mmeb.MMEB, data, dataset))
        for group, datasets in mmeb.META_TASKS.items()
        for dataset in datasets
    )
    published = {"vlm2vec-qwen2vl-2b": {"Average": 60.1}, "vlm2vec-qwen2vl-7b": {"Average": 65.8}}
    return Suite("mmeb", entries, published, "README of VLM2Vec")


_FROM_FILES: Mapping[str, Callable[[Path], Suite]] = {
    "mmeb": _mmeb,
    "circo": _circo,
    "cirr": _cirr,
    "fashioniq": _fashioniq,
}


def _of_folder(folder: Path) -> Suite:
    name = folder.resolve().name
    check_task_name(name)
    read_folder(folder)  # what is wrong in it is told before a model is loaded
    entry = Entry(name, name, ("ndcg_at_10", "recall_at_1"), functools.partial(FolderTask, folder))
    return Suite(name, (entry,))


def _of_mteb(name: str) -> Suite:
    if near := _did_you_mean(name, list(BENCHMARKS)):  # asking mteb takes seconds
        raise UnknownBenchmarkError(f"Unknown benchmark {name!r}.{near}")
    try:
        benchmark = mteb.get_benchmark(name)
    except KeyError as error:
        known = ", ".join(BENCHMARKS)
        raise UnknownBenchmarkError(
            f"Unknown benchmark {name!r}. There are {known}, folders of your own, and those of mteb, which says: "
            f"{error.args[0]}"
        ) from error
    entries = tuple(
        Entry(task.metadata.name, str(task.metadata.type), ("main_score",), functools.partial(copy.copy, task))
        for task in benchmark.tasks
    )
    return Suite(name, entries)


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f" Did you mean {near[0]!r}?" if near else ""
