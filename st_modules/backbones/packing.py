"""Rows of a language model end to end, without padding, after a beginning that they share.

A packed batch is one row of tokens to the model's stock layers; only attention has to know where its rows end. It
reaches the layers as an attention function of transformers' ``AttentionInterface``, which serves every batch that is
not packed with transformers' own function.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED_ATTENTION = "st_modules_packed"
_KEPT_PREFIXES = 8

KeysAndValues = list[tuple[Tensor, Tensor]]


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
    """What packed attention has to know of a batch.

    Attributes:
        lengths: Tokens of each row, without the shared beginning.
        prefix: For each layer the keys and values of the shared beginning, of shape (1, heads, tokens, head
            dimension); empty where nothing is shared.
    """

    lengths: list[int]
    prefix: KeysAndValues

    def groups(self) -> Iterator[tuple[int, int, int]]:
        """Return for each run of rows of equal length its first token, its number of rows, and their length."""
        start = 0
        for length, run in groupby(self.lengths):
            rows = len(list(run))
            yield start, rows, length
            start += rows * length


def packed_attention(
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
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    attended = torch.empty_like(query.transpose(1, 2))
    prefix = packed.prefix[cast(int, module.layer_idx)] if packed.prefix else None
    for start, rows, length in packed.groups():
        parts = [_rows(part, start, rows, length) for part in (query, key, value)]
        if prefix:
            # Zeros stand in for the beginning's queries, so that the mask is the plain causal one, which kernels know.
            zeros = query.new_zeros(1, query.shape[1], prefix[0].shape[2], query.shape[3])
            parts = [
                torch.cat([part.expand(rows, -1, -1, -1), own], dim=2)
                for part, own in zip((zeros, *prefix), parts, strict=True)
            ]
        queries, keys, values = parts
        out = scaled_dot_product_attention(
            queries,
            keys,
            values,
            is_causal=True,
            scale=kwargs.get("scaling"),
            enable_gqa=keys.shape[1] != queries.shape[1],
        )
        attended[0, start : start + rows * length] = out[:, :, -length:].transpose(1, 2).flatten(0, 1)
    return attended, None


def _rows(packed: Tensor, start: int, rows: int, length: int) -> Tensor:
    """Return some rows of a packed tensor, of shape (rows, heads, length, head dimension)."""
    heads, head_dim = packed.shape[1], packed.shape[3]
    part = packed[0, :, start : start + rows * length]
    return part.reshape(heads, rows, length, head_dim).transpose(0, 1)


def allow_packing(config: PreTrainedConfig) -> bool:
    """Let a language model take packed batches, where its attention is plain and causal.

    Args:
        config: The language model's own; its attention function becomes the one of this module.

    Returns:
        Whether packed batches may be handed to it.
    """
    if config._attn_implementation == "sdpa" and getattr(config, "sliding_window", None) is None:
        config._attn_implementation = PACKED_ATTENTION
    return config._attn_implementation == PACKED_ATTENTION


class PrefixCache:
    """Keys and values of shared beginnings, for as long as the weights that they were made with are unchanged."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[int, ...], KeysAndValues] = OrderedDict()
        self._weights: Hashable = None

    def __reduce__(self) -> tuple[type[PrefixCache], tuple[()]]:
        return PrefixCache, ()

    def get(self, model: nn.Module, ids: tuple[int, ...], compute: Callable[[], KeysAndValues]) -> KeysAndValues:
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
    """Return what changes when a weight is replaced, moved, cast or written to, and when an adapter is switched."""
    adapters = [module for module in model.modules() if hasattr(module, "merged_adapters")]
    if adapters or any(weight.is_inference() for weight in model.parameters()):
        return object()
    return tuple((weight.data_ptr(), weight._version) for weight in model.parameters())


AttentionInterface.register(PACKED_ATTENTION, packed_attention)
AttentionMaskInterface.register(PACKED_ATTENTION, sdpa_mask)
