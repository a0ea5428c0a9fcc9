"""Rows of a language model end to end, without padding, after a beginning that they share.

A packed batch is one row of tokens to the model's stock layers; only attention has to know where its rows end. It
reaches the layers as an attention function of transformers' ``AttentionInterface``, which serves every batch that is
not packed with transformers' own function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, groupby
from typing import Any, cast

import torch
from torch import Tensor, nn
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
from st_modules.backbones.blocked_attention import attend_in_blocks, suits_blocks
from st_modules.backbones.prefixes import PrefixStates
from st_modules.backbones.varlen import attend_rows, suits_varlen

PACKED_ATTENTION = "st_modules_packed"
# Of longer rows the kernels leave out more, where the mask is the causal one, than the beginning's queries cost.
_LONGEST_MASKED = 384


@dataclass(frozen=True)
class Packing:
    """How a batch's rows are laid end to end.

    Attributes:
        lengths: Tokens of each row, without the shared beginning.
        prefix: Token ids of the shared beginning; empty where nothing is shared.
        states: Where the keys and values of the shared beginning are, or go when they are computed.
        visuals: The images and videos in the shared beginning.
        read: From those to their features.
    """

    lengths: list[int]
    prefix: tuple[int, ...]
    states: PrefixStates
    visuals: tuple[Any, ...] = ()
    read: Callable[[Sequence[Any]], Mapping[str, Tensor]] = dict

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
        masks: What :meth:`mask` has made.
        orders: What :meth:`order` has made.
    """

    lengths: list[int]
    prefix: list[KeysAndValues]
    last: list[int] | None = None
    all_tokens: KeysAndValues | None = None
    masks: dict[int, Tensor] = field(default_factory=dict)
    orders: dict[int, Tensor] = field(default_factory=dict)

    def mask(self, length: int, shared: int, like: Tensor) -> Tensor:
        """Return what lets rows attend to the shared beginning, and to their own tokens up to each.

        Args:
            length: Tokens of the rows.
            shared: Tokens of the beginning.
            like: Has the precision and the device.

        Returns:
            Shape (length, shared tokens + length): 0 where attention goes, else minus infinity.
        """
        if length not in self.masks:
            ahead = torch.ones(length, shared + length, dtype=torch.bool, device=like.device).triu(shared + 1)
            self.masks[length] = like.new_zeros(ahead.shape).masked_fill_(ahead, float("-inf"))
        return self.masks[length]

    def order(self, shared: int, device: torch.device) -> Tensor:
        """Return where each row's tokens are, the beginning's first, where those of all rows follow the beginning's.

        Args:
            shared: Tokens of the beginning.
            device: Where it is wanted.

        Returns:
            Shape (tokens of all rows, each with the beginning's), int64.
        """
        if shared not in self.orders:
            places = torch.arange(shared + sum(self.lengths))
            rows = places[shared:].split(self.lengths)
            self.orders[shared] = torch.cat([part for row in rows for part in (places[:shared], row)]).to(device)
        return self.orders[shared]

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
    if suits_varlen(query.device, query.dtype, query.shape[1], key.shape[1], query.shape[3]):
        return _attend_all(query, key, value, kwargs.get("scaling"), packed, prefix), None
    attended = torch.empty_like(query.transpose(1, 2))
    for row, token, rows, length in packed.groups():
        first, count = (row, 1) if last_alone else (token, length)
        queries = _take_rows(query, first, rows, count)
        keys, values = (_take_rows(part, token, rows, length) for part in (key, value))
        if prefix:
            keys, values = (_prepend(shared, own) for shared, own in zip(prefix, (keys, values), strict=True))
        if last_alone:
            out = _attend(queries, keys, values, kwargs.get("scaling"))
        else:
            out = _attend_causally(queries, keys, values, kwargs.get("scaling"), packed)
        attended[0, first : first + rows * count] = out.transpose(1, 2).flatten(0, 1)
    return attended, None


