"""UMRB, the benchmark of the GME paper (Zhang et al. 2024, arXiv 2412.16855), as a benchmark of mteb's own tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mteb
from mteb.benchmarks.benchmark import Benchmark, BenchmarkAggregation, CustomGroup, CustomGrouping


@dataclass(frozen=True)
class UMRBTask:
    """One of the 47 tasks.

    Attributes:
        setting: Which kinds of items look for which; ``VD`` is a page of a document as a picture.
        name: Name of mteb's task.
        metric: The score that is compared with the published ones.
        source: Who says that the dataset is one of UMRB, and that the score is the right one.
    """

    setting: str
    name: str
    metric: str
    source: str


RENDERING = (
    "https://github.com/torelax/ai-learn/blob/9f13b454b090115c31132a295ae336aa56af8909/docs/papers/embedding/GME/zh.md"
)
"""A Chinese rendering of the paper by others. Section 3.1 lists the datasets, and the caption of table 3 the metrics:
NDCG@10 for T→T but for WebQA, NDCG@5 for T→VD, Recall@10 for Fashion200K, FashionIQ and OKVQA, and Recall@5 for the
rest."""

AUTHOR = "https://github.com/embeddings-benchmark/mteb/pull/1611"
"""Where an author of the paper adds four of the datasets to mteb; on the Hub they are called ``izhx/UMRB-…``."""


def _tasks(setting: str, names: str, metric: str, source: str = RENDERING) -> tuple[UMRBTask, ...]:
    return tuple(UMRBTask(setting, name, metric, source) for name in names.split())


UMRB: tuple[UMRBTask, ...] = (
    *_tasks(
        "T→T",
        "ArguAna ClimateFEVER CQADupstackRetrieval DBPedia FEVER FiQA2018 HotpotQA MSMARCO NFCorpus NQ QuoraRetrieval "
        "SCIDOCS SciFact Touche2020 TRECCOVID",
        "ndcg_at_10",
    ),
    *_tasks("T→T", "WebQAT2TRetrieval", "hit_rate_at_5"),
    *_tasks("I→I", "NIGHTSI2IRetrieval", "hit_rate_at_5"),
    *_tasks("T→I", "VisualNewsT2IRetrieval MSCOCOT2IRetrieval Flickr30kT2IRetrieval", "hit_rate_at_5"),
    *_tasks("T→I", "Fashion200kT2IRetrieval", "hit_rate_at_10"),
    *_tasks(
        "T→VD",
        "VidoreArxivQARetrieval VidoreDocVQARetrieval VidoreInfoVQARetrieval VidoreTabfquadRetrieval "
        "VidoreTatdqaRetrieval VidoreShiftProjectRetrieval VidoreSyntheticDocQAAIRetrieval "
        "VidoreSyntheticDocQAEnergyRetrieval VidoreSyntheticDocQAGovernmentReportsRetrieval "
        "VidoreSyntheticDocQAHealthcareIndustryRetrieval",
        "ndcg_at_5",
    ),
    *_tasks("I→T", "VisualNewsI2TRetrieval MSCOCOI2TRetrieval Flickr30kI2TRetrieval", "hit_rate_at_5"),
    *_tasks("I→T", "Fashion200kI2TRetrieval", "hit_rate_at_10"),
    *_tasks("T→IT", "WebQAT2ITRetrieval EDIST2ITRetrieval", "hit_rate_at_5"),
    *_tasks("IT→T", "OVENIT2TRetrieval InfoSeekIT2TRetrieval", "hit_rate_at_5"),
    *_tasks("IT→T", "ReMuQIT2TRetrieval LLaVAIT2TRetrieval", "hit_rate_at_5", AUTHOR),
    *_tasks("IT→T", "OKVQAIT2TRetrieval", "hit_rate_at_10", AUTHOR),
    *_tasks("IT→I", "FashionIQIT2IRetrieval", "hit_rate_at_10"),
    *_tasks("IT→I", "CIRRIT2IRetrieval", "hit_rate_at_5"),
    *_tasks("IT→IT", "OVENIT2ITRetrieval InfoSeekIT2ITRetrieval", "hit_rate_at_5"),
    *_tasks("IT→IT", "EncyclopediaVQAIT2ITRetrieval", "hit_rate_at_5", AUTHOR),
)
"""The 47 tasks in the nine settings of the paper's table. M-BEIR's Recall@k, which the paper takes over, counts a query
as 1 where any right answer is among the first k: mteb's ``hit_rate_at_k``."""

SETTINGS: tuple[str, ...] = tuple(dict.fromkeys(task.setting for task in UMRB))
"""The nine settings, in the order of the table."""

PUBLISHED: Mapping[str, Mapping[str, float]] = {
    "gme-2b": dict(
        zip(SETTINGS, (55.93, 29.86, 57.36, 87.84, 61.93, 76.47, 64.58, 37.02, 66.47), strict=True), Average=64.45
    ),
    "gme-7b": dict(
        zip(SETTINGS, (58.19, 31.89, 61.35, 89.92, 65.83, 80.94, 66.18, 42.56, 73.62), strict=True), Average=67.44
    ),
}
"""Scores of the model cards by the catalog's names, in percent; the average is over the 47 tasks."""


def missing() -> list[str]:
    """Return the names of tasks that the installed mteb lacks."""
    return [task.name for task in UMRB if not _is_known(task.name)]


def _is_known(name: str) -> bool:
    try:
        mteb.get_task(name)
    except KeyError:
        return False
    return True


def umrb_benchmark() -> Benchmark:
    """Make UMRB as a benchmark of mteb, whose grouping "Setting" has the nine settings.

    Its aggregates are over mteb's main scores; :class:`UMRBTask` has the metrics of the published table.

    Raises:
        KeyError: The installed mteb lacks a task.
    """
    tasks = {task.name: mteb.get_task(task.name) for task in UMRB}
    groups = tuple(
        CustomGroup(label=setting, tasks=[tasks[task.name] for task in UMRB if task.setting == setting])
        for setting in SETTINGS
    )
    aggregations: list[Any] = [BenchmarkAggregation.MEAN_TASK, CustomGrouping(name="Setting", groups=groups)]
    return Benchmark(
        name="UMRB",
        tasks=list(tasks.values()),
        description="Universal multimodal retrieval: 47 tasks in nine settings, from text to text to image with text "
        "to image with text.",
        reference="https://arxiv.org/abs/2412.16855",
        aggregations=aggregations,
    )
