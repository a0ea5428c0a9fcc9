"""Fine-tuning of the catalog's models on text, images, and both, with sentence-transformers' trainer and losses.

Needs ``pip install "st-modules[train]"``. :func:`run` does what ``st-modules train`` does with a configuration; the
other names are its parts, for a training loop of one's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names, require

if TYPE_CHECKING:
    from st_modules.train.collator import DataCollator
    from st_modules.train.config import SourceSettings, TrainConfig, read_config
    from st_modules.train.data import load_source
    from st_modules.train.lora import (
        LoraSettings,
        add_lora,
        checkpoint_activations,
        freeze_vision,
        load_adapter,
        merge_adapter,
        save_adapter,
    )
    from st_modules.train.losses import LossSettings, build_loss
    from st_modules.train.runner import Result, run
    from st_modules.train.trainer import Trainer
    from st_modules.train.validation import ConfigError

__all__ = [
    "ConfigError",
    "DataCollator",
    "LoraSettings",
    "LossSettings",
    "Result",
    "SourceSettings",
    "TrainConfig",
    "Trainer",
    "add_lora",
    "build_loss",
    "checkpoint_activations",
    "freeze_vision",
    "load_adapter",
    "load_source",
    "merge_adapter",
    "read_config",
    "run",
    "save_adapter",
]


def _check(name: str) -> None:
    for package in ("accelerate", "datasets", "pydantic", "tensorboard", "yaml"):
        require(package, extra="train")


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ConfigError": "validation",
        "DataCollator": "collator",
        "LoraSettings": "lora",
        "LossSettings": "losses",
        "Result": "runner",
        "SourceSettings": "config",
        "TrainConfig": "config",
        "Trainer": "trainer",
        "add_lora": "lora",
        "build_loss": "losses",
        "checkpoint_activations": "lora",
        "freeze_vision": "lora",
        "load_adapter": "lora",
        "load_source": "data",
        "merge_adapter": "lora",
        "read_config": "config",
        "run": "runner",
        "save_adapter": "lora",
    },
    _check,
)