def _attend_all(
    query: Tensor, key: Tensor, value: Tensor, scale: float | None, packed: PackedRows, prefix: KeysAndValues | None
) -> Tensor:
    """Attend for rows of any lengths in one call."""
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    lengths = packed.lengths
    if prefix:
        shared = prefix[0].shape[2]
        order = packed.order(shared, key.device)
        key, value = (
            torch.cat([beginning[0].transpose(0, 1), own]).index_select(0, order)
            for beginning, own in zip(prefix, (key, value), strict=True)
        )
        lengths = [shared + length for length in lengths]
    asked = [1] * len(lengths) if packed.all_tokens else packed.lengths
    return attend_rows(query, key, value, asked, lengths, scale=scale, causal=True).unsqueeze(0)


def _attend(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None, **mask: Any) -> Tensor:
    enable_gqa = keys.shape[1] != queries.shape[1]
    return scaled_dot_product_attention(queries, keys, values, **mask, scale=scale, enable_gqa=enable_gqa)


def _attend_causally(queries: Tensor, keys: Tensor, values: Tensor, scale: float | None, packed: PackedRows) -> Tensor:
    """Let each of the last tokens of rows attend to those up to it."""
    length = queries.shape[2]
    shared = keys.shape[2] - length
    if suits_blocks(queries, keys, values):
        return attend_in_blocks(queries, keys, values, scale=scale, causal=True)
    if not shared:
        return _attend(queries, keys, values, scale, is_causal=True)
    if length <= _LONGEST_MASKED and queries.device.type == "cpu":
        return _attend(queries, keys, values, scale, attn_mask=packed.mask(length, shared, queries))
    # Zeros stand in for the beginning's queries, so that the mask is the plain causal one of the kernels.
    queries = _prepend(queries.new_zeros(1, queries.shape[1], shared, queries.shape[3]), queries)
    return _attend(queries, keys, values, scale, is_causal=True)[:, :, shared:]


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
    if torch.is_grad_enabled() and (args[0].requires_grad or any(each.requires_grad for each in layer.parameters())):
        layer.records_gradients = True
    packed = kwargs.get("packed")
    if packed is None or packed.last is None or packed.all_tokens is not None:
        return None
    (hidden,), attention = args, layer.self_attn
    key, value = (
        split_heads(projected, attention.head_dim)
        for projected in _keys_and_values(attention, layer.input_layernorm(hidden))
    )
    if (norm := getattr(attention, "k_norm", None)) is not None:
        key = norm(key)
    cos, sin = kwargs["position_embeddings"]
    key = _rotate_first(key, cos.unsqueeze(1), sin.unsqueeze(1))
    last = packed.last
    return (hidden[:, last],), {
        **kwargs,
        "position_embeddings": (cos[:, last], sin[:, last]),
        "packed": replace(packed, all_tokens=(key, value)),
    }


def _keys_and_values(attention: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
    """Project hidden states as a layer of attention does, by layers of their own or by one that has queries too."""
    if not hasattr(attention, "qkv_proj"):
        return attention.k_proj(hidden), attention.v_proj(hidden)
    size = attention.num_key_value_heads * attention.head_dim
    key, value = attention.qkv_proj(hidden)[..., -2 * size :].split(size, dim=-1)
    return key, value


def _rotate_first(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate as many of the first coordinates as there are angles for, which may be all."""
    first, rest = vectors[..., : cos.shape[-1]], vectors[..., cos.shape[-1] :]
    return torch.cat([rotate(first, cos, sin), rest], dim=-1) if rest.numel() else rotate(first, cos, sin)


def allow_packing(model: Any) -> None:
    """Let a language model take packed batches, where its attention is transformers' plain causal one.

    Args:
        model: The language model; its attention function becomes the one of this module.
    """
    if attends_by(model) and getattr(model.config, "sliding_window", None) is None:
        replace_attention(model, PACKED_ATTENTION)
        model.layers[-1].register_forward_pre_hook(keep_last_tokens, with_kwargs=True)


def take_recorded(model: Any) -> bool:
    """Whether a language model that takes packed batches has recorded gradients since this was asked last."""
    return model.layers[-1].__dict__.pop("records_gradients", False)


def takes_packed(model: Any) -> bool:
    """Whether packed batches may be handed to a language model."""
    return attends_by(model, PACKED_ATTENTION)


register_attention(PACKED_ATTENTION, attend_packed)
