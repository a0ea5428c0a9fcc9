"""The last layer of an encoder for its pooled tokens alone.

An embedding is the last hidden state of one token of a row. The last layer then needs the keys and values of all
tokens, but queries and the rest of its work for that one. They reach the stock layer as an attention function of
transformers' ``AttentionInterface``; a call without :class:`PooledTokens` is transformers' own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from st_modules.backbones.attention import (
    KeysAndValues,
    attends_by,
    register_attention,
    replace_attention,
    stock_attention,
)

PRUNED_ATTENTION = "st_modules_pruned"

Projection: TypeAlias = Callable[[Any, Tensor], KeysAndValues]


@dataclass(frozen=True)
class PooledTokens:
    """What the last layer is asked for.

    Attributes:
        places: Of each row's pooled token: shape (rows,), int64.
        all_tokens: In the last layer, the keys and values of all tokens, of shape (rows, heads, tokens, head
            dimension).
    """

    places: Tensor
    all_tokens: KeysAndValues | None = None


def allow_pruning(model: Any, last_layer: nn.Module, project: Projection) -> None:
    """Let an encoder take ``pooled``, a :class:`PooledTokens`, where its attention is transformers' default.

    The last hidden states of a row are then the pooled token's, at every place.

    Args:
        model: The encoder; its attention function becomes the one of this module.
        last_layer: Its last layer, which is called with hidden states and the mask.
        project: From the last layer and its input to the keys and values of all tokens.
    """
    if attends_by(model):
        replace_attention(model, PRUNED_ATTENTION)
        last_layer.register_forward_pre_hook(partial(_keep_pooled, project), with_kwargs=True)
        last_layer.register_forward_hook(_spread, with_kwargs=True)


def pooling_arguments(model: Any, places: Tensor) -> dict[str, PooledTokens]:
    """Return what a call of the encoder is to be given so that its last layer runs for these tokens alone."""
    return {"pooled": PooledTokens(places)} if attends_by(model, PRUNED_ATTENTION) else {}


def _keep_pooled(project: Projection, layer: Any, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]] | None:
    pooled = kwargs.get("pooled")
    if pooled is None:
        return None
    hidden, mask, *others = args
    rows, places = torch.arange(len(hidden), device=hidden.device), pooled.places
    if mask is not None:
        mask = mask.expand(-1, -1, hidden.shape[1], -1)[rows, :, places].unsqueeze(2)
    pooled = replace(pooled, all_tokens=project(layer, hidden))
    return (hidden[rows, places].unsqueeze(1), mask, *others), {**kwargs, "pooled": pooled}


def _spread(layer: Any, args: Any, kwargs: Any, output: Tensor) -> Tensor | None:
    pooled = kwargs.get("pooled")
    return None if pooled is None else output.expand(-1, pooled.all_tokens[0].shape[2], -1)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    pooled: PooledTokens | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    key, value = pooled.all_tokens if pooled and pooled.all_tokens else (key, value)
    return stock_attention(module, query, key, value, attention_mask, **kwargs)


register_attention(PRUNED_ATTENTION, _attend)
