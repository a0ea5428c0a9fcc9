"""Embedding on the machines of a Ray cluster: tasks read content, actors that hold the model embed it.

Ray Data is not under it: its input is a list of reads that is known before it begins, and its actors end with each
execution. What is embedded here depends on the table that grows beside it, so it comes piece by piece, and models stay
loaded for all of it. ``st_modules.BatchEmbedder`` is what both hold.
"""

from __future__ import annotations

import itertools
import logging
import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from st_modules._imports import import_extra
from st_modules.arguments import check_integer
from st_modules.errors import ArgumentError, InputError, STModulesError, in_one_line
from st_modules.index.engines import Embedded
from st_modules.index.entries import Entry, Loaded, Unreadable
from st_modules.integrations.batch_embedder import BatchEmbedder

logger = logging.getLogger(__name__)

# Entries that are read, and embedded, by one call: enough for full batches, and little to do again.
_PIECE = 64
# Pieces under way for each worker: one that it embeds, one that is ready for it, two that are being read.
_AHEAD = 4
# How often a piece is taken again whose worker, machine or results are lost.
_RETRIES = 5

_Part: TypeAlias = tuple[str | None, str] | str
"""Text and content of an entry that was embedded, or what is wrong with it."""


@dataclass(frozen=True)
class RayOptions:
    """Where the work is done.

    Args:
        address: The cluster, as ``ray.init`` takes it; ``None`` is the one that this process is connected to, that of
            ``RAY_ADDRESS``, or one that is started on this machine and ended again.
        workers: How many models are loaded, each in a process of its own.
        gpus_per_worker: GPUs that each of them is given; a part of one where several share it.
        cpus_per_worker: Cores that each of them is given, and keeps from what reads. ``None`` gives it none of its own.
    """

    address: str | None = None
    workers: int = 1
    gpus_per_worker: float = 0
    cpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        check_integer("workers", self.workers)
        for name in ("gpus_per_worker", "cpus_per_worker"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value < 0):
                raise ArgumentError(f"{name}={value!r}: pass a number that is not negative.")


@dataclass
class _Piece:
    """Entries that are taken together, and where their results will be."""

    entries: list[Entry]
    worker: int
    result: Any


@contextmanager
def ray_engine(embedder: BatchEmbedder, options: RayOptions) -> Generator[RayEngine, None, None]:
    """Load a model in workers of a Ray cluster, for as long as the context lasts.

    Args:
        embedder: What each worker calls; one that can be pickled.
        options: Where the work is done.

    Raises:
        MissingExtraError: Ray is not installed.
        ArgumentError: The cluster does not have what the workers ask for.
    """
    ray = import_extra("ray", "ray")
    with _connect(ray, options):
        engine = RayEngine(ray, embedder, options)
        try:
            yield engine
        finally:
            engine.close()


class RayEngine:
    """Embeds entries in workers of the cluster that this process is connected to.

    Ray starts a lost worker again, on any machine that has room, and repeats what it had in hand.

    Args:
        ray: The module.
        embedder: What each worker calls.
        options: Where the work is done.
    """

    def __init__(self, ray: Any, embedder: BatchEmbedder, options: RayOptions) -> None:
        self._ray = ray
        self._read = ray.remote(num_cpus=1, max_retries=_RETRIES)(_read)
        resources = {"num_gpus": options.gpus_per_worker or None, "num_cpus": options.cpus_per_worker}
        worker = ray.remote(
            max_restarts=-1,
            max_task_retries=_RETRIES,
            scheduling_strategy="SPREAD",
            **{name: value for name, value in resources.items() if value is not None},
        )(_Worker)
        self._workers = [worker.remote(embedder) for _ in range(options.workers)]
        self._unfinished: dict[Any, int] = {}

    def embed(self, chunks: Iterable[list[Entry]]) -> Iterator[list[Embedded | Unreadable]]:
        """Embed entries, and return what becomes of them, in order.

        More chunks are taken while results are awaited: as many as keep all workers busy.

        Args:
            chunks: Entries that are to be returned together.

        Raises:
            STModulesError: What is wrong with all of them, such as a model that cannot be loaded; or workers were lost
                again and again over the same entries.
        """
        waiting: deque[list[_Piece]] = deque()
        for chunk in chunks:
            waiting.append([self._submit(chunk[start : start + _PIECE]) for start in range(0, len(chunk), _PIECE)])
            while sum(map(len, itertools.islice(waiting, 1, None))) >= self._most:
                yield self._collect(waiting.popleft())
        while waiting:
            yield self._collect(waiting.popleft())

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            self._ray.kill(worker)

    @property
    def _most(self) -> int:
        return _AHEAD * len(self._workers)

    def _submit(self, entries: list[Entry]) -> _Piece:
        """Hand entries to the worker that has least to do, once not too much is under way."""
        while len(self._unfinished) >= self._most:
            self._wait(None)
        self._wait(0)
        busy = [*self._unfinished.values()]
        worker = min(range(len(self._workers)), key=busy.count)
        result = self._workers[worker].embed.remote(self._read.remote(entries))
        self._unfinished[result] = worker
        return _Piece(entries, worker, result)

    def _wait(self, timeout: float | None) -> None:
        """Take note of what is done, once something is."""
        if self._unfinished:
            done, _ = self._ray.wait([*self._unfinished], timeout=timeout, fetch_local=False)
            for result in done:
                del self._unfinished[result]

    def _collect(self, pieces: Sequence[_Piece]) -> list[Embedded | Unreadable]:
        return [each for piece in pieces for each in self._result(piece)]

    def _result(self, piece: _Piece) -> list[Embedded | Unreadable]:
        """Return what has become of entries; they are taken again where it was lost with the machine that had it."""
        errors = self._ray.exceptions
        lost: Exception | None = None
        for _ in range(1 + _RETRIES):
            try:
                parts, vectors = self._ray.get(piece.result)
                return [*map(_finish, piece.entries, parts, vectors)]
            except errors.ObjectLostError as error:
                lost = error
                piece = self._submit(piece.entries)
            except errors.RayTaskError as error:
                raise _find_cause(error) from error
            except errors.RayError as error:
                lost = error
                break
        first, last = piece.entries[0].place, piece.entries[-1].place
        raise STModulesError(
            f"{first} to {last}: what embeds them was lost {1 + _RETRIES} times. Where it is short of memory, a "
            f"smaller batch size helps, or fewer workers on a machine. Ray says: {in_one_line(lost or Exception())}"
        ) from lost


