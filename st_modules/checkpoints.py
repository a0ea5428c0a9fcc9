"""From a catalog row or a folder to loaded weights; a missing or unexpected weight is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from transformers import PreTrainedModel

from st_modules.catalog import ModelSpec
from st_modules.errors import CheckpointError

_MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja")


def locate(
    spec: ModelSpec,
    weights: str | Path | None,
    *,
    revision: str | None = None,
    cache_folder: str | None = None,
    token: bool | str | None = None,
    local_files_only: bool = False,
) -> Path:
    """Find the folder that holds a model's files, downloading the repository where nothing local is given.

    Args:
        spec: The model.
        weights: Local folder in the upstream's layout (or saved by ``save_pretrained``) to use in the
            repository's place.
        revision: Commit, branch or tag of the repository; the catalog's where it is ``None``.
        cache_folder: Download cache; the Hub's default where it is ``None``.
        token: Hub token, as in ``huggingface_hub.snapshot_download``.
        local_files_only: Use the download cache and no network.

    Returns:
        A local folder.

    Raises:
        CheckpointError: The folder does not hold a model, or the repository cannot be downloaded.
    """
    folder = spec.path if weights is None else Path(weights).expanduser()
    if folder is None:
        folder = _download(spec, revision, cache_folder, token, local_files_only)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder. It must hold the files of {spec.repo_id or spec.name}.")
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no config.json in it. It must hold the files of {spec.repo_id or spec.name}.")
    return folder


def _download(
    spec: ModelSpec,
    revision: str | None,
    cache_folder: str | None,
    token: bool | str | None,
    local_files_only: bool,
) -> Path:
    assert spec.repo_id is not None
    try:
        folder = huggingface_hub.snapshot_download(
            spec.repo_id,
            revision=revision or spec.revision,
            cache_dir=cache_folder,
            token=token,
            local_files_only=local_files_only,
            allow_patterns=list(_MODEL_FILES),
        )
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{spec.name}: {spec.repo_id} is neither in the download cache nor can it be downloaded ({reason}). "
            "On a machine without network, pass weights= with a local folder of its files."
        ) from error
    return Path(folder)


def read_config(folder: Path, model_type: str) -> dict[str, Any]:
    """Read a folder's ``config.json`` and check that it is of the architecture that the caller runs.

    Args:
        folder: Folder of a checkpoint.
        model_type: The ``model_type`` that the file must state.

    Returns:
        The file's content.

    Raises:
        CheckpointError: The file is missing, is not JSON, or states another architecture.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    found = config.get("model_type") if isinstance(config, dict) else None
    if found != model_type:
        raise CheckpointError(f"{path}: model_type is {found!r}, this model needs {model_type!r}.")
    return config


def load_model(
    model_class: type[PreTrainedModel], folder: Path, *, optional: frozenset[str] = frozenset(), **kwargs: Any
) -> PreTrainedModel:
    """Load a transformers model whose every weight comes from the files.

    transformers initialises what a checkpoint lacks at random and only logs it; here that is an error.

    Args:
        model_class: Class whose ``from_pretrained`` knows every published layout of the checkpoint.
        folder: Folder of the checkpoint.
        optional: Weights that may be missing or superfluous, because the caller does not use them.
        **kwargs: Passed to ``from_pretrained``, ``dtype`` among them.

    Returns:
        The model in evaluation mode.

    Raises:
        CheckpointError: A weight is missing, superfluous or of the wrong shape, or a file cannot be read.
    """
    loader: Any = model_class
    try:
        model, info = loader.from_pretrained(
            folder,
            output_loading_info=True,
            # Listed below by name with the other misfits; without this transformers raises without one.
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
            **kwargs,
        )
    except Exception as error:
        raise CheckpointError(f"{folder}: the weights cannot be loaded: {error}") from error
    wrong = {
        "missing": set(info["missing_keys"]) - optional,
        "unexpected": set(info["unexpected_keys"]) - optional,
        "of another shape": {
            f"{name} ({list(found)} in the file, {list(needed)} in the model)"
            for name, found, needed in info["mismatched_keys"]
        },
    }
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {_some(names)}" for kind, names in wrong.items() if names)
        raise CheckpointError(f"{folder}: the weights do not fit the model. {found}.")
    return model.eval()


def _some(names: set[str], most: int = 10) -> str:
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
