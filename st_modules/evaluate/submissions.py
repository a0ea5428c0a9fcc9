"""Test splits whose answers are not public: rankings, written for the server that has the answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, cast

from mteb.models import EncoderProtocol, SearchEncoderWrapper
from mteb.types import EncodeKwargs

from st_modules.evaluate.files import BenchmarkDataError, JsonRecord
from st_modules.evaluate.local_task import LocalTask
from st_modules.evaluate.metrics import rank
from st_modules.evaluate.models import MTEBModel
from st_modules.files.atomic import write_atomically


class SubmissionTask(LocalTask):
    """Base class of tasks that have no scores, but a file for a server.

    Attributes:
        places: How many documents of each ranking the server takes.
        heading: What its file has beside the rankings.
    """

    places: ClassVar[int]
    heading: ClassVar[Mapping[str, str]] = {}

    def answers(self, queries: Mapping[str, JsonRecord], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
        """Return no right documents: they are not public."""
        return {}

    def submission(self, rankings: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        """Return what the server's file has.

        Args:
            rankings: For each query its documents, the best first.
        """
        return {
            **self.heading,
            **{query: [self.document(name) for name in found[: self.places]] for query, found in rankings.items()},
        }

    def document(self, name: str) -> str | int:
        """Return a document as the file names it."""
        return name

    def evaluate(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse: there is nothing that mteb could compute scores from.

        Raises:
            BenchmarkDataError: Always.
        """
        raise BenchmarkDataError(
            f"{self.metadata.name} has no public answers, and so no scores here; "
            "st_modules.evaluate.evaluate writes the file for its server."
        )


def write_submission(model: MTEBModel, task: SubmissionTask, path: Path, encode_kwargs: Mapping[str, Any]) -> None:
    """Rank a task's documents as mteb does, and write the file for its server.

    Args:
        model: The model.
        task: The task.
        path: The file. It is there only when it is whole.
        encode_kwargs: As for ``mteb.evaluate``.

    Raises:
        BenchmarkDataError: A file of the task is missing or malformed.
    """
    content = task.submission(_rankings(model, task, encode_kwargs))
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically([path]) as (part,):
        part.write_text(json.dumps(content), encoding="utf-8")


def _rankings(model: MTEBModel, task: SubmissionTask, encode_kwargs: Mapping[str, Any]) -> dict[str, list[str]]:
    task.load_data()
    ((subset, splits),) = task.dataset.items()
    ((split, data),) = splits.items()
    where: dict[str, Any] = {
        "task_metadata": task.metadata,
        "hf_split": split,
        "hf_subset": subset,
        "encode_kwargs": cast("EncodeKwargs", dict(encode_kwargs)),
    }
    search = SearchEncoderWrapper(cast("EncoderProtocol", model))
    search.index(data["corpus"], **where)
    found = search.search(data["queries"], top_k=task.places, top_ranked=data["top_ranked"], **where)
    return {query: rank(scores) for query, scores in found.items()}
