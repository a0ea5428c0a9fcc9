"""What the fields of ``adapter_config.json`` can hold: PEFT's settings of an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftType

from st_modules.checkpoints.fields import (
    FLAG,
    NAME,
    NUMBER,
    OBJECT,
    TEXT,
    Kind,
    check_fields,
    each,
    either,
    exactly,
    number,
    one_of,
    optional,
    whole,
)
from st_modules.errors import CheckpointError

_LAYERS = either(TEXT, each(NAME))
_COUNT = whole(0, 1_000_000)
_FIELDS: dict[str, Kind] = {
    "auto_mapping": optional(OBJECT),
    "base_model_name_or_path": optional(TEXT),
    "exclude_modules": optional(_LAYERS),
    "inference_mode": FLAG,
    "layers_pattern": optional(_LAYERS),
    "layers_to_transform": optional(either(_COUNT, each(_COUNT))),
    "modules_to_save": optional(each(NAME)),
    "peft_type": one_of([kind.value for kind in PeftType]),
    "revision": optional(TEXT),
    "target_modules": optional(_LAYERS),
    "task_type": optional(TEXT),
}
_LORA_FIELDS: dict[str, Kind] = {
    **dict.fromkeys(("fan_in_fan_out", "lora_bias", "use_dora", "use_qalora", "use_rslora"), FLAG),
    **dict.fromkeys(("alpha_pattern", "rank_pattern"), optional(OBJECT)),
    # PEFT would leave such an adapter out of every text, where a caller does not say from where on it counts.
    "alora_invocation_tokens": Kind("none, since an adapter counts for all tokens,", lambda value: not value),
    "bias": one_of(["none", "all", "lora_only"]),
    "init_lora_weights": either(FLAG, TEXT),
    "lora_alpha": number(-1e6, 1e6),
    "lora_dropout": either(exactly(0), number(0, 1)),
    # It names a module of Python, which would be imported.
    "megatron_config": exactly(None),
    "r": whole(1, 1_000_000),
    "trainable_token_indices": optional(either(OBJECT, each(_COUNT))),
    "target_parameters": optional(each(NAME)),
}


def check_adapter_fields(path: Path, content: Mapping[str, Any]) -> None:
    """Check the types and bounds of an adapter's settings.

    Args:
        path: Their file.
        content: The settings.

    Raises:
        CheckpointError: One has a value that it cannot have; the message names the file and the setting.
    """
    check_fields(path, {"peft_type": None, **content}, _FIELDS)
    if content["peft_type"] == PeftType.LORA.value:
        check_fields(path, content, _LORA_FIELDS)
        for name in ("alpha_pattern", "rank_pattern"):
            patterns = content.get(name) or {}
            check_fields(path, patterns, dict.fromkeys(patterns, NUMBER), f"{name}.")
    if methods := sorted(name for name in content if callable(getattr(PeftConfig, name, None))):
        raise CheckpointError(f"{path}: {methods[0]} is no setting of an adapter.")
