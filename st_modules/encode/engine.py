"""Runs a call: items to rows, batches under a budget, their images read in several threads, vectors in order."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm.autonotebook import tqdm

from st_modules.backbones.base import Backbone
from st_modules.backbones.linear import keep_freed_memory
from st_modules.backbones.packing import Packing
from st_modules.backbones.prefixes import PrefixStates
from st_modules.backbones.rows import Planned, Row, visuals_of
from st_modules.encode.batching import find_unique, plan_batches, share_prefix
from st_modules.encode.options import EncodeOptions
from st_modules.encode.transfer import Features, move, pin
from st_modules.errors import InputError
from st_modules.inputs.items import Item
from st_modules.prompts.templates import Side

logger = logging.getLogger(__name__)

_MOST_READERS = 16
_CPU_TOKENS = 2048
_LEAST_TOKENS, _MOST_TOKENS = 2048, 16384

MapImages: TypeAlias = Callable[..., Iterable[Any]]
"""``map``, or one that works in several threads."""


class Engine:
    """Runs calls of ``encode`` on one backbone.

    Args:
        backbone: What turns items into rows, and rows into features.
        embed: Runs the whole model on a batch's features, which are on the device, and returns vectors of shape (rows,
            dimension).
        device: Where the model is.
        options: Which ways of saving work are used.
        batch_size: Most rows in a batch.
        max_batch_tokens: Most tokens in a batch; ``None`` is what suits the device.
    """

    def __init__(
        self,
        backbone: Backbone,
        embed: Callable[[Features], Tensor],
        device: torch.device,
        options: EncodeOptions,
        *,
        batch_size: int,
        max_batch_tokens: int | None = None,
    ) -> None:
        self._backbone = backbone
        self._embed = embed
        self._options = options
        self._batch_size = batch_size
        self._max_tokens = (max_batch_tokens or default_max_tokens(device)) if options.token_budget else sys.maxsize
        self._device = device
        self._ahead = reads_ahead(device)
        self._packs = options.packing and backbone.packs

    def encode(
        self, items: Sequence[Item], prompt: str | None, side: Side | None, show_progress_bar: bool = False
    ) -> list[Tensor]:
        """Embed the items of one call.

        Args:
            items: What to embed.
            prompt: The instruction.
            side: The side of a search that they are on.
            show_progress_bar: Whether to show how many are done.

        Returns:
            One vector an item, in the same order; each of shape (dimension,).

        Raises:
            InputError: An item does not fit, an image or a video cannot be read, or an embedding is not finite.
            torch.OutOfMemoryError: The device has too little memory for a single row.
        """
        rows = self._backbone.plan(items, prompt, side)
        self._backbone.report_trimmed(rows)
        return self.encode_planned(
            [Planned(item, row) for item, row in zip(items, rows, strict=True)], show_progress_bar
        )

    def encode_planned(self, planned: Sequence[Planned], show_progress_bar: bool = False) -> list[Tensor]:
        """Embed items of which the rows are known, of one call or of several; see :meth:`encode`."""
        keep_freed_memory()
        rows = [each.row for each in planned]
        unique, places = find_unique(rows) if self._options.deduplication else (rows, list(range(len(rows))))
        vectors: dict[int, Tensor] = {}
        with tqdm(total=len(unique), desc="Items", disable=not show_progress_bar) as bar:
            for batch, found in self.run(unique):
                if not found.isfinite().all():
                    check_finite(self._backbone, [planned[places.index(number)].item for number in batch], found)
                vectors.update(zip(batch, found, strict=True))
                bar.update(len(batch))
        return [vectors[place] for place in places]

    def run(self, rows: Sequence[Row]) -> Iterator[tuple[list[int], Tensor]]:
        """Yield for each batch the numbers of its rows, and their vectors.

        Where a device has too little memory for a batch, this batch and those after it are made half as large.

        Raises:
            InputError: An image or a video cannot be read.
            torch.OutOfMemoryError: The device has too little memory for a single row.
        """
        if self._packs and self._options.shared_prefix:
            rows = share_prefix(rows, kept=self._backbone.keep_prefixes)
        # Of a beginning with pictures nothing outlives a call: another call has others.
        states = self._backbone.prefix_states(), PrefixStates()
        batches = self._plan_batches(rows, range(len(rows)), self._max_tokens)
        halved = False
        while batches:
            done = 0
            for batch, features in self._prepare_batches(rows, batches, states):
                try:
                    move(features, self._device)
                    vectors = self._embed(features)
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
                batches = self._plan_batches(rows, [number for batch in batches for number in batch], budget)

    def _plan_batches(self, rows: Sequence[Row], numbers: Sequence[int], max_tokens: int) -> list[list[int]]:
        """Put the rows with these numbers into batches of rows with the same prefix."""
        batches: list[list[int]] = []
        groups: dict[Hashable, list[int]] = {}
        for number in numbers:
            groups.setdefault((rows[number].prefix, rows[number].prefix_visuals), []).append(number)
        for group in groups.values():
            planned = plan_batches(
                [rows[number].length for number in group],
                self._batch_size,
                max_tokens,
                padded=not self._packs,
                sort=self._options.exact_lengths,
            )
            batches += [[group[place] for place in batch] for batch in planned]
        return batches

    def _prepare_batches(
        self, rows: Sequence[Row], batches: Sequence[list[int]], states: tuple[PrefixStates, PrefixStates]
    ) -> Iterator[tuple[list[int], Features]]:
        """Yield the batches and their features."""

        def prepare(batch: list[int], read: MapImages = map) -> Features:
            return self._prepare([rows[number] for number in batch], read, states)

        if not self._options.parallel_reading or not any(row.visuals for row in rows):
            yield from ((batch, prepare(batch)) for batch in batches)
            return
        with ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1)) as readers:
            in_threads = partial(prepare, read=readers.map)
            if self._ahead:
                yield from _prepare_ahead(in_threads, batches, self._device)
            else:
                yield from ((batch, in_threads(batch)) for batch in batches)

    def _prepare(self, rows: Sequence[Row], read: MapImages, states: tuple[PrefixStates, PrefixStates]) -> Features:
        """Read the pixels of a batch's rows, and say how the backbone is to run them.

        Args:
            rows: The rows, which begin with the same prefix.
            read: What the pixels are read by.
            states: Where the states of prefixes without visuals are, and those with some.
        """
        backbone = self._backbone
        reader = partial(backbone.read_visual, fast=self._options.fast_vision)
        features = backbone.collate(rows, read(reader, visuals_of(rows)))
        features["pruned"] = self._options.pruning
        if self._packs:
            prefix, visuals = rows[0].prefix, rows[0].prefix_visuals
            features["packing"] = Packing(
                [len(row.ids) for row in rows],
                prefix,
                states[bool(visuals)],
                visuals,
                lambda sources: backbone.join_pixels([reader(source) for source in sources]),
            )
        return features


def _prepare_ahead(
    prepare: Callable[[list[int]], Features], batches: Sequence[list[int]], device: torch.device
) -> Iterator[tuple[list[int], Features]]:
    """Prepare each batch while the one before it is in use, as far as the way to the device."""

    def prepare_pinned(batch: list[int]) -> Features:
        features = prepare(batch)
        pin(features, device)
        return features

    with ThreadPoolExecutor(1) as ahead:
        waiting = [ahead.submit(prepare_pinned, batches[0])]
        for batch, following in zip(batches, [*batches[1:], None], strict=True):
            # In lists that are emptied: a name would keep a batch's pixels alive while the next ones are read.
            ready = [waiting.pop().result()]
            if following:
                waiting.append(ahead.submit(prepare_pinned, following))
            yield batch, ready.pop()


def check_finite(backbone: Backbone, items: Sequence[Item], outputs: Iterable[Any]) -> None:
    """Make sure that what a model returned of items is finite.

    Args:
        backbone: The model's.
        items: The items.
        outputs: For each its embedding, those of its tokens, or a dictionary with its embedding.

    Raises:
        InputError: One is not; the error names the item and the likely cause.
    """
    for item, output in zip(items, outputs, strict=True):
        embedding = output if isinstance(output, Tensor) else output["sentence_embedding"]
        if not embedding.isfinite().all() or not embedding.any():
            raise InputError(f"its embedding is not finite, or zero: {backbone.explain_not_finite()}.", item.place)


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
