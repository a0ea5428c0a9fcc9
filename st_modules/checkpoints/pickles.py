"""Weights that torch.save wrote, read without running code, and never larger in memory than the file."""

from __future__ import annotations

import io
import pickletools
import zipfile
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from st_modules.checkpoints.json_files import refuse_pointer
from st_modules.errors import CheckpointError

_LONGEST_PICKLE = 2**20
"""Most bytes of what describes the tensors, about 150 bytes each."""

_PICKLES_OF_OLD_FORMAT = 5
"""What torch wrote before 1.6: a number, a version, the system, the content, the keys of what follows."""

_ZIP = b"PK\x03\x04"
"""By which torch tells its newer format."""

_LONGEST_TUPLE = 16
"""Most entries of a tuple: the arguments of what makes a tensor, or its shape."""

_CALLED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
    }
)
"""What may be called to make tensors of what the file holds. torch allows more, such as zeros of any number."""

_KNOWN = frozenset(
    {
        *_CALLED,
        "torch.storage UntypedStorage",
        *(
            f"torch {name}"
            for name in dir(torch)
            if name.endswith("Storage") or isinstance(getattr(torch, name), torch.dtype)
        ),
    }
)
"""What may be named: what is called, and the kinds of numbers."""


class _Kind(Enum):
    """What an operation of a pickle leaves, as far as it decides what may be done with it."""

    MARK = auto()
    FUNCTION = auto()
    TEXT = auto()
    NO_ENTRIES = auto()
    TUPLE = auto()
    TUPLE_OF_TUPLES = auto()
    OTHER = auto()


_TUPLES = frozenset({_Kind.NO_ENTRIES, _Kind.TUPLE, _Kind.TUPLE_OF_TUPLES})
_LENGTHS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load_pickle(path: Path) -> dict[str, Tensor]:
    """Read a dictionary of tensors that ``torch.save`` wrote, its numbers mapped into memory where the format allows.

    Raises:
        CheckpointError: The file is damaged, or holds or makes something else.
    """
    refuse_pointer(path)
    try:
        check_pickle(path)
        # Files of torch's older format, which is no zip archive, cannot be mapped into memory.
        weights = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:
        # What torch says before it is how to read the file without its checks.
        problem = str(error).rpartition("WeightsUnpickler error: ")[2].strip().partition("\n")[0]
        raise CheckpointError(f"{path}: cannot be read as a dictionary of tensors ({problem}).") from error
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
    with path.open("rb") as file:
        start = io.BytesIO(file.read(_LONGEST_PICKLE))
    if start.getbuffer()[:4] != _ZIP:
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
            # torch finds them in any letter case.
            if part.filename.casefold().endswith(".pkl"):
                if part.file_size > _LONGEST_PICKLE:
                    raise ValueError(f"{part.filename} has {part.file_size} bytes, and {_LONGEST_PICKLE} are the most")
                _check_calls(io.BytesIO(archive.read(part)))


def _check_calls(pickle: io.BytesIO) -> None:
    """Follow a pickle without making anything of it.

    It calls known functions alone. Keys are texts and tuples are small, whose hashes take no long time; there is no
    end to what tuples of tuples, or numbers of the same hash, can take.
    """
    stack: list[_Kind] = []
    memo: dict[Any, _Kind] = {}
    for operation, argument, _ in pickletools.genops(pickle):
        name = operation.name
        if (
            name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX")
            or name == "GLOBAL"
            and argument not in _KNOWN
        ):
            raise ValueError(f"it calls {argument or 'something by its name'}, which weights do not need")
        if name.endswith("PUT"):
            memo[argument] = _last(stack, 1)[0]
        elif name.endswith("GET"):
            stack.append(memo.get(argument, _Kind.OTHER))
        else:
            taken = _take(stack, operation)
            _check_use(name, taken)
            stack += _results(name, argument, taken, len(operation.stack_after))


def _take(stack: list[_Kind], operation: pickletools.OpcodeInfo) -> list[_Kind]:
    """Take what an operation works on from the stack."""
    before = operation.stack_before
    if pickletools.markobject not in before:
        return _last(stack, len(before), remove=True)
    if _Kind.MARK not in stack:
        raise ValueError("it is damaged")
    mark = len(stack) - 1 - stack[::-1].index(_Kind.MARK)
    values = stack[mark + 1 :]
    del stack[mark:]
    return [*_last(stack, before.index(pickletools.markobject), remove=True), *values]


def _last(stack: list[_Kind], number: int, *, remove: bool = False) -> list[_Kind]:
    found = stack[len(stack) - number :] if number else []
    if len(found) < number:
        raise ValueError("it is damaged")
    if remove and number:
        del stack[-number:]
    return found


def _check_use(name: str, taken: list[_Kind]) -> None:
    """Refuse what would be called, hashed or read as a storage's name and is none."""
    if name == "REDUCE" and (taken[0] is not _Kind.FUNCTION or taken[1] not in _TUPLES):
        raise ValueError("it calls something that it made, which weights do not need")
    if name in ("SETITEM", "SETITEMS", "DICT"):
        keys = taken[::2] if name == "DICT" else taken[1::2]
        if any(key is not _Kind.TEXT for key in keys):
            raise ValueError("it has keys that are no text, which weights do not have")
    if name == "BINPERSID" and taken[0] not in (_Kind.TUPLE, _Kind.TUPLE_OF_TUPLES):
        raise ValueError("it names numbers by something else than their kind, key, place and length")
    is_tuple = name == "TUPLE" or name in _LENGTHS
    if is_tuple and (len(taken) > _LONGEST_TUPLE or _Kind.TUPLE_OF_TUPLES in taken):
        raise ValueError("it has large tuples, which weights do not have")


def _results(name: str, argument: Any, taken: list[_Kind], number: int) -> list[_Kind]:
    if name == "GLOBAL":
        return [_Kind.FUNCTION if argument in _CALLED else _Kind.OTHER]
    if name == "MARK":
        return [_Kind.MARK]
    if name == "EMPTY_TUPLE":
        return [_Kind.NO_ENTRIES]
    if name == "TUPLE" or name in _LENGTHS:
        return [_Kind.TUPLE_OF_TUPLES if _TUPLES.intersection(taken) else _Kind.TUPLE]
    is_text = isinstance(argument, str) and not name.endswith("PERSID")
    return [_Kind.TEXT if is_text else _Kind.OTHER] * number
