"""What an input may cost, and measuring it: in a process of its own, or between two others in this one."""

from __future__ import annotations

import faulthandler
import gc
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SECONDS = 5.0
"""Most seconds of processor time that an input may take."""

MEBIBYTES = 512
"""Most memory that it may take beyond its decoded pixels, in MiB."""

_CLEAR_REFS = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Outcome:
    """What became of an input that broke no rule.

    Attributes:
        embedded: Whether it was embedded; otherwise it was refused.
        words: Why it was refused, or what it is.
        pixels: Mebibytes of its decoded pixels.
    """

    embedded: bool
    words: str = ""
    pixels: float = 0.0


@dataclass
class Cost:
    """What something took.

    Attributes:
        seconds: Processor time of all threads.
        mebibytes: Most memory at any time, above what the process had before; 0 where the system does not tell.
    """

    seconds: float = 0.0
    mebibytes: float = 0.0

    def check(self, pixels: float = 0.0, *, timed: bool = True) -> None:
        """Raise ``AssertionError`` where it is over what an input may cost.

        Args:
            pixels: Mebibytes that do not count.
            timed: Whether time counts.
        """
        assert not timed or self.seconds <= SECONDS, f"{self.seconds:.1f} s, and {SECONDS:.0f} s are allowed"
        beyond = self.mebibytes - pixels
        assert beyond <= MEBIBYTES, f"{beyond:.0f} MiB beyond its pixels, and {MEBIBYTES} MiB are allowed"


@contextmanager
def measure() -> Generator[Cost, None, None]:
    """Measure what is done within; the cost is filled in at the end."""
    cost, start = Cost(), time.process_time()
    before = _restart_peak()
    try:
        yield cost
    finally:
        cost.seconds = time.process_time() - start
        cost.mebibytes = max(0.0, _read_status("VmHWM") - before)


@contextmanager
def end_hang(seconds: float) -> Generator[None, None, None]:
    """End the process with a traceback of where it was where something does not end within seconds."""
    # A signal's handler would wait for the end of what a decoder written in C does.
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def run_apart(
    call: Callable[[], Outcome], seconds: float, warm_up: Callable[[], object] = lambda: None
) -> tuple[Outcome | str, Cost]:
    """Call something in a process of its own, which is killed when it takes too long.

    Args:
        call: What is called.
        seconds: Wall-clock seconds after which it is killed.
        warm_up: Called there before it, and not measured: a new process has not mapped the libraries yet that it uses.

    Returns:
        What it returned, or the traceback of what it raised, or how its process ended; and what it took.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        # What the process before it left to be collected would be freed within the call, and hide what that takes.
        gc.freeze()
        warm_up()
        _report(call, writing)
    os.close(writing)
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    with os.fdopen(reading, "rb") as stream:
        told = stream.read().decode()
    _, status, usage = os.wait4(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    kind, _, rest = told.partition("\n")
    measured, _, words = rest.partition("\n")
    if not words:
        words = f"killed after {seconds:.0f} s" if os.WIFSIGNALED(status) else f"ended with status {status}"
        # Of the whole process.
        return words, Cost(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
    cost = Cost(*map(float, measured.split()))
    if kind in ("embedded", "refused"):
        pixels, _, words = words.partition("\n")
        return Outcome(kind == "embedded", words, float(pixels)), cost
    return words, cost


def _report(call: Callable[[], Outcome], writing: int) -> None:
    # Far over what is allowed, so that what is over it does not take the machine down.
    most = int((_read_status("VmSize") + 8 * MEBIBYTES) * 2**20)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    with measure() as cost:
        try:
            outcome = call()
            kind = "embedded" if outcome.embedded else "refused"
            words = f"{outcome.pixels}\n{outcome.words}"
        except BaseException:
            kind, words = "failed", traceback.format_exc()
    with os.fdopen(writing, "wb") as stream:
        stream.write(f"{kind}\n{cost.seconds} {cost.mebibytes}\n{words}".encode(errors="replace"))
    sys.stdout.flush()
    os._exit(0)


def _restart_peak() -> float:
    """Set the highest memory of this process to what it has now, in MiB, which is returned."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:  # not Linux, or not allowed
        return float("inf")
    return _read_status("VmRSS")


def _read_status(name: str) -> float:
    try:
        status = _STATUS.read_text()
    except OSError:
        return 0.0
    return int(status.partition(f"{name}:")[2].split(maxsplit=1)[0]) / 1024
