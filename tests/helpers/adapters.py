"""Small models of every backbone with PEFT's adapters, and the items to compare their vectors by."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from peft import LoraConfig

from st_modules import SentenceTransformer
from tests.helpers.training_rows import load, rows

LAYERS = {
    "gme-2b": ["q_proj", "v_proj"],
    "qwen3-vl-embedding-2b": ["q_proj", "v_proj"],
    "bge-vl-mllm-s1": ["q_proj", "v_proj"],
    "vlm2vec-phi3.5-v": ["qkv_proj", "o_proj"],
    "bge-vl-base": ["q_proj", "v_proj"],
    "bge-visualized-base": ["query", "value"],
    "bge-visualized-m3": ["query", "value"],
}
"""Layers that are adapted, for each model."""


def embed(model: SentenceTransformer, name: str) -> np.ndarray:
    return model.encode([item for row in rows(name) for item in row.values()])


def difference(model: SentenceTransformer, name: str, expected: np.ndarray) -> float:
    return float(np.abs(embed(model, name) - expected).max())


def lora(name: str, **settings: Any) -> LoraConfig:
    return LoraConfig(**{"r": 4, "target_modules": LAYERS[name], **settings})


def adapted(name: str, *configs: Any) -> SentenceTransformer:
    """A model with an adapter for each configuration ("default", "second"), trained at random; the last is active."""
    model = load(name)
    for config, adapter in zip(configs or (lora(name),), ("default", "second"), strict=False):
        model.add_adapter(config, adapter)
        disturb(model)
    return model


def disturb(model: SentenceTransformer) -> None:
    """Change all that is trained; it stands for a training run."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + 0.05 * torch.randn(parameter.shape, generator=generator)


def trained(model: SentenceTransformer) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}
