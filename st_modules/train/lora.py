"""LoRA and DoRA adapters on the language model: put in, saved, loaded, merged; and what else of a model is trained."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentence_transformers
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from pydantic import Field, StrictBool
from pydantic.dataclasses import dataclass
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from st_modules.backbones.base import Backbone, find_backbone
from st_modules.checkpoints.lora import merge_layer, read_adapter
from st_modules.checkpoints.weights import refuse_other_weights
from st_modules.errors import CheckpointError
from st_modules.train.validation import STRICT, Count, NonNegative

_PREFIX = "base_model.model."
"""What PEFT writes before the names of an adapter's weights."""


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
    _refuse_second(backbone)
    config = lora_config(backbone, settings)
    config.base_model_name_or_path = model.model_card_data.base_model
    _inject(model, config)


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
    return any(isinstance(module, LoraLayer) for module in model.modules())


def save_adapter(model: sentence_transformers.SentenceTransformer, folder: str | Path) -> None:
    """Write a model's adapter, and nothing else of the model, in PEFT's format.

    Args:
        model: A model with an adapter.
        folder: Gets ``adapter_config.json`` and ``adapter_model.safetensors``.

    Raises:
        ValueError: The model has no adapter.
    """
    backbone = _require_adapter(model)
    Path(folder).mkdir(parents=True, exist_ok=True)
    config = copy.copy(backbone.model.peft_config["default"])
    config.inference_mode = True
    config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    weights = {_PREFIX + name: tensor.detach().cpu().contiguous() for name, tensor in _adapter_state(backbone).items()}
    save_file(weights, Path(folder) / "adapter_model.safetensors", metadata={"format": "pt"})


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
    _refuse_second(backbone)
    config, weights = read_adapter(folder)
    config.inference_mode = not trainable
    try:
        _inject(model, config)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{folder}: the adapter does not fit the model: {error}") from error
    _fill(backbone, weights, folder)
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(trainable and "lora_" in name)


def restore_adapter(model: sentence_transformers.SentenceTransformer, folder: str | Path) -> None:
    """Give a model's adapter the weights of a saved one.

    Raises:
        CheckpointError: The saved adapter cannot be read, or is of other layers.
        ValueError: The model has no adapter.
    """
    _, weights = read_adapter(Path(folder))
    _fill(_require_adapter(model), weights, Path(folder))


def merge_adapter(model: sentence_transformers.SentenceTransformer) -> None:
    """Add a model's adapter to the weights that it adapts, in place; ``save_pretrained`` then writes a whole model.

    The sums are computed in float32 and stored in the model's precision.

    Args:
        model: A model with an adapter.

    Raises:
        ValueError: The model has no adapter.
    """
    backbone = _require_adapter(model)
    adapted = [(name, module) for name, module in backbone.model.named_modules() if isinstance(module, LoraLayer)]
    for name, layer in adapted:
        linear: Any = layer.get_base_layer()
        merge_layer(layer, linear.weight.dtype)
        backbone.model.set_submodule(name, linear)
    del backbone.model.peft_config
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


def _require_adapter(model: sentence_transformers.SentenceTransformer) -> Backbone:
    if not has_adapter(model):
        raise ValueError("The model has no adapter: add_lora or load_adapter puts one in.")
    return backbone_of(model)


def _refuse_second(backbone: Backbone) -> None:
    if any(isinstance(module, LoraLayer) for module in backbone.modules()):
        raise ValueError("The model has an adapter already: merge_adapter adds it to the weights.")


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


def _inject(model: sentence_transformers.SentenceTransformer, config: LoraConfig) -> None:
    backbone = backbone_of(model)
    inject_adapter_in_model(config, backbone.model)
    model.model_card_data.add_tags("generated_from_trainer")  # the card of the model as it was holds no more
    for name, parameter in backbone.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
    model.train(model.training)


def _adapter_state(backbone: Backbone) -> dict[str, Tensor]:
    return get_peft_model_state_dict(backbone.model, save_embedding_layers=False)


def _fill(backbone: Backbone, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Load the weights of an adapter, each into its own place and no other."""
    found = {name.removeprefix(_PREFIX): tensor for name, tensor in weights.items()}
    refuse_other_weights(folder, found, _adapter_state(backbone))
    set_peft_model_state_dict(backbone.model, found)
