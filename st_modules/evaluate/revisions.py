"""Which weights and options a model has: what tells its results from those of another with its name."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer

from st_modules.checkpoints.weights import digest_weights, sum_weights
from st_modules.evaluate.files import digest_file
from st_modules.model import SentenceTransformer

_HASHED_SUFFIXES = frozenset({".safetensors", ".bin", ".pth", ".pt", ".json"})
"""Weights, and what says how they are used: the same weights under other options are another model."""


def name_weights_in_memory(model: SentenceTransformer) -> str:
    """Name what a model embeds by now: by its weights, and by the options that they are used with."""
    told = f"{digest_weights(model)} {_describe_options(model)}"
    return f"weights-{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def describe_model(model: SentenceTransformer) -> tuple[dict[str, int | str], str]:
    """Return what tells, in less time than a hash takes, whether a model embeds as it did."""
    return sum_weights(model), _describe_options(model)


def _describe_options(model: SentenceTransformer) -> str:
    modules: list[Any] = list(model)
    options = [module.get_config_dict() for module in modules if hasattr(module, "get_config_dict")]
    adapters = [
        [name, list(layer.active_adapters), layer.disable_adapters, getattr(layer, "scaling", None)]
        for name, layer in model.named_modules()
        if isinstance(layer, BaseTunerLayer)
    ]
    told = [options, model.prompts, model.default_prompt_name, model.truncate_dim, adapters]
    return json.dumps(told, sort_keys=True, default=str)


def weights_revision(paths: Iterable[Path]) -> str:
    """Name local weights by their content.

    Args:
        paths: Folders with files of weights and of options, or such files.

    Returns:
        ``weights-`` and twelve digits of a SHA-256.
    """
    digest = hashlib.sha256()
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        for file in files:
            if file.is_file() and file.suffix in _HASHED_SUFFIXES:
                digest.update(digest_file(file))
    return f"weights-{digest.hexdigest()[:12]}"
