"""The matrix products that items need by themselves, without padding: two operations a weight and token.

What is shared or avoided is counted all the same, so that a fast way may show more than the machine's peak.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from st_modules.backbones.rows import Row


def qwen2_vl(reference: Any, rows: Sequence[Row]) -> int:
    """Return the operations of rows for stock Qwen2-VL or Qwen3-VL, with at most one image in a row."""
    model = reference.model
    return sum(_qwen2_vl_row(model, len(row.ids), row.ids.count(model.config.image_token_id)) for row in rows)


def _qwen2_vl_row(model: Any, tokens: int, image_tokens: int) -> int:
    vision, config = model.visual, model.config.vision_config
    patches = image_tokens * config.spatial_merge_size**2
    # Qwen3-VL has mergers for what its tower sees on its way.
    mergers = [vision.merger, *getattr(vision, "deepstack_merger_list", ())]
    tower = patches * (_weights(vision.patch_embed) + _weights(vision.blocks)) + image_tokens * sum(
        map(_weights, mergers)
    )
    width = config.hidden_size if hasattr(vision, "deepstack_merger_list") else config.embed_dim
    tower_attention = len(vision.blocks) * _attention(width, patches)
    return 2 * tower + tower_attention + _decoder(model.language_model, tokens)


def llava_next(reference: Any, rows: Sequence[Row]) -> int:
    """Return the operations of rows for a stock ``LlavaNextModel`` whose images all have four tiles and an overview."""
    model = reference.model
    vision = model.config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    # The tower's vectors are taken before its last layers.
    layers = model.vision_tower.encoder.layers[: model.config.vision_feature_layer + 1]
    tower = _clip_tower(model.vision_tower.embeddings.patch_embedding, layers, vision.hidden_size, patches)
    image = 5 * (tower + 2 * patches * _weights(model.multi_modal_projector))
    return sum(len(row.visuals) * image + _decoder(model.language_model, len(row.ids)) for row in rows)


def clip(reference: Any, rows: Sequence[Row]) -> int:
    """Return the operations of rows for a stock ``CLIPModel``."""
    model = reference.model
    text, vision = model.text_model, model.vision_model
    patches = vision.embeddings.num_patches
    width = model.config.vision_config.hidden_size
    image = _clip_tower(vision.embeddings.patch_embedding, vision.encoder.layers, width, patches)
    image += 2 * _weights(model.visual_projection)
    layers, width = text.encoder.layers, model.config.text_config.hidden_size
    return sum(
        len(row.visuals) * image
        + 2 * len(row.ids) * _weights(layers)
        + len(layers) * _causal_attention(width, len(row.ids))
        + 2 * bool(row.ids) * _weights(model.text_projection)
        for row in rows
    )


def _clip_tower(patch_embedding: nn.Module, layers: nn.ModuleList, width: int, patches: int) -> int:
    tokens = patches + 1
    linear = patches * _weights(patch_embedding) + tokens * _weights(layers)
    return 2 * linear + len(layers) * _attention(width, tokens)


def visualized_bge(reference: Any, rows: Sequence[Row]) -> int:
    """Return the operations of rows for a ``VisualizedBGEReference``."""
    encoder, tower = reference.model.encoder, reference.tower
    width = tower["cls_token"].shape[-1]
    patches = tower["pos_embed"].shape[1] - 1
    blocks = {name: weight for name, weight in tower.items() if name.startswith("blocks.") and ".rope." not in name}
    layers = len({name.split(".")[1] for name in blocks})
    linear = patches * (tower["patch_embed.proj.weight"].numel() + reference.projection[0].numel())
    linear += (patches + 1) * sum(weight.numel() for weight in blocks.values() if weight.ndim > 1)
    image = 2 * linear + layers * _attention(width, patches + 1)
    return sum(
        len(row.visuals) * image
        + 2 * len(row.ids) * _weights(encoder)
        + len(encoder.layer) * _attention(reference.model.config.hidden_size, len(row.ids))
        for row in rows
    )


def _decoder(model: Any, tokens: int) -> int:
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = _causal_attention(config.num_attention_heads * head_dim, tokens)
    return 2 * tokens * _weights(model.layers) + len(model.layers) * attention


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.ndim > 1)


def _attention(width: int, tokens: int) -> int:
    return 4 * width * tokens**2


def _causal_attention(width: int, tokens: int) -> int:
    return 2 * width * tokens * (tokens + 1)
