"""The memory of the images that are being decoded and prepared: one budget for all threads of the process."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol, TypeVar

_Read = TypeVar("_Read")
_Source = TypeVar("_Source", bound="_Sized")


class _Sized(Protocol):
    @property
    def memory(self) -> int: ...


class PixelBudget:
    """Memory that threads take in turn, in the order in which they ask; who asks for more than all gets all of it.

    A thread that holds some is not made to wait for more: what it holds is to be enough. So none waits for another that
    waits.

    Args:
        capacity: How many bytes there are.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.reset()

    def reset(self) -> None:
        """Forget who holds what: the threads of a process are not there in one that is forked off it."""
        self._state = _State()

    @property
    def in_use(self) -> int:
        """How many bytes are held."""
        return self._state.in_use

    @property
    def waiting(self) -> int:
        """How many threads wait for some."""
        return len(self._state.queue)

    @contextmanager
    def hold(self, size: int) -> Generator[None, None, None]:
        """Hold some memory while the block runs; wait until there is as much.

        Args:
            size: How many bytes.
        """
        state, size = self._state, min(size, self.capacity)
        if getattr(state.thread, "holds", False):
            yield
            return
        state.take(size, self.capacity)
        state.thread.holds = True
        try:
            yield
        finally:
            state.thread.holds = False
            state.give_back(size)


class _State:
    def __init__(self) -> None:
        self.in_use = 0
        self.thread = threading.local()
        self.queue: deque[object] = deque()
        self._changed = threading.Condition()

    def take(self, size: int, capacity: int) -> None:
        ticket = object()
        with self._changed:
            self.queue.append(ticket)
            try:
                self._changed.wait_for(lambda: self.queue[0] is ticket and self.in_use + size <= capacity)
                self.in_use += size
            finally:
                self.queue.remove(ticket)
                self._changed.notify_all()

    def give_back(self, size: int) -> None:
        with self._changed:
            self.in_use -= size
            self._changed.notify_all()


PIXELS = PixelBudget(2**30)
"""That of this process, 1 GiB: a little more than the largest image takes that the default limits allow."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PIXELS.reset)


def read_within_budget(read: Callable[[_Source], _Read], source: _Source) -> _Read:
    """Run what reads an image and makes something smaller of it, once the process's budget has room for the pixels.

    Args:
        read: Reads it.
        source: The image, or whatever else says how much memory reading it takes.

    Returns:
        What ``read`` returned.

    Raises:
        InputError: It cannot be read.
    """
    with PIXELS.hold(source.memory):
        return read(source)
