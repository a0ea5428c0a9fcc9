"""Whether weights in memory are told to have changed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from st_modules.checkpoints.weights import digest_weights, sum_weights


def holder(tensor: torch.Tensor) -> nn.Module:
    module = nn.Module()
    module.register_buffer("weight", tensor)
    return module


def tensor_of(dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(-100, 100, (7, 5), generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8])
@pytest.mark.parametrize("place", [(0, 0), (6, 4)])
def test_one_changed_number_changes_the_sum(dtype: torch.dtype, place: tuple[int, int]) -> None:
    tensor = tensor_of(dtype)
    module = holder(tensor)
    before = sum_weights(module)
    tensor[place] += 1
    assert sum_weights(module) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sum_is_of_the_numbers_wherever_they_lie(dtype: torch.dtype) -> None:
    tensor = tensor_of(dtype)
    behind = torch.cat([torch.zeros(1, dtype=dtype), tensor.flatten()])[1:].view(7, 5)
    across = tensor.t().contiguous().t()
    octets = tensor.flatten().view(torch.uint8).numpy().tobytes()
    words = [int.from_bytes(octets[at : at + 8], "little", signed=True) for at in range(0, len(octets) // 8 * 8, 8)]
    total = sum(word * (2 * place + 1) for place, word in enumerate(words))
    total += int.from_bytes(octets[len(octets) // 8 * 8 :], "little")
    for each in (tensor, behind, across):
        found = sum_weights(holder(each))["weight"]
        assert isinstance(found, int)
        assert (found - total) % 2**64 == 0


def test_a_weight_of_one_number_is_told_to_have_changed() -> None:
    assert sum_weights(holder(torch.tensor(1.0))) != sum_weights(holder(torch.tensor(2.0)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rows", [7, 300_000])
def test_rows_in_another_order_change_the_sum(dtype: torch.dtype, rows: int) -> None:
    table = torch.arange(rows * 8).view(rows, 8).to(dtype)
    assert sum_weights(holder(table)) != sum_weights(holder(table.flip(0).contiguous()))


def quantised(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    # More numbers than are written out of a tensor.
    return torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(64, 64)), {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore")  # torch's quantisation is said to move to another package
def test_the_weights_of_a_quantised_layer_are_told_apart() -> None:
    for tell in (sum_weights, digest_weights):
        assert tell(quantised(0)) == tell(quantised(0)) != tell(quantised(1))
