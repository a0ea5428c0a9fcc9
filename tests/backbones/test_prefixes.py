"""What is kept of the beginnings that rows share: in a call, and from call to call where weights are fixed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrizations, prune

from st_modules.backbones.prefixes import KeptPrefixes, PrefixState, PrefixStates


class Counted:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return PrefixState([(torch.tensor(self.calls), torch.tensor(self.calls))], self.calls)


def test_what_a_call_begins_with_is_computed_once_for_each_beginning() -> None:
    states, compute = PrefixStates(), Counted()
    for ids in [(1,), (2,), (1,), (2,)]:
        states.get(ids, compute)
    assert compute.calls == 2


def test_the_beginnings_used_last_are_kept() -> None:
    states, compute = PrefixStates(), Counted()
    for number in range(8):
        states.get((number,), compute)
    states.get((0,), compute)
    states.get((8,), compute)
    states.get((0,), compute)
    assert compute.calls == 9
    states.get((1,), compute)
    assert compute.calls == 10


@pytest.fixture
def model() -> nn.Module:
    """What has a weight, a bias and a buffer."""
    return nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()


def test_states_are_found_again_while_nothing_changes(model: nn.Module) -> None:
    kept = KeptPrefixes()
    assert kept.find(model.modules()) is kept.find(model.modules())


def write(model: Any) -> None:
    with torch.no_grad():
        model[0].weight.mul_(2)


def write_in_inference(model: Any) -> None:
    with torch.inference_mode():
        model[0].weight.mul_(2)


def write_to_buffer(model: Any) -> None:
    model[1].running_mean += 1


def replace(model: Any) -> None:
    model[0].weight = nn.Parameter(model[0].weight.detach().clone())


def replace_at_the_same_address(model: Any) -> None:
    memory = model[0].weight.detach().numpy()
    model[0].weight.data = torch.empty(0)
    memory *= 2
    model[0].weight.data = torch.from_numpy(memory)


def load(model: Any) -> None:
    model[0].load_state_dict(nn.Linear(2, 2).state_dict())


def load_in_inference(model: Any) -> None:
    with torch.inference_mode():
        load(model)


def load_by_assigning(model: Any) -> None:
    model[0].load_state_dict(nn.Linear(2, 2).state_dict(), assign=True)


def cast(model: Any) -> None:
    model.to(torch.bfloat16)


def step(model: Any) -> None:
    model(torch.ones(1, 2)).sum().backward()
    torch.optim.AdamW(model.parameters()).step()
    model.zero_grad()


def step_fused(model: Any) -> None:
    model(torch.ones(1, 2)).sum().backward()
    torch.optim.AdamW(model.parameters(), fused=True).step()


def train(model: Any) -> None:
    model.train()


def add_hook(model: Any) -> None:
    model[0].register_forward_hook(lambda module, args, output: output + 1)


def normalise_weights(model: Any) -> None:
    parametrizations.weight_norm(model[0])


def prune_weights(model: Any) -> None:
    prune.l1_unstructured(model[0], "weight", amount=2)


def add_adapter(model: Any) -> None:
    inject_adapter_in_model(LoraConfig(target_modules=["0"]), model)


CHANGES = [
    write,
    write_in_inference,
    write_to_buffer,
    replace,
    replace_at_the_same_address,
    load,
    load_in_inference,
    load_by_assigning,
    cast,
    step,
    step_fused,
    train,
    add_hook,
    normalise_weights,
    prune_weights,
    add_adapter,
]


@pytest.mark.parametrize("change", CHANGES)
def test_states_begin_anew_when_the_model_changes(model: nn.Module, change: Callable[[nn.Module], None]) -> None:
    kept = KeptPrefixes()
    before = kept.find(model.modules())
    change(model)
    assert kept.find(model.modules()) is not before


def test_states_begin_anew_in_another_precision(model: nn.Module) -> None:
    kept = KeptPrefixes()
    before = kept.find(model.modules())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = kept.find(model.modules())
        with torch.autocast("cpu", dtype=torch.float16):
            assert kept.find(model.modules()) is not inside
    assert len({id(before), id(inside), id(kept.find(model.modules()))}) == 3


@pytest.mark.parametrize("untold", [train, add_adapter, add_hook, step_fused])
def test_nothing_is_kept_of_a_model_that_does_not_tell_its_changes(
    model: nn.Module, untold: Callable[[nn.Module], None]
) -> None:
    untold(model)
    kept = KeptPrefixes()
    assert kept.find(model.modules()) is not kept.find(model.modules())


def test_nothing_is_kept_of_weights_made_for_inference() -> None:
    with torch.inference_mode():
        model = nn.Linear(2, 2).eval()
    kept = KeptPrefixes()
    assert kept.find(model.modules()) is not kept.find(model.modules())


def test_what_an_adapter_leaves_behind_begins_anew(model: nn.Module) -> None:
    kept, plain = KeptPrefixes(), model[0]  # type: ignore[index]
    before = kept.find(model.modules())
    add_adapter(model)
    kept.find(model.modules())
    model[0] = plain  # type: ignore[index]
    assert kept.find(model.modules()) is not before


def test_nothing_is_kept_while_every_module_has_a_hook(model: nn.Module) -> None:
    kept = KeptPrefixes()
    handle = register_module_forward_hook(lambda module, args, output: output)
    try:
        assert kept.find(model.modules()) is not kept.find(model.modules())
    finally:
        handle.remove()


@pytest.mark.parametrize("setting", ["cuda", "mkldnn"])
def test_states_begin_anew_with_another_precision_of_products(model: nn.Module, setting: str) -> None:
    kept, backend = KeptPrefixes(), getattr(torch.backends, setting)
    before, precision = kept.find(model.modules()), backend.matmul.fp32_precision
    backend.matmul.fp32_precision = "tf32" if setting == "cuda" else "bf16"
    try:
        assert kept.find(model.modules()) is not before
    finally:
        backend.matmul.fp32_precision = precision


@pytest.mark.parametrize("make_copy", [copy.deepcopy, lambda kept: pickle.loads(pickle.dumps(kept))])
def test_a_copy_keeps_nothing(make_copy: Callable[[KeptPrefixes], Any]) -> None:
    assert make_copy(KeptPrefixes()) is None
