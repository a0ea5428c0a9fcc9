"""``config.json``: what a model is made of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from st_modules.checkpoints.fields import NAME, OBJECT, Kind, check_fields, is_number, number, one_of, optional, whole
from st_modules.checkpoints.json_files import read_json
from st_modules.errors import CheckpointError, in_one_line

CONFIG = "config.json"

Config = TypeVar("Config", bound=PreTrainedConfig)

_LAYERS = whole(1, 1000)
_SIZE = whole(1, 10_000_000)
_EPSILON = number(0, 1)
_PART = Kind("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
_ACTIVATION = one_of(ACT2FN.keys())
_DTYPE = Kind("the name of a precision of torch", lambda value: value is None or _is_dtype(value))
_FIELDS: dict[str, Kind] = {
    **dict.fromkeys(("num_hidden_layers", "depth"), _LAYERS),
    **dict.fromkeys(
        (
            "embed_dim",
            "hidden_size",
            "image_size",
            "in_channels",
            "in_chans",
            "intermediate_size",
            "max_position_embeddings",
            "num_attention_heads",
            "num_channels",
            "num_heads",
            "patch_size",
            "projection_dim",
            "spatial_merge_size",
            "temporal_patch_size",
            "type_vocab_size",
            "vocab_size",
        ),
        _SIZE,
    ),
    **dict.fromkeys(("head_dim", "num_key_value_heads"), optional(_SIZE)),
    **dict.fromkeys(("layer_norm_eps", "rms_norm_eps"), _EPSILON),
    **dict.fromkeys(("attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob"), _PART),
    "logit_scale_init_value": Kind("a number with a point", lambda value: isinstance(value, float)),
    **dict.fromkeys(("hidden_act", "projector_hidden_act"), _ACTIVATION),
    **dict.fromkeys(("model_type", "rope_type"), optional(NAME)),
    **dict.fromkeys(("dtype", "torch_dtype"), _DTYPE),
    **dict.fromkeys(("text_config", "vision_config"), OBJECT),
    **dict.fromkeys(("rope_parameters", "rope_scaling"), optional(OBJECT)),
    "rope_theta": number(0, 1e12),
}
"""What transformers takes at its word, or checks too late, wherever in the file it stands."""


def load_config(config_class: type[Config], folder: Path, changes: Mapping[str, Any]) -> Config:
    """Read a model's configuration from a checkpoint.

    Args:
        config_class: Class of the configuration.
        folder: Folder with ``config.json``.
        changes: Values that take the place of those in the file.

    Raises:
        CheckpointError: The file is missing or damaged, or a field has a value that it cannot have.
    """
    path = folder / CONFIG
    content = read_json(path)
    _check(path, content)
    # A field that has the name of a method would take its place.
    if methods := sorted(name for name in content if callable(getattr(config_class, name, None))):
        raise CheckpointError(f"{path}: {methods[0]} is no field of a model's configuration.")
    try:
        return config_class.from_pretrained(folder, **changes)
    except Exception as error:
        changed = f", changed by config_kwargs ({', '.join(changes)})," if changes else ""
        raise CheckpointError(f"{path}{changed}: cannot be used: {in_one_line(error)}") from error


def _check(path: Path, fields: Mapping[str, Any], place: str = "") -> None:
    check_fields(path, fields, _FIELDS, place)
    for name, value in fields.items():
        if isinstance(value, dict):
            _check(path, value, f"{place}{name}.")


def _is_dtype(value: Any) -> bool:
    return isinstance(value, str) and isinstance(getattr(torch, value.removeprefix("torch."), None), torch.dtype)
