"""The precision that a model is loaded in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from sentence_transformers.util import get_device_name


def default_dtype(device: str | torch.device | None) -> torch.dtype:
    """Return the precision that a model is loaded in where none is asked for.

    Args:
        device: Where it will run; ``None`` is the device that sentence-transformers would choose.

    Returns:
        float32 on the CPU, bfloat16 on an accelerator.
    """
    return torch.float32 if torch.device(device or get_device_name()).type == "cpu" else torch.bfloat16


def loading_kwargs(model_kwargs: Mapping[str, Any] | None, device: str | torch.device | None) -> dict[str, Any]:
    """Turn sentence-transformers' ``model_kwargs`` into what ``from_pretrained`` takes.

    ``torch_dtype`` becomes ``dtype``, which gets the device's default; ``trust_remote_code`` is dropped, since no
    module of this package runs a repository's code.
    """
    kwargs = {name: value for name, value in (model_kwargs or {}).items() if name != "trust_remote_code"}
    dtype = kwargs.pop("torch_dtype", None)
    dtype = kwargs.get("dtype") or dtype or default_dtype(device)
    if isinstance(dtype, str) and dtype != "auto" and not isinstance(getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"dtype={dtype!r}: torch has no such precision; pass for example 'bfloat16'.")
    return {**kwargs, "dtype": dtype}
