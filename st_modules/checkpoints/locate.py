"""Where a model's files are: a catalog row, a folder, the download cache."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from st_modules.catalog import ModelSpec
from st_modules.checkpoints.guard import check_folder, check_found
from st_modules.checkpoints.hub import find_obstacle, has_snapshot, is_repo_id
from st_modules.checkpoints.json_files import read_json
from st_modules.errors import CheckpointError

logger = logging.getLogger(__name__)

ADAPTER_CONFIG = "adapter_config.json"
SAVED_OPTIONS = "st_modules_config.json"
_CONFIG_FILES = ("*.json", "*.txt", "*.jinja", "*.model")
_WEIGHT_FILES = ("*.safetensors", "adapter_model.bin")


@dataclass(frozen=True)
class Checkpoint:
    """Where a model's files are.

    Attributes:
        path: Folder of the model's files; the weights' own file where a repository holds several models.
        base: Folder of the model that an adapter or a tower is built on, if the model is one of those.
    """

    path: Path
    base: Path | None = None

    @property
    def folder(self) -> Path:
        """The folder that ``path`` is, or is in."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def saved(self) -> bool:
        """Whether ``save_pretrained`` of this package wrote the files."""
        return (self.path / SAVED_OPTIONS).is_file()

    def folder_of(self, name: str) -> Path:
        """The folder of the file ``name``: an adapter's own where it has the file, else its base's."""
        return self.path if self.base is None or (self.path / name).is_file() else self.base


def locate(
    spec: ModelSpec,
    weights: str | Path | None,
    base_weights: str | Path | None = None,
    *,
    revision: str | None = None,
    cache_folder: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
) -> Checkpoint:
    """Find a model's files, downloading the repository where nothing local is given.

    Args:
        spec: The model.
        weights: Local folder in the upstream's layout (or saved by ``save_pretrained``) to use in the
            repository's place; the file itself will do where the weights are one file.
        base_weights: Local folder of what an adapter or a tower is built on, in the place of its repository.
        revision: Commit, branch or tag of the repository; the catalog's where it is ``None``.
        cache_folder: Download cache; the Hub's default where it is ``None``.
        token: Hub token, as in ``huggingface_hub.snapshot_download``.
        local_files_only: Use the download cache and no network.

    Returns:
        Local paths.

    Raises:
        CheckpointError: The folder does not hold a model, or a repository cannot be downloaded.
        ValueError: ``base_weights`` was given for a model that is complete by itself.
    """
    hub = {"cache_dir": cache_folder, "token": token, "local_files_only": local_files_only}
    path = spec.path if weights is None else Path(weights).expanduser()
    if path is None:
        assert spec.repo_id is not None
        patterns = [spec.weights_file] if spec.weights_file else [*_CONFIG_FILES, *_WEIGHT_FILES]
        path = _download(spec.name, spec.repo_id, revision or spec.revision, patterns, "weights=", hub)
    if not path.exists():
        raise CheckpointError(f"{path}: no such folder. It must hold the files of {spec.repo_id or spec.name}.")
    if path.is_file() and not spec.weights_file:
        raise CheckpointError(f"{path}: a file. Pass the folder that holds the files of {spec.repo_id or spec.name}.")
    if path.is_dir():
        check_folder(path)
        if found := spec.find_weights_file(path):
            check_found(found, path)
            path = found
    # A model that this package saved is complete: adapters of it lie beside their base.
    adapter = (path / ADAPTER_CONFIG).is_file() and not (path / SAVED_OPTIONS).is_file()
    if path.is_file() or (adapter and spec.base_repo_id):
        return Checkpoint(path, _locate_base(spec, path, adapter, base_weights, hub))
    _check_complete(spec, path, adapter)
    if base_weights is not None:
        raise ValueError(f"base_weights={str(base_weights)!r}: {path} is a complete model and is built on no other.")
    if weights is not None and spec.base_repo_id and not (path / SAVED_OPTIONS).is_file():
        logger.warning("%s: no %s in it, so it is taken as %s merged into its base.", path, ADAPTER_CONFIG, spec.name)
    return Checkpoint(path)


def _check_complete(spec: ModelSpec, path: Path, adapter: bool) -> None:
    """Raise where a folder is not that of a complete model."""
    of_spec = f"It must hold the files of {spec.repo_id or spec.name}."
    if adapter:
        raise CheckpointError(f"{path}: it holds an adapter, and {spec.name} is none. {of_spec}")
    if spec.weights_file and not (path / SAVED_OPTIONS).is_file():
        raise CheckpointError(f"{path}: neither {spec.weights_file} nor a saved model in it. {of_spec}")
    if not (path / "config.json").is_file():
        needed = f"{ADAPTER_CONFIG} or config.json" if spec.base_repo_id else "config.json"
        raise CheckpointError(f"{path}: no {needed} in it. {of_spec}")


def _locate_base(
    spec: ModelSpec, path: Path, adapter: bool, base_weights: str | Path | None, hub: Mapping[str, Any]
) -> Path:
    """Find what an adapter or a tower is built on."""
    source, patterns = str(spec.base_repo_id), [*_CONFIG_FILES]
    if adapter:
        patterns.append("*.safetensors")
        named = str(read_json(path / ADAPTER_CONFIG).get("base_model_name_or_path") or "")
        # Some adapters name a folder of the machine that they were trained on.
        source = named if named and (os.path.isdir(named) or is_repo_id(named)) else source
    if base_weights is not None:
        base = Path(base_weights).expanduser()
    elif os.path.isdir(source):
        base = Path(source)
    else:
        base = _download(spec.name, source, None, patterns, "base_weights=", hub)
    if not base.is_dir():
        raise CheckpointError(f"{base}: no such folder. It must hold the files of {source}, which {path} is built on.")
    check_folder(base)
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{base}: no config.json in it. It must hold the files of {source}, which {path} is built on."
        )
    return base


def _download(
    name: str, repo_id: str, revision: str | None, patterns: Sequence[str], argument: str, hub: Mapping[str, Any]
) -> Path:
    def missing(reason: str) -> CheckpointError:
        return CheckpointError(
            f"{name}: {repo_id} is neither in the download cache nor can it be downloaded ({reason}). "
            f"On a machine without network, pass {argument} with a local folder of its files."
        )

    asks = not (hub["local_files_only"] or huggingface_hub.is_offline_mode())
    if asks and not has_snapshot(repo_id, revision, patterns, hub["cache_dir"]) and (obstacle := find_obstacle()):
        raise missing(obstacle)
    try:
        folder = huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns), **hub)
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise missing(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error
    return Path(folder)


def lone_adapter(folder: Path, which: str = "") -> CheckpointError:
    """Return the error for a folder that holds an adapter and lacks its model; ``which`` says what that was."""
    return CheckpointError(
        f"{folder}: it holds an adapter and no model. Load the model that it was trained on{which} and call "
        f"st_modules.train.load_adapter(model, {str(folder)!r})."
    )
