"""``config.json``: what a model is made of. Sizes have bounds, and no file names code or other files."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import PreTrainedConfig
from transformers.activations import ACT2FN

from st_modules.checkpoints.fields import (
    NAME,
    OBJECT,
    Kind,
    check_fields,
    exactly,
    is_number,
    number,
    one_of,
    optional,
    whole,
)
from st_modules.checkpoints.json_files import read_json
from st_modules.errors import CheckpointError, in_one_line

CONFIG = "config.json"

Config = TypeVar("Config", bound=PreTrainedConfig)

_LAYERS = whole(1, 256)
_SIDE = whole(1, 2**14)
_FEW = whole(1, 10_000)
# The weights' shapes bound them further.
_SIZE = whole(1, 10_000_000)
_EPSILON = number(0, 1)
_FACTOR = number(0, 1e12)
_PART = Kind("a number from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1)
_ACTIVATION = one_of(ACT2FN.keys())
_DTYPE = Kind("the name of a precision of torch for weights", lambda value: value in (None, "auto") or _is_dtype(value))
# OWNER/REPOSITORY[@REVISION][:NAME], maybe with a prefix, is code of others.
_IMPLEMENTATION = Kind(
    "a name without a repository, whose code is not run,",
    lambda value: all(map(_is_plain, value.values() if isinstance(value, dict) else [value])),
)
_FIELDS: dict[str, Kind] = {
    **dict.fromkeys(("num_hidden_layers", "depth"), _LAYERS),
    **dict.fromkeys(("image_size", "patch_size", "spatial_merge_size", "temporal_patch_size"), _SIDE),
    **dict.fromkeys(("in_channels", "in_chans", "num_channels"), _FEW),
    **dict.fromkeys(("mlp_ratio", "num_labels"), optional(_FEW)),
    **dict.fromkeys(
        (
            "embed_dim",
            "hidden_size",
            "intermediate_size",
            "max_position_embeddings",
            "num_attention_heads",
            "num_heads",
            "projection_dim",
            "type_vocab_size",
            "vocab_size",
        ),
        _SIZE,
    ),
    # A window of no token would leave nothing to attend to.
    **dict.fromkeys(("head_dim", "image_seq_length", "num_key_value_heads", "sliding_window"), optional(_SIZE)),
    **dict.fromkeys(("layer_norm_eps", "rms_norm_eps"), _EPSILON),
    **dict.fromkeys(("attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob"), _PART),
    "logit_scale_init_value": Kind("a number with a point", lambda value: isinstance(value, float)),
    **dict.fromkeys(("hidden_act", "projector_hidden_act"), _ACTIVATION),
    **dict.fromkeys(("model_type", "rope_type"), optional(NAME)),
    **dict.fromkeys(("dtype", "torch_dtype"), _DTYPE),
    **dict.fromkeys(("text_config", "vision_config"), OBJECT),
    **dict.fromkeys(("rope_parameters", "rope_scaling"), optional(OBJECT)),
    "rope_theta": _FACTOR,
    **dict.fromkeys(
        (
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "factor",
            "high_freq_factor",
            "low_freq_factor",
            "original_max_position_embeddings",
            "partial_rotary_factor",
        ),
        optional(_FACTOR),
    ),
    # A text encoder would see the tokens before each alone, and others the output of a model that is not there.
    **dict.fromkeys(("add_cross_attention", "is_decoder", "is_encoder_decoder"), optional(exactly(False))),
    **dict.fromkeys(("attn_implementation", "_attn_implementation", "experts_implementation"), _IMPLEMENTATION),
}
"""What transformers takes at its word, or checks too late, wherever in the file it stands."""

_REFUSED = {
    "quantization_config": "quantised weights are not served. Use the files of the model that is not quantised, and "
    "pass quantization_config in model_kwargs to quantise those",
    "compression_config": "compressed weights are not served. Use the files of the model that is not compressed",
    "transformers_weights": "weights are read from the files that are called so by default. Rename them",
    "attribute_map": "fields are read by their own names. Remove it",
    "fusion_config": "the model's layers are those of its architecture. Remove it",
    "kernel_config": "code of other repositories is not run. Remove it",
    "use_kernels": "code of other repositories is not run. Remove it",
    "per_layer_config": "all layers are alike in these models. Remove it",
}

_RETURNED = {"return_dict": True, "output_hidden_states": False, "output_attentions": False}
"""What a model returns. All of its layers' states would be kept for nobody."""


def load_config(
    config_class: type[Config],
    folder: Path,
    changes: Mapping[str, Any],
    parts: Mapping[str, Collection[str]] | None = None,
    *,
    quantised: bool = False,
) -> Config:
    """Read a model's configuration from a checkpoint.

    How attention is computed and what a call returns is never taken from the file: it is the caller's choice.

    Args:
        config_class: Class of the configuration.
        folder: Folder with ``config.json``.
        changes: Values that take the place of those in the file.
        parts: The values of ``model_type`` that the configuration of a part may have, by the name of the part.
        quantised: Whether the caller says how weights are quantised, so that the file may do so too.

    Raises:
        CheckpointError: The file is missing or damaged, or a field has a value that it cannot have or asks for code or
            files of others.
    """
    path = folder / CONFIG
    content = read_json(path)
    allowed = {"quantization_config"} if quantised else set[str]()
    _check(path, content, _REFUSED.keys() - allowed)
    for part, known in (parts or {}).items():
        check_fields(path, content.get(part, {}), {"model_type": one_of({*known, None})}, f"{part}.")
    try:
        config = config_class.from_pretrained(folder, local_files_only=True, **changes)
    except Exception as error:
        changed = f", changed by config_kwargs ({', '.join(changes)})," if changes else ""
        raise CheckpointError(f"{path}{changed}: cannot be used: {in_one_line(error)}") from error
    _check_image_token(path, config)
    if "attn_implementation" not in changes:
        config._attn_implementation = None
    for part in (config, *(getattr(config, name) for name in config.sub_configs)):
        for name, value in _RETURNED.items():
            setattr(part, name, value)
    return config


def _check(path: Path, fields: Mapping[str, Any], refused: Collection[str], place: str = "") -> None:
    check_fields(path, fields, _FIELDS, place)
    for name, value in fields.items():
        # A field that has the name of a method would take its place.
        if name.startswith("__") or callable(getattr(PreTrainedConfig, name, None)):
            raise CheckpointError(f"{path}: {place}{name} is no field of a model's configuration.")
        if name in refused and value:
            raise CheckpointError(f"{path}: {place}{name} is {reprlib.repr(value)}: {_REFUSED[name]}.")
        if isinstance(value, dict):
            _check(path, value, refused, f"{place}{name}.")


def _check_image_token(path: Path, config: PreTrainedConfig) -> None:
    text: Any = config.get_text_config()
    if (token := getattr(config, "image_token_id", None)) is not None:
        check_fields(path, {"image_token_id": token}, {"image_token_id": whole(0, text.vocab_size - 1)})


def _is_dtype(value: Any) -> bool:
    dtype = getattr(torch, value.removeprefix("torch."), None) if isinstance(value, str) else None
    return isinstance(dtype, torch.dtype) and dtype.is_floating_point


def _is_plain(name: Any) -> bool:
    return name is None or (isinstance(name, str) and name.isidentifier())
