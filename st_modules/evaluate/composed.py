"""What the tasks of composed image retrieval share: a query is a picture with a text that changes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from st_modules.evaluate.files import JsonRecord, rows
from st_modules.evaluate.local_task import local_metadata


def composed_metadata(name: str, **fields: Any) -> TaskMetadata:
    """Describe a task on a validation split; see :func:`st_modules.evaluate.local_task.local_metadata`."""
    return local_metadata(name, **{"category": "it2i", "eval_splits": ["val"], **fields})


def composed_data(
    queries: Mapping[str, tuple[str, Path]],
    gallery: Mapping[str, Path],
    answers: Mapping[str, Mapping[str, int]],
    candidates: Mapping[str, list[str]] | None = None,
) -> RetrievalSplitData:
    """Lay a split out as mteb has it.

    Args:
        queries: For each query the text that changes a picture, and the picture.
        gallery: The pictures to search.
        answers: For each query its right pictures, each with 1.
        candidates: For each query what it is ranked among; the whole gallery where it is left out.
    """
    return RetrievalSplitData(
        corpus=rows(list(gallery), images=list(gallery.values())),
        queries=rows(
            list(queries),
            texts=[text for text, _ in queries.values()],
            images=[picture for _, picture in queries.values()],
        ),
        relevant_docs=answers,
        top_ranked=candidates,
    )


def by_id(records: Sequence[JsonRecord], key: str) -> dict[str, JsonRecord]:
    """Return records by the id in a field.

    Raises:
        BenchmarkDataError: Two have the same.
    """
    found: dict[str, JsonRecord] = {}
    for record in records:
        name = record.id(key)
        if name in found:
            raise record.error(f"its {key!r} {name} is that of an earlier record too.")
        found[name] = record
    return found


def check_known(name: str, gallery: Mapping[str, Path], record: JsonRecord, gallery_file: Path) -> None:
    """Make sure that a record's image is in the gallery.

    Raises:
        BenchmarkDataError: It is not.
    """
    if name not in gallery:
        raise record.error(f"its image {name!r} is not in {gallery_file}.")
