"""Calls that wait at the same time are run as one: what an event loop needs of a function that is fast in batches."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Run: TypeAlias = Callable[[list[Any], Mapping[str, Any]], Sequence[Any]]


@dataclass
class _Call:
    items: list[Any]
    options: Mapping[str, Any]
    weight: int
    future: Future[list[Any]] = field(default_factory=Future)


class DynamicBatcher:
    """Runs a function over lists off the event loop, and calls that wait at the same time together.

    A call that finds nothing under way waits ``delay`` seconds for company; calls that come while others run need no
    delay to come together. One thread runs at a time, and none when nothing waits. It serves any number of event loops
    and threads.

    A call that is cancelled while it waits is left out.

    Args:
        run: Maps a list of items and the options of the calls to one result an item, in the same order.
        max_weight: Calls are put together up to this weight; a single call may have more.
        weigh: Returns what an item weighs, as its tokens; by default each is 1.
    """

    def __init__(self, run: Run, max_weight: int = 256, weigh: Callable[[Any], int] = lambda item: 1) -> None:
        self._run = run
        self._max_weight = max_weight
        self._weigh = weigh
        self._lock = threading.Lock()
        self._waiting: list[_Call] = []
        self._working = False

    @property
    def waiting(self) -> int:
        """How many calls wait for their turn; those that run are not among them."""
        with self._lock:
            return sum(not call.future.cancelled() for call in self._waiting)

    async def __call__(self, items: Sequence[Any], options: Mapping[str, Any], delay: float) -> list[Any]:
        """Return the results for ``items``, in their order.

        Args:
            items: What to run over.
            options: Calls run together only where these are equal.
            delay: Seconds to wait for other calls.

        Raises:
            Exception: What ``run`` raised over these items alone. Calls that ran together with a failing one are run
                again without it.
        """
        call = _Call(list(items), options, sum(map(self._weigh, items)))
        with self._lock:
            self._waiting.append(call)
            idle = not self._working
            self._working = True
        if idle:
            try:
                threading.Thread(target=self._work, args=(delay,), name="st_modules-batcher").start()
            except BaseException:  # the system has no thread left: the next call tries again, for all that wait
                with self._lock:
                    self._working = False
                    self._waiting = [each for each in self._waiting if each is not call]
                raise
        return await asyncio.wrap_future(call.future)

    def _work(self, delay: float) -> None:
        time.sleep(delay)
        while calls := self._take():
            self._settle([call for call in calls if call.future.set_running_or_notify_cancel()])

    def _take(self) -> list[_Call]:
        """The next calls to run together; none when the thread may end."""
        with self._lock:
            taken: list[_Call] = []
            left: list[_Call] = []
            weight = 0
            for call in self._waiting:
                if call.future.cancelled():
                    continue
                fits = not taken or (call.options == taken[0].options and weight + call.weight <= self._max_weight)
                (taken if fits else left).append(call)
                weight += call.weight if fits else 0
            self._waiting = left
            self._working = bool(taken)
            return taken

    def _settle(self, calls: list[_Call]) -> None:
        if not calls:
            return
        try:
            results = list(self._run([item for call in calls for item in call.items], calls[0].options))
        except BaseException as error:  # whatever it is, somebody awaits it
            if len(calls) == 1:
                calls[0].future.set_exception(error)
                return
            middle = len(calls) // 2
            self._settle(calls[:middle])
            self._settle(calls[middle:])
            return
        start = 0
        for call in calls:
            call.future.set_result(results[start : start + len(call.items)])
            start += len(call.items)
