"""Entries that need no files."""

from __future__ import annotations

from dataclasses import dataclass

from st_modules import InputError
from st_modules.index.entries import Entry, Loaded, digest


@dataclass(frozen=True)
class Words:
    """A text, which is as it is, or cannot be read."""

    text: str
    problem: str | None = None

    def load(self) -> Loaded:
        if self.problem is not None:
            raise InputError(self.problem)
        return Loaded({"text": self.text}, self.text, digest(self.text))


def write_entry(number: int, text: str, problem: str | None = None) -> Entry:
    return Entry("words", f"words:{number}", digest(number, text), Words(text, problem), id=f"w{number}", text=text)
