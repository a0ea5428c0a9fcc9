"""Packed attention against attention written out row by row, and what is kept of beginnings that rows share."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from st_modules.backbones.packing import PackedRows, PrefixCache, attend_packed

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
@pytest.mark.parametrize("lengths", [[7, 7, 3, 3, 3, 1], [1], [2, 9, 2], [40]])
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


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return [(torch.tensor(self.calls), torch.tensor(self.calls))]


def test_what_is_kept_is_computed_once_for_each_beginning() -> None:
    cache, model, compute = PrefixCache(), nn.Linear(2, 2), Counted()
    for ids in [(1,), (2,), (1,), (2,)]:
        cache.get(model, ids, compute)
    assert compute.calls == 2


def test_the_beginnings_used_last_are_kept() -> None:
    cache, model, compute = PrefixCache(), nn.Linear(2, 2), Counted()
    for number in range(8):
        cache.get(model, (number,), compute)
    cache.get(model, (0,), compute)
    cache.get(model, (8,), compute)
    cache.get(model, (0,), compute)
    assert compute.calls == 9
    cache.get(model, (1,), compute)
    assert compute.calls == 10


def write(model: nn.Linear) -> None:
    with torch.no_grad():
        model.weight.mul_(2)


def replace(model: nn.Linear) -> None:
    model.weight = nn.Parameter(model.weight.detach().clone())


def load(model: nn.Linear) -> None:
    model.load_state_dict(nn.Linear(2, 2).state_dict())


def cast(model: nn.Linear) -> None:
    model.to(torch.bfloat16)


def replace_at_the_same_address(model: nn.Linear) -> None:
    memory = model.weight.detach().numpy()
    model.weight.data = torch.empty(0)
    memory *= 2
    model.weight.data = torch.from_numpy(memory)


def step(model: nn.Linear) -> None:
    model(torch.ones(1, 2)).sum().backward()
    torch.optim.AdamW(model.parameters()).step()


@pytest.mark.parametrize("change", [write, replace, replace_at_the_same_address, load, cast, step])
def test_nothing_is_kept_when_the_weights_change(change: Any) -> None:
    cache, model, compute = PrefixCache(), nn.Linear(2, 2), Counted()
    cache.get(model, (1,), compute)
    change(model)
    cache.get(model, (1,), compute)
    assert compute.calls == 2


def test_nothing_is_kept_of_weights_that_do_not_tell_their_changes() -> None:
    with torch.inference_mode():
        model = nn.Linear(2, 2)
    cache, compute = PrefixCache(), Counted()
    for _ in range(2):
        cache.get(model, (1,), compute)
    assert compute.calls == 2


def test_a_copy_in_another_process_starts_empty() -> None:
    cache, model, compute = PrefixCache(), nn.Linear(2, 2), Counted()
    cache.get(model, (1,), compute)
    pickle.loads(pickle.dumps(cache)).get(model, (1,), compute)
    assert compute.calls == 2
