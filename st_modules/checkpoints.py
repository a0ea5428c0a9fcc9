"""From a catalog row or a folder to loaded weights; a missing or unexpected weight is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import huggingface_hub
import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BaseImageProcessor, PreTrainedModel

from st_modules.catalog import ModelSpec, list_models
from st_modules.errors import CheckpointError

logger = logging.getLogger(__name__)

Processor = TypeVar("Processor", bound=BaseImageProcessor)

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
ADAPTER_CONFIG = "adapter_config.json"
SAVED_OPTIONS = "st_modules_config.json"
_CONFIG_FILES = ("*.json", "*.txt", "*.jinja", "*.model")
_WEIGHT_FILES = ("*.safetensors", "adapter_model.bin")

UNUSED_WEIGHTS = frozenset({"lm_head.weight", "logit_scale"})
"""The language-modelling head and CLIP's temperature, which no embedding needs: they may be missing or there."""


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
    if path.is_dir() and spec.weights_file and (path / spec.weights_file).is_file():
        path = path / spec.weights_file
    adapter = (path / ADAPTER_CONFIG).is_file()
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
        source = named if named and (Path(named).is_dir() or is_repo_id(named)) else source
    if base_weights is not None:
        base = Path(base_weights).expanduser()
    elif Path(source).is_dir():
        base = Path(source)
    else:
        base = _download(spec.name, source, None, patterns, "base_weights=", hub)
    if not base.is_dir():
        raise CheckpointError(f"{base}: no such folder. It must hold the files of {source}, which {path} is built on.")
    if not (base / "config.json").is_file():
        raise CheckpointError(
            f"{base}: no config.json in it. It must hold the files of {source}, which {path} is built on."
        )
    return base


def is_repo_id(name: str) -> bool:
    """Whether a repository of the Hub could have this name; the Hub is not asked."""
    try:
        huggingface_hub.utils.validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _download(
    name: str, repo_id: str, revision: str | None, patterns: Sequence[str], argument: str, hub: Mapping[str, Any]
) -> Path:
    try:
        folder = huggingface_hub.snapshot_download(repo_id, revision=revision, allow_patterns=list(patterns), **hub)
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{name}: {repo_id} is neither in the download cache nor can it be downloaded ({reason}). "
            f"On a machine without network, pass {argument} with a local folder of its files."
        ) from error
    return Path(folder)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a checkpoint.

    Raises:
        CheckpointError: The file is missing or is not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object is needed, and it holds a {type(content).__name__}.")
    return content


def check_model_type(folder: Path, model_type: str) -> None:
    """Check that a folder's ``config.json`` is of the architecture that the caller runs.

    Args:
        folder: Folder of a checkpoint.
        model_type: The value that the file must state.

    Raises:
        CheckpointError: The file is missing, is not JSON, or states another architecture.
    """
    found = read_json(folder / "config.json").get("model_type")
    if found != model_type:
        raise CheckpointError(f"{folder / 'config.json'}: model_type is {found!r}, this model needs {model_type!r}.")


def load_image_processor(processor_class: type[Processor], folder: Path, **options: Any) -> Processor:
    """Read an image processor's settings from a checkpoint.

    Args:
        processor_class: The PIL-based class of the processor, named so that no other installed backend is picked.
        folder: Folder with ``preprocessor_config.json``.
        **options: Settings that take the place of those in the file.

    Raises:
        CheckpointError: The file is missing or cannot be read.
    """
    try:
        return processor_class.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json is missing or cannot be read.") from error


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the precision that a folder's weights are stored in: float32 where it is not one for all.

    ``config.json`` may say another one, which ``from_pretrained(dtype="auto")`` would follow.

    Raises:
        CheckpointError: A file cannot be read.
    """
    found: set[torch.dtype] = set()
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "pt") as file:
                names = list(file.keys())
                found |= {_DTYPES.get(file.get_slice(name).get_dtype(), torch.float32) for name in names}
        except Exception as error:
            raise CheckpointError(f"{path}: cannot be read ({error}).") from error
    return found.pop() if len(found) == 1 else torch.float32


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's parameters, and leave its buffers (rotary tables and frequencies) in the precision they need."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def load_model(
    model_class: type[PreTrainedModel], folder: Path, *, optional: frozenset[str] = frozenset(), **kwargs: Any
) -> PreTrainedModel:
    """Load a transformers model whose every weight comes from the files.

    transformers initialises what a checkpoint lacks at random and only logs it; here that is an error.

    Args:
        model_class: Class whose ``from_pretrained`` knows every published layout of the checkpoint.
        folder: Folder of the checkpoint; only named in errors where ``state_dict`` is among ``kwargs``.
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
            None if "state_dict" in kwargs else folder,
            output_loading_info=True,
            # Listed below by name with the other misfits; without this transformers raises without one.
            ignore_mismatched_sizes=True,
            local_files_only=True,
            trust_remote_code=False,
            **kwargs,
        )
    except Exception as error:
        raise CheckpointError(f"{folder}: the weights cannot be loaded: {error}") from error
    refuse_misfits(
        folder,
        missing=set(info["missing_keys"]) - optional,
        unexpected=set(info["unexpected_keys"]) - optional,
        misshapen={
            f"{name} ({list(found)} in the file, {list(needed)} in the model)"
            for name, found, needed in info["mismatched_keys"]
        },
    )
    return model.eval()


def refuse_adapter(folder: Path) -> None:
    """Refuse the folder of an adapter to a model of the catalog, whose base transformers would look for on the Hub.

    Raises:
        CheckpointError: It is one; the message names the models that it may be for.
    """
    config = folder / ADAPTER_CONFIG
    if not config.is_file() or any((folder / name).is_file() for name in ("modules.json", "config.json")):
        return
    base = read_json(config).get("base_model_name_or_path")
    names = [spec.name for spec in list_models() if base in (None, spec.repo_id)]
    if names:
        which = f", {' or '.join(names)}," if base else ""
        raise CheckpointError(
            f"{folder}: it holds an adapter and no model. Load the model that it was trained on{which} and call "
            f"st_modules.train.load_adapter(model, {str(folder)!r})."
        )


def refuse_misfits(path: Path, *, missing: set[str], unexpected: set[str], misshapen: set[str]) -> None:
    """Raise ``CheckpointError`` where the weights of a file are not exactly those of the model, with their names."""
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {some(names)}" for kind, names in wrong.items() if names)
        raise CheckpointError(f"{path}: the weights do not fit the model. {found}.")


def refuse_other_weights(path: Path, found: Mapping[str, Tensor], needed: Mapping[str, Tensor]) -> None:
    """Raise ``CheckpointError`` where the weights of a file have other names or shapes than those of the model."""
    refuse_misfits(
        path,
        missing=set(needed.keys() - found.keys()),
        unexpected=set(found.keys() - needed.keys()),
        misshapen={
            f"{name} ({list(found[name].shape)} in the file, {list(needed[name].shape)} in the model)"
            for name in needed.keys() & found.keys()
            if found[name].shape != needed[name].shape
        },
    )


def some(names: set[str], most: int = 10) -> str:
    """Return the first of the names in alphabetical order, and how many more there are."""
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
