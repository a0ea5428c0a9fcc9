"""A batch's tensors on their way to the device."""

from __future__ import annotations

import logging
from typing import Any, TypeAlias

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

Features: TypeAlias = dict[str, Any]


def pin(features: Features, device: torch.device) -> None:
    """Put a batch's tensors into page-locked memory, from which a CUDA device copies while the program goes on.

    Locking is left out for other devices, and where the system has no such memory left.

    Args:
        features: The batch; its tensors are replaced.
        device: Where it is going to be run.
    """
    if device.type != "cuda":
        return
    try:
        with torch.cuda.device(device):  # another device would be started for this alone
            for name, value in features.items():
                if isinstance(value, Tensor):
                    features[name] = value.pin_memory()
    except RuntimeError as error:
        logger.info("A batch is copied from pageable memory: %s", error)


def move(features: Features, device: torch.device) -> None:
    """Replace a batch's tensors by those on a device.

    CUDA reads page-locked memory while the program goes on, and torch keeps it until then; from other memory it copies
    before it returns. Other devices are waited for.
    """
    for name, value in features.items():
        if isinstance(value, Tensor):
            features[name] = value.to(device, non_blocking=device.type == "cuda")
