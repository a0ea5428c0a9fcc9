"""Attention of rows of different lengths in one call, by the kernel that torch has for it on CUDA.

A call for each length has a GPU wait for the next one. The kernel is new in torch, and what it takes depends on the
GPU: before it is used it has to give, on that GPU, what attention is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention

logger = logging.getLogger(__name__)

_PRECISIONS = (torch.float16, torch.bfloat16)
# Lengths, and tokens before each row, of what is tried. Kernels treat tiles of 64 and more on their own.
_TRIED_LENGTHS, _TRIED_BEGINNING = (1, 70, 5, 130), 9
# Far more than bfloat16 rounds, and far less than a token that is attended to wrongly.
_TOLERANCE = 0.05


def suits_varlen(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> bool:
    """Whether :func:`attend_rows` takes tensors of a precision, with so many heads of a width, and is right there."""
    return (
        device.type == "cuda"
        and dtype in _PRECISIONS
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and _is_right(device, dtype, heads, key_heads, width)
    )


def attend_rows(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    asked: Sequence[int],
    lengths: Sequence[int],
    *,
    scale: float | None = None,
    causal: bool = False,
) -> Tensor:
    """Attend within each of the rows that lie end to end.

    Args:
        query: Shape (query tokens, heads, head dimension).
        key: Shape (tokens, key heads, head dimension).
        value: The same shape.
        asked: Query tokens of each row.
        lengths: Tokens of each row.
        scale: What scores are multiplied by; one over the root of the head dimension where it is not given.
        causal: Whether each token attends to no later one. The queries are those of a row's last tokens.

    Returns:
        The attended values, of the shape of ``query``.
    """
    attended = varlen_attn(
        query,
        key,
        value,
        _count_up(asked, query.device),
        _count_up(lengths, query.device),
        max(asked),
        max(lengths),
        scale=scale,
        window_size=(-1, 0) if causal else (-1, -1),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast(Tensor, attended)


def _count_up(counts: Sequence[int], device: torch.device) -> Tensor:
    """Return where each row ends, and before them where the first one begins: shape (rows + 1,), int32."""
    return torch.tensor([0, *accumulate(counts)], dtype=torch.int32, device=device)


@cache
def _is_right(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int) -> bool:
    """Whether the kernel gives attention, with rows of several lengths behind a beginning, and without one."""
    try:
        worst = max(_try(device, dtype, heads, key_heads, width, causal) for causal in (False, True))
    except (RuntimeError, NotImplementedError, ValueError) as error:
        logger.info("torch's kernel for rows of different lengths is not used on %s: %s", device, error)
        return False
    if not worst < _TOLERANCE:
        logger.warning("torch's kernel for rows of different lengths is off by %.2g on %s: not used.", worst, device)
    return worst < _TOLERANCE


def _try(device: torch.device, dtype: torch.dtype, heads: int, key_heads: int, width: int, causal: bool) -> float:
    """Return how far the kernel is from attention in float32, at most."""
    lengths = [_TRIED_BEGINNING + length for length in _TRIED_LENGTHS]
    draw = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(count, sum(counts), width, generator=draw).to(device, dtype).transpose(0, 1)
        for counts, count in ((_TRIED_LENGTHS, heads), (lengths, key_heads), (lengths, key_heads))
    )
    found = attend_rows(query, key, value, _TRIED_LENGTHS, lengths, causal=causal)
    expected = [
        scaled_dot_product_attention(
            *(part.float().transpose(0, 1) for part in row),
            attn_mask=_sees(len(row[0]), len(row[1]), causal).to(device),
            enable_gqa=heads != key_heads,
        ).transpose(0, 1)
        for row in zip(query.split(_TRIED_LENGTHS), key.split(lengths), value.split(lengths), strict=True)
    ]
    return (found.float() - torch.cat(expected)).abs().max().item()


def _sees(asked: int, length: int, causal: bool) -> Tensor:
    """Return which tokens each of the last ones sees: shape (asked, length), bool."""
    sees = torch.ones(asked, length, dtype=torch.bool)
    return sees.tril(length - asked) if causal else sees
