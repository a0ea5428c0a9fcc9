"""The index that is served: asked in threads, so that requests which embed go on, and what it raises as problems."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from st_modules.errors import InputError
from st_modules.index.hits import make_hit
from st_modules.index.index import Index
from st_modules.index.pictures import write_picture
from st_modules.index.problems import ConditionError, UnknownItemError
from st_modules.inputs.limits import ImageLimits
from st_modules.serve.problems import Problem

logger = logging.getLogger(__name__)

_SEARCHERS = 4
# One more has no core on a small machine, and each may hold a decoded picture.
_PAINTERS = 2
_SIDE = 512
# An address that does not answer holds a picture up no longer than a reader waits.
_LONGEST_FETCH = 10.0

_Answer = TypeVar("_Answer")


class Collection:
    """An index, as requests may ask it.

    Args:
        index: The index.
        limits: What the pictures of its rows may cost, and where they may come from.
    """

    def __init__(self, index: Index, limits: ImageLimits) -> None:
        self._index = index
        self._limits = dataclasses.replace(limits, total_timeout=min(limits.total_timeout, _LONGEST_FETCH))
        self._searchers = ThreadPoolExecutor(_SEARCHERS, "st_modules-searcher")
        self._painters = ThreadPoolExecutor(_PAINTERS, "st_modules-painter")

    @property
    def dimension(self) -> int:
        """How many of a vector's components are compared."""
        return self._index.dimension

    async def ask(self, question: Callable[[Index], _Answer]) -> _Answer:
        """Ask the index in a thread.

        Args:
            question: What is done with it.

        Raises:
            Problem: The condition is wrong, there is no such item, or the index cannot be read.
        """
        return await asyncio.get_running_loop().run_in_executor(self._searchers, self._answer, question)

    async def paint(self, id: str) -> bytes:
        """Return the picture of an item as a small JPEG.

        Raises:
            Problem: There is no such item, it has no picture, or that cannot be read.
        """
        row = await self.ask(lambda index: index.get([id])[0])
        return await asyncio.get_running_loop().run_in_executor(self._painters, self._paint, row)

    def close(self) -> None:
        """Let go of the threads."""
        for each in (self._searchers, self._painters):
            each.shutdown(wait=False, cancel_futures=True)

    def _answer(self, question: Callable[[Index], _Answer]) -> _Answer:
        try:
            return question(self._index)
        except ConditionError as error:
            raise Problem("input", str(error), "where") from error
        except UnknownItemError as error:
            raise Problem("unknown", "No item of the index has this id.") from error
        except InputError as error:
            logger.error("The index cannot be read.", exc_info=error)
            raise Problem("internal", "The index cannot be read; the server's log says why.") from error

    def _paint(self, row: dict[str, Any]) -> bytes:
        try:
            picture = write_picture(make_hit(row, 0.0, []), self._limits, _SIDE)
        except (InputError, OSError) as error:
            raise Problem("unknown", f"The picture of this item cannot be read: {error}") from error
        if picture is None:
            raise Problem("unknown", "This item has no picture.")
        return picture
