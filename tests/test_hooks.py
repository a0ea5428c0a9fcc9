"""The private methods of other packages that this one overrides are there.

An override of a method that was renamed is never called, and mostly nothing is raised.
"""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from langchain_core.indexing import api
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from llama_index.core.base.base_multi_modal_retriever import MultiModalRetriever
from llama_index.core.indices import utils
from llama_index.core.ingestion import pipeline
from llama_index.core.node_parser import NodeParser
from llama_index.core.retrievers import VectorIndexRetriever
from mteb.abstasks.abstask import AbsTask
from sentence_transformers import CrossEncoder, SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.base.model import BaseModel
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

import st_modules
from langchain_gme import MultimodalRetriever, MultimodalStore
from langchain_gme.searchable_store import SearchableStore
from llamaindex_gme import MultimodalNodeParser, MultimodalVectorIndexRetriever
from st_modules.evaluate.local_task import LocalTask
from st_modules.loading import CatalogModel
from st_modules.train import DataCollator, Trainer

OWN = {
    *(
        "_backbone",
        "_prepare",
        "_make_engine",
        "_require_backbone",
        "_fill_adapter",
        "_follow_adapters",
        "_trains_nothing_else",
    ),
    *("_find_files", "_set_options", "_follow_backbone", "_check_task", "_check_modules", "_stop_training"),
    *("_owner", "_keys", "_restore", "_restore_pairs", "_wrap", "_prepare_for_index"),
    *("_embedded", "_aembedded", "_find", "_afind", "_asking_for"),
    *("_keep_function", "_name_class", "_with_picture", "_whole"),
}
"""Private methods of ours on a subclass, which override nothing."""

CLASSES = [
    (st_modules.SentenceTransformer, SentenceTransformer),
    (st_modules.CrossEncoder, CrossEncoder),
    (CatalogModel, BaseModel),
    (Trainer, SentenceTransformerTrainer),
    (DataCollator, SentenceTransformerDataCollator),
    (MultimodalVectorIndexRetriever, VectorIndexRetriever, MultiModalRetriever),
    (MultimodalNodeParser, NodeParser),
    (LocalTask, AbsTask),
    (MultimodalStore, VectorStore),
    (SearchableStore, VectorStore),
    (MultimodalRetriever, VectorStoreRetriever),
]
OVERRIDES = [
    pytest.param(bases, name, id=f"{ours.__name__}.{name}")
    for ours, *bases in CLASSES
    for name in vars(ours)
    if name.startswith("_") and not name.endswith("__") and name not in OWN and not name.startswith("_abc_")
]


@pytest.mark.parametrize(("bases", "name"), OVERRIDES)
def test_an_overridden_method_exists(bases: list[type], name: str) -> None:
    assert any(hasattr(base, name) for base in bases)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [(SentenceTransformer, st_modules.SentenceTransformer), (CrossEncoder, st_modules.CrossEncoder)],
)
def test_a_model_is_asked_for_with_the_arguments_that_the_override_takes(theirs: Any, ours: Any) -> None:
    needed, taken = (inspect.signature(each._inference).parameters for each in (theirs, ours))
    assert list(needed) == list(taken)


def test_the_functions_that_are_looked_for_in_frames_have_their_variable() -> None:
    for function in (utils.embed_nodes, utils.async_embed_nodes, pipeline.get_transformation_hash):
        assert "nodes" in function.__code__.co_varnames
    assert "add_documents" in api.index.__code__.co_names
