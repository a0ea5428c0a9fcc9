"""What each of the switches of ``encode`` saves: it is timed with every one on, and with each one off."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from contest import Result, contest
from report import Table
from variants import Encode, Loaded, encoder
from workloads import Workload

_ALL_ON = "all on"


def levers_contest(models: Loaded, workload: Workload, rounds: int) -> Result:
    """Time our model with every lever on, and with each single one off."""
    model: Any = models.ours
    on = model._levers
    names = [field.name for field in dataclasses.fields(on)]
    variants = {_ALL_ON: _with(model, on)}
    variants |= {name: _with(model, dataclasses.replace(on, **{name: False})) for name in names}
    result = contest(models, workload, variants, rounds)
    model._levers = on
    return result


def _with(model: Any, levers: Any) -> Encode:
    encode = encoder(model)

    def encode_with(workload: Workload) -> np.ndarray:
        model._levers = levers
        return encode(workload)

    return encode_with


def levers_table(results: Sequence[Result]) -> Table:
    """Return how many times as long a workload takes without each lever."""
    names = [name for name in results[0].samples if name != _ALL_ON]
    return Table(
        "Time without a lever, beside that with all of them: median (least–most) of the rounds",
        ["family", "workload", "all on, s", *names],
        [
            [
                result.family,
                result.workload,
                f"{result.seconds(_ALL_ON):.2f}",
                *(str(result.ratio(name, _ALL_ON)) for name in names),
            ]
            for result in results
        ],
    )
