"""Results as SVG pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import matplotlib
from contest import Result
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from variants import OURS, REFERENCE

matplotlib.use("Agg")
matplotlib.rcParams.update({"svg.hashsalt": "st-modules", "axes.grid": True, "grid.alpha": 0.3, "axes.axisbelow": True})

Rate: TypeAlias = Callable[[Result, str], float]


def tokens_per_second(result: Result, variant: str) -> float:
    """Return the tokens that a variant embeds in a second."""
    return result.tokens / result.seconds(variant)


def items_per_second(result: Result, variant: str) -> float:
    """Return the items that a variant embeds in a second."""
    return result.items / result.seconds(variant)


def useful_gigaflops(result: Result, variant: str) -> float:
    """Return a variant's useful operations a second, in thousands of millions."""
    return result.flops / result.seconds(variant) / 1e9


def plot_speedups(results: Sequence[Result], path: Path) -> None:
    """Draw how many times as long as ours the reference takes, a bar for each family and workload."""
    families = list(dict.fromkeys(result.family for result in results))
    workloads = list(dict.fromkeys(result.workload for result in results))
    figure = Figure(figsize=(2 + 1.6 * len(families), 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(workloads)
    for number, workload in enumerate(workloads):
        found = [result for result in results if result.workload == workload]
        spreads = [result.ratio(REFERENCE, OURS) for result in found]
        axes.bar(
            [families.index(result.family) + (number - (len(workloads) - 1) / 2) * width for result in found],
            [spread.median for spread in spreads],
            width,
            yerr=[
                [spread.median - spread.least for spread in spreads],
                [spread.most - spread.median for spread in spreads],
            ],
            error_kw={"linewidth": 0.8},
            label=workload,
        )
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_xticks(range(len(families)), families)
    axes.set_ylabel("time of the authors' code / ours")
    figure.legend(ncols=len(workloads), fontsize="small", loc="outside upper center")
    _save(figure, path)


def plot_budgets(results: Sequence[Result], path: Path) -> None:
    """Draw throughput against the batch budget; dashed lines are the reference's."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, rate, label in zip(
        figure.subplots(1, 2), (tokens_per_second, items_per_second), ("tokens/s", "items/s"), strict=True
    ):
        for number, result in enumerate(results):
            budgets = [variant for variant in result.samples if variant != REFERENCE]
            rates = [rate(result, budget) for budget in budgets]
            axes.plot([int(budget) for budget in budgets], rates, "o-", color=f"C{number}", label=result.workload)
            axes.axhline(rate(result, REFERENCE), color=f"C{number}", linestyle="--", linewidth=1)
        axes.plot([], [], "k--", linewidth=1, label=REFERENCE)
        _logarithmic(axes, "max_batch_tokens", label)
    _save(figure, path)


def plot_image_sizes(results: Sequence[Result], sizes: Sequence[int], path: Path) -> None:
    """Draw throughput against the size of the images."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, rate, label in zip(
        figure.subplots(1, 2), (items_per_second, useful_gigaflops), ("images/s", "useful GFLOP/s"), strict=True
    ):
        for variant, style in ((OURS, "o-"), (REFERENCE, "o--")):
            axes.plot(sizes, [rate(result, variant) for result in results], style, label=variant)
        _logarithmic(axes, "tokens of an image", label)
        axes.set_xticks(sizes)
    _save(figure, path)


def _logarithmic(axes: Axes, x_label: str, y_label: str) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.legend(fontsize="small")


def _save(figure: Figure, path: Path) -> None:
    metadata: Any = {"Date": None}
    figure.savefig(path, format="svg", metadata=metadata)
