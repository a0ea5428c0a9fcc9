"""Runs the rows of a call: batches under a budget, their images read in several threads."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor

from st_modules.backbones.base import Backbone, Row
from st_modules.encode.batching import plan_batches
from st_modules.encode.options import EncodeOptions

logger = logging.getLogger(__name__)

_MOST_READERS = 16
_CPU_TOKENS = 2048
_LEAST_TOKENS, _MOST_TOKENS = 2048, 16384

Features = dict[str, Any]


class Engine:
    """Embeds the rows of one call.

    Args:
        backbone: What prepares batches.
        embed: Runs the whole model on a batch's features, and returns vectors of shape (rows, dimension).
        max_rows: Most rows in a batch.
        max_tokens: Most tokens in a batch.
        ahead: Whether the images of the next batch are read while the model runs.
        levers: Which ways of saving work are used.
    """

    def __init__(
        self,
        backbone: Backbone,
        embed: Callable[[Features], Tensor],
        *,
        max_rows: int,
        max_tokens: int,
        ahead: bool,
        levers: EncodeOptions,
    ) -> None:
        self.backbone = backbone
        self.embed = embed
        self.max_rows = max_rows
        self.max_tokens = max_tokens
        self.ahead = ahead
        self.levers = levers

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield for each batch the numbers of its rows, and their vectors.

        Where a device has too little memory for a batch, this batch and those after it are made half as large.

        Raises:
            ImageError: An image cannot be read.
            torch.OutOfMemoryError: The device has too little memory for a single row.
        """
        rows = self.backbone.share(rows, self.levers)
        batches = self._plan(rows, range(len(rows)), self.max_tokens)
        halved = False
        while batches:
            done = 0
            for batch, features in self._prepare_batches(rows, batches):
                try:
                    vectors = self.embed(features)
                except torch.OutOfMemoryError:
                    if len(batch) == 1:
                        raise
                    break
                finally:
                    # Before another batch is waited for or retried, so that the pixels of two are alive at most.
                    del features
                yield batch, vectors
                done += 1
            batches = batches[done:]
            if batches:
                if not halved:
                    logger.warning("Out of memory on a batch of %d items: retried with half of it.", len(batches[0]))
                    halved = True
                torch.cuda.empty_cache()
                budget = sum(rows[number].length for number in batches[0]) // 2
                batches = self._plan(rows, [number for batch in batches for number in batch], budget)

    def _plan(self, rows: Sequence[Row], numbers: Sequence[int], max_tokens: int) -> list[list[int]]:
        """Put the rows with these numbers into batches of rows with the same prefix."""
        batches: list[list[int]] = []
        for prefix in dict.fromkeys(rows[number].prefix for number in numbers):
            group = [number for number in numbers if rows[number].prefix == prefix]
            planned = plan_batches(
                [rows[number].length for number in group],
                self.max_rows,
                max_tokens,
                padded=not self.backbone.packs(self.levers),
                sort=self.levers.exact_lengths,
            )
            batches += [[group[place] for place in batch] for batch in planned]
        return batches

    def _prepare_batches(
        self, rows: Sequence[Row], batches: Sequence[list[int]]
    ) -> Iterator[tuple[list[int], Features]]:
        """Yield the batches and their features."""

        def prepare(batch: list[int], read: Callable[..., Iterable[Any]] = map) -> Features:
            return self.backbone.prepare([rows[number] for number in batch], self.levers, read)

        if not self.levers.parallel_reading or not any(row.images for row in rows):
            yield from ((batch, prepare(batch)) for batch in batches)
            return
        with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as readers:
            read = partial(prepare, read=readers.map)
            yield from _one_ahead(read, batches) if self.ahead else ((batch, read(batch)) for batch in batches)


def _one_ahead(
    prepare: Callable[[list[int]], Features], batches: Sequence[list[int]]
) -> Iterator[tuple[list[int], Features]]:
    """Prepare each batch while the one before it is in use."""
    with ThreadPoolExecutor(1) as ahead:
        waiting = [ahead.submit(prepare, batches[0])]
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            ready = [waiting.pop().result()]
            if following:
                waiting.append(ahead.submit(prepare, following))
            yield batch, ready.pop()


def content_keys(rows: Sequence[Row]) -> list[Hashable]:
    """Return keys of which two are equal where two rows have the same tokens and the same images.

    Images are read only where two rows have the same tokens, and images of the same size and length.
    """
    outlines = [(tuple(row.ids), tuple(image.outline for image in row.images)) for row in rows]
    counts = Counter(outlines)
    return [
        (outline, tuple(image.digest() for image in row.images) if counts[outline] > 1 else None)
        for row, outline in zip(rows, outlines, strict=True)
    ]


def reads_ahead(device: torch.device) -> bool:
    """Whether images are read while the batch before them runs: on a CPU, that would take the model's own cores."""
    return device.type != "cpu"


def default_max_tokens(device: torch.device) -> int:
    """Return how many tokens a batch has where the user does not say.

    A CPU is fastest while a batch's activations stay in its caches. An accelerator needs more to be busy: a token is
    counted as a MiB, a generous estimate for the activations of a model of 7 billion parameters in bfloat16.
    """
    if device.type == "cpu":
        return _CPU_TOKENS
    if device.type != "cuda":
        return _LEAST_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(max((free + unused) // 2**20, _LEAST_TOKENS), _MOST_TOKENS)
