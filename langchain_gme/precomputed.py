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

from langchain_gme.callers import is_called_by

_OTHER_TEXTS = (
    "The store embeds other texts than it was given, or embeds them twice: it cannot take precomputed embeddings, and "
    "so neither images nor images with a text. Use another store."
)
_OTHER_THREAD = (
    "The store embeds in threads of its own, where precomputed embeddings cannot be handed out, and so neither images "
    "nor images with a text. Use another store."
)
_ONE_BY_ONE = (
    "The store embeds equal texts one by one, where it cannot be told which row is whose. Pass batch_size=1, or use "
    "another store."
)


class PrecomputedError(RuntimeError):
    """A store works in a way that cannot take precomputed embeddings."""


class _Documents:
    """Texts and the embeddings to answer for them, in the order in which a store will ask.

    Args:
        owner: Whose ``embed_documents`` they are precomputed for.
        texts: What the store will ask for.
        embeddings: float32 of shape (texts, dimensions).
        store: The store that will ask, or the class of one that is being made. Such a one may ask for texts of its own
            first, to learn the dimension.
    """

    def __init__(self, owner: object, texts: Sequence[str], embeddings: np.ndarray, store: object) -> None:
        self.owner = owner
        self.store = store
        self._texts = list(texts)
        self._embeddings = embeddings
        self._taken = 0

    def take(self, texts: Sequence[str]) -> list[list[float]] | None:
        """Return the next embeddings, which must be those of ``texts``; None for a probe.

        Raises:
            PrecomputedError: The store asks for other texts.
        """
        start, end = self._taken, self._taken + len(texts)
        if self._texts[start:end] != list(texts):
            if isinstance(self.store, type) and not self._taken and not self.overlap(texts):
                return None
            raise PrecomputedError(_OTHER_TEXTS)
        if not start and len(texts) == 1 and self._texts.count(texts[0]) > 1:
            raise PrecomputedError(_ONE_BY_ONE)
        self._taken = end
        return self._embeddings[start:end].tolist()

    def overlap(self, texts: Sequence[str]) -> bool:
        """Whether any of these texts is among those that the store will ask for."""
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
    if any(each.overlap(texts) and is_called_by(each.store) for each in others):
        raise PrecomputedError(_OTHER_THREAD)
    return None


def is_served(owner: object) -> bool:
    """Whether embeddings of documents are precomputed for ``owner`` in this context."""
    waiting = _documents.get()
    return waiting is not None and waiting.owner is owner


def take_query(owner: object, text: str) -> list[float] | None:
    """Return what is precomputed for ``owner`` and a query in this context; None where nothing is.

    Raises:
        PrecomputedError: A store asks for another text than the query's.
    """
    waiting = _query.get()
    return waiting.take(text) if waiting and waiting.owner is owner else None


@contextmanager
def serve_documents(
    owner: object, texts: Sequence[str], embeddings: np.ndarray, store: object
) -> Generator[None, None, None]:
    """Have ``owner`` answer with these embeddings for these texts, and check that a store took all of them.

    Args:
        owner: Whose ``embed_documents`` is asked.
        texts: What the store will ask for, in this order.
        embeddings: float32 of shape (texts, dimensions).
        store: The store that will ask, or the class of one that is being made.

    Raises:
        PrecomputedError: The store left some out.
    """
    waiting = _Documents(owner, texts, embeddings, store)
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
