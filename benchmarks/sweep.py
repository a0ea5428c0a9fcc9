"""Throughput against the batch budget, and against the size of images, for GME.

Run ``make bench``, or ``python benchmarks/sweep.py --scale 0.5`` for more items. A budget above the tokens of a
workload makes one batch of it.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from contest import Result, contest
from families import FAMILIES, Family
from plots import (
    Rate,
    items_per_second,
    plot_budgets,
    plot_image_sizes,
    tokens_per_second,
    useful_gigaflops,
)
from references.qwen2_vl import GMEReference
from report import Table, legend, write
from rich.console import Console
from transformers.utils.logging import disable_progress_bar
from variants import OURS, REFERENCE, Encode, Loaded, encoder, load_family
from workloads import Item, Workload, picture

_BUDGETS = [2**power for power in range(7, 15)]
_WORKLOADS = ["W1", "W2", "W3", "W4"]
_IMAGE_TOKENS = [64, 144, 256, 576, 1024]
_TOKENS_OF_A_SIZE = 16384
_LARGEST = 1280

_console = Console(stderr=True)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--scale", type=float, default=0.125, help="fraction of the items (1 is 512 short texts)")
    parser.add_argument("--out", type=Path, default=Path("bench-out"))
    return parser.parse_args()


def sweep_budgets(models: Loaded, scale: float, rounds: int) -> list[Result]:
    """Time our model under every batch budget beside the reference, a result for each workload."""
    results: list[Result] = []
    for name in _WORKLOADS:
        workload = models.workload(name, scale)
        variants: dict[str, Encode] = {REFERENCE: models.reference.encode}
        variants |= {str(budget): _under_budget(models.ours, budget) for budget in _BUDGETS}
        with _console.status(f"batch budgets, {name}"):
            results.append(contest(models, workload, variants, rounds))
    return results


def _under_budget(model: Any, budget: int) -> Encode:
    def encode(workload: Workload) -> np.ndarray:
        model.max_batch_tokens = budget
        return encoder(model, batch_size=len(workload.items))(workload)

    return encode


def sweep_image_sizes(models: Loaded, scale: float, rounds: int) -> list[Result]:
    """Time images of one size at a time, as many of each as make the same number of tokens."""
    results: list[Result] = []
    for tokens in _IMAGE_TOKENS:
        generator = np.random.default_rng(tokens)
        side = 28 * round(tokens**0.5)
        count = max(2, round(_TOKENS_OF_A_SIZE * scale / tokens))
        images = [Item(image=picture(generator, side, side)) for _ in range(count)]
        variants = {REFERENCE: models.reference.encode, OURS: encoder(models.ours)}
        with _console.status(f"images of {tokens} tokens"):
            results.append(contest(models, Workload(f"{tokens} tokens", images), variants, rounds))
    return results


def large_images(family: Family) -> Family:
    """Return a family of Qwen2-VL that scales no image down to fewer tokens than the largest of the sweep has."""
    return replace(
        family,
        reference=partial(GMEReference, max_image_tokens=_LARGEST),
        options={**family.options, "max_image_tokens": _LARGEST},
    )


def rate_table(title: str, results: Sequence[Result], rate: Rate) -> Table:
    """Return the throughput of every variant, a row for each result."""
    variants = list(results[0].samples)
    return Table(
        title,
        ["", "items", *variants],
        [
            [result.workload, str(result.items), *(f"{rate(result, variant):.1f}" for variant in variants)]
            for result in results
        ],
    )


def main() -> None:
    args = parse_arguments()
    disable_progress_bar()
    gme = FAMILIES["gme"]
    with TemporaryDirectory() as photos:
        with load_family(gme, Path(photos)) as models:
            budgets = sweep_budgets(models, args.scale, args.rounds)
        with load_family(large_images(gme), Path(photos)) as models:
            sizes = sweep_image_sizes(models, args.scale, args.rounds)
    tables = [
        rate_table("GME, tokens/s by batch budget", budgets, tokens_per_second),
        rate_table("GME, items/s by batch budget", budgets, items_per_second),
        rate_table("GME, images/s by the size of images", sizes, items_per_second),
        rate_table("GME, useful GFLOP/s by the size of images", sizes, useful_gigaflops),
    ]
    for table in tables:
        table.show()
    write(args.out / "sweep.json", args.out / "sweep.md", [*budgets, *sizes], [*legend(budgets), "", *tables])
    plot_budgets(budgets, args.out / "batch-budgets.svg")
    plot_image_sizes(sizes, _IMAGE_TOKENS, args.out / "image-sizes.svg")


if __name__ == "__main__":
    main()
