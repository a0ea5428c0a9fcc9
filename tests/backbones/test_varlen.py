"""Rows of different lengths attend in one call where torch's kernel is right, and by length where it is not.

The kernel is for CUDA: a plain one that keeps its contract stands in for it here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from st_modules.backbones import packing, qwen2_vl_vision, varlen
from tests.helpers.references import load_once

CPU = torch.device("cpu")


def stand_in(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cu_seq_q: Tensor,
    cu_seq_k: Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None,
    window_size: tuple[int, int],
    enable_gqa: bool,
) -> Tensor:
    """Attention as torch describes that of its kernel: causal attention counts from the end of a row."""
    assert {cu_seq_q.dtype, cu_seq_k.dtype} == {torch.int32}
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert (max_q, max_k) == (cu_seq_q.diff().max(), cu_seq_k.diff().max())
    assert cu_seq_q[-1] == len(query)
    assert cu_seq_k[-1] == len(key) == len(value)
    found = torch.empty_like(query)
    for row in range(len(cu_seq_q) - 1):
        asked, seen = (slice(int(ends[row]), int(ends[row + 1])) for ends in (cu_seq_q, cu_seq_k))
        for head in range(query.shape[1]):
            its = head * key.shape[1] // query.shape[1]
            scores = query[asked, head].double() @ key[seen, its].double().T * (scale or query.shape[2] ** -0.5)
            if window_size == (-1, 0):
                places = torch.arange(scores.shape[1])
                last = scores.shape[1] - scores.shape[0] + torch.arange(scores.shape[0])
                scores[places[None] > last[:, None]] = float("-inf")
            found[asked, head] = (scores.softmax(-1) @ value[seen, its].double()).to(found.dtype)
    return found


@pytest.fixture(autouse=True)
def anew() -> Any:
    varlen._is_right.cache_clear()
    yield
    varlen._is_right.cache_clear()


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)])
def test_a_kernel_that_is_right_is_taken(heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", stand_in)
    assert varlen._is_right(CPU, torch.bfloat16, *heads, 16)


def count_from_the_beginning(*args: Any, window_size: tuple[int, int], **kwargs: Any) -> Tensor:
    query, key, value, ends, _, longest, _ = args
    count = len(query)
    return stand_in(query, key[:count], value[:count], ends, ends, longest, longest, window_size=window_size, **kwargs)


def forget_the_causal_mask(*args: Any, window_size: tuple[int, int], **kwargs: Any) -> Tensor:
    return stand_in(*args, window_size=(-1, -1), **kwargs)


def give_nothing(query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return torch.full_like(query, float("nan"))


def refuse(*args: Any, **kwargs: Any) -> Tensor:
    raise RuntimeError("FlashAttention only supports Ampere GPUs or newer.")


@pytest.mark.parametrize("kernel", [count_from_the_beginning, forget_the_causal_mask, give_nothing, refuse])
def test_a_kernel_that_is_wrong_or_refuses_is_not(
    kernel: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    assert not varlen._is_right(CPU, torch.bfloat16, 4, 4, 16)


@pytest.mark.parametrize("why", ["no CUDA", "float32", "gradients", None])
def test_what_it_is_asked_for(why: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "_is_right", lambda *args: True)
    device = CPU if why == "no CUDA" else torch.device("cuda", 0)
    with torch.set_grad_enabled(why == "gradients"):
        dtype = torch.float32 if why == "float32" else torch.float16
        assert varlen.suits_varlen(device, dtype, 4, 4, 16) == (why is None)


@pytest.mark.parametrize("name", ["gme-2b", "qwen3-vl-embedding-2b", "vlm2vec-phi3.5-v", "vlm2vec-llava-next"])
def test_models_have_the_same_embeddings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(0)
    pictures = [
        Image.fromarray(draw.integers(0, 255, (*size, 3), dtype=np.uint8)) for size in ((90, 130), (60, 60), (90, 130))
    ]
    items: list[Any] = ["one text", "another text, of more words", *pictures, {"text": "both", "image": pictures[0]}]
    model = load_once(name, "sdpa")
    expected = model.encode(items, prompt="Look for it.")
    calls: list[tuple[int, int, int]] = []

    def count(query: Tensor, key: Tensor, value: Tensor, ends: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        calls.append((len(ends) - 1, len(query), len(key)))
        return stand_in(query, key, value, ends, *args, **kwargs)

    monkeypatch.setattr(varlen, "varlen_attn", count)
    for module in (packing, qwen2_vl_vision):
        monkeypatch.setattr(module, "suits_varlen", lambda *args: True)
    assert np.abs(model.encode(items, prompt="Look for it.") - expected).max() < 2e-6
    # Rows behind a beginning, which those of some layouts have too little of, and the last layer's pooled tokens.
    assert any(1 < rows < asked < seen for rows, asked, seen in calls) == name.startswith(("gme", "qwen3"))
    assert any(1 < rows == asked < seen for rows, asked, seen in calls)
