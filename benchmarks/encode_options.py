"""What each of the ``EncodeOptions`` saves: ``encode`` is timed with every one on, and with each one off."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from contest import Result, contest
from report import Table
from variants import Encode, Loaded, encoder
from workloads import Workload

from st_modules import EncodeOptions, SentenceTransformer

_ALL_ON = "all on"


def options_contest(models: Loaded, workload: Workload, rounds: int) -> Result:
    """Time our model with every option on, and with each single one off."""
    model = models.ours
    on = model.encode_options
    names = [field.name for field in dataclasses.fields(on)]
    variants = {_ALL_ON: _encode_with(model, on)}
    variants |= {name: _encode_with(model, dataclasses.replace(on, **{name: False})) for name in names}
    result = contest(models, workload, variants, rounds)
    model.encode_options = on
    return result


def _encode_with(model: SentenceTransformer, options: EncodeOptions) -> Encode:
    encode = encoder(model)

    def encode_with(workload: Workload) -> np.ndarray:
        model.encode_options = options
        return encode(workload)

    return encode_with


def options_table(results: Sequence[Result]) -> Table:
    """Return how many times as long a workload takes without each option."""
    names = [name for name in results[0].samples if name != _ALL_ON]
    return Table(
        "Time without an option, beside that with all of them: median (least–most) of the rounds",
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
