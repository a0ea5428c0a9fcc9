"""Show how the cost of an item grows: with their number, with the tokens of a text, and with the pixels of a picture.

A random GME of middling size embeds texts of 30 tokens in one call, 1 to 10,000 of them; one text of 10 to 30,000
tokens; and one JPEG file of 0.01 to 24 megapixels, which becomes as many tokens as GME's bounds say. A text's
operations are counted, attention among them, so that what grows faster than these shows as fewer of them a second.
Times are of the processor, all threads together. Run ``python benchmarks/growth.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from families import FAMILIES
from measure import Sample, sample
from report import Table
from transformers.utils.logging import disable_progress_bar
from variants import Loaded, load_family
from workloads import Author, picture

from st_modules.inputs.items import parse_items

_LONGEST = 32_000
_NUMBERS = (1, 10, 100, 1_000, 10_000)
_TOKENS = (10, 100, 1_000, 3_000, 10_000, 30_000)
_MEGAPIXELS = (0.01, 0.1, 1.0, 4.0, 12.0, 24.0)
_SHORT = 30
# The bounds that the catalog has for GME, in the place of the smaller ones of the other benchmarks.
_FAMILY = replace(FAMILIES["gme"], options={"max_length": _LONGEST})


def grow_numbers(models: Loaded, author: Author, rounds: int) -> Iterator[list[str]]:
    """Yield a row for each number of short texts."""
    for number in _NUMBERS:
        texts = [author.write(_SHORT) for _ in range(number)]
        cost = embed(models, texts, 1 if number > 1_000 else rounds)
        yield [f"{number:,}", f"{1000 * cost.cpu_seconds / number:.1f}", write_peak(cost)]


def grow_tokens(models: Loaded, author: Author, rounds: int) -> Iterator[list[str]]:
    """Yield a row for one text of each length."""
    backbone: Any = models.ours[0]
    for tokens in _TOKENS:
        texts = [author.write(tokens)]
        rows = backbone.plan(parse_items(texts))
        cost = embed(models, texts, rounds)
        rate = models.family.flops(models.reference, rows) / cost.cpu_seconds / 1e9
        seconds = 1000 * cost.cpu_seconds
        yield [
            f"{rows[0].length:,}",
            f"{seconds:.0f}",
            f"{seconds / rows[0].length:.2f}",
            f"{rate:.0f}",
            write_peak(cost),
        ]


def grow_pictures(models: Loaded, folder: Path, rounds: int) -> Iterator[list[str]]:
    """Yield a row for one file of each size."""
    backbone: Any = models.ours[0]
    generator = np.random.default_rng(0)
    for size in _MEGAPIXELS:
        path = folder / f"{size}.jpg"
        picture(generator, int(1000 * (size * 4 / 3) ** 0.5), int(1000 * (size * 3 / 4) ** 0.5)).save(path, quality=90)
        (row,) = backbone.plan(parse_items([path]))
        read = least(partial(backbone.read_visual, row.visuals[0], fast=True), rounds)
        cost = embed(models, [path], rounds)
        yield [
            str(size),
            str(row.ids.count(backbone.model.config.image_token_id)),
            f"{1000 * cost.cpu_seconds:.0f}",
            f"{1000 * read.cpu_seconds:.0f}",
            f"{1000 * read.cpu_seconds / size:.0f}",
            write_peak(cost),
        ]


def embed(models: Loaded, inputs: Sequence[Any], rounds: int) -> Sample:
    """Return the least cost of a call."""
    return least(partial(models.ours.encode, list(inputs)), rounds)


def least(call: Any, rounds: int) -> Sample:
    """Return the cheapest of some rounds, after one that does not count where there are several."""
    costs = [sample(call)[1] for _ in range(rounds + (rounds > 1))]
    return min(costs[rounds > 1 :], key=lambda cost: cost.cpu_seconds)


def write_peak(cost: Sample) -> str:
    """Return the most memory above the model, in MiB."""
    return "n/a" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    disable_progress_bar()
    with TemporaryDirectory() as folder, load_family(_FAMILY, Path(folder)) as models:
        author = Author(models.reference.count_tokens, 1)
        models.ours.encode([author.write(_SHORT)])
        peak = "peak memory above the model, MiB"
        Table(
            "Texts of 30 tokens in one call",
            ["texts", "ms each", peak],
            list(grow_numbers(models, author, args.rounds)),
        ).show()
        Table(
            "One text",
            ["tokens", "ms", "ms a token", "billions of operations a second", peak],
            list(grow_tokens(models, author, args.rounds)),
        ).show()
        Table(
            "One JPEG file",
            ["megapixels", "tokens", "ms", "of it reading, ms", "reading, ms a megapixel", peak],
            list(grow_pictures(models, Path(folder), args.rounds)),
        ).show()


if __name__ == "__main__":
    main()
