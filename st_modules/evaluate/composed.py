"""Composed image retrieval from the published files: CIRCO, CIRR and FashionIQ.

A query is a picture with a text that changes it. Scores are those of the validation splits. The test splits of CIRCO
and CIRR have no public answers: rankings of them are written in the format of the servers that score them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from st_modules.evaluate.files import (
    BenchmarkDataError,
    Record,
    content_revision,
    existing,
    read_json,
    read_records,
    rows,
)
from st_modules.evaluate.local_task import LocalTask, local_metadata
from st_modules.evaluate.metrics import average_precision, mean, ranked
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

_FASHION_TYPES = ("dress", "shirt", "toptee")
_FASHION_SUFFIXES = (".jpg", ".png", ".jpeg")


def _metadata(name: str, **fields: Any) -> TaskMetadata:
    return local_metadata(name, **{"category": "it2i", "eval_splits": ["val"], **fields})


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
    metadata = _metadata(
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
        queries = _by_id(read_records(self.queries_file), "id")
        for record in queries.values():
            _known(record.id("reference_img_id"), gallery, record, self.gallery_file)
        return {
            "default": RetrievalSplitData(
                corpus=rows(list(gallery), images=list(gallery.values())),
                queries=rows(
                    list(queries),
                    texts=[record.text("relative_caption") for record in queries.values()],
                    images=[gallery[record.id("reference_img_id")] for record in queries.values()],
                ),
                relevant_docs=self.answers(queries, gallery),
                top_ranked=None,
            )
        }

    def answers(self, queries: Mapping[str, Record], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
        """Return the right pictures of each query."""
        self.targets = {query: record.id("target_img_id") for query, record in queries.items()}
        self.aspects = _semantic_aspects(queries)
        right = {query: record.ids("gt_img_ids") for query, record in queries.items()}
        for query, record in queries.items():
            for name in (self.targets[query], *right[query]):
                _known(name, gallery, record, self.gallery_file)
        return {query: dict.fromkeys(names, 1) for query, names in right.items()}

    def _gallery(self) -> dict[str, Path]:
        content = read_json(self.gallery_file)
        if not isinstance(content, dict) or not isinstance(content.get("images"), list):
            raise BenchmarkDataError(f"{self.gallery_file}: must be an object with a list of 'images'.")
        records = [
            Record(f"{self.gallery_file}: image {number}", entry if isinstance(entry, dict) else {})
            for number, entry in enumerate(content["images"])
        ]
        return {
            str(record.number("id")): existing(self.pictures / record.text("file_name"), record) for record in records
        }

    def task_specific_scores(
        self, scores: Any, qrels: Any, results: dict[str, dict[str, float]], hf_split: str, hf_subset: str
    ) -> dict[str, float]:
        """Compute CIRCO's own scores from the rankings."""
        rankings = {query: ranked(found) for query, found in results.items()}
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


def _semantic_aspects(queries: Mapping[str, Record]) -> dict[str, list[str]]:
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
    metadata = _metadata(
        "CIRCOTest",
        description="Composed image retrieval with several right answers that CIRCO's server has.",
        reference="https://circo.micc.unifi.it/",
        main_score="circo_map_at_5",
        eval_splits=["test"],
    )

    def document(self, name: str) -> int:
        """Return the id of a picture, which is a number."""
        return int(name)


