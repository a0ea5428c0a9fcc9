"""How rows get into a store: in the place of those that it has, with their embeddings, or not at all."""

from __future__ import annotations

import asyncio
import logging
import reprlib
import threading
import weakref
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

from langchain_gme.embeddings import GMEEmbeddings
from langchain_gme.plans import Part, Plan
from langchain_gme.precomputed import PrecomputedError, serve_documents
from langchain_gme.quirks import check_mode, quirks_of

logger = logging.getLogger(__name__)

IDS_OF_ITS_OWN = (
    "The store kept {found} rows of {count}: it has ids of its own, such as a hash of the text, which images with no "
    "text share. Use another store, or give each item a text of its own."
)
_SECONDS_BETWEEN_TRIES = 0.005


def check_owner(embeddings: object, store: VectorStore | type[VectorStore]) -> GMEEmbeddings:
    """Return the embeddings of a store.

    Args:
        embeddings: The embeddings.
        store: The store, or the class of one that is to be made.

    Raises:
        TypeError: They are not :class:`GMEEmbeddings`.
    """
    if isinstance(embeddings, GMEEmbeddings):
        return embeddings
    name = (store if isinstance(store, type) else type(store)).__name__
    if embeddings is None:
        raise TypeError(
            f"This {name} does not say what its embeddings are; if they are GMEEmbeddings, pass the same: "
            "MultimodalStore(store, embeddings=embeddings)."
        )
    raise TypeError(
        f"The embeddings of this {name} are of type {type(embeddings).__name__}; make the store with GMEEmbeddings. "
        "A cache around them would keep images under their text."
    )


