"""From files to loaded weights; a missing or unexpected weight is refused."""

from __future__ import annotations

import hashlib
import logging as python_logging
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel
from transformers.utils import logging

from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.shapes import find_weights, read_shapes, refuse_numbers, to_shapes
from st_modules.errors import CheckpointError

_OF_FILES = frozenset({"quantization_config", "gguf_file", "subfolder"})
"""Arguments of ``from_pretrained`` that say what is in the files, which their headers do not."""

_OF_MODEL = ("config", "add_pooling_layer", "key_mapping")
"""Arguments of ``from_pretrained`` that decide which weights a model has, and under which names files have them."""

_SUMMED_AT_ONCE = 1 << 20
"""How many 64-bit numbers: what is made on the way takes 8 MiB."""

_FACTOR = 0x9E3779B97F4A7C15  # odd, and with many bits set

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


def stored_dtype(folder: Path) -> torch.dtype:
    """Return the precision that a folder's weights are stored in: float32 where it is not one for all.

    ``config.json`` may say another one, which ``from_pretrained(dtype="auto")`` would follow.

    Raises:
        CheckpointError: A file cannot be read.
    """
    found = {tensor.dtype for tensor in read_shapes(find_weights(folder)).values()}
    return found.pop() if len(found) == 1 and found <= {torch.bfloat16, torch.float16} else torch.float32


def digest_weights(model: nn.Module) -> str:
    """Name the weights that a model has in memory by their content: 16 hexadecimal digits of a BLAKE2b hash."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(_list_state(model).items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        else:
            digest.update(f"{name} {value}".encode())
    return digest.hexdigest()


def sum_weights(model: nn.Module) -> dict[str, int | str]:
    """Return for each weight of a model in memory a weighted sum of its bits, read as 64-bit numbers, modulo 2**64.

    It names no weights, but tells in a fraction of a hash's time, wherever they are, that they have been trained or
    stand in another order. What is no weight is as ``repr`` has it.
    """
    return {
        name: _sum_bits(value.flatten().view(torch.uint8)) if isinstance(value, Tensor) else value
        for name, value in _list_state(model).items()
    }


def _list_state(model: nn.Module) -> dict[str, Tensor | str]:
    return dict(part for name, value in model.state_dict().items() for part in _list_parts(name, value))


def _list_parts(name: str, value: Any) -> Generator[tuple[str, Tensor | str], None, None]:
    """List the tensors in an entry of a state: quantised layers have tuples and types there."""
    if isinstance(value, Tensor):
        # A quantised tensor has no bits to look at, but scales beside its numbers.
        yield name, (value.dequantize() if value.is_quantized else value).detach()
    elif isinstance(value, (tuple, list)):
        for place, part in enumerate(cast("Sequence[Any]", value)):
            yield from _list_parts(f"{name}.{place}", part)
    else:
        yield name, repr(value)


def _sum_bits(octets: torch.Tensor) -> int:
    if octets.storage_offset() % 8:  # as 64-bit numbers, these cannot be read in place
        octets = octets.clone()
    whole = len(octets) // 8 * 8
    numbers = octets[:whole].view(torch.int64)
    # Odd factors: that a single number is another one always shows.
    factors = torch.arange(min(len(numbers), _SUMMED_AT_ONCE), device=octets.device) * 2 + 1
    total = 0
    for block in numbers.split(_SUMMED_AT_ONCE):
        total = (total * _FACTOR + int((block * factors[: len(block)]).sum())) % 2**64
    return (total + int.from_bytes(octets[whole:].cpu().numpy().tobytes(), "little")) % 2**64


def cast_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Cast a module's parameters, and leave its buffers (rotary tables and frequencies) in the precision they need."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def load_pretrained(
    model_class: type[PreTrainedModel], folder: Path, *, optional: frozenset[str] = frozenset(), **kwargs: Any
) -> PreTrainedModel:
    """Load a transformers model whose every weight comes from the files.

    transformers initialises what a checkpoint lacks at random and only logs it; here that is an error, and one before
    anything is built: the names and shapes of the files are compared with those of the model first.

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
    if not kwargs.keys() & _OF_FILES:
        _rehearse(model_class, folder, optional, kwargs)
    state_dict = kwargs.pop("state_dict", None)
    return _load(model_class, None if state_dict else folder, folder, optional, state_dict=state_dict, **kwargs).eval()


def _rehearse(
    model_class: type[PreTrainedModel], folder: Path, optional: frozenset[str], kwargs: Mapping[str, Any]
) -> None:
    """Load a model on the meta device, which takes no memory: every misfit of names and shapes shows there."""
    weights = kwargs.get("state_dict")
    try:
        files = find_weights(folder, kwargs.get("variant"), kwargs.get("use_safetensors")) if weights is None else []
        shapes = read_shapes(files) if weights is None else to_shapes(weights)
    except CheckpointError as error:
        raise CheckpointError(f"{folder}: the weights cannot be loaded: {error}") from error
    if not shapes:
        return  # transformers says which files it looks for
    refuse_numbers(folder, shapes)
    given = {name: kwargs[name] for name in _OF_MODEL if name in kwargs}
    with _without_report():
        # A map of devices needs accelerate, which PEFT brings.
        _load(model_class, None, folder, optional, state_dict=shapes, device_map={"": "meta"}, **given)


def _load(
    model_class: type[PreTrainedModel], source: Path | None, folder: Path, optional: frozenset[str], **kwargs: Any
) -> PreTrainedModel:
    loader: Any = model_class
    try:
        with hide_progress_bar():
            model, info = loader.from_pretrained(
                source,
                output_loading_info=True,
                # Listed below by name with the other misfits; without this transformers raises without one.
                ignore_mismatched_sizes=True,
                local_files_only=True,
                trust_remote_code=False,
                # That of the repository is for texts that are generated, and is not read.
                generation_config=GenerationConfig(),
                # A place where none is: transformers would load an adapter that lies beside the weights, unchecked.
                adapter_kwargs={"subfolder": "no adapter"},
                **kwargs,
            )
    except Exception as error:
        raise CheckpointError(
            f"{folder}: the weights cannot be loaded: {error}. Check config.json and the files of the weights."
        ) from error
    refuse_misfits(
        folder,
        missing=set(info["missing_keys"]) - optional,
        unexpected=set(info["unexpected_keys"]) - optional,
        misshapen={
            f"{name} ({list(found)} in the file, {list(needed)} in the model)"
            for name, found, needed in info["mismatched_keys"]
        },
    )
    return model


@contextmanager
def _without_report() -> Generator[None, None, None]:
    """Leave out the table of misfits that transformers logs, in this thread."""
    logger, thread = python_logging.getLogger("transformers.modeling_utils"), threading.get_ident()

    def is_of_others(record: python_logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(is_of_others)


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
