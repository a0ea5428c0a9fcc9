"""MMEB from the files of ``TIGER-Lab/MMEB-eval``: 36 datasets, each a choice among listed candidates."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from st_modules.evaluate.files import BenchmarkDataError, JsonRecord, content_revision, require_image, rows
from st_modules.evaluate.local_task import LocalTask, local_metadata
from st_modules.evaluate.metrics import is_best, mean

META_TASKS: Mapping[str, tuple[str, ...]] = {
    "classification": (
        "ImageNet-1K",
        "N24News",
        "HatefulMemes",
        "VOC2007",
        "SUN397",
        "Place365",
        "ImageNet-A",
        "ImageNet-R",
        "ObjectNet",
        "Country211",
    ),
    "VQA": (
        "OK-VQA",
        "A-OKVQA",
        "DocVQA",
        "InfographicsVQA",
        "ChartQA",
        "Visual7W",
        "ScienceQA",
        "VizWiz",
        "GQA",
        "TextVQA",
    ),
    "retrieval": (
        "VisDial",
        "CIRR",
        "VisualNews_t2i",
        "VisualNews_i2t",
        "MSCOCO_t2i",
        "MSCOCO_i2t",
        "NIGHTS",
        "WebQA",
        "FashionIQ",
        "Wiki-SS-NQ",
        "OVEN",
        "EDIS",
    ),
    "grounding": ("MSCOCO", "RefCOCO", "RefCOCO-Matching", "Visual7W-Pointing"),
}
"""The datasets of the four meta-tasks, by the names of their folders."""

_IMAGE_FOLDERS = ("eval_images", "images", "")
_IMAGE_TOKEN = re.compile(r"<\|image_1\|>\s*")


class MMEB(LocalTask):
    """One dataset of MMEB.

    The score is ``accuracy``: how often the answer, which is the first candidate, has the highest similarity
    (precision@1 of the paper; the answer wins ties, as in the authors' ``argmax``). Texts carry their instructions in
    the published files, and are embedded as they are but for the image token; no other instruction is added.

    Args:
        folder: The repository's files: ``DATASET/*.parquet``, and the pictures of its archive below ``eval_images``
            or ``images``.
        dataset: The name of one of its folders.

    Raises:
        BenchmarkDataError: A file is missing.
    """

    k_values = (1, 1000)
    metadata = local_metadata(
        "MMEB",
        description="A dataset of MMEB, from the files of TIGER-Lab/MMEB-eval.",
        type="Any2AnyReranking",
        category="it2it",
        reference="https://huggingface.co/datasets/TIGER-Lab/MMEB-eval",
        main_score="accuracy",
        prompt={"query": "", "document": ""},
    )

    def __init__(self, folder: Path, dataset: str) -> None:
        self.folder = folder
        self.metadata = type(self).metadata.model_copy(update={"name": mmeb_task_name(dataset)})
        self.files = sorted((folder / dataset).glob("*.parquet"))
        if not self.files:
            raise BenchmarkDataError(f"{folder / dataset}: no Parquet file of MMEB-eval in it.")
        self.answers: dict[str, str] = {}
        super().__init__(content_revision(self.files))

    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Read the files."""
        records = [record for path in self.files for record in _read_parquet(path)]
        corpus: dict[tuple[str, Path | None], str] = {}
        texts: list[str] = []
        images: list[Path | None] = []
        candidates: dict[str, list[str]] = {}
        for number, record in enumerate(records):
            text, image = self._item(record, record.text("qry_text"), record.text("qry_img_path"))
            texts.append(text)
            images.append(image)
            names = [corpus.setdefault(item, str(len(corpus))) for item in self._targets(record)]
            candidates[str(number)] = list(dict.fromkeys(names))
        self.answers = {query: names[0] for query, names in candidates.items()}
        return {
            "default": RetrievalSplitData(
                corpus=rows(
                    list(corpus.values()),
                    texts=[text for text, _ in corpus],
                    images=[image for _, image in corpus],
                ),
                queries=rows(list(candidates), texts=texts, images=images),
                relevant_docs={query: {answer: 1} for query, answer in self.answers.items()},
                top_ranked=candidates,
            )
        }

    def _targets(self, record: JsonRecord) -> list[tuple[str, Path | None]]:
        texts, images = record.texts("tgt_text"), record.texts("tgt_img_path")
        if len(texts) != len(images) or not texts:
            raise record.error(f"{len(texts)} 'tgt_text' and {len(images)} 'tgt_img_path': the numbers must be equal.")
        return [self._item(record, text, image) for text, image in zip(texts, images, strict=True)]

    def _item(self, record: JsonRecord, text: str, image: str) -> tuple[str, Path | None]:
        if not image and _IMAGE_TOKEN.search(text):
            raise record.error(f"{text[:80]!r} is about an image, and none is given.")
        bare = _IMAGE_TOKEN.sub("", text)
        if not image and not bare.strip():
            raise record.error("an entry has neither text nor image.")
        return bare, self._picture(record, image) if image else None

    def _picture(self, record: JsonRecord, name: str) -> Path:
        candidates = [self.folder / below / name for below in _IMAGE_FOLDERS]
        return require_image(next((path for path in candidates if path.is_file()), candidates[0]), record)

    def task_specific_scores(
        self, scores: Any, qrels: Any, results: dict[str, dict[str, float]], hf_split: str, hf_subset: str
    ) -> dict[str, float]:
        """Compute MMEB's precision@1, with its own rule for ties."""
        return {"accuracy": mean([float(is_best(found, self.answers[query])) for query, found in results.items()])}


def mmeb_task_name(dataset: str) -> str:
    """Return what mteb's results call a dataset of MMEB, which has namesakes among mteb's own tasks."""
    return f"MMEB-{dataset}"


def _read_parquet(path: Path) -> list[JsonRecord]:
    import pyarrow
    import pyarrow.parquet

    try:
        values = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise BenchmarkDataError(f"{path}: not a Parquet file ({str(error).partition(chr(10))[0]}).") from error
    if not values:
        raise BenchmarkDataError(f"{path}: no rows in it.")
    return [JsonRecord(f"{path}: row {number}", value) for number, value in enumerate(values)]
