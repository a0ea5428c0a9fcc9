"""Rows of text, images, and both in any column, and small checkpoints of every backbone to train on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from st_modules import SentenceTransformer
from tests.helpers.references import reference

MODELS = ["gme-2b", "qwen3-vl-embedding-2b", "bge-vl-mllm-s1", "vlm2vec-phi3.5-v", "bge-vl-base", "bge-visualized-base"]
"""One row of the catalog for each backbone."""


def load(name: str) -> SentenceTransformer:
    options: dict[str, Any] = (
        {"min_image_tokens": 4, "max_image_tokens": 16} if name in ("gme-2b", "qwen3-vl-embedding-2b") else {}
    )
    return reference(name).load(name, **options)


def rows(name: str) -> list[dict[str, Any]]:
    """Rows whose columns mix texts, images, and both, the order of which differs from column to column."""
    images = reference(name).images
    square, wide, small, gray = (str(images / f"{each}.png") for each in ("square", "wide", "small", "gray"))
    text, image = {"text": "a car"}, {"image": square}
    both: dict[str, Any] = {"text": "make it blue", "image": wide}
    other_text, other_image, other_both = {"text": "two cats at night"}, {"image": small}, {**both, "image": gray}
    columns = {
        "anchor": [text, both, other_image, other_text, image],
        "positive": [other_image, text, {"text": "b", "image": small}, other_both, {"text": "a blue car"}],
        "negative_1": [{"text": "c"}, {"image": gray}, {"text": "d"}, {"text": "e", "image": square}, other_both],
        "negative_2": [{"image": wide}, {"text": "f"}, both, {"text": "g"}, {"text": "h"}],
    }
    names = list(columns)
    return [dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def perturb(model: SentenceTransformer, scale: float = 0.02) -> None:
    """Give an adapter's update random weights; a new one is zero, and then half of its gradients are."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)


def gradients(model: SentenceTransformer, loss: torch.nn.Module, columns: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Gradients of the parameters that are trained, by name."""
    model.zero_grad()
    loss([dict(column) for column in columns], None).backward()
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
