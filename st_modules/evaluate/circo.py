"""CIRCO (Baldrati et al. 2023, arXiv 2303.15247) from its published files: several right answers for a query."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from st_modules.evaluate.composed import by_id, check_known, composed_data, composed_metadata
from st_modules.evaluate.files import (
    BenchmarkDataError,
    JsonRecord,
    content_revision,
    read_json,
    read_records,
    require_image,
)
from st_modules.evaluate.local_task import LocalTask
from st_modules.evaluate.metrics import average_precision, mean, rank
from st_modules.evaluate.submissions import SubmissionTask

_CIRCO_RANKS = (5, 10, 25, 50)
CIRCO_METRICS = tuple(f"circo_{score}_at_{k}" for score in ("map", "recall") for k in _CIRCO_RANKS)
"""The names of CIRCO's scores."""

_CIRCO_ASPECTS = (
    "cardinality",
    "addition",
    "negation",
    "direct_addressing",
    "compare_change",
    "comparative_statement",
    "statement_with_conjunction",
    "spatial_relations_background",
    "viewpoint",
)
CIRCO_ASPECT_METRICS = tuple(f"circo_map_at_10_{aspect}" for aspect in _CIRCO_ASPECTS)
"""The names of CIRCO's scores by semantic aspect, which there are where ``val.json`` has the aspects."""


class CIRCO(LocalTask):
    """CIRCO: several right pictures for a query, among the 123,403 unlabelled pictures of COCO 2017.

    Scores are ``circo_map_at_k`` over all right pictures and ``circo_recall_at_k`` of the one that the query was
    written for, k being 5, 10, 25 and 50; and, where the file has ``semantic_aspects``, ``circo_map_at_10_ASPECT`` over
    the queries with that aspect. The reference picture stays in the ranking, as in the authors' evaluation.

    Args:
        folder: The authors' layout: ``annotations/val.json``, ``COCO2017_unlabeled/annotations/
            image_info_unlabeled2017.json`` and ``COCO2017_unlabeled/unlabeled2017/*.jpg``.

    Raises:
        BenchmarkDataError: A file is missing.
    """

    split: ClassVar[str] = "val"
    k_values = (1, *_CIRCO_RANKS)
    metadata = composed_metadata(
        "CIRCO",
        description="Composed image retrieval with several right answers, from CIRCO's own files.",
        reference="https://github.com/miccunifi/CIRCO",
        main_score="circo_map_at_5",
    )

    def __init__(self, folder: Path) -> None:
        coco = folder / "COCO2017_unlabeled"
        self.pictures = coco / "unlabeled2017"
        self.gallery_file = coco / "annotations" / "image_info_unlabeled2017.json"
        self.queries_file = folder / "annotations" / f"{self.split}.json"
        self.targets: dict[str, str] = {}
        self.aspects: dict[str, list[str]] = {}
        super().__init__(content_revision([self.gallery_file, self.queries_file]))

    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Read the files."""
        gallery = self._gallery()
        queries = by_id(read_records(self.queries_file), "id")
        for record in queries.values():
            check_known(record.id("reference_img_id"), gallery, record, self.gallery_file)
        changes = {
            query: (record.text("relative_caption"), gallery[record.id("reference_img_id")])
            for query, record in queries.items()
        }
        return {"default": composed_data(changes, gallery, self.answers(queries, gallery))}

    def answers(self, queries: Mapping[str, JsonRecord], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
        """Return the right pictures of each query."""
        self.targets = {query: record.id("target_img_id") for query, record in queries.items()}
        self.aspects = _semantic_aspects(queries)
        right = {query: record.ids("gt_img_ids") for query, record in queries.items()}
        for query, record in queries.items():
            for name in (self.targets[query], *right[query]):
                check_known(name, gallery, record, self.gallery_file)
        return {query: dict.fromkeys(names, 1) for query, names in right.items()}

    def _gallery(self) -> dict[str, Path]:
        content = read_json(self.gallery_file)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise BenchmarkDataError(f"{self.gallery_file}: must be an object with a list of 'images'.")
        records = [
            JsonRecord(f"{self.gallery_file}: image {number}", entry if isinstance(entry, dict) else {})
            for number, entry in enumerate(content["images"])
        ]
        return {
            str(record.number("id")): require_image(self.pictures / record.text("file_name"), record)
            for record in records
        }

    def task_specific_scores(
        self, scores: Any, qrels: Any, results: dict[str, dict[str, float]], hf_split: str, hf_subset: str
    ) -> dict[str, float]:
        """Compute CIRCO's own scores from the rankings."""
        rankings = {query: rank(found) for query, found in results.items()}
        precisions = {
            k: {query: average_precision(ranking, qrels[query], k) for query, ranking in rankings.items()}
            for k in _CIRCO_RANKS
        }
        by_aspect: dict[str, list[float]] = defaultdict(list)
        for query, aspects in self.aspects.items():
            for aspect in aspects:
                by_aspect[aspect].append(precisions[10][query])
        return {
            **{f"circo_map_at_{k}": mean(found.values()) for k, found in precisions.items()},
            **{f"circo_recall_at_{k}": self._recall(rankings, k) for k in _CIRCO_RANKS},
            **{f"circo_map_at_10_{aspect}": mean(found) for aspect, found in by_aspect.items()},
        }

    def _recall(self, rankings: Mapping[str, list[str]], k: int) -> float:
        return mean([float(self.targets[query] in ranking[:k]) for query, ranking in rankings.items()])


def _semantic_aspects(queries: Mapping[str, JsonRecord]) -> dict[str, list[str]]:
    """Return the aspects of every query; none at all where no record has them, as in the first version of the file."""
    if not any("semantic_aspects" in record.values for record in queries.values()):
        return {}
    found = {query: record.texts("semantic_aspects") for query, record in queries.items()}
    for query, aspects in found.items():
        for aspect in aspects:
            if aspect not in _CIRCO_ASPECTS:
                raise queries[query].error(f"{aspect!r} is none of CIRCO's semantic aspects: {list(_CIRCO_ASPECTS)}.")
    return found


class CIRCOTest(SubmissionTask, CIRCO):
    """CIRCO's test split: for each query the ids of the first 50 pictures, as CIRCO's server takes them.

    The format is that of the authors' README and their ``submission_examples/submission_test.json``
    (https://github.com/miccunifi/CIRCO).
    """

    split = "test"
    places = 50
    metadata = composed_metadata(
        "CIRCOTest",
        description="Composed image retrieval with several right answers that CIRCO's server has.",
        reference="https://circo.micc.unifi.it/",
        main_score="circo_map_at_5",
        eval_splits=["test"],
    )

    def document(self, name: str) -> int:
        """Return the id of a picture, which is a number."""
        return int(name)
