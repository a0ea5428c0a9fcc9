"""Weights that torch.save wrote, read without running code, and never larger in memory than the file."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path

import torch
from torch import Tensor

from st_modules.errors import CheckpointError

_LONGEST_PICKLE = 2**20
"""Most bytes of what describes the tensors, about 150 bytes each."""

_PICKLES_OF_OLD_FORMAT = 5
"""What torch wrote before 1.6: a number, a version, the system, the content, the keys of what follows."""

_KNOWN = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
        "torch.storage UntypedStorage",
        *(
            f"torch {name}"
            for name in dir(torch)
            if name.endswith("Storage") or isinstance(getattr(torch, name), torch.dtype)
        ),
    }
)
"""What may be called to make tensors of what the file holds. torch allows more, such as zeros of any number."""


def load_pickle(path: Path) -> dict[str, Tensor]:
    """Read a dictionary of tensors that ``torch.save`` wrote, its numbers mapped into memory where the format allows.

    Raises:
        CheckpointError: The file is damaged, or holds or makes something else.
    """
    try:
        check_pickle(path)
        # Files of torch's older format, which is no zip archive, cannot be mapped into memory.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read as a dictionary of tensors ({error}).") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise CheckpointError(f"{path}: it holds something else than a dictionary of tensors.")
    for name, weight in weights.items():
        if weight.numel() * weight.element_size() > weight.untyped_storage().nbytes():
            raise CheckpointError(f"{path}: the tensor {name[:100]} has more numbers than the file holds for it.")
    storages = {weight.untyped_storage().data_ptr(): weight.untyped_storage().nbytes() for weight in weights.values()}
    if sum(storages.values()) > path.stat().st_size:
        raise CheckpointError(f"{path}: its tensors have more numbers than the file holds.")
    return weights


def check_pickle(path: Path) -> None:
    """Make sure that a file of ``torch.save`` makes nothing but tensors of what it holds.

    Raises:
        ValueError: It makes something else, or is compressed.
        OSError: It cannot be read.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = io.BytesIO(file.read(_LONGEST_PICKLE))
        for _ in range(_PICKLES_OF_OLD_FORMAT):
            _check_calls(start)
        return
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("it is compressed, which torch.save does not do")
        if sum(part.file_size for part in parts) > path.stat().st_size:
            raise ValueError("its parts are larger than the file")
        for part in parts:
            if part.filename.endswith(".pkl"):
                if part.file_size > _LONGEST_PICKLE:
                    raise ValueError(f"{part.filename} has {part.file_size} bytes, and {_LONGEST_PICKLE} are the most")
                _check_calls(io.BytesIO(archive.read(part)))


def _check_calls(pickle: io.BytesIO) -> None:
    for operation, argument, _ in pickletools.genops(pickle):
        if operation.name == "GLOBAL" and argument not in _KNOWN or operation.name in ("STACK_GLOBAL", "INST"):
            raise ValueError(f"it calls {argument or 'something by its name'}, which weights do not need")
