"""Packed attention against attention written out row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from st_modules.backbones.packing import PackedRows, attend_packed

HEADS, KEY_HEADS, HEAD_DIM, SCALE = 4, 2, 8, 0.3


class Layer(nn.Module):
    layer_idx = 1
    is_causal = True
    num_key_value_groups = HEADS // KEY_HEADS


def brute_force(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Softmax attention of the last queries to all keys up to their own: shapes (tokens, heads, head dimension)."""
    key, value = (part.repeat_interleave(HEADS // KEY_HEADS, dim=1) for part in (key, value))
    scores = torch.einsum("qhd,khd->hqk", query, key) * SCALE
    ahead = torch.arange(len(key)) > torch.arange(len(key) - len(query), len(key))[:, None]
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(ahead, -torch.inf).softmax(-1), value)


@pytest.mark.parametrize("prefix", [0, 5])
@pytest.mark.parametrize("lengths", [[7, 7, 3, 3, 3, 1], [1], [2, 9, 2], [40], [500, 3]])
def test_rows_attend_to_themselves_and_to_the_shared_beginning(prefix: int, lengths: list[int]) -> None:
    torch.manual_seed(0)
    query = torch.randn(1, HEADS, sum(lengths), HEAD_DIM)
    key, value = torch.randn(2, 1, KEY_HEADS, sum(lengths), HEAD_DIM)
    shared = torch.randn(2, 1, KEY_HEADS, prefix, HEAD_DIM)
    states = [(torch.zeros(0), torch.zeros(0)), (shared[0], shared[1])] if prefix else []
    found, weights = attend_packed(Layer(), query, key, value, None, PackedRows(lengths, states), scaling=SCALE)
    assert weights is None
    assert found.shape == (1, sum(lengths), HEADS, HEAD_DIM)
    # Each row apart, behind what is shared.
    parts = [part[0].split(lengths, dim=1) for part in (query, key, value)]
    expected = [
        brute_force(
            row_query.transpose(0, 1),
            torch.cat([shared[0, 0], row_key], dim=1).transpose(0, 1),
            torch.cat([shared[1, 0], row_value], dim=1).transpose(0, 1),
        )
        for row_query, row_key, row_value in zip(*parts, strict=True)
    ]
    assert (found[0] - torch.cat(expected)).abs().max() <= 1e-6


def test_a_batch_that_is_not_packed_gets_the_attention_of_transformers() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, HEADS, 6, HEAD_DIM)
    layer = Layer()
    layer.num_key_value_groups = 1
    mask = torch.ones(2, 1, 6, 6, dtype=torch.bool).tril()
    mask[1, :, :, 0] = False
    mask[1, :, 0, 0] = True
    found, _ = attend_packed(layer, query, key, value, mask, scaling=SCALE)
    scores = (query @ key.transpose(2, 3) * SCALE).masked_fill(~mask, -torch.inf)
    assert (found - (scores.softmax(-1) @ value).transpose(1, 2)).abs().max() <= 1e-6
