"""EVA-02's vision transformer as functions of a published file's weights, for which transformers has no class."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn.functional import conv2d, layer_norm, linear, scaled_dot_product_attention, silu

_EPSILON = 1e-6


def patches(weights: Mapping[str, Tensor], pixels: Tensor) -> Tensor:
    """Return the vectors of an image's patches after the last block.

    Args:
        weights: Under their published names.
        pixels: Normalised images of shape (images, 3, side, side).

    Returns:
        Vectors of shape (images, patches, width).
    """
    kernel = weights["patch_embed.proj.weight"]
    hidden = conv2d(pixels, kernel, weights["patch_embed.proj.bias"], stride=kernel.shape[-1]).flatten(2).mT
    hidden = torch.cat([weights["cls_token"].expand(len(pixels), -1, -1), hidden], dim=1) + weights["pos_embed"]
    for number in range(1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))):
        prefix = f"blocks.{number}."
        block = {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}
        hidden = hidden + _attention(block, _normalise(block, "norm1", hidden))
        hidden = hidden + _feed_forward(block, _normalise(block, "norm2", hidden))
    return hidden[:, 1:]


def _attention(block: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    cos, sin = block["attn.rope.freqs_cos"], block["attn.rope.freqs_sin"]
    biases = {"q": block["attn.q_bias"], "k": None, "v": block["attn.v_bias"]}
    query, key, value = (
        linear(hidden, block[f"attn.{name}_proj.weight"], bias).unflatten(-1, (-1, cos.shape[1])).transpose(1, 2)
        for name, bias in biases.items()
    )
    attended = scaled_dot_product_attention(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
    joined = _normalise(block, "attn.inner_attn_ln", attended.transpose(1, 2).flatten(2))
    return linear(joined, block["attn.proj.weight"], block["attn.proj.bias"])


def _rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    own, turned = vectors[:, :, :1], vectors[:, :, 1:]
    even, odd = turned[..., ::2], turned[..., 1::2]
    partner = torch.stack([-odd, even], dim=-1).flatten(-2)
    return torch.cat([own, turned * cos + partner * sin], dim=2)


def _feed_forward(block: Mapping[str, Tensor], hidden: Tensor) -> Tensor:
    gate, value = (linear(hidden, block[f"mlp.{name}.weight"], block[f"mlp.{name}.bias"]) for name in ("w1", "w2"))
    return linear(_normalise(block, "mlp.ffn_ln", silu(gate) * value), block["mlp.w3.weight"], block["mlp.w3.bias"])


def _normalise(block: Mapping[str, Tensor], name: str, hidden: Tensor) -> Tensor:
    weight = block[f"{name}.weight"]
    return layer_norm(hidden, weight.shape, weight, block[f"{name}.bias"], _EPSILON)