class CIRR(LocalTask):
    """CIRR: one right picture, among the others of the split; the reference picture is left out of the ranking.

    Scores are mteb's ``recall_at_k``; the paper reports k of 1, 5, 10 and 50.

    Args:
        folder: The authors' layout: ``cirr/captions/cap.rc2.val.json``, ``cirr/image_splits/split.rc2.val.json``, and
            the pictures at the paths in the latter.

    Raises:
        BenchmarkDataError: A file is missing.
    """

    split: ClassVar[str] = "val"
    k_values = (1, 5, 10, 50)
    metadata = _metadata(
        "CIRR",
        description="Composed image retrieval, from CIRR's own files; the reference is left out of the ranking.",
        reference="https://github.com/Cuberick-Orion/CIRR",
        main_score="recall_at_5",
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.queries_file = folder / "cirr" / "captions" / f"cap.rc2.{self.split}.json"
        self.gallery_file = folder / "cirr" / "image_splits" / f"split.rc2.{self.split}.json"
        super().__init__(content_revision([self.gallery_file, self.queries_file]))

    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Read the files."""
        gallery = self._gallery()
        queries = _by_id(read_records(self.queries_file), "pairid")
        for record in queries.values():
            _known(record.id("reference"), gallery, record, self.gallery_file)
        candidates = {query: self.candidates(record, gallery) for query, record in queries.items()}
        return {
            "default": RetrievalSplitData(
                corpus=rows(list(gallery), images=list(gallery.values())),
                queries=rows(
                    list(queries),
                    texts=[record.text("caption") for record in queries.values()],
                    images=[gallery[record.id("reference")] for record in queries.values()],
                ),
                relevant_docs=self.answers(queries, gallery),
                top_ranked=candidates,
            )
        }

    def candidates(self, record: Record, gallery: Mapping[str, Path]) -> list[str]:
        """Return what a query is ranked among."""
        reference = record.id("reference")
        return [name for name in gallery if name != reference]

    def answers(self, queries: Mapping[str, Record], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
        """Return the right picture of each query."""
        for record in queries.values():
            _known(record.id("target_hard"), gallery, record, self.gallery_file)
        return {query: {record.id("target_hard"): 1} for query, record in queries.items()}

    def _gallery(self) -> dict[str, Path]:
        content = read_json(self.gallery_file)
        if not isinstance(content, dict) or not content:
            raise BenchmarkDataError(f"{self.gallery_file}: must be an object of image paths that is not empty.")
        record = Record(str(self.gallery_file), content)
        return {name: existing(self.folder / record.text(name), record) for name in content}


class CIRRSubset(CIRR):
    """CIRR's recall in the subset: a query is ranked among the other five pictures of its set of six.

    The paper reports ``recall_at_k`` with k of 1, 2 and 3, and the mean of this ``recall_at_1`` and :class:`CIRR`'s
    ``recall_at_5``.
    """

    k_values = (1, 2, 3)
    metadata = _metadata(
        "CIRRSubset",
        description="Composed image retrieval among the pictures of a query's own set, from CIRR's own files.",
        reference="https://github.com/Cuberick-Orion/CIRR",
        main_score="recall_at_1",
    )

    def candidates(self, record: Record, gallery: Mapping[str, Path]) -> list[str]:
        """Return what a query is ranked among."""
        members = record.record("img_set").ids("members")
        for name in members:
            _known(name, gallery, record, self.gallery_file)
        reference = record.id("reference")
        return [name for name in members if name != reference]

    def answers(self, queries: Mapping[str, Record], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
        """Return the right picture of each query."""
        right = super().answers(queries, gallery)
        for record in queries.values():
            if record.id("target_hard") not in record.record("img_set").ids("members"):
                raise record.error("its 'target_hard' is not among the 'members' of its 'img_set'.")
        return right


class CIRRTest(SubmissionTask, CIRR):
    """CIRR's test split: for each query the first 50 pictures, the reference left out, as CIRR's server takes them.

    The format is that of the authors' ``Test-split_server.md`` and ``demo_files``
    (https://github.com/Cuberick-Orion/CIRR).
    """

    split = "test1"
    places = 50
    heading: ClassVar[Mapping[str, str]] = {"version": "rc2", "metric": "recall"}
    metadata = _metadata(
        "CIRRTest",
        description="Composed image retrieval with answers that CIRR's server has.",
        reference="https://github.com/Cuberick-Orion/CIRR/blob/main/Test-split_server.md",
        main_score="recall_at_5",
        eval_splits=["test1"],
    )


class CIRRSubsetTest(SubmissionTask, CIRRSubset):
    """CIRR's test split in the subset: for each query the first three of the other five pictures of its set."""

    split = "test1"
    places = 3
    heading: ClassVar[Mapping[str, str]] = {"version": "rc2", "metric": "recall_subset"}
    metadata = _metadata(
        "CIRRSubsetTest",
        description="Composed image retrieval among the pictures of a query's own set; CIRR's server has the answers.",
        reference="https://github.com/Cuberick-Orion/CIRR/blob/main/Test-split_server.md",
        main_score="recall_at_1",
        eval_splits=["test1"],
    )


class FashionIQ(LocalTask):
    """FashionIQ: one right picture among those of its kind of clothes; the score is the mean over the three kinds.

    Scores are mteb's ``recall_at_k``; the paper reports k of 10 and 50. A query's two captions are joined by "and".
    The reference picture stays in the ranking, and the gallery is that of the split's file.

    Args:
        folder: The authors' layout: ``captions/cap.KIND.val.json``, ``image_splits/split.KIND.val.json``, and
            ``images/NAME.jpg`` or ``.png``, where ``KIND`` is dress, shirt and toptee.

    Raises:
        BenchmarkDataError: A file is missing.
    """

    k_values = (1, 5, 10, 50)
    metadata = _metadata(
        "FashionIQ",
        description="Composed retrieval of clothes, from FashionIQ's own files.",
        reference="https://github.com/XiaoxiaoGuo/fashion-iq",
        eval_langs={kind: ["eng-Latn"] for kind in _FASHION_TYPES},
        main_score="recall_at_10",
    )

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        super().__init__(content_revision(path for kind in _FASHION_TYPES for path in self._files(kind)))

    def _files(self, kind: str) -> tuple[Path, Path]:
        return (
            self.folder / "captions" / f"cap.{kind}.val.json",
            self.folder / "image_splits" / f"split.{kind}.val.json",
        )

    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Read the files of every kind of clothes."""
        return {kind: self._subset(*self._files(kind)) for kind in _FASHION_TYPES}

    def _subset(self, queries_file: Path, gallery_file: Path) -> RetrievalSplitData:
        gallery = self._gallery(gallery_file)
        records = read_records(queries_file)
        ids = [str(number) for number in range(len(records))]
        for record in records:
            for key in ("candidate", "target"):
                _known(record.id(key), gallery, record, gallery_file)
        return RetrievalSplitData(
            corpus=rows(list(gallery), images=list(gallery.values())),
            queries=rows(
                ids,
                texts=[_joined_captions(record) for record in records],
                images=[gallery[record.id("candidate")] for record in records],
            ),
            relevant_docs={query: {record.id("target"): 1} for query, record in zip(ids, records, strict=True)},
            top_ranked=None,
        )

    def _gallery(self, path: Path) -> dict[str, Path]:
        names = read_json(path)
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise BenchmarkDataError(f"{path}: must be a list of image names that is not empty.")
        return {name: self._picture(name, Record(f"{path}: entry {n}", {})) for n, name in enumerate(names)}

    def _picture(self, name: str, record: Record) -> Path:
        candidates = [self.folder / "images" / f"{name}{suffix}" for suffix in _FASHION_SUFFIXES]
        return existing(next((path for path in candidates if path.is_file()), candidates[0]), record)


def _joined_captions(record: Record) -> str:
    captions = [caption.strip(".?, ") for caption in record.texts("captions")]
    if not any(captions):
        raise record.error("its 'captions' say nothing.")
    return " and ".join(caption for caption in captions if caption)


def _by_id(records: list[Record], key: str) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        name = record.id(key)
        if name in found:
            raise record.error(f"its {key!r} {name} is that of an earlier record too.")
        found[name] = record
    return found


def _known(name: str, gallery: Mapping[str, Path], record: Record, gallery_file: Path) -> None:
    if name not in gallery:
        raise record.error(f"its image {name!r} is not in {gallery_file}.")
