"""Embeddings that are there before a store asks for them.

A LangChain store takes texts and has them embedded itself: its interface has no place for an image or for a vector.
While embeddings are precomputed, ``GMEEmbeddings`` answers a store with them: its ``embed_documents`` for the texts of
documents, in their order, and its ``embed_query`` for the text of a query.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import numpy as np

_OTHER_TEXTS = (
    "The store embeds other texts than it was given: it cannot take precomputed embeddings, and so neither images nor "
    "images with a text. Use another store."
)
_OTHER_THREAD = (
    "A store asks for embeddings from another thread than the one that adds to it, where those that are precomputed "
    "for the same texts cannot be told from those of other callers. If the store embeds in threads of its own, use "
    "another store; if you add equal texts to two stores at once, add to one after the other."
)


class PrecomputedError(RuntimeError):
    """A store works in a way that cannot take precomputed embeddings."""


class _Documents:
    """Texts and the embeddings to answer for them, in the order in which a store will ask.

    Args:
        owner: Whose ``embed_documents`` they are precomputed for.
        texts: What the store will ask for.
        embeddings: float32 of shape (texts, dimensions).
        probes: Whether the store may ask for texts of its own first, to learn the dimension.
    """

    def __init__(self, owner: object, texts: Sequence[str], embeddings: np.ndarray, probes: bool) -> None:
        self.owner = owner
        self._texts = list(texts)
        self._embeddings = embeddings
        self._probes = probes
        self._taken = 0

    def take(self, texts: Sequence[str]) -> list[list[float]] | None:
        """Return the next embeddings, which must be those of ``texts``; None for a probe.

        Raises:
            PrecomputedError: The store asks for other texts.
        """
        start, end = self._taken, self._taken + len(texts)
        if self._texts[start:end] != list(texts):
            if self._probes and not self._taken and not self.overlap(texts):
                return None
            raise PrecomputedError(_OTHER_TEXTS)
        self._taken = end
        return self._embeddings[start:end].tolist()

    def overlap(self, texts: Sequence[str]) -> bool:
        return not set(self._texts).isdisjoint(texts)

    def check_all_taken(self) -> None:
        """Raise ``PrecomputedError`` where the store left some out."""
        if self._taken != len(self._texts):
            raise PrecomputedError(
                f"The store asked for {self._taken} of {len(self._texts)} embeddings: it embeds in a way that cannot "
                "take precomputed ones, and so neither images nor images with a text. Use another store."
            )


class _Query:
    """The text of a query and the embedding to answer for it."""

    def __init__(self, owner: object, text: str, embedding: list[float]) -> None:
        self.owner = owner
        self._text = text
        self._embedding = embedding
        self.is_taken = False

    def take(self, text: str) -> list[float]:
        if text != self._text:
            raise PrecomputedError(
                "The store embeds another text than the query's: it cannot take a query that is embedded already. "
                "Search it by vector."
            )
        self.is_taken = True
        return self._embedding


_documents: ContextVar[_Documents | None] = ContextVar("langchain_gme_documents", default=None)
_query: ContextVar[_Query | None] = ContextVar("langchain_gme_query", default=None)
# What any context waits with, for threads that a store has started: they have no context of ours.
_lock = threading.Lock()
_everywhere: list[_Documents] = []


def take_documents(owner: object, texts: Sequence[str]) -> list[list[float]] | None:
    """Return what is precomputed for ``owner`` and these texts in this context; None where nothing is.

    Raises:
        PrecomputedError: A store asks for other texts than it was given, or from a thread of its own.
    """
    waiting = _documents.get()
    if waiting and waiting.owner is owner:
        return waiting.take(texts)
    with _lock:
        others = [each for each in _everywhere if each.owner is owner]
    if any(each.overlap(texts) for each in others):
        raise PrecomputedError(_OTHER_THREAD)
    return None


def take_query(owner: object, text: str) -> list[float] | None:
    """Return what is precomputed for ``owner`` and a query in this context; None where nothing is.

    Raises:
        PrecomputedError: A store asks for another text than the query's.
    """
    waiting = _query.get()
    return waiting.take(text) if waiting and waiting.owner is owner else None


@contextmanager
def serve_documents(
    owner: object, texts: Sequence[str], embeddings: np.ndarray, *, probes: bool = False
) -> Generator[None, None, None]:
    """Have ``owner`` answer with these embeddings for these texts, and check that a store took all of them.

    Args:
        owner: Whose ``embed_documents`` is asked.
        texts: What the store will ask for, in this order.
        embeddings: float32 of shape (texts, dimensions).
        probes: Whether the store may ask for texts of its own first, as one that is being made does.

    Raises:
        PrecomputedError: The store left some out.
    """
    waiting = _Documents(owner, texts, embeddings, probes)
    with _lock:
        _everywhere.append(waiting)
    token = _documents.set(waiting)
    try:
        yield
    finally:
        _documents.reset(token)
        with _lock:
            _everywhere.remove(waiting)
    waiting.check_all_taken()


@contextmanager
def serve_query(owner: object, text: str, embedding: list[float]) -> Generator[None, None, None]:
    """Have ``owner`` answer with this embedding for this text, and check that a store took it.

    Raises:
        PrecomputedError: The store did not ask for it.
    """
    waiting = _Query(owner, text, embedding)
    token = _query.set(waiting)
    try:
        yield
    finally:
        _query.reset(token)
    if not waiting.is_taken:
        raise PrecomputedError(
            "The store did not ask for the embedding of the query: it searches in a way that cannot take one that is "
            "there already. Search it by vector, or with a text."
        )
