"""From files to loaded weights; a missing or unexpected weight is refused."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BaseImageProcessor, PreTrainedModel
from transformers.utils import logging

from st_modules.checkpoints.locate import read_json
from st_modules.errors import CheckpointError

Processor = TypeVar("Processor", bound=BaseImageProcessor)

_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}

UNUSED_WEIGHTS = frozenset({"lm_head.weight", "logit_scale"})
"""The language-modelling head and CLIP's temperature, which no embedding needs: they may be missing or there."""


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
        CheckpointError: The file is missing or cannot be read, or pixels cannot be normalised by what it says.
    """
    try:
        processor = processor_class.from_pretrained(folder, local_files_only=True, **options)
    except Exception as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json is missing or cannot be read.") from error
    if problem := describe_statistics(processor):
        raise CheckpointError(f"{folder / 'preprocessor_config.json'}: {problem}")
    return processor


def describe_statistics(processor: Any) -> str | None:
    """Say what is wrong with the numbers by which an image processor normalises pixels; ``None`` where nothing is."""
    if not processor.do_normalize:
        return None
    channels = {"image_mean": processor.image_mean, "image_std": processor.image_std}
    for name, values in channels.items():
        numbers = values if isinstance(values, list | tuple) else [values]
        if len(numbers) not in (1, 3) or not all(_is_finite(number) for number in numbers):
            return f"{name}={values}, and three finite numbers are needed, one a channel."
    if not np.all(processor.image_std):
        return f"image_std={processor.image_std}, by which pixels are divided."
    if not _is_finite(processor.rescale_factor):
        return f"rescale_factor={processor.rescale_factor}, and a finite number is needed."
    return None


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number)


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


def digest_weights(model: nn.Module) -> str:
    """Name the weights that a model has in memory by their content: 16 hexadecimal digits of a BLAKE2b hash."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's parameters, and leave its buffers (rotary tables and frequencies) in the precision they need."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def load_pretrained(
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
        with hide_progress_bar():
            model, info = loader.from_pretrained(
                None if "state_dict" in kwargs else folder,
                output_loading_info=True,
                # Listed below by name with the other misfits; without this transformers raises without one.
                ignore_mismatched_sizes=True,
                local_files_only=True,
                trust_remote_code=False,
                # A place where none is: transformers would load an adapter that lies beside the weights, unchecked.
                adapter_kwargs={"subfolder": "no adapter"},
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


@contextmanager
def hide_progress_bar() -> Generator[None, None, None]:
    """Hide the bars that transformers shows for weights that are read or written, in the output of every program."""
    previous = logging.set_tqdm_hook(lambda bar, args, kwargs: bar(*args, **{**kwargs, "disable": True}))
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)


def refuse_misfits(path: Path, *, missing: set[str], unexpected: set[str], misshapen: set[str]) -> None:
    """Raise ``CheckpointError`` where the weights of a file are not exactly those of the model, with their names."""
    wrong = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    if any(wrong.values()):
        found = "; ".join(f"{kind}: {list_some(names)}" for kind, names in wrong.items() if names)
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


def list_some(names: set[str], most: int = 10) -> str:
    """Return the first of the names in alphabetical order, and how many more there are."""
    shown = ", ".join(sorted(names)[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
