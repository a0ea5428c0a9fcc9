"""FashionIQ (Wu et al. 2021, arXiv 1905.12794) from its published files: composed retrieval of clothes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from st_modules.evaluate.composed import check_known, composed_data, composed_metadata
from st_modules.evaluate.files import (
    BenchmarkDataError,
    JsonRecord,
    content_revision,
    read_json,
    read_records,
    require_image,
)
from st_modules.evaluate.local_task import LocalTask

_FASHION_TYPES = ("dress", "shirt", "toptee")
_FASHION_SUFFIXES = (".jpg", ".png", ".jpeg")


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
    metadata = composed_metadata(
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
        queries = {str(number): record for number, record in enumerate(read_records(queries_file))}
        for record in queries.values():
            for key in ("candidate", "target"):
                check_known(record.id(key), gallery, record, gallery_file)
        changes = {
            query: (_joined_captions(record), gallery[record.id("candidate")]) for query, record in queries.items()
        }
        return composed_data(changes, gallery, {query: {record.id("target"): 1} for query, record in queries.items()})

    def _gallery(self, path: Path) -> dict[str, Path]:
        names = read_json(path)
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise BenchmarkDataError(f"{path}: must be a list of image names that is not empty.")
        return {name: self._picture(name, JsonRecord(f"{path}: entry {n}", {})) for n, name in enumerate(names)}

    def _picture(self, name: str, record: JsonRecord) -> Path:
        candidates = [self.folder / "images" / f"{name}{suffix}" for suffix in _FASHION_SUFFIXES]
        return require_image(next((path for path in candidates if path.is_file()), candidates[0]), record)


def _joined_captions(record: JsonRecord) -> str:
    captions = [caption.strip(".?, ") for caption in record.texts("captions")]
    if not any(captions):
        raise record.error("its 'captions' say nothing.")
    return " and ".join(caption for caption in captions if caption)
