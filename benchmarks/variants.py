"""The ways of embedding that are timed: ours, and those beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np
import sentence_transformers
from checkpoints import Files
from families import Family
from references.base import Reference
from workloads import Workload, build

from st_modules import SentenceTransformer
from st_modules.inputs.items import parse_items

Encode: TypeAlias = Callable[[Workload], np.ndarray]

OURS = "ours"
REFERENCE = "reference"
OWN_LOOP = "st_loop"
STOCK_PIPELINE = "st_clip"


class OwnLoop(SentenceTransformer):
    """The same model, with the encode loop that sentence-transformers has."""

    _inference = sentence_transformers.SentenceTransformer._inference


@dataclass(frozen=True)
class Loaded:
    """A family's models, loaded.

    Attributes:
        family: What it is.
        files: Its checkpoint.
        reference: What the authors run.
        ours: Our model.
        photos: Folder of the files that workloads write.
    """

    family: Family
    files: Files
    reference: Reference
    ours: SentenceTransformer
    photos: Path

    def workload(self, name: str, scale: float) -> Workload:
        """Make a workload with texts of the checkpoint's own tokens."""
        return build(name, self.reference.count_tokens, self.family.limits, scale, self.photos)

    def cost(self, workload: Workload) -> tuple[int, int]:
        """Return a workload's tokens and the floating-point operations that they need."""
        backbone: Any = self.ours[0]
        rows = backbone.plan(parse_items(workload.inputs), workload.prompt)
        return sum(row.length for row in rows), self.family.flops(self.reference, rows)


@contextmanager
def load_family(family: Family, photos: Path) -> Iterator[Loaded]:
    """Write a family's checkpoint to a temporary folder, and load it as ours and as the reference.

    Args:
        family: What to load.
        photos: Folder of the files that workloads write.
    """
    with TemporaryDirectory() as folder:
        files = family.write(Path(folder) / family.name)
        yield Loaded(family, files, family.reference(files), _load(SentenceTransformer, family, files), photos)


def _load(model_class: type[SentenceTransformer], family: Family, files: Files) -> SentenceTransformer:
    return model_class(family.model, weights=files.weights, base_weights=files.base, device="cpu", **family.options)


def encoder(model: Any, **options: Any) -> Encode:
    """Return the way of embedding that a model's ``encode`` is.

    Args:
        model: Has an ``encode`` as in sentence-transformers.
        **options: Arguments of ``encode`` that are not its defaults.
    """

    def encode(workload: Workload) -> np.ndarray:
        if isinstance(model, SentenceTransformer):
            # As where single queries are served: nobody changes the weights.
            model.keep_prefixes = workload.one_by_one
        if workload.one_by_one:
            return np.stack([model.encode(each, prompt=workload.prompt, **options) for each in workload.inputs])
        return model.encode(workload.inputs, prompt=workload.prompt, **options)

    return encode


def opponents(models: Loaded) -> dict[str, Encode]:
    """Return the ways of embedding that are compared, the reference first."""
    variants = {
        REFERENCE: models.reference.encode,
        OWN_LOOP: encoder(_load(OwnLoop, models.family, models.files)),
        OURS: encoder(models.ours),
    }
    if models.family.stock_pipeline:
        pipeline = sentence_transformers.SentenceTransformer(str(models.files.weights), device="cpu")
        variants[STOCK_PIPELINE] = encoder(pipeline, normalize_embeddings=True)
    return variants


def able(variants: Mapping[str, Encode], workload: Workload) -> dict[str, Encode]:
    """Return the variants that can embed a workload: the stock pipeline takes texts, or images, and nothing mixed."""
    kinds = {(item.text is None, item.image is None) for item in workload.items}
    return {name: encode for name, encode in variants.items() if name != STOCK_PIPELINE or len(kinds) == 1}
