"""What is fuzzed: each kind of input with its known attacks, inputs at random, and what must hold of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from fuzz import addresses, checkpoints, images, structures, tables, texts, videos
from fuzz.bounds import Outcome


@dataclass(frozen=True)
class Target:
    """One kind of input.

    Attributes:
        attacks: Builds known attacks, by name; each takes its scale, of which 1 is the full size.
        strategy: Inputs at random.
        check: Embeds an input or has it refused; raises ``AssertionError``, or whatever is no error of the package.
    """

    attacks: Mapping[str, Callable[[float], Any]]
    strategy: Callable[[], st.SearchStrategy[Any]]
    check: Callable[[Any], Outcome]


TARGETS = {
    module.__name__.rpartition(".")[2]: Target(module.ATTACKS, module.strategy, module.check)
    for module in (images, videos, structures, texts, checkpoints, tables, addresses)
}
"""The targets by the names of their modules."""
