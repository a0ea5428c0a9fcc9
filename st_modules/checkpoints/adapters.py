"""Adapters that are not merged, as PEFT puts them around a model's layers: taken out, and put into a model again."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from peft import LoraConfig, PeftConfig, PeftModel, PeftType, get_peft_model_state_dict, inject_adapter_in_model
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer, set_adapter
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from st_modules.checkpoints.adapter_settings import is_name
from st_modules.checkpoints.weights import list_some, refuse_other_weights
from st_modules.errors import CheckpointError

_WRAPPERS = (BaseTunerLayer, AuxiliaryTrainingWrapper)
"""What PEFT puts in the place of a layer: that of a low-rank update, and that of a layer which is trained whole."""


@dataclass(frozen=True)
class Adapter:
    """One adapter.

    Attributes:
        config: PEFT's settings.
        weights: Its weights, under the names that PEFT's files have, without their prefix.
    """

    config: PeftConfig
    weights: Mapping[str, Tensor]


@dataclass(frozen=True)
class Adapters:
    """All adapters of a model.

    Attributes:
        module: Name of the part of the model that they were added to; empty where it is the model itself.
        by_name: The adapters; the first one that is active comes first.
        active: Names of those that are active.
        enabled: Whether those that are active change what the model computes.
    """

    module: str
    by_name: Mapping[str, Adapter]
    active: Sequence[str]
    enabled: bool


def has_adapters(model: nn.Module) -> bool:
    """Whether a model has an adapter that is not merged."""
    return bool(_find_adapted(unwrap(model)))


def adapted_part(model: nn.Module) -> tuple[str, nn.Module]:
    """Return the part of a model that has adapters, and its name.

    Raises:
        ValueError: No part has any, or several have.
    """
    found = _find_adapted(unwrap(model))
    if len(found) != 1:
        raise ValueError(
            f"{len(found)} parts of the model have adapters ({[name for name, _ in found]}), and one is needed: "
            "delete_adapter takes an adapter out."
        )
    return found[0]


def collect_adapters(model: nn.Module) -> Adapters | None:
    """Take the adapters out of a model, which stays as it is.

    Args:
        model: The model, or PEFT's wrapper around it.

    Returns:
        The adapters, whose weights share their memory with the model's; ``None`` where it has none.

    Raises:
        ValueError: They are in a state that could not be put into another model: merged for the time being, active or
            scaled in some layers only, or of a kind that keeps something elsewhere.
    """
    model = unwrap(model)
    wrappers = find_wrappers(model)
    if not _find_adapted(model):
        if left := sorted(set().union(*map(_names_in, wrappers))):
            raise ValueError(f"adapters {left}: the model does not say their settings. Put them in by add_adapter.")
        return None
    name, part = adapted_part(model)
    configs: Any = part.peft_config
    _refuse_shared(configs)
    active, enabled = active_adapters(model)
    order = sorted(configs, key=lambda each: each not in active[:1])
    adapters = Adapters(
        module=name,
        by_name={each: Adapter(_name_layers(part, each), adapter_weights(part, each)) for each in order},
        active=active,
        enabled=enabled,
    )
    if any(isinstance(getattr(wrapper, "base_layer", None), _WRAPPERS) for wrapper in wrappers):
        raise ValueError(
            f"adapters {list(configs)}: different kinds on the same layers, which the files of PEFT cannot say. Make "
            "one last with st_modules.train.merge_adapter before the other is added."
        )
    _refuse_scaled(wrappers, configs)
    _refuse_leftovers(model, adapters)
    return adapters


def active_adapters(model: nn.Module) -> tuple[list[str], bool]:
    """Return which adapters of a model are active, and whether they are enabled.

    Raises:
        ValueError: Not the same ones are in all layers, they are merged for the time being, or layers are repeated.
    """
    model = unwrap(model)
    configs = [config for _, part in _find_adapted(model) for config in part.__dict__["peft_config"].values()]
    if any(getattr(config, "layer_replication", None) for config in configs):
        raise ValueError("layer_replication: layers that repeat others share their weights. Use adapters without it.")
    wrappers = find_wrappers(model)
    if any(isinstance(wrapper, BaseTunerLayer) and wrapper.merged for wrapper in wrappers):
        raise ValueError(
            "Adapters are merged for the time being: call unmerge() of the layers or of PEFT's model, or make it last "
            "with st_modules.train.merge_adapter."
        )
    active = max((list(wrapper.active_adapters) for wrapper in wrappers), key=len)
    enabled = {not wrapper.disable_adapters for wrapper in wrappers}
    if len(enabled) > 1 or any(
        [name for name in active if name in _names_in(wrapper)]
        != [name for name in wrapper.active_adapters if name in _names_in(wrapper)]
        for wrapper in wrappers
    ):
        raise ValueError(
            "Adapters are active in some layers and not in others: call set_adapter with the names of those that are "
            "to be active. Layers of modules_to_save stay disabled after enable_adapters; there, set _disable_adapters."
        )
    return active, enabled.pop()


def find_wrappers(model: nn.Module) -> list[Any]:
    """Return what PEFT put around a model's layers."""
    return [module for module in model.modules() if isinstance(module, _WRAPPERS)]


