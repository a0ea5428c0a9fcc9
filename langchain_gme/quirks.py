"""What single stores want otherwise than LangChain's interface says."""

from __future__ import annotations

import dataclasses
import inspect
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from langchain_core.documents import Document
from langchain_core.vectorstores import VectorStore

GIVEN_ID = "_langchain_gme_id"
"""The metadata entry that keeps the id of a row, in stores that take no such id."""

IDS = uuid.uuid5(uuid.NAMESPACE_URL, "https://pypi.org/project/st-modules/")
"""The namespace of the UUIDs that stand for items and for ids."""


@dataclass(frozen=True)
class Quirks:
    """How a store is to be treated.

    Args:
        replaces: Whether it replaces the rows whose ids it is given again; others keep both, or refuse.
        needs_uuids: Whether its ids are UUIDs and nothing else.
        id_entry: Where in the metadata it returns the id of a document, rather than as its id.
        own_metadata: Other entries that it adds to the metadata of what it finds.
        no_unknown_ids: Whether it refuses to delete ids where it has not all of them.
        no_filter: Whether its searches take a filter and leave it out without a word.
        overwrites: Whether each call of ``add_texts`` replaces all that it has, unless its ``mode`` is "append".
        scoped_by: The attribute and argument that names the part of a database that it is, where the database has each
            id once for all of its parts, and a row of the same id in another part would be overwritten.
        scope: What stands there.
    """

    replaces: bool = False
    needs_uuids: bool = False
    id_entry: str = ""
    own_metadata: frozenset[str] = field(default_factory=frozenset)
    no_unknown_ids: bool = False
    no_filter: bool = False
    overwrites: bool = False
    scoped_by: str = ""
    scope: str = ""

    def key_of(self, row_id: str) -> str:
        """Return the id that the store takes for a row's."""
        return (_parse_uuid(row_id) or str(uuid.uuid5(IDS, row_id))) if self.needs_uuids else row_id

    def find_key(self, document: Document) -> str | None:
        """Return the store's id of a document that it found, where it returns that."""
        return document.metadata.get(self.id_entry, document.id)

    def restore(self, document: Document) -> Document:
        """Return a document that the store found with the id and the metadata that it was added with."""
        key = self.find_key(document)
        given_id = document.metadata.get(GIVEN_ID)
        is_given = given_id is not None and self.key_of(str(given_id)) == key
        own = {*self.own_metadata, self.id_entry, *([GIVEN_ID] if is_given else [])}
        metadata = {name: value for name, value in document.metadata.items() if name not in own}
        return document.model_copy(update={"id": given_id if is_given else key, "metadata": metadata})


_QDRANT = Quirks(replaces=True, needs_uuids=True, id_entry="_id", own_metadata=frozenset({"_collection_name"}))
_QUIRKS = {
    "InMemoryVectorStore": Quirks(replaces=True),
    "Chroma": Quirks(replaces=True),
    "Qdrant": _QDRANT,
    "QdrantVectorStore": _QDRANT,
    "LanceDB": Quirks(overwrites=True),
    "PGVector": Quirks(replaces=True, scoped_by="collection_name"),
    "PGVectorStore": Quirks(replaces=True),
    "Milvus": Quirks(replaces=True, id_entry="pk"),
    "FAISS": Quirks(no_unknown_ids=True),
    "DuckDB": Quirks(no_filter=True),
    "SKLearnVectorStore": Quirks(no_filter=True),
    "SQLiteVec": Quirks(no_filter=True),
}


def quirks_of(store: VectorStore | type[VectorStore], arguments: Mapping[str, Any] | None = None) -> Quirks:
    """Return how a store is to be treated, by its class or one that it is derived from.

    Args:
        store: The store, or the class of one that is to be made.
        arguments: What that is to be made with.
    """
    bases = (store if isinstance(store, type) else type(store)).__mro__
    quirks = next((_QUIRKS[base.__name__] for base in bases if base.__name__ in _QUIRKS), Quirks())
    if not (name := quirks.scoped_by):
        return quirks
    default = inspect.signature(store.__init__).parameters[name].default
    return dataclasses.replace(quirks, scope=str(getattr(store, name, (arguments or {}).get(name, default))))


def check_mode(store: VectorStore | type[VectorStore]) -> None:
    """Raise ``ValueError`` where a store would replace all that it has with each batch of what is added."""
    if quirks_of(store).overwrites and getattr(store, "mode", "overwrite") == "overwrite":
        name = (store if isinstance(store, type) else type(store)).__name__
        raise ValueError(
            f'{name} replaces its table with each call of add_texts, unless it is made with mode="append": make it so, '
            "and pass it."
        )


def _parse_uuid(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
