"""LoRA and DoRA adapters, merged into the model that they were trained on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftConfig, PeftType, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer, LoraModel
from peft.utils import load_peft_weights
from torch import Tensor, nn
from transformers import PreTrainedModel

from st_modules.checkpoints.adapter_settings import ADAPTER_WEIGHT, PREFIX, WRAPPERS, read_settings
from st_modules.checkpoints.fields import Kind, check_fields
from st_modules.checkpoints.guard import check_folder
from st_modules.checkpoints.locate import ADAPTER_CONFIG
from st_modules.checkpoints.shapes import read_shapes
from st_modules.checkpoints.weights import cast_parameters, load_pretrained, refuse_misfits, stored_dtype
from st_modules.errors import CheckpointError

_PLAIN = frozenset({True, False, "gaussian", "orthogonal", "eva", "mica"})
_FIRST_WEIGHTS = {
    "init_lora_weights": Kind(
        f"one of {', '.join(map(repr, sorted(_PLAIN, key=str)))}, by which the base stays as it is (save the model "
        "with save_pretrained, or the adapter with PEFT's path_initial_model_for_weight_conversion),",
        lambda value: isinstance(value, bool | str) and value in _PLAIN,
    )
}
"""How weights were made that the file has: others would take them out of the base's, by hours of work if they like."""


def load_adapted(
    model_class: type[PreTrainedModel], base: Path, adapter: Path, *, dtype: torch.dtype | str, **kwargs: Any
) -> PreTrainedModel:
    """Load a base model and merge an adapter into it.

    Args:
        model_class: Class of the base model, head included.
        base: Folder of the base model.
        adapter: Folder of the adapter.
        dtype: Precision of the result. The merge itself is computed in float32, from the weights as they are stored.
        **kwargs: Passed to :func:`st_modules.checkpoints.weights.load_pretrained`.

    Raises:
        CheckpointError: A weight of either folder is missing or has no place, or the base's weights are quantised.
    """
    stored = stored_dtype(base)
    wanted = getattr(torch, dtype) if isinstance(dtype, str) and dtype != "auto" else dtype
    if kwargs.get("quantization_config"):
        raise CheckpointError(
            f"{adapter}: an adapter cannot be merged into quantised weights. Load it without quantisation, save the "
            "model with save_pretrained, and quantise that."
        )
    model = load_pretrained(model_class, base, dtype=stored, **kwargs)
    merge_adapter_files(
        cast(PreTrainedModel, model.base_model),
        adapter,
        stored if wanted == "auto" else wanted,
        kwargs.get("key_mapping") or {},
    )
    return model


def merge_adapter_files(model: PreTrainedModel, folder: Path, dtype: torch.dtype, names: Mapping[str, str]) -> None:
    """Add an adapter to the weights of the layers that it was trained for, and cast the model, in place.

    The layers are found by the names in the adapter's file, whichever of the published layouts those follow.

    Args:
        model: The base model, without a head.
        folder: Folder with ``adapter_config.json`` and the adapter's weights.
        dtype: Precision of the result.
        names: Names of layers in published files, as expressions, and what stands in their place in the model.

    Raises:
        CheckpointError: The adapter is of another kind than LoRA, a tensor of it has no place in the model, or a layer
            lacks one.
    """
    config, weights = read_adapter(folder)
    state = _named_for(model, {_rename(name, names): tensor for name, tensor in weights.items()}, folder)
    if config.bias != "none" or config.modules_to_save:
        raise CheckpointError(
            f"{folder}: bias={config.bias!r}, modules_to_save={config.modules_to_save}: an adapter that replaces whole "
            "weights cannot be merged."
        )
    # Those that have weights; PEFT would leave some of them out by the other settings.
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    config.target_modules = sorted({name.partition(".lora_")[0] for name in state})
    config.rank_pattern = _own_names(config.rank_pattern, names)
    config.alpha_pattern = _own_names(config.alpha_pattern, names)
    try:
        tuner = LoraModel(model, {"default": config}, "default")
        layers = [module for module in model.modules() if isinstance(module, LoraLayer)]
        for layer in layers:
            for name in layer.adapter_layer_names:
                getattr(layer, name).float()
        outcome = set_peft_model_state_dict(model, state)
        missing = {name for name in outcome.missing_keys if ".lora_" in name}
        refuse_misfits(folder, missing=missing, unexpected=set(outcome.unexpected_keys), misshapen=set())
        for layer in layers:
            merge_layer(layer, dtype)
        tuner.unload()
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{folder}: the adapter does not fit the model: {error}") from error
    cast_parameters(model, dtype)
    # PEFT freezes the model that it adapts.
    model.requires_grad_(True)


