"""Rows of a language model end to end, without padding, after a beginning that they share.

A packed batch is one row of tokens to the model's stock layers; only attention has to know where its rows end. It
reaches the layers as an attention function of transformers' ``AttentionInterface``, which serves every batch that is
not packed with transformers' own function.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import scaled_dot_product_attention

from st_modules.backbones.attention import (
    KeysAndValues,
    attends_by,
    register_attention,
    replace_attention,
    rotate,
    split_heads,
    stock_attention,
)

PACKED_ATTENTION = "st_modules_packed"
_KEPT_PREFIXES = 8


@dataclass(frozen=True)
class Packing:
    """How a batch's rows are laid end to end.

    Attributes:
        lengths: Tokens of each row, without the shared beginning.
        prefix: Token ids of the shared beginning; empty where nothing is shared.
    """

    lengths: list[int]
    prefix: tuple[int, ...]

    @property
    def last(self) -> list[int]:
        """The places of the rows' last tokens."""
        return [end - 1 for end in accumulate(self.lengths)]


@dataclass(frozen=True)
class PackedRows:
    """What the layers have to know of a packed batch.

    Attributes:
        lengths: Tokens of each row, without the shared beginning.
        prefix: For each layer the keys and values of the shared beginning, of shape (1, heads, tokens, head
            dimension); empty where nothing is shared.
        last: Places of the rows' last tokens, where the last layer is to run for those alone.
        all_tokens: In the last layer then, the keys and values of all tokens.
    """

    lengths: list[int]
    prefix: list[KeysAndValues]
    last: list[int] | None = None
    all_tokens: KeysAndValues | None = None

    def groups(self) -> Iterator[tuple[int, int, int, int]]:
        """Return each run of rows of equal length: its first row, its first token, its number of rows, their length."""
        row = token = 0
        for length, run in groupby(self.lengths):
            rows = len(list(run))
            yield row, token, rows, length
            row, token = row + rows, token + rows * length


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    packed: PackedRows | None = None,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Causal attention within each row of a packed batch, and to the beginning that its rows share.

    Args:
        module: The attention layer.
        query: Shape (1, heads, tokens, head dimension).
        key: Shape (1, key heads, tokens, head dimension).
        value: The same shape.
        attention_mask: Not read in a packed batch.
        packed: Where the rows are; without it, this is transformers' own attention.
        **kwargs: What transformers hands to an attention function.

    Returns:
        The attended values of shape (1, tokens, heads, head dimension), and no weights.
    """
    if packed is None:
        return stock_attention(module, query, key, value, attention_mask, **kwargs)
    last_alone = packed.all_tokens is not None
    key, value = packed.all_tokens or (key, value)
    prefix = packed.prefix[cast(int, module.layer_idx)] if packed.prefix else None
    attended = torch.empty_like(query.transpose(1, 2))
    for row, token, rows, length in packed.groups():
        first, count = (row, 1) if last_alone else (token, length)
        queries = _take_rows(query, first, rows, count)
        keys, values = (_take_rows(part, token, rows, length) for part in (key, value))
        if prefix:
            keys, values = (_prepend(shared, own) for shared, own in zip(prefix, (keys, values), strict=True))
            if not last_alone:
                # Zeros stand in for the beginning's queries, so that the mask is the plain causal one of the kernels.
                queries = _prepend(query.new_zeros(1, query.shape[1], *prefix[0].shape[2:]), queries)
        out = scaled_dot_product_attention(
            queries,
            keys,
            values,
            is_causal=not last_alone,
            scale=kwargs.get("scaling"),
            enable_gqa=keys.shape[1] != queries.shape[1],
        )
        attended[0, first : first + rows * count] = out[:, :, -count:].transpose(1, 2).flatten(0, 1)
    return attended, None


def _take_rows(tokens: Tensor, start: int, rows: int, length: int) -> Tensor:
    """Return some rows that lie end to end, as a tensor of shape (rows, heads, length, head dimension)."""
    return tokens[0, :, start : start + rows * length].unflatten(1, (rows, length)).transpose(0, 1)


def _prepend(shared: Tensor, own: Tensor) -> Tensor:
    """Put the same tokens before those of every row."""
    return torch.cat([shared.expand(len(own), -1, -1, -1), own], dim=2)


def keep_last_tokens(layer: Any, args: tuple[Tensor], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
    """Let the last layer run for the rows' last tokens alone, which attend to the keys and values of all tokens.

    A hook that the layer calls with its arguments, before itself.
    """
    packed = kwargs.get("packed")
    if packed is None or packed.last is None or packed.all_tokens is not None:
        return None
    (hidden,), attention = args, layer.self_attn
    normed = layer.input_layernorm(hidden)
    key, value = (
        split_heads(projection(normed), attention.head_dim) for projection in (attention.k_proj, attention.v_proj)
    )
    cos, sin = kwargs["position_embeddings"]
    key = rotate(key, cos.unsqueeze(1), sin.unsqueeze(1))
    last = packed.last
    return (hidden[:, last],), {
        **kwargs,
        "position_embeddings": (cos[:, last], sin[:, last]),
        "packed": replace(packed, all_tokens=(key, value)),
    }


def allow_packing(model: Any) -> None:
    """Let a language model take packed batches, where its attention is transformers' plain causal one.

    Args:
        model: The language model; its attention function becomes the one of this module.
    """
    if attends_by(model) and getattr(model.config, "sliding_window", None) is None:
        replace_attention(model, PACKED_ATTENTION)
        model.layers[-1].register_forward_pre_hook(keep_last_tokens, with_kwargs=True)


def takes_packed(model: Any) -> bool:
    """Whether packed batches may be handed to a language model."""
    return attends_by(model, PACKED_ATTENTION)


class PrefixCache:
    """Keys and values of shared beginnings, for as long as the weights that they were made with are unchanged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[int, ...], list[KeysAndValues]] = OrderedDict()
        self._weights: Hashable = None

    def __reduce__(self) -> tuple[type[PrefixCache], tuple[()]]:
        return PrefixCache, ()

    def get(
        self, model: nn.Module, ids: tuple[int, ...], compute: Callable[[], list[KeysAndValues]]
    ) -> list[KeysAndValues]:
        """Return what ``compute`` returned for these ids with these weights, or call it."""
        weights = _fingerprint(model)
        with self._lock:
            if weights != self._weights:
                self._entries.clear()
                self._weights = weights
            found = self._entries.pop(ids, None)
        found = found or compute()
        with self._lock:
            if weights == self._weights:
                self._entries[ids] = found
            while len(self._entries) > _KEPT_PREFIXES:
                self._entries.popitem(last=False)
        return found


def _fingerprint(model: nn.Module) -> Hashable:
    """Return what changes when a weight is replaced, moved, cast or written to, and when an adapter is switched.

    Memory is told by a weak reference, since the address of what was freed may be that of the next weight.
    """
    found: list[tuple[StorageWeakRef, int, int]] = []
    for module in model.modules():
        weights = [weight for weight in module._parameters.values() if weight is not None]
        if isinstance(module, BaseTunerLayer) or any(weight.is_inference() for weight in weights):
            return object()
        found += [(StorageWeakRef(weight.untyped_storage()), weight.data_ptr(), weight._version) for weight in weights]
    return tuple(found)


register_attention(PACKED_ATTENTION, attend_packed)
