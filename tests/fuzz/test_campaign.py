"""A short run of what ``make fuzz`` runs for long, and what its rules are worth: they are seen to be broken."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st

from fuzz.bounds import MEBIBYTES, Cost, Outcome, run_apart
from fuzz.outcomes import embed_or_refuse
from fuzz.random_inputs import make_test, print_failing
from fuzz.targets import TARGETS, Target
from st_modules import InputError
from tests.helpers.paths import ROOT


def run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", module, *arguments]
    return subprocess.run(call, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.parametrize("name", TARGETS)
def test_every_known_attack_is_embedded_or_refused_within_its_memory(name: str) -> None:
    done = run("fuzz.run", "--engines", "attacks", "--targets", name, "--untimed", "--skip-slow")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Nothing failed." in done.stdout


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_at_random_are_embedded_or_refused(name: str) -> None:
    outcomes: list[bool] = []
    make_test(TARGETS[name], outcomes.append, timed=False, max_examples=30, derandomize=True)()
    assert len(outcomes) >= 10


@pytest.mark.parametrize("command", ["embed", "megapairs", "index"])
def test_a_killed_command_leaves_what_is_whole_and_goes_on_to_the_same_end(command: str) -> None:
    done = run("fuzz.kills", "--rounds", "2", "--only", command)
    assert done.returncode == 0, done.stdout + done.stderr


# --------------------------------------------------------------------------------------------- rules that are broken


def _refuse(words: str) -> Any:
    raise InputError(words)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: np.ones((2, 3)), "vectors of shape"),
        (lambda: np.full((1, 3), np.nan), "not finite"),
        (lambda: np.full((1, 3), 5.0), "norms"),
        (lambda: _refuse("something"), "is named by"),
        (lambda: _refuse("item 0" + "a" * 40_000), "characters of an error"),
    ],
)
def test_what_is_neither_a_unit_vector_nor_an_error_with_a_name_is_found(call: Any, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        embed_or_refuse(call, 1, ["item 0"])


def test_an_input_that_fails_is_printed_whatever_chose_it(capsys: pytest.CaptureFixture[str]) -> None:
    target = print_failing(Target({}, lambda: st.just("an input"), lambda value: _refuse("no")))
    with pytest.raises(InputError, match="no"):
        target.check("an input")
    assert capsys.readouterr().out == "Failing test case: 'an input'\n"


def test_an_error_of_another_package_is_found() -> None:
    with pytest.raises(KeyError):
        embed_or_refuse(lambda: {}["a"], 1, ["item 0"])


@pytest.mark.parametrize("cost", [Cost(seconds=5.1), Cost(mebibytes=MEBIBYTES + 11)])
def test_what_costs_too_much_is_found(cost: Cost) -> None:
    with pytest.raises(AssertionError, match="allowed"):
        cost.check(10)


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux")


def measure_alone(code: str) -> float:
    """Return the mebibytes that code prints, run in a new interpreter.

    This one may be large: what earlier tests left could be freed within what is measured, or its pages taken away.
    """
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return float(told.stdout)


@linux
def test_memory_that_is_given_back_is_measured() -> None:
    code = """
import numpy as np
from fuzz.bounds import measure

with measure() as cost:
    np.ones(100 * 2**20, dtype=np.uint8)
print(cost.mebibytes)
"""
    assert 90 < measure_alone(code) < 150


@linux
def test_what_a_process_of_its_own_takes_is_told() -> None:
    code = """
import numpy as np
from fuzz.bounds import Outcome, run_apart

_, cost = run_apart(lambda: Outcome(True, str(np.ones(100 * 2**20, dtype=np.uint8).size)), seconds=60)
print(cost.mebibytes)
"""
    assert 90 < measure_alone(code) < 150


@linux
def test_what_was_left_to_be_collected_before_is_not_freed_within_it() -> None:
    code = """
import gc
import numpy as np
from fuzz.bounds import Outcome, run_apart

def call() -> Outcome:
    gc.collect()
    return Outcome(True, str(np.ones(100 * 2**20, dtype=np.uint8).size))

gc.disable()
left = [np.ones(200 * 2**20, dtype=np.uint8)]
left.append(left)
del left
_, cost = run_apart(call, seconds=60)
print(cost.mebibytes)
"""
    assert 90 < measure_alone(code) < 150


@linux
def test_what_a_process_of_its_own_returns_is_told() -> None:
    returned = Outcome(True, "three\nlines\n", 7.0)
    assert run_apart(lambda: returned, seconds=60)[0] == returned


@linux
def test_what_a_process_of_its_own_raises_is_told() -> None:
    outcome, _ = run_apart(lambda: _refuse("no"), seconds=60)
    assert isinstance(outcome, str)
    assert outcome.endswith("InputError: no\n")


@linux
@pytest.mark.parametrize(
    ("call", "seconds", "words"), [(signal.pause, 0.2, "killed"), (lambda: os._exit(3), 60, "status 768")]
)
def test_a_process_of_its_own_that_ends_otherwise_is_told(call: Any, seconds: float, words: str) -> None:
    outcome, _ = run_apart(call, seconds=seconds)
    assert isinstance(outcome, str)
    assert words in outcome
