"""LoRA and DoRA adapters on the language model: put in, saved, loaded, merged; and what else of a model is trained."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentence_transformers
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from pydantic import Field, StrictBool
from pydantic.dataclasses import dataclass
from torch import nn
from transformers import PreTrainedModel

from st_modules.backbones.base import Backbone, find_backbone
from st_modules.checkpoints.adapter_files import name_weights, read_adapters, write_adapter
from st_modules.checkpoints.adapters import (
    Adapters,
    active_adapters,
    adapted_part,
    collect_adapters,
    fill_adapter,
    find_wrappers,
    has_adapters,
    inject_adapter,
    install_adapter,
    unload_adapters,
    unwrap,
)
from st_modules.checkpoints.lora import merge_layer, read_adapter
from st_modules.errors import CheckpointError
from st_modules.train.validation import STRICT, Count, NonNegative

_NAME = "default"
"""What PEFT calls an adapter that is given no name."""

_NO_ADAPTER = "The model has no adapter: add_lora or load_adapter puts one in."


@dataclass(frozen=True, config=STRICT)
class LoraSettings:
    """What is adapted, and how much.

    Attributes:
        rank: Rank of the update of each layer.
        alpha: The update is scaled by ``alpha / rank``.
        dropout: Part of each layer's inputs that its update does not see in training.
        dora: DoRA (Liu et al. 2024, arXiv:2402.09353): magnitude and direction of the weights apart.
        vision: Whether the vision tower is adapted too; otherwise it is frozen.
        layers: Last parts of the names of the linear layers, such as ``q_proj``; all linear layers where it is empty.
    """

    rank: Count = 16
    alpha: Count = 32
    dropout: NonNegative = Field(default=0.0, le=1)
    dora: StrictBool = False
    vision: StrictBool = False
    layers: tuple[str, ...] = ()


def add_lora(model: sentence_transformers.SentenceTransformer, settings: LoraSettings | None = None) -> None:
    """Put a new adapter into a model, in place; everything else of the model is frozen.

    The adapter's weights are float32, whatever the model's precision: the steps of an optimiser are lost in bfloat16.

    Args:
        model: A model of the catalog.
        settings: What is adapted, and how much.

    Raises:
        ValueError: The model has an adapter, is not of the catalog, or has no layer of a name in ``settings.layers``.
    """
    settings = settings or LoraSettings()
    backbone = backbone_of(model)
    _prepare(backbone)
    config = lora_config(backbone, settings)
    config.base_model_name_or_path = model.model_card_data.base_model
    name, part = _main_part(backbone)
    targets, prefix = sorted(config.target_modules or ()), f"{name}." if name else ""
    if all(target.startswith(prefix) for target in targets):
        config.target_modules = [target.removeprefix(prefix) for target in targets]
    else:
        part = backbone.model
    inject_adapter(part, _NAME, config)
    # The card of the model as it was holds no more.
    model.model_card_data.add_tags("generated_from_trainer")
    for name, parameter in part.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()


def lora_config(backbone: Backbone, settings: LoraSettings) -> LoraConfig:
    """Return PEFT's settings of an adapter for a backbone.

    Raises:
        ValueError: No layer has a name in ``settings.layers``.
    """
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_dora=settings.dora,
        target_modules=_targets(backbone, settings),
    )


def has_adapter(model: sentence_transformers.SentenceTransformer) -> bool:
    """Whether a model has an adapter that is not merged."""
    return has_adapters(model)


def save_adapter(model: sentence_transformers.SentenceTransformer, folder: str | Path) -> None:
    """Write a model's active adapter, and nothing else of the model, in PEFT's format.

    Args:
        model: A model with an adapter, whether :func:`add_lora` or sentence-transformers' ``add_adapter`` put it in.
        folder: Gets ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        ValueError: The model has no adapter, several are active, it could not be saved as it is, or the folder has a
            model.
    """
    if (Path(folder) / "config.json").is_file():
        raise ValueError(f"{folder}: it has a model. Save the adapter to a folder of its own.")
    adapters = _require_adapters(model)
    if len(adapters.active) != 1:
        raise ValueError(
            f"active adapters {list(adapters.active)}: one is saved. Choose it with set_adapter, or save the whole "
            "model with save_pretrained."
        )
    write_adapter(adapters.by_name[adapters.active[0]], Path(folder))


def load_adapter(
    model: sentence_transformers.SentenceTransformer, folder: str | Path, *, trainable: bool = False
) -> None:
    """Put a saved adapter into the model that it was trained on, in place, without merging it.

    Args:
        model: The model as it was before training.
        folder: What :func:`save_adapter` wrote.
        trainable: Whether training goes on with the adapter; it is frozen otherwise.

    Raises:
        CheckpointError: The adapter cannot be read, or does not fit the model.
        ValueError: The model has an adapter already.
    """
    backbone, folder = backbone_of(model), Path(folder)
    _prepare(backbone)
    adapter = name_weights(*read_adapter(folder))
    adapter.config.inference_mode = not trainable
    install_adapter(_part_with(backbone, adapter.weights), _NAME, adapter, folder)
    model.model_card_data.add_tags("generated_from_trainer")


def restore_adapters(model: sentence_transformers.SentenceTransformer, folder: str | Path) -> None:
    """Give a model's adapters the weights of saved ones.

    Raises:
        CheckpointError: The saved adapters cannot be read, or are others.
        ValueError: The model has no adapter.
    """
    folder = Path(folder)
    present, saved = _require_adapters(model), read_adapters(folder)
    if saved is None or saved.by_name.keys() != present.by_name.keys() or saved.module != present.module:
        found = "no adapters" if saved is None else f"the adapters {list(saved.by_name)}"
        raise CheckpointError(f"{folder}: it holds {found}, and the model has {list(present.by_name)}.")
    _, part = adapted_part(backbone_of(model).model)
    for name, adapter in saved.by_name.items():
        fill_adapter(part, name, adapter.weights, folder)


def merge_adapter(model: sentence_transformers.SentenceTransformer) -> None:
    """Add a model's adapters to the weights that they adapt, in place.

    The sums are computed in float32 and stored in the model's precision.

    Args:
        model: A model with an adapter, or with several that are all active.

    Raises:
        ValueError: The model has no adapter, or one that is not active or not enabled.
    """
    backbone = backbone_of(model)
    if not has_adapter(model):
        raise ValueError(_NO_ADAPTER)
    backbone.model = unwrap(backbone.model)
    _, part = adapted_part(backbone.model)
    present: Any = part.peft_config
    active, enabled = active_adapters(part)
    if not enabled or set(active) != set(present):
        raise ValueError(
            f"adapters {sorted(present)}: of them, {active if enabled else 'none'} change the model. Take the others "
            "out with delete_adapter, or activate them with set_adapter and enable_adapters."
        )
    for wrapper in find_wrappers(part):
        if isinstance(wrapper, BaseTunerLayer):
            linear: Any = wrapper.get_base_layer()
            merge_layer(wrapper, linear.weight.dtype)
        elif isinstance(wrapper, ModulesToSaveWrapper) and wrapper.active_adapters:
            wrapper.original_module = wrapper.modules_to_save[wrapper.active_adapters[0]]
    unload_adapters(part)
    model.requires_grad_(True)


def freeze_vision(model: sentence_transformers.SentenceTransformer) -> None:
    """Freeze the vision tower, for training that changes the other weights themselves.

    Raises:
        ValueError: The model is not of the catalog.
    """
    backbone = backbone_of(model)
    backbone.model.get_submodule(backbone.towers.vision).requires_grad_(False)


def checkpoint_activations(model: sentence_transformers.SentenceTransformer) -> None:
    """Keep only the inputs of each layer for the backward pass, and compute the rest again: less memory, more time.

    Use it in the place of the ``activation_checkpointing`` of training arguments, which transformers 5 hands to
    sentence-transformers' models by a method that both have deprecated. The vision tower of Visualized-BGE is left
    out, which is frozen by default.

    Raises:
        ValueError: The model is not of the catalog.
    """
    for module in backbone_of(model).model.modules():
        if isinstance(module, PreTrainedModel):
            module.activation_checkpointing_enable({"use_reentrant": False})
            return


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Return how many parameters are trained, and how many there are."""
    parameters = list(model.parameters())
    return sum(each.numel() for each in parameters if each.requires_grad), sum(each.numel() for each in parameters)


