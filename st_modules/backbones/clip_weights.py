"""CLIP-SF's published file: OpenAI's CLIP as UniIR's training saved it, with its weights under transformers' names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import CLIPConfig

from st_modules.checkpoints.configuration import CONFIG
from st_modules.checkpoints.fields import check_fields, exactly
from st_modules.checkpoints.training_files import load_training_weights
from st_modules.checkpoints.weights import refuse_misfits

_HEAD_DIM = 64
"""Size of an attention head in OpenAI's code, which the weights do not tell."""

_PREFIX = "clip_model."
_NAMES = {
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.proj": "visual_projection.weight",
}
_TRANSPOSED = frozenset({"text_projection", "visual.proj"})
_NORMS = {
    "ln_final": "text_model.final_layer_norm",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
}
_BLOCK = re.compile(r"(visual\.)?transformer\.resblocks\.(0|[1-9]\d{0,3})\.(.+)\.(weight|bias)")
_BLOCK_PARTS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_JOINED = re.compile(r"(visual\.)?transformer\.resblocks\.(0|[1-9]\d{0,3})\.attn\.in_proj_(weight|bias)")


def openai_weights(path: Path) -> dict[str, Tensor]:
    """Read the weights of OpenAI's CLIP from a file of UniIR's training.

    Args:
        path: The ``.pth`` file.

    Returns:
        The weights under the names of transformers' ``CLIPModel``, in the mapped file.

    Raises:
        CheckpointError: The file is not that of a training run, or has weights that OpenAI's CLIP does not.
    """
    converted = {name: dict(_convert(name, weight)) for name, weight in load_training_weights(path, "model").items()}
    superfluous = {name for name, weights in converted.items() if not weights}
    refuse_misfits(path, missing=set(), unexpected=superfluous, misshapen=set())
    return {name: weight for weights in converted.values() for name, weight in weights.items()}


def check_openai_config(config: CLIPConfig, folder: Path) -> None:
    """Make sure that a configuration computes what OpenAI's code does, as far as the weights do not tell it.

    Raises:
        CheckpointError: It has other heads, another activation or another normalisation; the message names the field.
    """
    for part in ("text_config", "vision_config"):
        tower = getattr(config, part)
        kinds = {
            "num_attention_heads": exactly(tower.hidden_size // _HEAD_DIM, f", {_HEAD_DIM} numbers each,"),
            "hidden_act": exactly("quick_gelu"),
            "layer_norm_eps": exactly(1e-5),
        }
        check_fields(folder / CONFIG, {name: getattr(tower, name) for name in kinds}, kinds, f"{part}.")


def _convert(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Yield a weight under its new name; the three of an attention, which OpenAI's code has in one, each by itself."""
    own = name.removeprefix(_PREFIX)
    if not name.startswith(_PREFIX):
        return
    if own in _NAMES:
        yield _NAMES[own], weight.t() if own in _TRANSPOSED and weight.ndim == 2 else weight
    elif match := _JOINED.fullmatch(own):
        tower, number, kind = match.groups()
        for letter, part in zip("qkv", _split(weight), strict=True):
            yield f"{_layer(tower, number)}.self_attn.{letter}_proj.{kind}", part
    elif (match := _BLOCK.fullmatch(own)) and match[3] in _BLOCK_PARTS:
        yield f"{_layer(match[1], match[2])}.{_BLOCK_PARTS[match[3]]}.{match[4]}", weight
    elif (parts := own.rpartition("."))[0] in _NORMS and parts[2] in ("weight", "bias"):
        yield f"{_NORMS[parts[0]]}.{parts[2]}", weight


def _layer(tower: str | None, number: str) -> str:
    return f"{'vision' if tower else 'text'}_model.encoder.layers.{number}"


def _split(weight: Tensor) -> list[Tensor]:
    """Return the three thirds of a weight's rows, each with a storage of its own in the same place of memory."""
    if weight.ndim == 0:
        return [weight] * 3
    size = weight.element_size()
    parts: list[Tensor] = []
    for part in weight.contiguous().tensor_split(3):
        start = part.storage_offset() * size
        storage: Any = part.untyped_storage()[start : start + part.numel() * size]
        parts.append(torch.empty(0, dtype=part.dtype).set_(storage, 0, part.shape, part.stride()))
    return parts
