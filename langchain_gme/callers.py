"""What stands behind a call that LangChain makes of the embeddings, found in the frames of the call.

A store hands over the texts of documents alone, and may do so from threads of its own. Nothing in the arguments tells
that, so the frames that hold the documents, or the store, are looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from langchain_core.documents import Document

from langchain_gme.content import IMAGE_KEYS, has_video

_INDEXING = "langchain_core.indexing.api"
_OURS = __name__.partition(".")[0]
_POOLS = ("concurrent.futures", "threading", "asyncio", "multiprocessing", "langchain_core.runnables.config")
# A store's door, its base class, and what they call on the way.
_NEAREST = 16


def count_left_out(texts: Sequence[str], *, takes_video: bool) -> int:
    """Return how many of the documents have a picture, or a video, whose texts are handed over.

    Args:
        texts: What the calling method of the embeddings was given.
        takes_video: Whether the model embeds videos; to another an entry "video" is metadata like any.
    """
    for frame in _frames(most=_NEAREST):
        for metadatas in _metadatas(frame, texts):
            if count := sum(_has_image(each) or (takes_video and has_video(each)) for each in metadatas):
                return count
    return 0


def is_called_by(store: object) -> bool:
    """Whether a store makes the call, as far as its frames tell.

    Args:
        store: The store, or the class of one that is being made.
    """
    frames = list(_frames())
    for frame in frames:
        caller = frame.f_locals.get("self")
        if caller is store or (isinstance(store, type) and isinstance(caller, store)):
            return True
    # A function that was handed to a pool by itself shows nobody.
    return not frames or str(frames[0].f_globals.get("__name__")).startswith(_POOLS)


def is_called_by_index() -> bool:
    """Whether ``langchain_core.indexing.index`` or ``aindex`` makes the call of a method of a store."""
    return any(frame.f_globals.get("__name__") == _INDEXING for frame in _frames(most=1))


def _metadatas(frame: FrameType, texts: Sequence[str]) -> Iterator[list[Mapping[str, Any]]]:
    """Yield the metadata of the documents that a frame holds, where they are those of the texts."""
    for value in (frame.f_locals.get(name) for name in ("documents", "docs", "document", "metadatas")):
        values = list(value) if isinstance(value, (list, tuple)) else [value]
        documents = [each for each in values if isinstance(each, Document)]
        mappings = [each for each in values if isinstance(each, Mapping)]
        if documents and {each.page_content for each in documents}.issuperset(texts):
            yield [each.metadata for each in documents]
        elif mappings and _holds(frame.f_locals.get("texts"), texts):
            yield mappings


def _holds(values: object, texts: Sequence[str]) -> bool:
    return isinstance(values, (list, tuple)) and set(texts).issubset(each for each in values if isinstance(each, str))


def _has_image(metadata: Mapping[str, Any]) -> bool:
    values = [metadata.get(key) for key in IMAGE_KEYS]
    return any(value is not None and not (isinstance(value, (str, list, tuple)) and not value) for value in values)


def _frames(most: int = sys.maxsize) -> Iterator[FrameType]:
    """Yield the frames of the calls that led here, the nearest first, from the first outside this package on."""
    frame: FrameType | None = sys._getframe(1)
    while frame and str(frame.f_globals.get("__name__")).startswith(_OURS):
        frame = frame.f_back
    while frame and most:
        yield frame
        frame, most = frame.f_back, most - 1
