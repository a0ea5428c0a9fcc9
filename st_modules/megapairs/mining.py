"""Pairs of pictures and their hard negatives, from the neighbourhoods of several encoders.

The recipe is that of MegaPairs (Zhou et al. 2024, arXiv 2412.14475, section 3): several similarity models, each with
a band of scores, find the pictures that are related to a query; one of them is the target, and others of the same set
are its hard negatives.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from st_modules.megapairs.neighbours import NONE

Floats: TypeAlias = npt.NDArray[np.floating[Any]]
Numbers: TypeAlias = npt.NDArray[np.integer[Any]]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Pair:
    """Numbers of pictures.

    Attributes:
        query: The query's picture.
        target: The picture to find.
        negatives: Pictures not to find, the query's first.
    """

    query: int
    target: int
    negatives: tuple[int, ...]


@dataclass(frozen=True)
class Duplicates:
    """Tells which pictures are (nearly) the same.

    Args:
        classes: Shape (n,): equal numbers where the files are equal.
        visual: The unit vectors, of shape (n, d), of each visual encoder, and the upper bound of its band.
    """

    classes: Numbers
    visual: Sequence[tuple[Floats, float]]

    def of(self, number: int, others: Numbers) -> Mask:
        """Which of ``others`` are the same file as picture ``number``, or are over the bound of any visual encoder."""
        same = (self.classes[others] == self.classes[number]) | (others == number)
        for vectors, upper in self.visual:
            same |= vectors[others].astype(np.float32) @ vectors[number].astype(np.float32) > upper
        return same


@dataclass(frozen=True)
class Miner:
    """Draws pairs, and hard negatives for each.

    Args:
        names: Names of the pictures; with the seed, they decide what is drawn.
        neighbourhoods: Shape (n, depth) for each encoder: what ``neighbours_in_band`` found.
        duplicates: What is never paired.
        pairs: How many targets a query has from each encoder, at most.
        negatives: How many hard negatives a pair has, the query's picture included, at most.
        seed: The same seed draws the same pairs.
    """

    names: Sequence[str]
    neighbourhoods: Sequence[Numbers]
    duplicates: Duplicates
    pairs: int
    negatives: int
    seed: int

    def __iter__(self) -> Iterator[Pair]:
        for query in range(len(self.names)):
            yield from self.pairs_of(query)

    def pairs_of(self, query: int) -> Iterator[Pair]:
        """The pairs of one query: targets of one encoder after the other, none of them twice."""
        rng = random.Random(f"{self.seed} {self.names[query]}")
        retrieved = [self._find_related(query, found[query]) for found in self.neighbourhoods]
        everything = np.unique(np.concatenate(retrieved))
        targets: list[int] = []
        for numbers in retrieved:
            untaken = [number for number in numbers.tolist() if number not in targets]
            targets += rng.sample(untaken, min(self.pairs, len(untaken)))
        for target in targets:
            yield Pair(query, target, (query, *self._negatives(target, everything, rng))[: self.negatives])

    def _find_related(self, query: int, neighbours: Numbers) -> Numbers:
        found = neighbours[neighbours != NONE]
        return found[~self.duplicates.of(query, found)]

    def _negatives(self, target: int, retrieved: Numbers, rng: random.Random) -> list[int]:
        others = retrieved[~self.duplicates.of(target, retrieved)].tolist()
        return rng.sample(others, min(max(self.negatives - 1, 0), len(others)))
