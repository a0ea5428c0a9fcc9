"""Embeddings that are there before a store asks for them.

A LangChain store takes texts and has them embedded itself: its interface has no place for an image or for a vector.
While embeddings are precomputed for a store's texts, ``GMEEmbeddings.embed_documents`` hands them out in their order.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar


class PrecomputedEmbeddings:
    """Texts and the embeddings to answer for them, in the order in which a store will ask.

    Args:
        owner: Whose ``embed_documents`` they are precomputed for.
        texts: What the store will ask for.
        embeddings: One embedding a text.
    """

    def __init__(self, owner: object, texts: Sequence[str], embeddings: Sequence[list[float]]) -> None:
        self._owner = owner
        self._texts = list(texts)
        self._embeddings = list(embeddings)
        self._taken = 0

    def is_for(self, owner: object) -> bool:
        """Whether they are precomputed for ``owner``."""
        return self._owner is owner

    def take(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the next embeddings, which must be those of ``texts``.

        Raises:
            RuntimeError: The store asks for other texts.
        """
        start, self._taken = self._taken, self._taken + len(texts)
        if self._texts[start : self._taken] != list(texts):
            raise RuntimeError("The store embeds other texts than it was given: it cannot take precomputed embeddings.")
        return self._embeddings[start : self._taken]

    def check_all_taken(self) -> None:
        """Raise ``RuntimeError`` where the store left some out."""
        if self._taken != len(self._texts):
            raise RuntimeError(
                f"The store asked for {self._taken} of {len(self._texts)} embeddings: it embeds in a way that cannot "
                "take precomputed ones. Delete what it added."
            )


_current: ContextVar[PrecomputedEmbeddings | None] = ContextVar("langchain_gme_precomputed", default=None)


def find_precomputed(owner: object) -> PrecomputedEmbeddings | None:
    """Return what is precomputed for ``owner`` in this context, if anything is."""
    precomputed = _current.get()
    return precomputed if precomputed and precomputed.is_for(owner) else None


@contextmanager
def serve_precomputed(
    owner: object, texts: Sequence[str], embeddings: Sequence[list[float]]
) -> Generator[None, None, None]:
    """Have ``owner`` answer with these embeddings for these texts, and check that a store took all of them."""
    waiting = PrecomputedEmbeddings(owner, texts, embeddings)
    token = _current.set(waiting)
    try:
        yield
    finally:
        _current.reset(token)
    waiting.check_all_taken()
