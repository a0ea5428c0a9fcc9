"""Random weights under which different inputs get clearly different vectors."""

from __future__ import annotations

import math

import torch
from torch import nn

# Above 1, so that attention is sharp enough for every input to get a vector of its own.
_GAIN = 1.6


@torch.no_grad()
def fill(module: nn.Module, seed: int, gain: float = _GAIN) -> None:
    """Fill a module, in place.

    Args:
        module: What to fill.
        seed: Decides every weight.
        gain: How many times as large a linear layer makes what goes through it.
    """
    generator = torch.Generator().manual_seed(seed)
    embeddings = {id(part.weight) for part in module.modules() if isinstance(part, nn.Embedding)}
    for name, parameter in module.named_parameters():
        if id(parameter) in embeddings:
            parameter.normal_(generator=generator)
        elif parameter.ndim > 1:
            parameter.normal_(std=gain / math.sqrt(parameter[0].numel()), generator=generator)
        elif name.endswith("bias"):
            parameter.normal_(std=0.1, generator=generator)