def read_adapter(folder: Path) -> tuple[LoraConfig, dict[str, Tensor]]:
    """Read the settings and weights of a LoRA adapter, the weights under the names that they have in the file.

    Raises:
        CheckpointError: They are missing or damaged, or of another kind than LoRA.
    """
    config, weights = read_peft_files(folder)
    if not isinstance(config, LoraConfig) or config.peft_type != PeftType.LORA:
        raise CheckpointError(
            f"{folder}: the adapter is of the type {config.peft_type}; only LoRA and DoRA can be merged."
        )
    return config, weights


def read_peft_files(folder: Path, *, beside_base: bool = False) -> tuple[PeftConfig, dict[str, Tensor]]:
    """Read the settings and weights of an adapter of any kind, the weights under the names that the file has.

    Args:
        folder: Folder of the adapter.
        beside_base: Whether it was saved with its base, as that is after the adapter was added to it.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    if folder.is_dir():
        check_folder(folder)
    # Without a file, PEFT would look for the folder's name on the Hub.
    safe, pickled = folder / "adapter_model.safetensors", folder / "adapter_model.bin"
    if not safe.is_file() and not pickled.is_file():
        raise CheckpointError(f"{folder}: the adapter has no adapter_model.safetensors or adapter_model.bin.")
    try:
        read_shapes([safe if safe.is_file() else pickled])
        weights = load_peft_weights(str(folder), device="cpu")
    except Exception as error:
        raise CheckpointError(f"{folder}: the adapter cannot be read ({error}).") from error
    if not isinstance(weights, dict) or not weights:
        raise CheckpointError(f"{folder}: the adapter's file holds no weights.")
    if not all(isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()):
        raise CheckpointError(f"{folder}: the adapter's file holds something else than weights.")
    config = read_settings(folder, weights)
    if isinstance(config, LoraConfig) and not beside_base:
        check_fields(folder / ADAPTER_CONFIG, vars(config), _FIRST_WEIGHTS)
        # Nothing needs to be made of what is read.
        config.init_lora_weights = True
    return config, weights


def name_targets(config: Any, model: nn.Module) -> None:
    """Give the layers that an adapter's settings name in full the names that they have in this model, in place."""
    targets = getattr(config, "target_modules", None)
    if not isinstance(targets, set | list):
        return
    modules = [name for name, _ in model.named_modules()]
    config.target_modules = {
        home for name in targets for home in (_homes(name, modules) if WRAPPERS.match(name) else [name]) or [name]
    }


def merge_layer(layer: Any, dtype: torch.dtype) -> None:
    """Add an adapter to the linear layer below it, computed in float32 and stored as ``dtype``."""
    linear = layer.get_base_layer()
    linear.float()
    layer.merge(safe_merge=True)
    linear.to(dtype)


def _named_for(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> dict[str, Tensor]:
    """Give an adapter's weights the names that they have in this model."""
    modules = [name for name, _ in model.named_modules()]
    state: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        match = ADAPTER_WEIGHT.fullmatch(name)
        homes = _homes(match["module"], modules) if match else []
        if match is None or len(homes) != 1:
            raise CheckpointError(f"{folder}: the adapter's tensor {name} has no place in {type(model).__name__}.")
        place = f"{homes[0]}.{match['kind']}{match['end'] or ''}"
        if place in state:
            raise CheckpointError(f"{folder}: the adapter's tensor {name} has the place of another.")
        state[place] = tensor.float()
    return state


def _rename(name: str, names: Mapping[str, str]) -> str:
    """Return the name that a layer, or a weight of it, has in the model and not in published files."""
    name = name.removeprefix(PREFIX)
    for published, own in names.items():
        name = re.sub(published, own, name)
    return name


def _own_names(patterns: Mapping[str, int] | None, names: Mapping[str, str]) -> dict[str, int]:
    return {WRAPPERS.sub("", _rename(name, names)): value for name, value in (patterns or {}).items()}


def _homes(name: str, modules: Iterable[str]) -> list[str]:
    own = WRAPPERS.sub("", name)
    return [module for module in modules if module == own or module.endswith(f".{own}")]
