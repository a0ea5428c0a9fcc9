"""Reading in threads, ahead of the one who needs it, in order and within bounds of memory."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Given = TypeVar("_Given")
_Read = TypeVar("_Read")

_MOST_READERS = 16


class _Budget:
    """How many bytes wait to be taken. What is to be taken next may always be read, so that nobody waits forever.

    Args:
        most: How many may wait before nothing more is read.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._held = 0
        self._taken = 0
        self._closed = False
        self._changed = threading.Condition()

    def wait(self, number: int) -> bool:
        """Wait until something may be read; return whether it still is to be."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._held < self._most or number <= self._taken)
            return not self._closed

    def hold(self, size: int) -> None:
        with self._changed:
            self._held += size

    def take(self, size: int) -> None:
        with self._changed:
            self._held -= size
            self._taken += 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def read_ahead(
    given: Iterator[_Given],
    read: Callable[[_Given], _Read],
    weigh: Callable[[_Read], int],
    *,
    most: int,
    most_bytes: int,
) -> Generator[_Read, None, None]:
    """Yield what is read of each thing, in order, while the next ones are read.

    Args:
        given: The things. It is asked for more in the caller's own thread.
        read: Called in other threads; what it raises is raised here when it is that thing's turn.
        weigh: How many bytes something takes that was read.
        most: How many things are read ahead.
        most_bytes: How many bytes may have been read ahead before no more are. Each thread may go over it by one thing.
    """
    budget = _Budget(most_bytes)

    def work(thing: _Given, number: int) -> tuple[_Read, int] | None:
        if not budget.wait(number):
            return None
        found = read(thing)
        size = weigh(found)
        budget.hold(size)
        return found, size

    waiting: deque[Future[tuple[_Read, int] | None]] = deque()
    pool = ThreadPoolExecutor(min(_MOST_READERS, os.cpu_count() or 1), thread_name_prefix="st_modules-reader")
    try:
        numbered = enumerate(given)
        while True:
            while len(waiting) < most and (following := next(numbered, None)):
                waiting.append(pool.submit(work, following[1], following[0]))
            if not waiting:
                return
            done = waiting.popleft().result()
            assert done is not None
            budget.take(done[1])
            yield done[0]
    finally:
        budget.close()
        pool.shutdown(cancel_futures=True)
