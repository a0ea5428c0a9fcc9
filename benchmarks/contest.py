"""Ways of embedding timed in turns, on vectors that are first seen to be equal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from measure import Sample, matmul_peak, rotate, sample
from variants import Encode, Loaded
from workloads import Workload

_TOLERANCE = 1e-5
# Vectors that are all alike would be equal whatever went wrong.
_MOST_ALIKE = 0.99


@dataclass(frozen=True)
class Spread:
    """The least, the middle and the most of a number over the rounds."""

    least: float
    median: float
    most: float

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}–{self.most:.2f})"


@dataclass(frozen=True)
class Result:
    """What the rounds of one family and workload gave.

    Attributes:
        family: Key in ``FAMILIES``.
        workload: Key in ``TITLES``.
        items: How many were embedded.
        tokens: Of all items together, without padding.
        flops: Floating-point operations that the tokens need.
        differences: Largest difference between a variant's vectors and the first one's.
        samples: One for each round, by variant.
        peaks: The machine's floating-point operations a second in each round.
    """

    family: str
    workload: str
    items: int
    tokens: int
    flops: int
    differences: dict[str, float] = field(default_factory=dict)
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    peaks: list[float] = field(default_factory=list)

    def seconds(self, variant: str) -> float:
        """Return the median time of a variant."""
        return statistics.median(each.seconds for each in self.samples[variant])

    def ratio(self, slow: str, fast: str) -> Spread:
        """Return how many times as long ``slow`` takes, from the two times of each round."""
        ratios = [a.seconds / b.seconds for a, b in zip(self.samples[slow], self.samples[fast], strict=True)]
        return Spread(min(ratios), statistics.median(ratios), max(ratios))

    def peak_bytes(self, variant: str) -> int | None:
        """Return the median of a variant's peak memory."""
        found = [each.peak_bytes for each in self.samples[variant] if each.peak_bytes is not None]
        return int(statistics.median(found)) if found else None

    def efficiency(self, variant: str) -> float:
        """Return a variant's useful operations a second, as a fraction of what matrix products reached."""
        return self.flops / self.seconds(variant) / statistics.median(self.peaks)


def contest(models: Loaded, workload: Workload, variants: Mapping[str, Encode], rounds: int) -> Result:
    """Time variants in turns, in another order each round.

    Args:
        models: The family.
        workload: What is embedded.
        variants: By name; the first one's vectors are what the others' must be.
        rounds: How often each is timed.

    Returns:
        Times and memory.

    Raises:
        ValueError: The vectors of a variant are others, or so alike that this would not show.
    """
    tokens, flops = models.cost(workload)
    result = Result(models.family.name, workload.name, len(workload.items), tokens, flops)
    sip = replace(workload, items=workload.items[:3])
    for encode in variants.values():
        encode(sip)
    for turn in range(rounds):
        vectors: dict[str, np.ndarray] = {}
        for variant in rotate(list(variants), turn):
            vectors[variant], cost = sample(partial(variants[variant], workload))
            result.samples.setdefault(variant, []).append(cost)
        result.peaks.append(matmul_peak())
        _compare(result, vectors, first=next(iter(variants)))
    return result


def _compare(result: Result, vectors: Mapping[str, np.ndarray], first: str) -> None:
    expected = vectors[first]
    where = f"{result.family}, {result.workload}"
    alike = np.median((expected @ expected.T)[np.triu_indices(len(expected), 1)])
    if alike > _MOST_ALIKE:
        raise ValueError(f"{where}: the vectors are alike (cosine {alike:.4f}), so that a comparison says nothing")
    for variant, found in vectors.items():
        difference = float(np.abs(found - expected).max())
        if not difference <= _TOLERANCE:
            raise ValueError(f"{where}: the vectors of {variant} differ from those of {first} by {difference:.1e}")
        result.differences[variant] = max(difference, result.differences.get(variant, 0.0))
