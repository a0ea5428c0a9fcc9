"""Time and memory of a call, and what the machine's matrix products reach beside it."""

from __future__ import annotations

import ctypes
import ctypes.util
import gc
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")
Name = TypeVar("Name")

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_MATMUL_SIDES = (1024, 1024, 1536, 2048)


@dataclass(frozen=True)
class Sample:
    """What one call cost.

    Attributes:
        seconds: By the clock.
        cpu_seconds: Of all threads together.
        peak_bytes: Most memory during the call, above what there was before it; ``None`` where Linux's ``/proc`` is
            missing.
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


def sample(call: Callable[[], Result]) -> tuple[Result, Sample]:
    """Make a call, and return its result with what it cost."""
    _release_memory()
    before = _reset_peak()
    start, cpu_start = time.perf_counter(), time.process_time()
    result = call()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak = None if before is None else _status_bytes("VmHWM") - before
    return result, Sample(seconds, cpu_seconds, peak)


def matmul_peak() -> float:
    """Return the most floating-point operations a second of several float32 matrix products."""
    return max(map(_matmul_rate, _MATMUL_SIDES))


def _matmul_rate(side: int) -> float:
    left, right, out = torch.ones(side, side), torch.ones(side, side), torch.empty(side, side)
    start = time.perf_counter()
    torch.matmul(left, right, out=out)
    return 2 * side**3 / (time.perf_counter() - start)


def rotate(names: Sequence[Name], turn: int) -> list[Name]:
    """Return the names in an order that begins with another one each turn."""
    first = turn % len(names)
    return [*names[first:], *names[:first]]


def _release_memory() -> None:
    """Give freed memory back to the system, so that a call's peak does not depend on the calls before it."""
    gc.collect()
    libc = ctypes.CDLL(ctypes.util.find_library("c"))
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _reset_peak() -> int | None:
    """Forget the peak so far, and return the bytes in use."""
    try:
        _CLEAR.write_text("5", encoding="ascii")
        return _status_bytes("VmRSS")
    except OSError:
        return None


def _status_bytes(key: str) -> int:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024
