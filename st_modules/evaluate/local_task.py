"""An mteb task whose data are made or read on this machine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata


def local_metadata(name: str, **fields: Any) -> TaskMetadata:
    """Describe a task whose rows are texts and pictures, in English.

    Args:
        name: The task's name.
        **fields: mteb's other fields; ``description``, ``category`` and ``main_score`` are needed.
    """
    values: dict[str, Any] = {
        "name": name,
        "dataset": {"path": f"local/{name}", "revision": "unread"},
        "type": "Any2AnyRetrieval",
        "modalities": ["text", "image"],
        "eval_langs": ["eng-Latn"],
        **fields,
    }
    return TaskMetadata(**values)


class LocalTask(AbsTaskRetrieval):
    """Base class of retrieval tasks that mteb does not load from the Hub.

    Args:
        revision: Names the data, for mteb's results.
    """

    metadata: TaskMetadata
    _support_cross_encoder = False

    def __init__(self, revision: str) -> None:
        dataset = {**self.metadata.dataset, "revision": revision}
        self.metadata = self.metadata.model_copy(update={"dataset": dataset})
        super().__init__()

    @abstractmethod
    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Return the data of each subset; a task without subsets has one that is called ``default``."""

    def load_data(self, *args: Any, **kwargs: Any) -> None:
        """Make or read the data.

        Raises:
            BenchmarkDataError: A file is missing or malformed.
        """
        if not self.data_loaded:
            (split,) = self.eval_splits
            self.dataset = {name: {split: data} for name, data in self.subsets().items()}
            self.data_loaded = True

    def unload_data(self) -> None:
        """Let go of the data; the metadata, which mteb drops with them, stay."""
        own = self.metadata
        super().unload_data()
        self.metadata = own
