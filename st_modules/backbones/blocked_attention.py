"""Attention of long rows on a CPU as products by oneDNN, some tokens' queries at a time.

torch's own kernel multiplies by MKL, see :mod:`st_modules.backbones.onednn`, and for rows of this length the products
are nearly all of the work.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from st_modules.backbones import onednn
from st_modules.backbones.attention import attends_by, register_attention, replace_attention, stock_attention

BLOCKED_ATTENTION = "st_modules_blocked"

# With fewer tokens, a call for each head takes longer than the products save; with more, the scores of few queries fill
# the caches, and nothing is saved.
_SHORTEST, _LONGEST = 512, 16384
# So many scores stay in the caches; with fewer queries a product is no load, and with more nothing is gained.
_CACHED_SCORES = 2**20
_FEWEST_QUERIES, _MOST_QUERIES = 64, 512
# oneDNN compiles a kernel for every shape, and keeps a thousand of them: rounded, there are few, whatever the lengths.
_STEPS, _ROUND_QUERIES = 8, 16


def attend(queries: Tensor, keys: Tensor, values: Tensor, *, scale: float | None = None) -> Tensor:
    """Attend from every token to every token of the row.

    Args:
        queries: Shape (rows, heads, tokens, head dimension).
        keys: The same shape.
        values: The same shape.
        scale: What scores are multiplied by; one over the root of the head dimension where it is not given.

    Returns:
        The attended values, of the same shape.
    """
    if suits_blocks(queries, keys, values):
        return attend_in_blocks(queries, keys, values, scale=scale)
    return scaled_dot_product_attention(queries, keys, values, scale=scale)


def suits_blocks(queries: Tensor, keys: Tensor, values: Tensor) -> bool:
    """Whether :func:`attend_in_blocks` is the faster way for these."""
    long = queries.shape[2] >= _SHORTEST and keys.shape[2] <= _LONGEST
    return long and onednn.takes(queries, keys, values)


def attend_in_blocks(
    queries: Tensor, keys: Tensor, values: Tensor, *, scale: float | None = None, causal: bool = False
) -> Tensor:
    """Attend from tokens to the tokens of their row, head by head.

    Args:
        queries: Shape (rows, heads, query tokens, head dimension).
        keys: Shape (rows, key heads, tokens, head dimension); as many heads in turn as there are more have the same.
        values: The same shape.
        scale: What scores are multiplied by; one over the root of the head dimension where it is not given.
        causal: Whether each token attends to no later one. The queries are those of the last tokens.

    Returns:
        The attended values, of the shape of ``queries``.
    """
    rows, heads, asked, width = queries.shape
    tokens, together = keys.shape[2], heads // keys.shape[1]
    factor: float = width**-0.5 if scale is None else scale
    step = _size_steps(tokens)
    block = _size_blocks(asked, tokens, together)
    # As the callers want it in the end: the heads of a token next to each other.
    attended = queries.new_empty(rows, asked, heads, values.shape[3]).transpose(1, 2)
    later = queries.new_full((block, block + step), float("-inf")).triu_(1) if causal else None
    key = keys.new_zeros(step * ceil(tokens / step), width)
    value = values.new_zeros(values.shape[3], len(key))
    for row in range(rows):
        for head in range(keys.shape[1]):
            key[:tokens], value[:, :tokens] = keys[row, head], values[row, head].T
            its = slice(head * together, (head + 1) * together)
            for number in range(ceil(asked / block)):
                # The last block begins within the one before it, so that all are of one size.
                first = min(number * block, asked - block)
                seen = tokens - asked + first + block if causal else tokens
                taken = step * ceil(seen / step)
                scores = onednn.multiply(queries[row, its, first : first + block] * factor, key[:taken])
                if later is not None:
                    scores[..., seen - block :] += later[:, : taken - seen + block]
                else:
                    scores[..., tokens:] = float("-inf")
                weights = torch.softmax(scores, -1, out=scores)
                attended[row, its, first : first + block] = onednn.multiply(weights, value[:, :taken].contiguous())
    return attended


def _size_steps(tokens: int) -> int:
    """Return what the number of scores is rounded up to: a power of two, an eighth of them at most."""
    return 1 << max((tokens // _STEPS).bit_length() - 1, 0)


def _size_blocks(asked: int, tokens: int, together: int) -> int:
    """Return how many tokens' queries, of so many heads each, are taken at once."""
    most = max(min(max(_CACHED_SCORES // tokens, _FEWEST_QUERIES), _MOST_QUERIES) // together, 1)
    even = ceil(asked / ceil(asked / most))
    return min(_ROUND_QUERIES * ceil(even / _ROUND_QUERIES), asked)


def speed_up_attention(tower: Any) -> None:
    """Let a tower of transformers, of which every token attends to every one, attend by :func:`attend_in_blocks`.

    Args:
        tower: Whatever its attention is, unless it is the stock one, stays.
    """
    if attends_by(tower):
        replace_attention(tower, BLOCKED_ATTENTION)


def _attend_by_stock(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor | None]:
    plain = attention_mask is None and not module.is_causal and not kwargs.get("dropout")
    if plain and suits_blocks(query, key, value):
        return attend_in_blocks(query, key, value, scale=kwargs.get("scaling")).transpose(1, 2), None
    return stock_attention(module, query, key, value, attention_mask, **kwargs)


register_attention(BLOCKED_ATTENTION, _attend_by_stock)
