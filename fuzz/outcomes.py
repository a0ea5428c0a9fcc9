"""What may become of an input: finite unit vectors, or an error of the package that names it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.bounds import Outcome
from st_modules import ImageLimits, SentenceTransformer, STModulesError

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
"""Small checkpoints in the layouts in which models are published."""

CHECKPOINTS = {
    "gme-2b": ("gme/checkpoint", None),
    "ops-mm-v1-2b": ("ops_mm/checkpoint", None),
    "vdr-2b-multi": ("vdr/checkpoint", None),
    "qwen3-vl-embedding-2b": ("qwen3_vl_embedding/checkpoint", None),
    "vlm2vec-v2": ("vlm2vec_v2_video/checkpoint", "vlm2vec_v2_video/base"),
    "vlm2vec-phi3.5-v": ("vlm2vec_phi3v_full/checkpoint", None),
    "bge-vl-base": ("bge_vl_clip/checkpoint", None),
    "clip-sf-large": ("clip_sf/checkpoint", "clip_sf/base"),
    "bge-vl-mllm-s1": ("bge_vl_mllm/checkpoint", None),
    "bge-visualized-base": ("bge_visualized_base", "bge_visualized_base/bge"),
    "bge-visualized-m3": ("bge_visualized_m3", "bge_visualized_m3/bge"),
}
"""For a model of each kind, the folder of its checkpoint, and of what that is built on."""

_MOST_TOKENS = 8192


@cache
def golden(name: str) -> SentenceTransformer:
    """The model of the catalog with the small checkpoint, which reads few tokens: what more of them take is its own."""
    weights, base = CHECKPOINTS[name]
    model = SentenceTransformer(
        name, weights=GOLDEN / weights, base_weights=GOLDEN / base if base else None, device="cpu"
    )
    model.max_seq_length = min(model.max_seq_length or _MOST_TOKENS, _MOST_TOKENS)
    return model


@cache
def tiny() -> SentenceTransformer:
    """The model that ships with the package; it reads images from loopback servers, and waits for none of them long."""
    limits = ImageLimits(allow_private_hosts=True, connect_timeout=1, read_timeout=1, total_timeout=2)
    return SentenceTransformer("tiny", device="cpu", image_limits=limits)


def embed_or_refuse(call: Callable[[], Any], count: int, names: Sequence[str]) -> Outcome:
    """Check what a call of ``encode`` does.

    Args:
        call: Calls it.
        count: How many embeddings it has to return.
        names: An error must have one of these in its message.

    Raises:
        AssertionError: It returns something else than finite unit vectors, or its error names nothing.
        Exception: What it raises is no error of the package.
    """
    try:
        vectors = np.asarray(call(), dtype=np.float64)
    except STModulesError as error:
        words = str(error)
        assert any(name in words for name in names), f"none of {names} is named by: {words[:500]}"
        assert len(words) <= 30_000, f"{len(words)} characters of an error"
        return Outcome(False, words)
    assert vectors.shape[0] == count, f"{count} inputs, and vectors of shape {vectors.shape}"
    norms = np.linalg.norm(vectors, axis=1)
    assert np.isfinite(vectors).all(), "not finite"
    assert np.abs(norms - 1).max(initial=0) < 1e-3, f"norms {norms}"
    return Outcome(True, f"{vectors.shape}")
