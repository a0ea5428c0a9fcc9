"""Retrieval of drawings: small tasks whose data are drawn when they are needed, without network.

They show that a model, its instructions and mteb work together. Only "tiny" was trained on such drawings, and their
scores say nothing about photographs.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from datasets import Dataset, Features, Image, Value
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene, neighbours, random_scenes
from st_modules.demo.wording import caption, edit, paraphrase
from st_modules.evaluate.local_task import LocalTask, local_metadata

Item = dict[str, Any]


def _metadata(name: str, category: str, description: str) -> TaskMetadata:
    return local_metadata(name, category=category, description=description, main_score="ndcg_at_10")


class Drawings(LocalTask):
    """Base class: a query for every scene, and the document about the same scene is the right one.

    Args:
        scenes: How many scenes, which "tiny" was not trained on.
        seed: Chooses the scenes, and how they are drawn and told.
    """

    k_values = (1, 3, 5, 10)
    query_kinds: ClassVar[Sequence[str]]
    document_kinds: ClassVar[Sequence[str]]

    def __init__(self, scenes: int = 60, seed: int = 41) -> None:
        self.scenes = random_scenes(seed, scenes, held_out=True)
        self.drawn_with = seed
        super().__init__(f"drawings-{scenes}-{seed}")

    @abstractmethod
    def items(self) -> tuple[list[Item], list[Item]]:
        """Return a query a scene, and the documents; the first of these are those of the scenes, in their order."""

    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Draw the data, the same ones in every call."""
        self.rng = random.Random(self.drawn_with)
        queries, documents = self.items()
        return {
            "default": RetrievalSplitData(
                corpus=_table("document", documents, self.document_kinds),
                queries=_table("query", queries, self.query_kinds),
                relevant_docs={f"query-{number}": {f"document-{number}": 1} for number in range(len(queries))},
                top_ranked=None,
            )
        }

    def drawing(self, scene: Scene) -> Item:
        """Draw a scene in a new way."""
        return {"image": draw(scene, self.rng.getrandbits(40))}


class DrawingsT2I(Drawings):
    """Descriptions look for drawings."""

    metadata = _metadata("DrawingsT2I", "t2i", "Descriptions look for drawings.")
    query_kinds, document_kinds = ("text",), ("image",)

    def items(self) -> tuple[list[Item], list[Item]]:
        """Return descriptions and drawings."""
        queries: list[Item] = [{"text": paraphrase(scene, self.rng)} for scene in self.scenes]
        return queries, [self.drawing(scene) for scene in self.scenes]


class DrawingsI2T(Drawings):
    """Drawings look for descriptions."""

    metadata = _metadata("DrawingsI2T", "i2t", "Drawings look for descriptions.")
    query_kinds, document_kinds = ("image",), ("text",)

    def items(self) -> tuple[list[Item], list[Item]]:
        """Return drawings and descriptions."""
        return [self.drawing(scene) for scene in self.scenes], [{"text": caption(scene)} for scene in self.scenes]


class DrawingsIT2I(Drawings):
    """Drawings with a change look for the changed drawing, among the drawings before the change too."""

    metadata = _metadata("DrawingsIT2I", "it2i", "Drawings with a change look for the changed drawing.")
    query_kinds, document_kinds = ("text", "image"), ("image",)

    def items(self) -> tuple[list[Item], list[Item]]:
        """Return drawings with a change, and drawings."""
        before = [self.rng.choice(neighbours(scene)) for scene in self.scenes]
        pairs = zip(before, self.scenes, strict=True)
        queries = [{"text": edit(source, scene)} | self.drawing(source) for source, scene in pairs]
        others = dict.fromkeys(scene for scene in before if scene not in self.scenes)
        return queries, [self.drawing(scene) for scene in [*self.scenes, *others]]


class DrawingsMixed(Drawings):
    """Descriptions look among descriptions, drawings, and drawings with their description, in one corpus."""

    metadata = _metadata("DrawingsMixed", "t2it", "Descriptions look among descriptions, drawings, and both together.")
    query_kinds, document_kinds = ("text",), ("text", "image")

    def items(self) -> tuple[list[Item], list[Item]]:
        """Return descriptions, and documents of the three kinds in turn."""
        queries: list[Item] = [{"text": paraphrase(scene, self.rng)} for scene in self.scenes]
        both = [{"text": caption(scene)} | self.drawing(scene) for scene in self.scenes]
        kinds = (("text",), ("image",), ("text", "image"))
        return queries, [{kind: item[kind] for kind in kinds[number % len(kinds)]} for number, item in enumerate(both)]


DRAWINGS: tuple[type[Drawings], ...] = (DrawingsT2I, DrawingsI2T, DrawingsIT2I, DrawingsMixed)
"""The tasks of the benchmark "drawings"."""


def _table(side: str, items: Sequence[Item], kinds: Sequence[str]) -> Dataset:
    features: dict[str, Any] = {"id": Value("string"), "text": Value("string"), "image": Image()}
    columns: dict[str, list[Any]] = {
        "id": [f"{side}-{number}" for number in range(len(items))],
        # mteb has no rows without a text in a corpus that has texts: the empty one stands for none.
        "text": [item.get("text", "") for item in items],
        "image": [item.get("image") for item in items],
    }
    wanted = ["id", *kinds]
    return Dataset.from_dict(
        {name: columns[name] for name in wanted}, features=Features({name: features[name] for name in wanted})
    )
