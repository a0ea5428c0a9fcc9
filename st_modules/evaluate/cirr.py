"""CIRR (Liu et al. 2021, arXiv 2108.04024) from its published files: composed retrieval, and in the subset."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

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
from st_modules.evaluate.submissions import SubmissionTask


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
    metadata = composed_metadata(
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
        queries = by_id(read_records(self.queries_file), "pairid")
        for record in queries.values():
            check_known(record.id("reference"), gallery, record, self.gallery_file)
        candidates = {query: self.candidates(record, gallery) for query, record in queries.items()}
        changes = {
            query: (record.text("caption"), gallery[record.id("reference")]) for query, record in queries.items()
        }
        return {"default": composed_data(changes, gallery, self.answers(queries, gallery), candidates)}

    def candidates(self, record: JsonRecord, gallery: Mapping[str, Path]) -> list[str]:
        """Return what a query is ranked among."""
        reference = record.id("reference")
        return [name for name in gallery if name != reference]

    def answers(self, queries: Mapping[str, JsonRecord], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
        """Return the right picture of each query."""
        for record in queries.values():
            check_known(record.id("target_hard"), gallery, record, self.gallery_file)
        return {query: {record.id("target_hard"): 1} for query, record in queries.items()}

    def _gallery(self) -> dict[str, Path]:
        content = read_json(self.gallery_file)
        if not isinstance(content, dict) or not content:
            raise BenchmarkDataError(f"{self.gallery_file}: must be an object of image paths that is not empty.")
        record = JsonRecord(str(self.gallery_file), content)
        return {name: require_image(self.folder / record.text(name), record) for name in content}


class CIRRSubset(CIRR):
    """CIRR's recall in the subset: a query is ranked among the other five pictures of its set of six.

    The paper reports ``recall_at_k`` with k of 1, 2 and 3, and the mean of this ``recall_at_1`` and :class:`CIRR`'s
    ``recall_at_5``.
    """

    k_values = (1, 2, 3)
    metadata = composed_metadata(
        "CIRRSubset",
        description="Composed image retrieval among the pictures of a query's own set, from CIRR's own files.",
        reference="https://github.com/Cuberick-Orion/CIRR",
        main_score="recall_at_1",
    )

    def candidates(self, record: JsonRecord, gallery: Mapping[str, Path]) -> list[str]:
        """Return what a query is ranked among."""
        members = record.record("img_set").ids("members")
        for name in members:
            check_known(name, gallery, record, self.gallery_file)
        reference = record.id("reference")
        return [name for name in members if name != reference]

    def answers(self, queries: Mapping[str, JsonRecord], gallery: Mapping[str, Path]) -> dict[str, dict[str, int]]:
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
    metadata = composed_metadata(
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
    metadata = composed_metadata(
        "CIRRSubsetTest",
        description="Composed image retrieval among the pictures of a query's own set; CIRR's server has the answers.",
        reference="https://github.com/Cuberick-Orion/CIRR/blob/main/Test-split_server.md",
        main_score="recall_at_1",
        eval_splits=["test1"],
    )
