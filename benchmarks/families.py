"""What is timed: for each family of models a checkpoint, a model of the catalog, and what its authors run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import checkpoints
import flops
from checkpoints import Files
from references.base import Reference
from references.clip import CLIPReference
from references.llava_next import BGEVLMLLMReference
from references.qwen2_vl import GMEReference, VLM2VecReference
from references.qwen3_vl import Qwen3VLEmbeddingReference
from references.visualized_bge import VisualizedBGEReference
from workloads import MAX_IMAGE_TOKENS, MIN_IMAGE_TOKENS, Limits

from st_modules.backbones.rows import Row

_QWEN_VL_IMAGES = {"min_image_tokens": MIN_IMAGE_TOKENS, "max_image_tokens": MAX_IMAGE_TOKENS}


@dataclass(frozen=True)
class Family:
    """One architecture with one recipe.

    Attributes:
        name: What the tables call it.
        model: Name in the catalog.
        write: Writes the checkpoint to a new folder.
        reference: What the authors run, on a checkpoint.
        flops: Counts the operations of rows for the reference.
        options: Arguments of ``SentenceTransformer``.
        limits: What texts it takes.
        stock_pipeline: Whether sentence-transformers itself loads the checkpoint, for texts and images apart.
    """

    name: str
    model: str
    write: Callable[[Path], Files]
    reference: Callable[[Files], Reference]
    flops: Callable[[Any, Sequence[Row]], int]
    options: Mapping[str, Any] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    stock_pipeline: bool = False


_FAMILIES = (
    Family("gme", "gme-2b", checkpoints.write_gme, GMEReference, flops.qwen2_vl, _QWEN_VL_IMAGES),
    Family(
        "qwen3_vl_embedding",
        "qwen3-vl-embedding-2b",
        checkpoints.write_qwen3_vl_embedding,
        Qwen3VLEmbeddingReference,
        flops.qwen2_vl,
        _QWEN_VL_IMAGES,
    ),
    Family("vlm2vec", "vlm2vec-v2", checkpoints.write_vlm2vec, VLM2VecReference, flops.qwen2_vl, _QWEN_VL_IMAGES),
    Family("bge_vl_mllm", "bge-vl-mllm-s1", checkpoints.write_bge_vl_mllm, BGEVLMLLMReference, flops.llava_next),
    Family(
        "bge_vl_clip",
        "bge-vl-base",
        checkpoints.write_bge_vl_clip,
        CLIPReference,
        flops.clip,
        limits=Limits(longest_text=75, instruction=20),
        stock_pipeline=True,
    ),
    Family(
        "bge_visualized",
        "bge-visualized-base",
        checkpoints.write_bge_visualized,
        VisualizedBGEReference,
        flops.visualized_bge,
        limits=Limits(longest_text=500),
    ),
)
FAMILIES = {family.name: family for family in _FAMILIES}