def adapter_weights(part: nn.Module, name: str) -> dict[str, Tensor]:
    """Return the weights of an adapter of a part, by the names that they have in PEFT's files, without their prefix."""
    # The base's weights are kept beside the adapter, its embeddings too. PEFT would ask the Hub about those.
    return get_peft_model_state_dict(part, adapter_name=name, save_embedding_layers=False)


def without_adapters(model: nn.Module) -> Any:
    """Return a model as it was before adapters were added; it shares its weights with the one that has them."""
    return _strip(unwrap(model))


def install_adapters(model: nn.Module, adapters: Adapters, source: Path) -> None:
    """Put adapters into a model that has none, in place. Those that are active are trained, and nothing else.

    Args:
        model: A model like :func:`without_adapters` of that which the adapters were taken from.
        adapters: What :func:`collect_adapters` returned.
        source: Where they come from, for messages.

    Raises:
        CheckpointError: They do not fit the model.
    """
    try:
        part = model.get_submodule(adapters.module)
    except AttributeError as error:
        raise CheckpointError(f"{source}: the model has no part {adapters.module!r} for its adapters.") from error
    model.requires_grad_(False)
    for name, adapter in adapters.by_name.items():
        config = copy.copy(adapter.config)
        config.inference_mode = False
        if isinstance(config, LoraConfig):
            # Others change the weights that are adapted, which has been done to those that were taken along.
            config.init_lora_weights = True
        install_adapter(part, name, Adapter(config, adapter.weights), source)
        if isinstance(config, LoraConfig) and isinstance(adapter.config, LoraConfig):
            config.init_lora_weights = adapter.config.init_lora_weights
    if adapters.active:
        set_adapter(part, list(adapters.active))
    if not adapters.enabled:
        for wrapper in find_wrappers(part):
            wrapper.enable_adapters(False)


def install_adapter(part: nn.Module, name: str, adapter: Adapter, source: Path) -> None:
    """Put one more adapter into a part of a model, in place, and make it the active one.

    Its weights keep the precision that they have; its settings say whether it is trained.

    Raises:
        CheckpointError: It does not fit the model.
    """
    try:
        inject_adapter(part, name, adapter.config)
    except Exception as error:
        raise CheckpointError(f"{source}: the adapter does not fit the model: {error}") from error
    fill_adapter(part, name, adapter.weights, source)


def inject_adapter(part: nn.Module, name: str, config: PeftConfig) -> None:
    """Put a new adapter into a part of a model, in place, and make it the active one."""
    # PEFT warns where there are others already, which are meant here.
    others = part.__dict__.pop("peft_config", {})
    inject_adapter_in_model(config, part, name)
    part.__dict__["peft_config"] = {**others, name: config}
    if isinstance(part, PreTrainedModel):
        # What sentence-transformers' methods for adapters ask, which go to the model.
        part._hf_peft_config_loaded = True
    part.train(part.training)


def fill_adapter(part: nn.Module, name: str, weights: Mapping[str, Tensor], source: Path) -> None:
    """Give an adapter of a part its weights, each into its own place and no other, in the precision that they have.

    Raises:
        CheckpointError: A weight is missing, has no place, or is of another shape.
    """
    places = adapter_weights(part, name)
    refuse_other_weights(source, weights, places)
    parameters = {parameter.data_ptr(): parameter for parameter in part.parameters()}
    for key, place in places.items():
        parameter = parameters.get(place.data_ptr())
        if parameter is None:
            place.copy_(weights[key])
        else:
            parameter.data = weights[key].to(place.device, copy=True)


def unload_adapters(model: nn.Module) -> None:
    """Take the adapters out of a model for good, in place."""
    for part in [*model.modules()]:
        for name, child in part.named_children():
            if isinstance(child, _WRAPPERS):
                part.register_module(name, _inner(child))
    for part in model.modules():
        _forget_adapters(part)


def unwrap(model: nn.Module) -> nn.Module:
    """Return the model in PEFT's wrapper, which has the adapters too; any other model is returned as it is.

    Raises:
        ValueError: The wrapper adds something to the model's inputs.
    """
    if not isinstance(model, PeftModel):
        return model
    if model.active_peft_config.is_prompt_learning:
        raise ValueError(
            f"{model.peft_type}: it adds tokens to the inputs, and these models have no place for them. Use an adapter "
            "of their layers, such as LoRA."
        )
    return model.get_base_model()