class _Worker:
    """Holds the model, in a process of its own; it is loaded at the first call, which Ray repeats a few times."""

    def __init__(self, embedder: BatchEmbedder) -> None:
        self._embedder = embedder

    def embed(self, loaded: list[Loaded | str]) -> tuple[list[_Part], np.ndarray]:
        """Return text and content of what was read, or what is wrong with it; and the vectors."""
        readable = [place for place, each in enumerate(loaded) if isinstance(each, Loaded)]
        items = [each.item for each in loaded if isinstance(each, Loaded)]
        found, reasons = self._embedder.embed(items)
        parts: list[_Part] = [(each.text, each.content) if isinstance(each, Loaded) else each for each in loaded]
        vectors = np.full((len(loaded), found.shape[1]), np.nan, dtype=found.dtype)
        vectors[readable] = found
        for place, reason in zip(readable, reasons, strict=True):
            parts[place] = parts[place] if reason is None else reason
        return parts, vectors


def _read(entries: list[Entry]) -> list[Loaded | str]:
    """Read entries, or say what is wrong with them."""
    loaded: list[Loaded | str] = []
    for entry in entries:
        try:
            loaded.append(entry.content.load())
        except InputError as error:
            loaded.append(error.problem)
    return loaded


def _finish(entry: Entry, part: _Part, vector: np.ndarray) -> Embedded | Unreadable:
    if isinstance(part, str):
        return Unreadable(entry.source, entry.place, part, entry.id, entry.page)
    text, content = part
    return Embedded(entry, text, content, vector)


def _find_cause(error: Any) -> BaseException:
    """Return what was raised in another process."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


@contextmanager
def _connect(ray: Any, options: RayOptions) -> Generator[None, None, None]:
    """Connect to a cluster, or start one, where this process is in none yet; and leave it again."""
    if ray.is_initialized():
        present = ray.get_runtime_context().gcs_address
        if options.address not in (None, "auto", present):
            raise ArgumentError(f"address={options.address!r}: this process is connected to the cluster at {present}.")
        _check_resources(ray, options, may_grow=True)
        yield
        return
    is_own = options.address in (None, "local") and not os.environ.get("RAY_ADDRESS")
    # A cluster that is started here tells nobody of itself, unless its owner says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(address=options.address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        _check_resources(ray, options, may_grow=not is_own)
        yield
    finally:
        ray.shutdown()


def _check_resources(ray: Any, options: RayOptions, *, may_grow: bool) -> None:
    """Refuse workers for which a cluster has no room, or tell that they wait until it has grown."""
    there = ray.cluster_resources()
    gpus = options.workers * options.gpus_per_worker
    # What reads is on a core that no worker keeps.
    cpus = options.workers * (options.cpus_per_worker or 0) + 1
    for name, wanted in (("GPU", gpus), ("CPU", cpus)):
        if wanted > (found := there.get(name, 0)):
            problem = f"{options.workers} workers and what reads need {wanted:g} {name}s, and the cluster has {found:g}."
            if not may_grow:
                raise ArgumentError(f"{problem} Ask for fewer workers, or for less for each.")
            logger.warning("%s The others wait until it has more.", problem)
