"""LangChain and LlamaIndex over an index: the same answers as ``Index.search``, as their own documents and nodes."""

from __future__ import annotations

from pathlib import Path

import lancedb
import pytest
from langchain_core.messages import HumanMessage
from llama_index.core.schema import ImageNode, QueryBundle, TextNode

import langchain_gme
import llamaindex_gme
from st_modules import InputError, SentenceTransformer
from st_modules.index import Index, build
from tests.helpers.gallery import BLUE_CIRCLE, CHANGE, Gallery


@pytest.fixture(scope="module")
def index(gallery: Gallery, tiny: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory) -> Index:
    folder = tmp_path_factory.mktemp("doors")
    (folder / "note.txt").write_text("two small black crosses")
    build([*gallery.paths, folder / "note.txt"], folder / "my.index", tiny)
    return Index.open(folder / "my.index", tiny)


@pytest.mark.parametrize("form", ["mapping", "message"])
def test_langchain_finds_what_the_index_finds(index: Index, gallery: Gallery, form: str) -> None:
    query = {"text": CHANGE, "image": str(gallery.query)}
    blocks = [{"type": "image", "url": str(gallery.query)}, {"type": "text", "text": CHANGE}]
    retriever = langchain_gme.IndexRetriever(index=index, k=3)
    found = retriever.invoke(query if form == "mapping" else HumanMessage(blocks))  # type: ignore[arg-type]
    hits = index.search(query, 3)
    assert [(each.id, each.metadata["score"]) for each in found] == [(hit.id, hit.score) for hit in hits]
    assert found[0].metadata["image"] == str(gallery.paths[BLUE_CIRCLE])


def test_langchain_filters_and_has_texts(index: Index) -> None:
    retriever = langchain_gme.IndexRetriever(index=index, search_kwargs={"where": "image IS NULL"})
    (found,) = retriever.invoke("crosses")
    assert found.page_content == "two small black crosses"
    assert "image" not in found.metadata
    assert len(retriever.invoke("crosses", where="image IS NOT NULL", k=2)) == 2


def test_langchain_takes_a_path_for_a_text(index: Index, gallery: Gallery) -> None:
    path = str(gallery.query)
    (found,) = langchain_gme.IndexRetriever(index=index, k=1).invoke(path)
    assert found.metadata["score"] == index.search({"text": path}, 1)[0].score


async def test_langchain_asynchronously(index: Index) -> None:
    assert len(await langchain_gme.IndexRetriever(index=index, k=2).ainvoke("a star")) == 2


def test_llamaindex_finds_what_the_index_finds(index: Index, gallery: Gallery) -> None:
    retriever = llamaindex_gme.IndexRetriever(index, similarity_top_k=3)
    found = retriever.retrieve(QueryBundle(CHANGE, image_path=str(gallery.query)))
    hits = index.search({"text": CHANGE, "image": str(gallery.query)}, 3)
    assert [(each.node_id, each.score) for each in found] == [(hit.id, hit.score) for hit in hits]
    assert isinstance(found[0].node, ImageNode)
    assert found[0].node.image_path == str(gallery.paths[BLUE_CIRCLE])


def test_llamaindex_filters_and_has_texts(index: Index) -> None:
    (found,) = llamaindex_gme.IndexRetriever(index, where="image IS NULL").retrieve("crosses")
    assert type(found.node) is TextNode
    assert found.text == "two small black crosses"


async def test_llamaindex_asynchronously(index: Index, gallery: Gallery) -> None:
    retriever = llamaindex_gme.IndexRetriever(index, similarity_top_k=2)
    assert len(await retriever.aretrieve(QueryBundle("", image_path=str(gallery.query)))) == 2


def test_a_query_without_anything_is_refused(index: Index) -> None:
    with pytest.raises(InputError):
        llamaindex_gme.IndexRetriever(index).retrieve(QueryBundle(""))


def test_langchains_own_store_reads_the_table(index: Index, gallery: Gallery) -> None:
    from langchain_community.vectorstores import LanceDB

    store = LanceDB(
        connection=lancedb.connect(index.path),
        embedding=langchain_gme.GMEEmbeddings(model="tiny"),
        table_name="items",
        text_key="source",
        distance="cosine",
    )
    retriever = langchain_gme.MultimodalRetriever(vectorstore=store, k=1)
    (found,) = retriever.invoke({"text": CHANGE, "image": str(gallery.query)})
    assert Path(found.page_content) == gallery.paths[BLUE_CIRCLE]
