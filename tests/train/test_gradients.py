"""What is trained, and with which gradients: adapters, gradient caching, Matryoshka, activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from st_modules import SentenceTransformer
from st_modules.train import (
    DataCollator,
    LoraSettings,
    LossSettings,
    Trainer,
    add_lora,
    build_loss,
    checkpoint_activations,
    freeze_vision,
)
from st_modules.train.lora import count_parameters
from tests.helpers.training_rows import MODELS, gradients, load, perturb, rows

TOWERS = {
    "gme-2b": ("language_model", "visual"),
    "qwen3-vl-embedding-2b": ("language_model", "visual"),
    "bge-vl-mllm-s1": ("language_model", "vision_tower"),
    "vlm2vec-phi3.5-v": ("language_model", "img_processor"),
    "bge-vl-base": ("text_model", "vision_model"),
    "bge-visualized-base": ("text", "tower"),
}
Columns = list[dict[str, Tensor]]


def adapted(name: str, **settings: Any) -> SentenceTransformer:
    # In evaluation mode, since dropout would differ between two passes; the same adapter in every run, since some make
    # cut vectors that are near zero, whose gradients magnify what is rounded.
    model = load(name).eval()
    torch.manual_seed(0)
    add_lora(model, LoraSettings(rank=2, **settings))
    perturb(model)
    return model


def columns_of(model: SentenceTransformer, name: str) -> Columns:
    batch = DataCollator(model.preprocess, prompts={"anchor": "Find it."})(rows(name))
    return Trainer.collect_features(cast(Any, None), batch)[0]


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of two gradients, as a part of the largest gradient."""
    assert found.keys() == expected.keys()
    largest = max(gradient.abs().max().item() for gradient in expected.values())
    assert largest > 1e-3
    return max((found[name] - expected[name]).abs().max().item() for name in expected) / largest


@pytest.mark.parametrize("mini_batch", [1, 2])
@pytest.mark.parametrize("dims", [(), (8, 4)], ids=["full", "matryoshka"])
@pytest.mark.parametrize("name", MODELS)
def test_gradients_of_an_adapter_with_and_without_caching_agree(
    name: str, dims: tuple[int, ...], mini_batch: int
) -> None:
    model = adapted(name)
    columns = columns_of(model, name)
    expected = gradients(model, build_loss(model, LossSettings(matryoshka_dims=dims)), columns)
    cached = build_loss(model, LossSettings(matryoshka_dims=dims, mini_batch_size=mini_batch))
    found = gradients(model, cached, columns)
    assert difference(found, expected) <= 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_gradients_with_and_without_caching_are_the_same_in_double_precision(name: str) -> None:
    model = adapted(name).double()
    columns = [{key: doubled(value) for key, value in column.items()} for column in columns_of(model, name)]
    expected = gradients(model, build_loss(model, LossSettings()), columns)
    found = gradients(model, build_loss(model, LossSettings(mini_batch_size=2)), columns)
    # RMS norms are computed in float32 all the same, and may round otherwise in another batch.
    assert difference(found, expected) <= 1e-6


