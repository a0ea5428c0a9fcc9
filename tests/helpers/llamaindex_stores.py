"""LlamaIndex's stores, what is done with them, and where one cannot: the table in docs/llamaindex.md.

Run it to print the table.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import BaseNode, ImageNode, MediaResource, Node, QueryBundle, TextNode
from llama_index.core.vector_stores import MetadataFilter, MetadataFilters, SimpleVectorStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from sqlalchemy.pool import NullPool

from llamaindex_gme import GMEEmbedding, MultimodalVectorIndexRetriever
from tests.helpers.gallery import BLUE_CIRCLE, BLUE_STAR, CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.store_tables import Failures, Operation, markdown

DIMENSION = 128
TEXT = "two small black crosses"
CHANGED = "three large yellow moons"
"""The new text of a node that was a picture."""

OpenStore = Callable[[str], BasePydanticVectorStore]
"""Opens the store of a name, empty at first."""


@dataclass(frozen=True)
class Setting:
    """A way to open one store, again and again, and the pictures.

    Attributes:
        open_store: See :data:`OpenStore`.
        embedding: What nodes and queries are embedded with.
        gallery: The pictures.
        folder: Where files may be written.
    """

    open_store: OpenStore
    embedding: GMEEmbedding
    gallery: Gallery
    folder: Path

    def context(self, name: str = "nodes") -> StorageContext:
        return StorageContext.from_defaults(vector_store=self.open_store(name))


def simple(request: pytest.FixtureRequest) -> OpenStore:
    stores: dict[str, BasePydanticVectorStore] = {}
    return lambda name: stores.setdefault(name, SimpleVectorStore())


def qdrant(request: pytest.FixtureRequest) -> OpenStore:
    from llama_index.vector_stores.qdrant import QdrantVectorStore
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    return lambda name: QdrantVectorStore(name, client=client)


def chroma(request: pytest.FixtureRequest) -> OpenStore:
    import chromadb
    from llama_index.vector_stores.chroma import ChromaVectorStore

    client = chromadb.PersistentClient(str(request.getfixturevalue("tmp_path") / "chroma"))
    options: dict[str, Any] = {"metadata": {"hnsw:space": "cosine"}}
    return lambda name: ChromaVectorStore(chroma_collection=client.get_or_create_collection(name, **options))


def lancedb(request: pytest.FixtureRequest) -> OpenStore:
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    folder = request.getfixturevalue("tmp_path") / "lancedb"

    def open_store(name: str) -> BasePydanticVectorStore:
        mode = "append" if (folder / f"{name}.lance").exists() else "create"
        return LanceDBVectorStore(uri=str(folder), table_name=name, mode=mode)

    return open_store


def postgres(request: pytest.FixtureRequest) -> OpenStore:
    stores = pytest.importorskip("llama_index.vector_stores.postgres")
    server = f"postgres@/postgres?host={request.getfixturevalue('postgres')}"
    options: dict[str, Any] = {
        "connection_string": f"postgresql+psycopg2://{server}",
        "async_connection_string": f"postgresql+asyncpg://{server}",
        "embed_dim": DIMENSION,
        # Without a pool no connection is left open that the server's end would cut.
        "create_engine_kwargs": {"poolclass": NullPool},
    }
    test = uuid.uuid4().hex
    return lambda name: stores.PGVectorStore(table_name=f"{name}_{test}", **options)


STORES: dict[str, Callable[[pytest.FixtureRequest], OpenStore]] = {
    "SimpleVectorStore": simple,
    "Qdrant `:memory:`": qdrant,
    "Chroma": chroma,
    "LanceDB": lancedb,
    "PGVectorStore": postgres,
}


def node_id(number: int) -> str:
    return str(uuid.UUID(int=number))


def nodes(gallery: Gallery) -> list[BaseNode]:
    """Nodes of every kind: the pictures, the last one with its caption, and a text."""
    paths = gallery.paths
    kinds: list[BaseNode] = [
        ImageNode(image_path=str(paths[0])),
        Node(image_resource=MediaResource(path=paths[1])),
        ImageNode(image=gallery.base64(2)),
        Node(image_resource=MediaResource(data=paths[3].read_bytes())),
        ImageNode(image_path=str(paths[HEART]), text=CAPTIONS[HEART]),
        TextNode(text=TEXT),
    ]
    for number, node in enumerate(kinds):
        node.id_ = node_id(number)
        node.metadata = {"number": number}
        node.excluded_embed_metadata_keys = ["number"]
    return kinds


def index_of(setting: Setting) -> VectorStoreIndex:
    """The way that the documentation recommends: embed the nodes, then insert them."""
    index = VectorStoreIndex([], storage_context=setting.context(), embed_model=setting.embedding)
    index.insert_nodes(list(setting.embedding(nodes(setting.gallery))))
    return index


def numbers(retriever: BaseRetriever, query: Any) -> list[int]:
    return [uuid.UUID(found.node.node_id).int for found in retriever.retrieve(query)]


def ask(setting: Setting, query: Any, top_k: int = 1, **options: Any) -> list[int]:
    return numbers(MultimodalVectorIndexRetriever(index_of(setting), similarity_top_k=top_k, **options), query)


def text_query(setting: Setting) -> None:
    retriever = MultimodalVectorIndexRetriever(index_of(setting), similarity_top_k=1)
    texts = [*CAPTIONS, TEXT]
    assert {text: numbers(retriever, text) for text in texts} == {text: [number] for number, text in enumerate(texts)}


def image_query(setting: Setting) -> None:
    assert ask(setting, QueryBundle("", image_path=str(setting.gallery.query))) == [RED_CIRCLE]


def composed_query(setting: Setting) -> None:
    assert ask(setting, QueryBundle(CHANGE, image_path=str(setting.gallery.query))) == [BLUE_CIRCLE]


def filtered_query(setting: Setting) -> None:
    filters = MetadataFilters(filters=[MetadataFilter(key="number", value=STAR)])
    assert ask(setting, CAPTIONS[BLUE_STAR], top_k=4, filters=filters) == [STAR]


def insert_again(setting: Setting) -> None:
    index = index_of(setting)
    changed = TextNode(id_=node_id(STAR), text=CHANGED, metadata={"number": STAR})
    changed.excluded_embed_metadata_keys = ["number"]
    index.insert_nodes(list(setting.embedding([changed])))
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=len(CAPTIONS) + 2)
    found = sorted(numbers(retriever, CHANGED))
    assert found == list(range(len(CAPTIONS) + 1)), "rows are there twice"
    best, *_ = retriever.retrieve(CHANGED)
    assert best.node.get_content() == CHANGED, "the old row is there"


def delete(setting: Setting) -> None:
    index = index_of(setting)
    index.delete_nodes([node_id(STAR)], delete_from_docstore=True)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=len(CAPTIONS) + 1)
    assert sorted(numbers(retriever, CAPTIONS[STAR])) == [each for each in range(len(CAPTIONS) + 1) if each != STAR]


def async_use(setting: Setting) -> None:
    async def insert_and_ask() -> list[int]:
        index = VectorStoreIndex([], storage_context=setting.context(), embed_model=setting.embedding)
        await index.ainsert_nodes(list(await setting.embedding.acall(nodes(setting.gallery))))
        retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
        queries = [QueryBundle(CHANGE, image_path=str(setting.gallery.query)), QueryBundle(CAPTIONS[STAR])]
        found = await asyncio.gather(*(retriever.aretrieve(query) for query in queries))
        return [uuid.UUID(node.node.node_id).int for nodes_found in found for node in nodes_found]

    assert asyncio.run(insert_and_ask()) == [BLUE_CIRCLE, STAR]


def pipeline(setting: Setting) -> None:
    ingestion = IngestionPipeline(transformations=[setting.embedding])
    index = VectorStoreIndex([], storage_context=setting.context(), embed_model=setting.embedding)
    index.insert_nodes(list(ingestion.run(nodes=nodes(setting.gallery))))
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    assert numbers(retriever, QueryBundle(CHANGE, image_path=str(setting.gallery.query))) == [BLUE_CIRCLE]


def pipeline_into_store(setting: Setting) -> None:
    store = setting.open_store("nodes")
    IngestionPipeline(transformations=[setting.embedding], vector_store=store).run(nodes=nodes(setting.gallery))
    index = VectorStoreIndex.from_vector_store(store, embed_model=setting.embedding)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    assert numbers(retriever, QueryBundle(CHANGE, image_path=str(setting.gallery.query))) == [BLUE_CIRCLE]


def persist_and_reload(setting: Setting) -> None:
    folder = str(setting.folder / "storage")
    index_of(setting).storage_context.persist(folder)
    store = setting.open_store("nodes")
    options: dict[str, Any] = {} if isinstance(store, SimpleVectorStore) else {"vector_store": store}
    context = StorageContext.from_defaults(persist_dir=folder, **options)
    index: Any = load_index_from_storage(context, embed_model=setting.embedding)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    assert numbers(retriever, QueryBundle(CHANGE, image_path=str(setting.gallery.query))) == [BLUE_CIRCLE]
    assert numbers(retriever, TEXT) == [len(CAPTIONS)]


def core_retriever(setting: Setting) -> None:
    retriever = index_of(setting).as_retriever(similarity_top_k=1)
    assert numbers(retriever, CAPTIONS[STAR]) == [STAR]
    assert numbers(retriever, TEXT) == [len(CAPTIONS)], "text nodes are left out"


def built_from_nodes(setting: Setting) -> None:
    embedded = list(setting.embedding(nodes(setting.gallery)))
    index = VectorStoreIndex(embedded, storage_context=setting.context(), embed_model=setting.embedding)
    retriever = MultimodalVectorIndexRetriever(index, similarity_top_k=1)
    assert numbers(retriever, CAPTIONS[HEART]) == [HEART]
    assert numbers(retriever, CAPTIONS[STAR]) == [STAR], "pictures without text are left out"


def two_stores(setting: Setting) -> None:
    context = StorageContext.from_defaults(
        vector_store=setting.open_store("texts"), image_store=setting.open_store("images")
    )
    index = MultiModalVectorStoreIndex(
        [], storage_context=context, embed_model=setting.embedding, image_embed_model=setting.embedding
    )
    index.insert_nodes([node for node in nodes(setting.gallery) if isinstance(node, TextNode)])
    retriever = index.as_retriever(similarity_top_k=1, image_similarity_top_k=1)
    asked = str(setting.gallery.query)
    assert [uuid.UUID(found.node.node_id).int for found in retriever.text_retrieve(TEXT)] == [len(CAPTIONS)]
    assert [uuid.UUID(found.node.node_id).int for found in retriever.text_to_image_retrieve(CAPTIONS[STAR])] == [STAR]
    assert [uuid.UUID(found.node.node_id).int for found in retriever.image_to_image_retrieve(asked)] == [RED_CIRCLE]


OPERATIONS: dict[str, Callable[[Setting], None]] = {
    "text → picture, fused node, text": text_query,
    "picture → picture": image_query,
    "picture + text → picture": composed_query,
    "with `filters`": filtered_query,
    "the same id again": insert_again,
    "`delete_nodes`": delete,
    "`acall`, `ainsert_nodes`, `aretrieve`": async_use,
    "`IngestionPipeline`, then `insert_nodes`": pipeline,
    "`IngestionPipeline` into the store, `from_vector_store`": pipeline_into_store,
    "`persist`, `load_index_from_storage`": persist_and_reload,
    "core's `index.as_retriever()`, text alone": core_retriever,
    "`VectorStoreIndex(nodes)`": built_from_nodes,
    "`MultiModalVectorStoreIndex`, two stores": two_stores,
}

# What fails, and how.
FAILURES: Failures = {
    "leaves out pictures without text": (AssertionError, "pictures without text are left out"),
    "leaves out texts": (AssertionError, "text nodes are left out"),
    "has no async client": (ValueError, "Async client is not initialized"),
    "does not keep text": (ValueError, "vector store that does not store text"),
    "keeps the old one": (AssertionError, "the old row is there"),
    "an error": (Exception, "No field named"),
}
EXCEPTIONS: dict[tuple[str, Operation], str] = {
    **{(store, built_from_nodes): "leaves out pictures without text" for store in STORES},
    ("Qdrant `:memory:`", core_retriever): "leaves out texts",
    ("Qdrant `:memory:`", async_use): "has no async client",
    ("SimpleVectorStore", pipeline_into_store): "does not keep text",
    ("Chroma", insert_again): "keeps the old one",
    ("LanceDB", insert_again): "keeps the old one",
    ("PGVectorStore", insert_again): "keeps the old one",
    ("LanceDB", delete): "an error",
}


if __name__ == "__main__":
    print(markdown(STORES, OPERATIONS, EXCEPTIONS))  # noqa: T201
