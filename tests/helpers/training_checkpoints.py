"""Files of whole training runs, read with Python's own unpickler and written beside what an optimiser keeps."""

from __future__ import annotations

import functools
import pickle
import types
from pathlib import Path
from typing import Any

import torch

from tests.helpers.paths import GOLDEN

CLIP_SF = GOLDEN / "clip_sf" / "checkpoint" / "clip_sf_large.pth"


class StandIn:
    """Takes the place of a class of a library that is not installed, whatever it is made with."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return super().find_class(module, name) if module.split(".")[0] in ("collections", "torch") else StandIn


@functools.cache
def clip_sf_weights() -> dict[str, torch.Tensor]:
    """Return what the published layout of CLIP-SF has under ``model``."""
    module: Any = types.ModuleType("unpickler")
    module.Unpickler, module.load = _Unpickler, pickle.load
    return torch.load(CLIP_SF, pickle_module=module, weights_only=False)["model"]


def save_run(weights: dict[str, torch.Tensor], path: Path) -> None:
    """Write weights as UniIR's training does, beside an optimiser that has made a step with the first of them."""
    parameter = torch.nn.Parameter(next(iter(weights.values())).clone())
    optimizer = torch.optim.AdamW([parameter])
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    settings = functools.partial(print, "settings")  # a class that weights_only=True refuses
    content = {"model": weights, "optimizer": optimizer.state_dict(), "config": settings, "epoch": 3, "scaler": {}}
    torch.save(content, path)
