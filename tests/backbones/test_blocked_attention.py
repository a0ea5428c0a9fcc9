"""Attention in blocks gives what attention is, and models the embeddings that they have with torch's own kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from st_modules.backbones import blocked_attention, onednn, packing
from st_modules.backbones.blocked_attention import attend, attend_in_blocks
from tests.helpers.references import load_once

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"),
    reason="this torch has no oneDNN",
)


@pytest.fixture
def short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a few tokens are long ones, and in several blocks, on any processor."""
    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(blocked_attention, "_SHORTEST", 4)
    monkeypatch.setattr(blocked_attention, "_FEWEST_QUERIES", 3)
    monkeypatch.setattr(blocked_attention, "_MOST_QUERIES", 5)
    monkeypatch.setattr(blocked_attention, "_ROUND_QUERIES", 2)
    monkeypatch.setattr(blocked_attention, "_STEPS", 3)


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def compute(queries: Tensor, keys: Tensor, values: Tensor, scale: float, causal: bool) -> Tensor:
    """Attention in double precision, one query at a time."""
    rows, heads, asked, _ = queries.shape
    shared = heads // keys.shape[1]
    found = torch.zeros(*queries.shape, dtype=torch.float64)
    for row, head, place in np.ndindex(rows, heads, asked):
        seen = keys.shape[2] - asked + place + 1 if causal else keys.shape[2]
        key, value = (part[row, head // shared, :seen].double() for part in (keys, values))
        weights = (key @ queries[row, head, place].double() * scale).softmax(0)
        found[row, head, place] = weights @ value
    return found


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("heads", "key_heads", "asked", "tokens"),
    [(2, 2, 11, 11), (4, 2, 9, 9), (6, 1, 7, 13), (2, 2, 1, 8), (3, 3, 5, 6)],
)
def test_it_is_attention(heads: int, key_heads: int, asked: int, tokens: int, causal: bool, short_blocks: None) -> None:
    queries = draw(2, asked, heads, 8, seed=1).transpose(1, 2)
    keys, values = (draw(2, tokens, key_heads, 8, seed=seed).transpose(1, 2) for seed in (2, 3))
    with torch.inference_mode():
        found = attend_in_blocks(queries, keys, values, scale=0.4, causal=causal)
        expected = compute(queries, keys, values, 0.4, causal)
        assert found.shape == queries.shape
        assert (found - expected).abs().max() < 1e-6
        unscaled = attend_in_blocks(queries, keys, values, causal=causal)
        assert (unscaled - compute(queries, keys, values, 8**-0.5, causal)).abs().max() < 1e-6


def test_long_rows_are_cut_where_they_are_cut_without_being_told() -> None:
    queries, keys, values = (draw(1, 1, 1300, 8, seed=seed) for seed in (1, 2, 3))
    with torch.inference_mode():
        for causal in (False, True):
            found = attend_in_blocks(queries, keys, values, causal=causal)
            expected = torch.nn.functional.scaled_dot_product_attention(
                queries.double(), keys.double(), values.double(), is_causal=causal
            )
            assert (found - expected).abs().max() < 1e-6


def test_rows_of_many_lengths_are_products_of_few_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    # Of each shape oneDNN keeps a kernel.
    shapes: set[tuple[int, ...]] = set()

    def note(input: Tensor, weight: Tensor) -> Tensor:
        shapes.add((*input.shape, *weight.shape))
        return input @ weight.T

    monkeypatch.setattr(onednn, "multiply", note)
    for tokens in range(512, 1100):
        part = draw(1, 1, tokens, 4, seed=1)
        attend_in_blocks(part, part, part, causal=True)
    assert len(shapes) < 300


@pytest.mark.parametrize("why", ["gradients", "half precision", "few tokens", "many tokens"])
def test_torch_attends_where_blocks_do_not_suit(why: str, short_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocked_attention, "attend_in_blocks", None)
    monkeypatch.setattr(blocked_attention, "_LONGEST", 20)
    tokens = {"few tokens": 3, "many tokens": 21}.get(why, 9)
    dtype = torch.bfloat16 if why == "half precision" else torch.float32
    queries, keys, values = (draw(1, 2, tokens, 8, seed=seed).to(dtype) for seed in (1, 2, 3))
    with torch.set_grad_enabled(why == "gradients"):
        found = attend(queries, keys, values, scale=0.5)
        expected = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, scale=0.5)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["gme-2b", "qwen3-vl-embedding-2b", "e5-v", "vlm2vec-phi3.5-v", "bge-visualized-base"])
def test_models_have_the_same_embeddings(name: str, short_blocks: None, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def count(attend: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def counted(*args: Any, **kwargs: Any) -> Tensor:
            calls.append((args[0].shape, kwargs.get("causal", False)))
            return attend(*args, **kwargs)

        return counted

    for module in (blocked_attention, packing):
        monkeypatch.setattr(module, "attend_in_blocks", count(attend_in_blocks))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 130, 3), dtype=np.uint8))
    items: list[Any] = ["a text of some words, and of some more", {"text": "and a picture", "image": picture}, picture]
    model = load_once(name, "sdpa")
    blocked = model.encode(items)
    assert calls
    decoder = name != "bge-visualized-base"
    assert any(causal for _, causal in calls) == decoder
    monkeypatch.setattr(onednn, "is_faster", lambda: False)
    calls.clear()
    assert np.abs(model.encode(items) - blocked).max() < 2e-6
    assert not calls
