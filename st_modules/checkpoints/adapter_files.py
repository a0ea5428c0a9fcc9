"""Adapters in the folder of the model that they belong to: PEFT's files, and what those do not say."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from peft import PeftConfig
from safetensors.torch import save_file
from torch import Tensor

from st_modules.checkpoints.adapter_settings import PREFIX
from st_modules.checkpoints.adapters import Adapter, Adapters
from st_modules.checkpoints.guard import check_subfolder
from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.locate import ADAPTER_CONFIG
from st_modules.checkpoints.lora import read_peft_files
from st_modules.errors import CheckpointError

ADAPTERS = "adapters.json"
_WEIGHTS = "adapter_model.safetensors"
_MOST_ADAPTERS = 1000


def write_adapters(adapters: Adapters | None, folder: Path) -> None:
    """Write all adapters of a model to its folder, in the place of any that an earlier model left there.

    The first one is beside the model's weights, where PEFT and transformers look for it; others are in
    ``adapters/1``, ``adapters/2`` and so on, whatever they are called.
    """
    _remove_adapters(folder)
    if adapters is None:
        (folder / ADAPTERS).unlink(missing_ok=True)
        return
    for place, adapter in zip(_places(folder, len(adapters.by_name)), adapters.by_name.values(), strict=True):
        write_adapter(adapter, place)
    content = {
        "module": adapters.module,
        "names": list(adapters.by_name),
        "active": list(adapters.active),
        "enabled": adapters.enabled,
    }
    (folder / ADAPTERS).write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write one adapter to a folder, in PEFT's format."""
    folder.mkdir(parents=True, exist_ok=True)
    config: Any = copy.copy(adapter.config)
    config.inference_mode = True
    if isinstance(config.target_modules, set):
        config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(folder))
    # Copies, since some kinds have weights that share their memory, which the file cannot say.
    weights = {PREFIX + name: weight.detach().cpu().clone().contiguous() for name, weight in adapter.weights.items()}
    save_file(weights, folder / _WEIGHTS, metadata={"format": "pt"})


def read_adapters(folder: Path) -> Adapters | None:
    """Read what :func:`write_adapters` wrote; ``None`` where it wrote none.

    Raises:
        CheckpointError: Something is missing or damaged.
    """
    path = folder / ADAPTERS
    if not path.is_file():
        return None
    content = read_json(path)
    module, names, active, enabled = (content.get(key) for key in ("module", "names", "active", "enabled"))
    if not (
        isinstance(module, str)
        and _are_names(names)
        and names
        and _are_names(active)
        and set(active) <= set(names)
        and isinstance(enabled, bool)
    ):
        raise CheckpointError(f"{path}: damaged. It must say the module, names, active and enabled of the adapters.")
    if len(names) > _MOST_ADAPTERS:
        raise CheckpointError(f"{path}: names has {len(names)} adapters, and {_MOST_ADAPTERS} are the most.")
    places = _places(folder, len(names))
    for place in places[1:]:
        check_subfolder(folder, str(place.relative_to(folder)), path)
    adapters = {
        name: name_weights(*read_peft_files(place, beside_base=True)) for name, place in zip(names, places, strict=True)
    }
    return Adapters(module, adapters, active, enabled)


def name_weights(config: PeftConfig, weights: Mapping[str, Tensor]) -> Adapter:
    """Return the adapter of a file: its weights have the names that they have in the model."""
    return Adapter(config, {name.removeprefix(PREFIX): weight for name, weight in weights.items()})


def _places(folder: Path, number: int) -> list[Path]:
    return [folder, *(folder / "adapters" / str(place) for place in range(1, number))]


def _remove_adapters(folder: Path) -> None:
    """Delete the adapters that were written to a folder, so that they are not loaded with what is written now."""
    if not (folder / ADAPTERS).is_file():
        return
    # The list stays until another takes its place: a model that is saved by half is not loaded without its adapters.
    for name in (ADAPTER_CONFIG, _WEIGHTS):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "adapters", ignore_errors=True)


def _are_names(value: Any) -> TypeGuard[list[str]]:
    return (
        isinstance(value, list)
        and all(isinstance(name, str) and name for name in value)
        and len({*value}) == len(value)
    )