class _Hold:
    """A lock of a store, and the event loop that holds it, if one does."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None


_holds: weakref.WeakKeyDictionary[VectorStore, _Hold] = weakref.WeakKeyDictionary()
_holds_lock = threading.Lock()
_hold_of_all = _Hold()  # of stores that no dictionary takes


def write(store: VectorStore, owner: GMEEmbeddings, plan: Plan, **kwargs: Any) -> list[str]:
    """Write rows in the place of those that the store has under their ids.

    Args:
        store: The store.
        owner: Its embeddings.
        plan: The rows.
        **kwargs: Other arguments of its ``add_texts``.

    Returns:
        What the store returned, an id a row.

    Raises:
        PrecomputedError: The store works in a way that cannot take precomputed embeddings, or keeps fewer rows than it
            is given. What it wrote was deleted, where it can delete.
    """
    check_mode(store)
    written: dict[str, None] = {}
    for number, part in enumerate(plan.parts):
        returned: Sequence[str] | None = None
        removed: list[str] = []
        try:
            with _hold(store), serve_documents(owner, part.texts, part.embeddings, store):
                removed = _remove(store, part.keys)
                returned = store.add_texts(part.texts, **part.columns, **kwargs)
            _keep(written, returned, part)
        except Exception as error:
            touched = _touched(plan.parts[: number + 1], [*written, *(returned or ())])
            if misfit := _find_misfit(error):
                raise describe_misfit(misfit, _try_delete(store, touched), touched) from error
            _report_removed(store, removed)
            raise
    return list(written)


async def awrite(store: VectorStore, owner: GMEEmbeddings, plan: Plan, **kwargs: Any) -> list[str]:
    """Write rows without blocking the event loop; see :func:`write`."""
    check_mode(store)
    written: dict[str, None] = {}
    for number, part in enumerate(plan.parts):
        returned: Sequence[str] | None = None
        removed: list[str] = []
        try:
            async with _ahold(store):
                with serve_documents(owner, part.texts, part.embeddings, store):
                    removed = await _aremove(store, part.keys)
                    returned = await store.aadd_texts(part.texts, **part.columns, **kwargs)
            _keep(written, returned, part)
        except Exception as error:
            touched = _touched(plan.parts[: number + 1], [*written, *(returned or ())])
            if misfit := _find_misfit(error):
                raise describe_misfit(misfit, await _atry_delete(store, touched), touched) from error
            _report_removed(store, removed)
            raise
    return list(written)


@contextmanager
def _hold(store: VectorStore) -> Generator[None, None, None]:
    """Keep others from adding to a store between removing rows and writing them, where both are needed."""
    if quirks_of(store).replaces:
        yield
        return
    hold = _hold_of(store)
    if hold.loop is not None and hold.loop is _running_loop():
        raise RuntimeError(
            "An async call is adding to this store on this event loop, which cannot end while this one waits for it: "
            "await aadd_documents or aadd_multimodal here."
        )
    with hold.lock:
        yield


@asynccontextmanager
async def _ahold(store: VectorStore) -> AsyncGenerator[None, None]:
    """Keep others from adding, as :func:`_hold` does, without blocking the event loop."""
    if quirks_of(store).replaces:
        yield
        return
    hold = _hold_of(store)
    while not hold.lock.acquire(blocking=False):
        await asyncio.sleep(_SECONDS_BETWEEN_TRIES)
    hold.loop = asyncio.get_running_loop()
    try:
        yield
    finally:
        hold.loop = None
        hold.lock.release()


def _hold_of(store: VectorStore) -> _Hold:
    with _holds_lock:
        try:
            return _holds.setdefault(store, _Hold())
        except TypeError:
            return _hold_of_all


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _remove(store: VectorStore, keys: Sequence[str]) -> list[str]:
    """Remove the rows that a store has under these ids, where it would add to them or refuse the ids.

    Returns:
        Those that were there, as far as it can be told.
    """
    if quirks_of(store).replaces:
        return []
    try:
        found = store.get_by_ids(keys)
    except NotImplementedError:
        _try_delete(store, keys)  # what there is to delete is not known
        return []
    if present := _present(store, keys, found):
        store.delete(ids=present)
    return present


async def _aremove(store: VectorStore, keys: Sequence[str]) -> list[str]:
    """Remove rows as :func:`_remove` does, by the methods for an event loop: a store may have no others."""
    if quirks_of(store).replaces:
        return []
    try:
        found = await store.aget_by_ids(keys)
    except NotImplementedError:
        await _atry_delete(store, keys)
        return []
    if present := _present(store, keys, found):
        await store.adelete(ids=present)
    return present


def _present(store: VectorStore, keys: Sequence[str], found: Sequence[Document]) -> list[str]:
    """Return the ids of what was found, where the store says which they are; else all, where anything was found."""
    present = {quirks_of(store).find_key(document) for document in found}
    return [key for key in keys if key in present or None in present]


def _try_delete(store: VectorStore, keys: Sequence[str]) -> bool:
    """Whether a store deleted rows, some of which may not exist: many stores raise then, each another exception."""
    try:
        return store.delete(ids=list(keys)) is not False
    except NotImplementedError:
        return False
    except Exception as error:
        logger.debug("%s.delete: %s", type(store).__name__, error)
        # It may have stopped at the first that does not exist.
        return len(keys) > 1 and True in [_try_delete(store, [key]) for key in keys]


async def _atry_delete(store: VectorStore, keys: Sequence[str]) -> bool:
    try:
        return await store.adelete(ids=list(keys)) is not False
    except NotImplementedError:
        return False
    except Exception as error:
        logger.debug("%s.adelete: %s", type(store).__name__, error)
        return len(keys) > 1 and True in [await _atry_delete(store, [key]) for key in keys]


def _keep(written: dict[str, None], returned: Sequence[str] | None, part: Part) -> None:
    """Add the ids in a store to those that were written before.

    Raises:
        PrecomputedError: There are fewer of them than rows.
    """
    count = len(written) + len(part.rows)
    written.update(dict.fromkeys(returned or part.keys))
    if len(written) != count:
        raise PrecomputedError(IDS_OF_ITS_OWN.format(found=len(written), count=count))


def _touched(parts: Sequence[Part], returned: Sequence[str]) -> list[str]:
    """The ids under which something may have been written: those that were given, and those that were returned."""
    return list(dict.fromkeys([*(key for part in parts for key in part.keys), *returned]))


def _find_misfit(error: BaseException | None) -> PrecomputedError | None:
    """Return the error of a store that cannot take precomputed embeddings, also where the store has wrapped it."""
    while error is not None and not isinstance(error, PrecomputedError):
        error = error.__cause__ or error.__context__
    return error


def describe_misfit(error: PrecomputedError, is_clean: bool, keys: Sequence[str]) -> PrecomputedError:
    """An error with what became of the rows."""
    if is_clean:
        return PrecomputedError(f"{error} What this call had written was deleted.")
    return PrecomputedError(f"{error} Delete what it may have written: the ids {reprlib.repr(list(keys))}.")


def _report_removed(store: VectorStore, removed: Sequence[str]) -> None:
    if removed:
        logger.error(
            "%s failed to write after its rows of the same ids were removed; add these again: %s",
            type(store).__name__,
            ", ".join(removed),
        )