def doubled(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


@pytest.mark.parametrize("name", MODELS)
def test_every_weight_of_an_adapter_has_a_gradient(name: str) -> None:
    model = adapted(name)
    found = gradients(model, build_loss(model, LossSettings()), columns_of(model, name))
    assert [each for each, gradient in found.items() if not gradient.abs().sum() > 0] == []


@pytest.mark.parametrize("mini_batch", [None, 2])
@pytest.mark.parametrize("name", MODELS)
def test_checkpointed_activations_give_the_same_gradients(name: str, mini_batch: int | None) -> None:
    model = adapted(name)
    columns = columns_of(model, name)
    loss = build_loss(model, LossSettings(mini_batch_size=mini_batch))
    expected = gradients(model, loss, columns)
    checkpoint_activations(model)
    calls = _counted(model)
    # transformers checkpoints in training mode alone; the small checkpoints have no dropout that would matter here.
    for module in model.modules():
        module.training = hasattr(module, "gradient_checkpointing")
    assert difference(gradients(model, loss, columns), expected) <= 1e-5
    assert calls


def _counted(model: SentenceTransformer) -> list[None]:
    """A list that grows with every layer that is run again for the backward pass."""
    calls: list[None] = []
    for module in model.modules():
        if original := getattr(module, "_gradient_checkpointing_func", None):
            module._gradient_checkpointing_func = partial(_count, calls, original)  # type: ignore[assignment]
    return calls


def _count(calls: list[None], original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    calls.append(None)
    return original(*args, **kwargs)


@pytest.mark.parametrize("name", MODELS)
def test_cached_gradients_in_mixed_precision_are_float32_and_near_those_of_float32(name: str) -> None:
    model = adapted(name)
    columns = columns_of(model, name)
    loss = build_loss(model, LossSettings(mini_batch_size=2))
    expected = gradients(model, loss, columns)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients(model, loss, columns)
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    assert 1e-4 < difference(found, expected) < 0.1


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_is_on_the_language_model_and_the_rest_is_frozen(name: str) -> None:
    model = load(name)
    language, _ = TOWERS[name]
    add_lora(model, LoraSettings(rank=2))
    trained = [each for each, parameter in model.named_parameters() if parameter.requires_grad]
    assert trained
    assert [each for each in trained if f".{language}." not in each or ".lora_" not in each] == []


@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_is_on_the_vision_tower_too_where_it_is_asked_for(name: str) -> None:
    model = adapted(name, vision=True)
    found = gradients(model, build_loss(model, LossSettings()), columns_of(model, name))
    _, vision = TOWERS[name]
    assert [gradient for each, gradient in found.items() if f".{vision}." in each and gradient.abs().sum() > 0]


@pytest.mark.parametrize("name", MODELS)
def test_a_frozen_vision_tower_has_no_gradients_and_the_language_model_has(name: str) -> None:
    model = load(name).eval()
    freeze_vision(model)
    language, vision = TOWERS[name]
    found = gradients(model, build_loss(model, LossSettings()), columns_of(model, name))
    assert [each for each in found if f".{vision}." in each] == []
    assert [each for each, gradient in found.items() if f".{language}." in each and gradient.abs().sum() > 0]


def test_the_layers_of_an_adapter_can_be_named() -> None:
    model = load("gme-2b")
    add_lora(model, LoraSettings(rank=2, layers=("q_proj", "v_proj")))
    trained = {each.split(".lora_")[0].rpartition(".")[2] for each, p in model.named_parameters() if p.requires_grad}
    assert trained == {"q_proj", "v_proj"}


def test_a_layer_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"layers \['query'\]: no linear layer .* 'q_proj'"):
        add_lora(load("gme-2b"), LoraSettings(layers=("query",)))


def test_the_weights_of_an_adapter_are_float32_on_a_bfloat16_model() -> None:
    model = load("gme-2b").to(torch.bfloat16)
    add_lora(model, LoraSettings(rank=2))
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}


def test_a_second_adapter_is_refused() -> None:
    model = adapted("gme-2b")
    with pytest.raises(ValueError, match="adapter already"):
        add_lora(model)


def test_parameters_are_counted_by_whether_they_are_trained() -> None:
    model = adapted("bge-vl-base")
    trained, all_of_them = count_parameters(model)
    assert trained == sum(p.numel() for n, p in model.named_parameters() if "lora_" in n)
    assert all_of_them == sum(p.numel() for p in model.parameters())


def test_a_matryoshka_dimension_beyond_the_embedding_is_refused() -> None:
    with pytest.raises(ValueError, match=r"matryoshka_dims \[4096\]"):
        build_loss(load("gme-2b"), LossSettings(matryoshka_dims=(4096, 8)))
