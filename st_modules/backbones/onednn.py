"""Products of matrices by oneDNN, where it is faster than what torch multiplies float32 by.

That is MKL, which uses no AVX-512 on processors of AMD. oneDNN, which torch has for convolutions and half precision,
does. The weights are read where they are: nothing is made of them that could be kept.
"""

from __future__ import annotations

import platform
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

_CPU_INFO = Path("/proc/cpuinfo")


def multiply(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return what ``torch.nn.functional.linear`` does, of tensors that :func:`takes` says yes to.

    Args:
        input: Shape (..., width).
        weight: Shape (outputs, width), contiguous: what is not takes very long.
        bias: Shape (outputs,).
    """
    return torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")


def takes(*tensors: Tensor) -> bool:
    """Whether oneDNN gives what torch would: no gradients, and plain tensors in float32 on the CPU."""
    return (
        not torch.compiler.is_compiling()
        and is_faster()
        and not torch.is_grad_enabled()
        and all(
            type(each) in (Tensor, nn.Parameter) and each.dtype is torch.float32 and each.device.type == "cpu"
            for each in tensors
        )
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
    )


@cache
def is_faster() -> bool:
    """Whether it is on this processor."""
    backends = torch.backends
    return (
        backends.mkl.is_available()
        and backends.mkldnn.is_available()
        and backends.cpu.get_cpu_capability() == "AVX512"
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and _is_by_amd()
    )


def _is_by_amd() -> bool:
    about = _CPU_INFO.read_text(encoding="utf-8") if _CPU_INFO.exists() else platform.processor()
    return "AuthenticAMD" in about
