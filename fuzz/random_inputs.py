"""One engine on one target: inputs at random until the time is over, or until one breaks a rule."""

from __future__ import annotations

import dataclasses
import logging
import os
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

from hypothesis import HealthCheck, given, settings

from fuzz.bounds import end_hang, measure

_HANG = 120.0
# Inputs of all sizes are meant to be drawn, and to take their time.
_UNCHECKED = (
    HealthCheck.too_slow,
    HealthCheck.data_too_large,
    HealthCheck.filter_too_much,
    HealthCheck.large_base_example,
)
_AT_ONCE = 200
# What atheris begins with: draws of hypothesis, from which it goes on.
_FIRST, _LONGEST = 50, 4096


def make_test(target: Any, report: Callable[[bool], object], *, timed: bool = True, **options: Any) -> Any:
    """Return hypothesis's test of a target: an input at random keeps to what an input may cost and bring about.

    Args:
        target: The target.
        report: Called with each input's outcome: whether it was embedded.
        timed: Whether its time is checked.
        **options: Settings of hypothesis.
    """

    @settings(deadline=None, database=None, suppress_health_check=_UNCHECKED, **options)
    @given(target.strategy())
    def test(value: Any) -> None:
        with end_hang(_HANG), measure() as cost:
            outcome = target.check(value)
        cost.check(outcome.pixels, timed=timed)
        report(outcome.embedded)

    return test


def print_failing(target: Any) -> Any:
    """Return a target that prints an input which fails: hypothesis does not where another engine chooses its draws."""

    def check(value: Any) -> Any:
        try:
            return target.check(value)
        except BaseException:
            print(f"Failing test case: {value!r:.2000}")
            raise

    return dataclasses.replace(target, check=check)


def main(engine: str, name: str, minutes: float, found: str | None = None) -> None:
    """Run an engine on a target.

    Args:
        engine: hypothesis or atheris.
        name: The target.
        minutes: For how long.
        found: A file that atheris wrote when an input failed: that input is run again, and no other.
    """
    warnings.simplefilter("ignore")
    logging.disable()
    if engine == "atheris":
        _run_atheris(name, 60 * minutes, found)
    else:
        _run_hypothesis(name, 60 * minutes)


def _run_hypothesis(name: str, seconds: float) -> None:
    """Run a target again and again, each time on other inputs."""
    from fuzz.outcomes import tiny
    from fuzz.targets import TARGETS

    tiny().encode(["a"])
    counts = Counter[bool]()
    test = make_test(TARGETS[name], lambda embedded: counts.update([embedded]), max_examples=_AT_ONCE)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        test()
    print(f"{counts[True]} embedded, {counts[False]} refused")


def _run_atheris(name: str, seconds: float, found: str | None) -> None:
    """Let atheris choose what hypothesis draws, by the code of the package and of Pillow that it reaches."""
    atheris: Any = import_module("atheris")

    # What it is to see has to be imported under its eyes.
    with atheris.instrument_imports(include=["st_modules", "PIL"], enable_loader_override=False):
        from fuzz.outcomes import tiny
        from fuzz.targets import TARGETS
    tiny().encode(["a"])
    test = make_test(print_failing(TARGETS[name]), lambda embedded: None)
    run_one = test.hypothesis.fuzz_one_input
    if found:
        run_one(Path(found).read_bytes())
        return
    corpus = Path(tempfile.mkdtemp(prefix="st-modules-fuzz-"))
    failing = Path(tempfile.mkdtemp(prefix="st-modules-found-"))
    draws = random.Random(name)
    for number in range(_FIRST):
        (corpus / str(number)).write_bytes(draws.randbytes(_LONGEST))
    options = [f"-max_total_time={seconds:.0f}", "-rss_limit_mb=6000", f"-max_len={_LONGEST}", "-len_control=0"]
    atheris.Setup([sys.argv[0], *options, f"-artifact_prefix={failing}/", str(corpus)], run_one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), *sys.argv[4:])
