"""How an attention function of this package gets into transformers' models, and what such functions are made of.

transformers looks a model's attention function up by its name, and hands it every keyword that the model was called
with: that is how what a batch needs reaches the layers, with none of them written again. Which function a model has is
told by a private name of its configuration, which is read here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

KeysAndValues: TypeAlias = tuple[Tensor, Tensor]
"""The keys and the values of one layer, each of shape (rows, heads, tokens, head dimension)."""

_STOCK = "sdpa"
stock_attention: Callable[..., tuple[Tensor, Tensor | None]] = AttentionInterface()[_STOCK]
"""transformers' own function, which serves every call that brings nothing of this package."""


def register_attention(name: str, function: Callable[..., tuple[Tensor, Tensor | None]]) -> None:
    """Give transformers an attention function by a name; masks are made as for the stock one."""
    AttentionInterface.register(name, function)
    AttentionMaskInterface.register(name, AttentionMaskInterface()[_STOCK])


def attention_of(config: Any) -> str:
    """Return the name of the attention function that a configuration says."""
    return config._attn_implementation


def attends_by(model: Any, name: str = _STOCK) -> bool:
    """Whether a model's attention function is the one of this name; the stock one where none is named."""
    return attention_of(model.config) == name


def replace_attention(model: Any, name: str) -> None:
    """Have a model attend by the function that was registered under a name."""
    model.set_attn_implementation(name)


def split_heads(projected: Tensor, head_dim: int) -> Tensor:
    """Reshape (rows, tokens, width) to (rows, heads, tokens, head dimension)."""
    return projected.unflatten(-1, (-1, head_dim)).transpose(1, 2)


def rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate vectors by the angles of their positions, the halves of each being the coordinates that turn together.

    Rotary positions as LLaMA has them (Su et al. 2021, arXiv:2104.09864).

    Args:
        vectors: Shape (..., head dimension).
        cos: Cosines of the angles, of a shape that broadcasts to that of ``vectors``.
        sin: Their sines.
    """
    first, second = vectors.chunk(2, dim=-1)
    return vectors * cos + torch.cat([-second, first], dim=-1) * sin
