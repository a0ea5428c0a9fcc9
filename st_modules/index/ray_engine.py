"""The engine of many machines: tasks of a Ray cluster read entries, its actors, which hold the model, embed them.

Ray Data is not under it. Its input is a list of reads that is known before it begins, and its actors end with each
execution; what is embedded here depends on the table that grows meanwhile, so it comes piece by piece, and the models
stay loaded for all of it.
"""

from __future__ import annotations

import logging
import pickle
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from st_modules._imports import import_extra
from st_modules.arguments import check_integer
from st_modules.errors import ArgumentError, STModulesError, in_one_line
from st_modules.index.engines import Embedded, EmbedOptions, Ready, embed_ready, read_entry
from st_modules.index.entries import Entry, Unreadable
from st_modules.integrations.ray_cluster import check_room, connect

if TYPE_CHECKING:  # what reads does without torch
    from st_modules.integrations.batch_embedder import BatchEmbedder

logger = logging.getLogger(__name__)

# Entries that are read, and embedded, in one call: enough for full batches, and little to do again.
_LEAST_AT_ONCE = 64
_BATCHES_AT_ONCE = 2
# Pieces under way for each worker: one that it embeds, one that is ready for it, two that are being read.
_AHEAD = 4
# How often a piece is taken again whose worker or machine is lost.
_RETRIES = 5
# Seconds before a piece is handed in again whose worker is not there; each time twice as long.
_FIRST_PAUSE = 1.0


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
    """Entries that are taken together, and where it will be told what became of them."""

    entries: list[Entry]
    result: Any


@contextmanager
def ray_engine(embedder: BatchEmbedder, options: EmbedOptions, cluster: RayOptions) -> Generator[RayEngine, None, None]:
    """Hold workers in a Ray cluster, for as long as the context lasts.

    A cluster that this process is connected to is left running, without the workers.

    Args:
        embedder: What loads the model in each worker; one that can be pickled.
        options: How entries are embedded.
        cluster: Where.

    Raises:
        MissingExtraError: Ray is not installed.
        ArgumentError: The cluster does not have what the workers ask for, or the model is a loaded one.
    """
    ray = import_extra("ray", "ray")
    try:
        pickle.dumps(embedder)
    except TypeError as error:
        raise ArgumentError(f"On Ray, every worker loads the model itself. {error}") from error
    with connect(ray, cluster.address) as may_grow:
        _check_room(ray, cluster, may_grow=may_grow)
        engine = RayEngine(ray, embedder, options, cluster)
        try:
            yield engine
        finally:
            engine.close()


class RayEngine:
    """Embeds entries in the cluster that this process is connected to.

    Ray starts a lost worker again, on any machine that has room, and repeats what was in its hands.

    Args:
        ray: The module.
        embedder: As of :func:`ray_engine`.
        options: As of :func:`ray_engine`.
        cluster: As of :func:`ray_engine`.
    """

    def __init__(self, ray: Any, embedder: BatchEmbedder, options: EmbedOptions, cluster: RayOptions) -> None:
        self._ray = ray
        self._options = options
        self._read = ray.remote(num_cpus=1, max_retries=_RETRIES)(_read)
        asked = {"num_gpus": cluster.gpus_per_worker or None, "num_cpus": cluster.cpus_per_worker}
        worker = ray.remote(
            max_restarts=-1,
            max_task_retries=_RETRIES,
            scheduling_strategy="SPREAD",
            **{name: value for name, value in asked.items() if value is not None},
        )(_Worker)
        # By value: an actor whose arguments are in the object store cannot be started again once they are lost there.
        self._workers = [worker.remote(embedder, options) for _ in range(cluster.workers)]
        self._most = _AHEAD * cluster.workers
        self._unfinished: dict[Any, int] = {}

    def __call__(self, chunks: Iterator[list[Entry]]) -> Iterator[list[Embedded | Unreadable]]:
        """Embed entries; see :class:`st_modules.index.engines.Engine`.

        Raises:
            STModulesError: Workers were lost again and again over the same entries.
        """
        at_once = max(_LEAST_AT_ONCE, _BATCHES_AT_ONCE * self._options.batch_size)
        entries = chain.from_iterable(chunks)
        waiting: deque[_Piece] = deque()
        while piece := list(islice(entries, at_once)):
            waiting.append(self._submit(piece))
            if len(waiting) >= self._most:
                yield self._take(waiting.popleft())
        while waiting:
            yield self._take(waiting.popleft())

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers:
            self._ray.kill(worker)

    def _submit(self, entries: list[Entry]) -> _Piece:
        """Hand entries to the worker that has least to do."""
        if self._unfinished:
            done, _ = self._ray.wait([*self._unfinished], num_returns=len(self._unfinished), timeout=0)
            for result in done:
                del self._unfinished[result]
        busy = [*self._unfinished.values()]
        worker = min(range(len(self._workers)), key=busy.count)
        result = self._workers[worker].embed.remote(self._read.remote(entries, self._options.thumbnails))
        self._unfinished[result] = worker
        return _Piece(entries, result)

    def _take(self, piece: _Piece) -> list[Embedded | Unreadable]:
        """Return what became of entries; they are embedded again where it was lost with the machine that had it."""
        errors = self._ray.exceptions
        lost: Exception | None = None
        for attempt in range(1 + _RETRIES):
            try:
                return self._ray.get(piece.result)
            except (errors.ObjectLostError, errors.ActorUnavailableError) as error:
                lost = error
                logger.info("%s and what follows it is embedded again: %s", piece.entries[0].place, in_one_line(error))
                # Ray's own repetitions may all fall into the time in which a lost worker is started again.
                time.sleep(_FIRST_PAUSE * 2**attempt if isinstance(error, errors.ActorUnavailableError) else 0)
                piece = self._submit(piece.entries)
            except errors.RayTaskError as error:
                raise _find_cause(error) from error
            except errors.RayError as error:
                raise _describe_loss(piece, error) from error
        raise _describe_loss(piece, lost)


class _Worker:
    """Holds the model in a process of its own.

    It is loaded by the first call, which Ray repeats a few times: a constructor it would repeat without end.
    """

    def __init__(self, embedder: BatchEmbedder, options: EmbedOptions) -> None:
        self._embedder = embedder
        self._options = options

    def embed(self, ready: list[Ready | Unreadable]) -> list[Embedded | Unreadable]:
        return embed_ready(self._embedder.embedder, ready, self._options)


def _read(entries: list[Entry], thumbnails: int | None) -> list[Ready | Unreadable]:
    return [read_entry(entry, thumbnails) for entry in entries]


def _describe_loss(piece: _Piece, error: Exception | None) -> STModulesError:
    first, last = piece.entries[0].place, piece.entries[-1].place
    said = f" Ray says: {in_one_line(error)}" if error else ""
    return STModulesError(
        f"{first} to {last}: what embeds them was lost {1 + _RETRIES} times over. Where it is memory that is short, a "
        f"smaller batch size helps, or fewer workers on a machine.{said}"
    )


def _find_cause(error: Any) -> BaseException:
    """Return what was raised in another process."""
    while isinstance(cause := getattr(error, "cause", None), BaseException):
        error = cause
    return error


def _check_room(ray: Any, cluster: RayOptions, *, may_grow: bool) -> None:
    gpus = cluster.workers * cluster.gpus_per_worker
    # What reads is on a core that no worker keeps.
    cpus = cluster.workers * (cluster.cpus_per_worker or 0) + 1
    what = f"{cluster.workers} workers and what reads"
    check_room(ray, {"GPU": gpus, "CPU": cpus}, what, may_grow=may_grow)
