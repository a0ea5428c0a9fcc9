"""Visualized-BGE's published file, read safely, with its weights under this package's names."""

from __future__ import annotations

import re
from math import isqrt
from pathlib import Path

import torch
from torch import Tensor

from st_modules.backbones.eva02 import rotary_table
from st_modules.checkpoints.pickles import load_pickle
from st_modules.checkpoints.weights import refuse_misfits
from st_modules.errors import CheckpointError

_TABLE = re.compile(r"\.rope\.freqs_(cos|sin)$")
_TOP_TABLE = "model_visual.visual.rope.freqs_cos"
_TOP_TABLES = {_TOP_TABLE, "model_visual.visual.rope.freqs_sin"}
_UNUSED = re.compile(
    r"bge_pooler\.|model_visual\.logit_scale$|model_visual\.visual\.(norm\.|head\.|(blocks\.\d+\.attn\.)?rope\.freqs_)"
)
_PREFIXES = {
    "bge_embeddings.": "text.embeddings.",
    "bge_encoder.": "text.encoder.",
    "model_visual.visual.": "tower.",
    "visual_proj.": "projection.",
}


def upstream_weights(path: Path) -> tuple[dict[str, Tensor], int]:
    """Read the authors' ``.pth`` file, without running any of its code.

    What the embedding does not use is left out: the text encoder's pooler, and the tower's last normalisation and
    head. The rotary tables are left out too, once they are seen to be the computed ones.

    Args:
        path: The file.

    Returns:
        The weights under the names of :class:`FusedModel`, and the size of the tower's attention heads.

    Raises:
        CheckpointError: The file is not a plain dictionary of tensors, or its rotary tables are not EVA-02's.
    """
    weights = load_pickle(path)
    refuse_misfits(path, missing=_TOP_TABLES - weights.keys(), unexpected=set(), misshapen=set())
    _check_rotary_tables({name: weight for name, weight in weights.items() if _TABLE.search(name)}, path)
    used = {_rename(name): weight for name, weight in weights.items() if not _UNUSED.match(name)}
    return used, weights[_TOP_TABLE].shape[1]


def _check_rotary_tables(tables: dict[str, Tensor], path: Path) -> None:
    patches, head_dim = (*tables[_TOP_TABLE].shape, 0, 0)[:2]
    cos, sin = rotary_table(isqrt(patches), head_dim)
    for name, table in tables.items():
        expected = cos if name.endswith("cos") else sin
        if table.shape != expected.shape or not torch.allclose(table.float(), expected, atol=1e-3):
            raise CheckpointError(f"{path}: {name} is not the rotary table of EVA-02 CLIP.")


def _rename(name: str) -> str:
    for theirs, ours in _PREFIXES.items():
        if name.startswith(theirs):
            name = ours + name.removeprefix(theirs)
    return name.replace(".attn.q_bias", ".attn.q_proj.bias").replace(".attn.v_bias", ".attn.v_proj.bias")
