"""Layers that multiply by oneDNN and run in parts give what torch gives, and step aside for all else."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn

from st_modules.backbones import onednn
from st_modules.backbones.linear import speed_up_layers

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch has no oneDNN",
)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(24, 40)
        self.mlp = nn.Sequential(nn.Linear(40, 64, bias=False), nn.GELU(), nn.Linear(64, 8))

    def forward(self, rows: Tensor) -> Tensor:
        return self.mlp(self.first(rows))


@pytest.fixture(autouse=True)
def products(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each product by oneDNN had, on any processor."""
    rows: list[int] = []
    multiply = torch.ops.mkldnn._linear_pointwise

    class Counting:
        @staticmethod
        def _linear_pointwise(input: Tensor, *args: Any) -> Tensor:
            rows.append(input.numel() // input.shape[-1])
            return multiply(input, *args)

    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", Counting)
    return rows


def make_rows(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def compute(net: Any, rows: Tensor) -> Tensor:
    """The net in double precision, layer by layer."""
    first, (up, _, down) = net.first, net.mlp
    hidden = rows.double() @ first.weight.double().T + first.bias.double()
    hidden = nn.functional.gelu(hidden @ up.weight.double().T)
    return hidden @ down.weight.double().T + down.bias.double()


@pytest.mark.parametrize("shape", [(8, 24), (1, 9, 24), (2, 1300, 24), (3, 700, 24)])
def test_products_are_those_of_the_weights(shape: tuple[int, ...], products: list[int]) -> None:
    net = Net()
    speed_up_layers(net)
    with torch.no_grad():
        found = net(make_rows(*shape))
        assert (found - compute(net, make_rows(*shape))).abs().max() < 1e-5
        assert products
        # Whatever is written to the weights counts at once.
        net.first.weight.mul_(2)
        assert (net(make_rows(*shape)) - compute(net, make_rows(*shape))).abs().max() < 1e-5


def test_rows_that_do_not_lie_in_order_are_multiplied_too(products: list[int]) -> None:
    net = Net()
    speed_up_layers(net)
    rows = make_rows(24, 9, 2).transpose(0, 2)[:, ::2]
    with torch.inference_mode():
        assert (net(rows) - compute(net, rows)).abs().max() < 1e-5
    assert products


def test_an_mlp_runs_for_512_tokens_at_a_time(products: list[int]) -> None:
    net = Net()
    speed_up_layers(net)
    with torch.inference_mode():
        net(make_rows(1, 1300, 24))
    assert products == [1300, *[512] * 4, *[276] * 2]


@pytest.mark.parametrize(
    "shape", [(7, 24), (0, 24), (1, 24), (24,)], ids=["few rows", "no row", "one row", "one dimension"]
)
def test_few_rows_are_multiplied_by_torch(shape: tuple[int, ...], products: list[int]) -> None:
    net, stock = Net(), Net()
    speed_up_layers(net)
    with torch.no_grad():
        assert torch.equal(net(make_rows(*shape)), stock(make_rows(*shape)))
    assert not products


@pytest.mark.parametrize(
    ("shape", "by_onednn"), [((1, 1, 512), True), ((3, 512), True), ((0, 512), False), ((512,), False)]
)
def test_few_rows_are_multiplied_by_onednn_where_the_weight_is_large(
    shape: tuple[int, ...], by_onednn: bool, products: list[int]
) -> None:
    layer, rows = nn.Linear(512, 1024), make_rows(*shape)
    speed_up_layers(layer)
    with torch.no_grad():
        expected = rows.double() @ layer.weight.double().T + layer.bias.double()
        assert layer(rows).shape == expected.shape
        assert torch.allclose(layer(rows).double(), expected, atol=1e-5)
    assert bool(products) == by_onednn


def test_a_weight_that_is_a_part_of_another_is_multiplied_by_torch(products: list[int]) -> None:
    # oneDNN takes a thousand times as long for it.
    net, rows = Net(), make_rows(9, 24)
    speed_up_layers(net)
    net.first.weight = nn.Parameter(make_rows(40, 48)[:, :24])
    with torch.no_grad():
        expected = rows.double() @ net.first.weight.double().T + net.first.bias.double()
        assert (net.first(rows) - expected).abs().max() < 1e-5
    assert not products


def test_gradients_are_those_of_torch(products: list[int]) -> None:
    net, stock = Net(), Net()
    speed_up_layers(net)
    for each in (net, stock):
        each(make_rows(1, 600, 24)).square().sum().backward()
    for found, expected in zip(net.parameters(), stock.parameters(), strict=True):
        assert found.grad is not None
        assert expected.grad is not None
        assert torch.equal(found.grad, expected.grad)
    assert not products


@pytest.mark.parametrize("how", ["bfloat16", "autocast", "switched off"])
def test_another_precision_and_what_the_user_switched_off_are_torchs(
    how: str, products: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, stock, rows = Net(), Net(), make_rows(9, 24)
    speed_up_layers(net)
    if how == "bfloat16":
        net, stock, rows = net.bfloat16(), stock.bfloat16(), rows.bfloat16()
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", how != "switched off")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found, expected = net(rows), stock(rows)
    assert found.dtype is expected.dtype
    assert torch.equal(found, expected)
    assert not products


def test_an_adapter_is_added(products: list[int]) -> None:
    net, stock = Net(), Net()
    speed_up_layers(net)
    with torch.no_grad():
        for each in (net, stock):
            torch.manual_seed(2)
            inject_adapter_in_model(LoraConfig(target_modules=["first", "0"], init_lora_weights=False), each)
        assert (net(make_rows(9, 24)) - stock(make_rows(9, 24))).abs().max() < 1e-5
        assert (net(make_rows(9, 24)) - Net()(make_rows(9, 24))).abs().max() > 1e-3
    assert products


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_has_layers_of_its_own(duplicate: Any) -> None:
    net, rows = Net(), make_rows(600, 24)
    speed_up_layers(net)
    with torch.no_grad():
        before = net(rows)
        other = duplicate(net)
        for parameter in other.parameters():
            parameter.mul_(2)
        assert torch.equal(net(rows), before)
        assert (other(rows) - compute(other, rows)).abs().max() < 1e-4


@pytest.mark.filterwarnings(
    "ignore:torch.ao.quantization is deprecated:DeprecationWarning", "ignore:torch.quantize_per_tensor:UserWarning"
)
def test_a_dynamically_quantised_layer_takes_the_place(products: list[int]) -> None:
    net = Net()
    speed_up_layers(net)
    with torch.no_grad():
        quantised = torch.ao.quantization.quantize_dynamic(net, {nn.Linear})
        quantised(make_rows(9, 24))
    assert not products


def test_a_layer_that_somebody_gave_a_forward_of_its_own_keeps_it() -> None:
    net = Net()
    net.first.forward = lambda input: input[..., :8].repeat_interleave(5, -1)
    speed_up_layers(net)
    rows = make_rows(9, 24)
    assert torch.equal(net.first(rows), rows[:, :8].repeat_interleave(5, -1))
