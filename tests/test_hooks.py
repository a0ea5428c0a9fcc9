"""The private methods of other packages that this one overrides are there.

An override of a method that was renamed is never called, and mostly nothing is raised.
"""

from __future__ import annotations

import inspect

import pytest
from langchain_core.vectorstores import VectorStore, VectorStoreRetriever
from llama_index.core.retrievers import VectorIndexRetriever
from mteb.abstasks.abstask import AbsTask
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

import st_modules
from langchain_gme import MultimodalRetriever, MultimodalStore
from llamaindex_gme import MultimodalVectorIndexRetriever
from st_modules.evaluate.local_task import LocalTask
from st_modules.train import DataCollator, Trainer

OWN = {
    *("_backbone", "_prepare", "_fill_adapter", "_follow_adapters", "_trains_nothing_else"),
    *("_owner", "_keys", "_restore", "_restore_pairs"),
}
"""Private methods of ours on a subclass, which override nothing."""

CLASSES = [
    (st_modules.SentenceTransformer, SentenceTransformer),
    (Trainer, SentenceTransformerTrainer),
    (DataCollator, SentenceTransformerDataCollator),
    (MultimodalVectorIndexRetriever, VectorIndexRetriever),
    (LocalTask, AbsTask),
    (MultimodalStore, VectorStore),
    (MultimodalRetriever, VectorStoreRetriever),
]
OVERRIDES = [
    pytest.param(base, name, id=f"{ours.__name__}.{name}")
    for ours, base in CLASSES
    for name in vars(ours)
    if name.startswith("_") and not name.endswith("__") and name not in OWN and not name.startswith("_abc_")
]


@pytest.mark.parametrize(("base", "name"), OVERRIDES)
def test_an_overridden_method_exists(base: type, name: str) -> None:
    assert hasattr(base, name)


def test_a_model_is_asked_for_with_the_arguments_that_the_override_takes() -> None:
    theirs, ours = (
        inspect.signature(each._inference).parameters for each in (SentenceTransformer, st_modules.SentenceTransformer)
    )
    assert list(theirs) == list(ours)