def _find_adapted(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(name, part) for name, part in model.named_modules() if part.__dict__.get("peft_config")]


def _inner(wrapper: Any) -> nn.Module:
    return wrapper.get_base_layer() if isinstance(wrapper, BaseTunerLayer) else wrapper.original_module


def _strip(module: nn.Module) -> nn.Module:
    """Return a copy of a module without wrappers below it, which has the same weights; itself where it has none."""
    if isinstance(module, _WRAPPERS):
        return _strip(_inner(module))
    children = {name: child and _strip(child) for name, child in module._modules.items()}
    if all(child is module._modules[name] for name, child in children.items()):
        return module
    stripped = copy.copy(module)
    stripped._modules = children
    _forget_adapters(stripped)
    return stripped


def _forget_adapters(part: nn.Module) -> None:
    # Where transformers loaded an adapter, it left the names there that weights have in the adapter's file.
    for name in ("peft_config", "_weight_conversions"):
        part.__dict__.pop(name, None)
    if isinstance(part, PreTrainedModel):
        part._hf_peft_config_loaded = False


def _name_layers(part: Any, name: str) -> PeftConfig:
    """Return the settings of an adapter with the names of its layers in the place of expressions, which no file has."""
    config: Any = part.peft_config[name]
    wrapped = {
        place: wrapper
        for place, wrapper in part.named_modules()
        if isinstance(wrapper, BaseTunerLayer) and name in _names_in(wrapper)
    }
    patterns = [getattr(config, key, None) or {} for key in ("rank_pattern", "alpha_pattern")]
    chosen = [getattr(config, key, None) for key in ("target_modules", "exclude_modules", "layers_pattern")]
    named = not any(isinstance(each, str) for each in chosen)
    if named and all(is_name(key) for pattern in patterns for key in pattern):
        return config
    config = copy.copy(config)
    config.target_modules = sorted(wrapped)
    for key in ("exclude_modules", "layers_to_transform", "layers_pattern"):
        if hasattr(config, key):
            setattr(config, key, None)
    layers = {place: layer for place, layer in wrapped.items() if isinstance(layer, LoraLayer)}
    if any(patterns) and layers:
        config.rank_pattern = {place: layer.r[name] for place, layer in layers.items()}
        config.alpha_pattern = {place: layer.lora_alpha[name] for place, layer in layers.items()}
    return config


def _names_in(wrapper: Any) -> set[str]:
    return wrapper._get_available_adapters()


def _refuse_shared(configs: Mapping[str, PeftConfig]) -> None:
    """Refuse kinds whose layers share weights, such as VeRA: PEFT puts them into whole models alone."""
    for name, config in configs.items():
        tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(cast(PeftType, config.peft_type))
        if getattr(tuner, "uses_shared_state", False):
            raise ValueError(
                f"adapter {name!r}: layers share weights in its kind, {config.peft_type}, and it cannot be loaded with "
                "the model. Use another kind, or make it last with st_modules.train.merge_adapter."
            )


def _refuse_scaled(wrappers: Sequence[Any], configs: Mapping[str, PeftConfig]) -> None:
    """Refuse adapters whose scale is no longer that of their settings, which is all that a file has."""
    lora = {name: config for name, config in configs.items() if config.peft_type == PeftType.LORA}
    for layer in wrappers:
        for name in lora.keys() & (layer.scaling.keys() if isinstance(layer, LoraLayer) else ()):
            rank = math.sqrt(layer.r[name]) if getattr(lora[name], "use_rslora", False) else layer.r[name]
            if not math.isclose(layer.scaling[name], scale := layer.lora_alpha[name] / rank, rel_tol=1e-6):
                raise ValueError(
                    f"adapter {name!r}: it is scaled by {layer.scaling[name]}, and by {scale} in its settings, which "
                    "are what is saved. Take the scaling back, or make it last with st_modules.train.merge_adapter."
                )


def _refuse_leftovers(model: nn.Module, adapters: Adapters) -> None:
    """Refuse adapters that keep something which is neither among their weights nor among those of the model."""
    known = {tensor.data_ptr() for tensor in _strip(model).state_dict().values()}
    for adapter in adapters.by_name.values():
        known |= {tensor.data_ptr() for tensor in adapter.weights.values()}
    left = {name for name, tensor in model.state_dict().items() if tensor.data_ptr() not in known and tensor.numel()}
    if left:
        kinds = sorted({str(adapter.config.peft_type) for adapter in adapters.by_name.values()})
        raise ValueError(
            f"adapters {list(adapters.by_name)} ({', '.join(kinds)}): PEFT's files leave out {list_some(left)}. Use "
            "another kind, or make them last with st_modules.train.merge_adapter."
        )