def backbone_of(model: sentence_transformers.SentenceTransformer) -> Backbone:
    """Return the backbone of a model of the catalog.

    Raises:
        ValueError: It is another model.
    """
    backbone = find_backbone(model)
    if backbone is None:
        raise ValueError(f"{type(model[0]).__name__}: not a model of the catalog; `st-modules list` shows those.")
    return backbone


def _require_adapters(model: sentence_transformers.SentenceTransformer) -> Adapters:
    if adapters := collect_adapters(backbone_of(model).model):
        return adapters
    raise ValueError(_NO_ADAPTER)


def _prepare(backbone: Backbone) -> None:
    """Freeze a model for an adapter, which is its only one."""
    if has_adapters(backbone):
        raise ValueError("The model has an adapter already: merge_adapter adds it to the weights.")
    # delete_adapter leaves empty ones around the layers.
    unload_adapters(backbone)
    backbone.requires_grad_(False)


def _main_part(backbone: Backbone) -> tuple[str, nn.Module]:
    """Return the part of a model to which sentence-transformers' ``add_adapter`` adds adapters, and its name."""
    return next((name, part) for name, part in backbone.model.named_modules() if isinstance(part, PreTrainedModel))


def _part_with(backbone: Backbone, names: Iterable[str]) -> nn.Module:
    """Return what has weights of these names: the main part, or the whole model."""
    parts = tuple(f"{name}." for name, _ in backbone.model.named_children())
    name, part = _main_part(backbone)
    return backbone.model if name and any(each.startswith(parts) for each in names) else part


def _targets(backbone: Backbone, settings: LoraSettings) -> list[str]:
    """Names of the linear layers that are adapted."""
    towers = backbone.towers
    roots = (towers.language, towers.vision) if settings.vision else (towers.language,)
    names = [
        f"{root}.{name}"
        for root in roots
        for name, module in backbone.model.get_submodule(root).named_modules()
        if isinstance(module, nn.Linear)
    ]
    known = {name.rpartition(".")[2] for name in names}
    if unknown := sorted(set(settings.layers) - known):
        raise ValueError(f"layers {unknown}: no linear layer has this name. There are {sorted(known)}.")
    return [name for name in names if not settings.layers or name.rpartition(".")[2] in settings.layers]
