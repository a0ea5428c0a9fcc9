"""How the layers that read each token by itself run fastest on a CPU: in parts, and by oneDNN.

What the MLP of a large batch makes does not fit the caches, and each time needs fresh memory of the system.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from st_modules.backbones import onednn

# With fewer rows, finding oneDNN's kernel takes longer than it saves, unless the weight is as large as this.
_FEWEST_ROWS = 8
_LARGE_WEIGHT = 2**19
# What a layer makes of so many rows stays in the caches of a core, or of those of a few.
_CACHED_ROWS = 512
# glibc learns nothing from blocks of 32 MiB and more.
_LARGEST_KEPT = 2**25 - 2**16


def speed_up_layers(model: nn.Module) -> None:
    """Have a model's layers on a CPU, without gradients, run so many tokens at a time, and multiply, as is fastest.

    Its MLPs, the modules named so, run a part of a long batch after the other; its linear layers multiply by oneDNN
    what is in float32, where that is faster.
    """
    for name, module in model.named_modules():
        if "forward" in vars(module):
            continue
        if name.rpartition(".")[2] == "mlp":
            module.forward = partial(_run_in_parts, type(module).forward, module)
        elif type(module) is nn.Linear and onednn.is_faster():
            module.forward = partial(_multiply, module)


def _run_in_parts(run: Callable[[Any, Tensor], Tensor], mlp: nn.Module, rows: Tensor) -> Tensor:
    """Run an MLP over rows, of shape (..., rows, width)."""
    few = rows.ndim < 2 or rows.shape[-2] <= _CACHED_ROWS
    if few or rows.device.type != "cpu" or torch.is_grad_enabled():
        return run(mlp, rows)
    return torch.cat([run(mlp, part) for part in rows.split(_CACHED_ROWS, dim=-2)], dim=-2)


def keep_freed_memory() -> None:
    """Have glibc give tensors the memory of those before them, since pages that are fresh take time to be cleared.

    It keeps blocks as large as the largest one that was freed; this one is never written to. Other allocators are not
    changed by it.
    """
    torch.empty(_LARGEST_KEPT, dtype=torch.uint8)


def _multiply(layer: nn.Linear, input: Tensor) -> Tensor:
    rows = input.shape[:-1].numel() if input.ndim > 1 else 0
    enough = rows >= _FEWEST_ROWS or (rows and layer.weight.numel() >= _LARGE_WEIGHT)
    if enough and layer.weight.is_contiguous() and onednn.takes(input, layer.weight):
        return onednn.multiply(input, layer.weight, layer.bias)
    return linear(input, layer.weight, layer.bias)
