"""What writes the instructions of pairs: the contract, and templates that name the difference of two captions."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Protocol

from st_modules.errors import STModulesError
from st_modules.megapairs.pictures import Picture


@dataclass(frozen=True)
class PicturePair:
    """Two pictures to write instructions for.

    Attributes:
        query: The picture that is asked with.
        target: The picture to find.
        root: The folder that their names are below.
    """

    query: Picture
    target: Picture
    root: Path

    @property
    def label(self) -> str:
        """The pair as messages have it."""
        return f"{self.query.name} → {self.target.name}"


@dataclass(frozen=True)
class Written:
    """Instructions, or why there are none.

    Attributes:
        texts: The instructions; empty where there is a problem.
        problem: Why the pair is left out, in words that many pairs may share.
        detail: What there is to say about this pair.
    """

    texts: tuple[str, ...] = ()
    problem: str = ""
    detail: str = ""


class InstructionError(STModulesError):
    """A writer gave no instructions that can be used."""


class InstructionWriter(Protocol):
    """Writes instructions."""

    @property
    def identity(self) -> str:
        """What a stopped run's records must have been written by to be gone on with."""
        ...

    def write(self, pairs: Sequence[PicturePair]) -> Iterator[Written]:
        """Yield one result for each pair, in their order.

        Raises:
            InstructionError: It cannot go on.
        """
        ...


class CaptionTemplates:
    """Names what the target's caption says and the query's does not, as in "blue circle instead of red circle".

    Captions are compared word by word. A pair without two captions, or with equal ones, is left out.

    Args:
        count: How many instructions a pair has, at most; there are as many ways to say a difference as templates.
        seed: The same seed chooses the same wordings for a pair.
    """

    def __init__(self, count: int = 3, seed: int = 0) -> None:
        if count < 1:
            raise ValueError(f"count={count}: pass 1 or more.")
        self.count = count
        self.seed = seed

    @property
    def identity(self) -> str:
        """Templates, their number, and the seed."""
        return f"caption templates, {self.count}, {self.seed}"

    def write(self, pairs: Sequence[PicturePair]) -> Iterator[Written]:
        """Yield one result for each pair, in their order."""
        return (self._write(pair) for pair in pairs)

    def _write(self, pair: PicturePair) -> Written:
        if pair.query.caption is None or pair.target.caption is None:
            return Written(problem="no caption")
        changes = caption_changes(pair.query.caption, pair.target.caption)
        if not changes:
            return Written(problem="equal captions")
        rng = random.Random(f"{self.seed} {pair.query.name} {pair.target.name}")
        ways = rng.sample(range(len(_REPLACED)), min(self.count, len(_REPLACED)))
        texts = (" and ".join(_said(old, new, way) for old, new in changes) for way in ways)
        return Written(tuple(dict.fromkeys(texts)))


_REPLACED = ("{new} instead of {old}", "replace {old} with {new}", "change {old} to {new}", "not {old} but {new}")
_ADDED = ("with {new}", "add {new}", "now with {new}", "{new} as well")
_REMOVED = ("without {old}", "remove {old}", "now without {old}", "no {old}")

# Words after which a changed word stands alone; after others it is told with its neighbour: "blue circle", not "blue".
_JOINING = frozenset(
    ["a", "an", "the", "and", "or", "of", "on", "in", "at", "to", "with", "by", "from", "for", "is", "are", *",.;:"]
)
_LONGEST_GAP = 2


def _said(old: str, new: str, way: int) -> str:
    templates = _REPLACED if old and new else _ADDED if new else _REMOVED
    return templates[way].format(old=old, new=new)


def caption_changes(before: str, after: str) -> list[tuple[str, str]]:
    """The phrases in which two captions differ, in their order.

    Args:
        before: A caption.
        after: Another one.

    Returns:
        Pairs of what is in ``before`` and what is in its place in ``after``; one of the two is empty where words were
        added or removed. Changes that are near each other are one, and a single word comes with the next one.
    """
    old, new = _words(before), _words(after)
    matcher = SequenceMatcher(None, [word.casefold() for word in old], [word.casefold() for word in new], False)
    spans = [code[1:] for code in matcher.get_opcodes() if code[0] != "equal"]
    changes = [(_text(old[a:b]), _text(new[c:d])) for a, b, c, d in _merge([_widen(span, old, new) for span in spans])]
    return [change for change in changes if any(change)]  # what is left out is a change of punctuation


def _words(caption: str) -> list[str]:
    return re.findall(r"[^\s,.;:]+|[,.;:]", caption)


def _widen(span: Sequence[int], old: list[str], new: list[str]) -> list[int]:
    a, b, c, d = span
    follows = b < len(old) and d < len(new) and old[b].casefold() not in _JOINING
    wide = follows and b - a == 1 and d - c == 1
    return [a, b + wide, c, d + wide]


def _merge(spans: list[list[int]]) -> list[list[int]]:
    merged: list[list[int]] = []
    for span in spans:
        if merged and span[0] - merged[-1][1] <= _LONGEST_GAP:
            merged[-1][1], merged[-1][3] = span[1], span[3]
        else:
            merged.append(span)
    return merged


def _text(words: list[str]) -> str:
    return re.sub(r" ([,.;:])", r"\1", " ".join(words)).strip(" ,.;:")
