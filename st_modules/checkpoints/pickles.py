"""Weights that torch.save wrote, read without running code, and never larger in memory than the file."""

from __future__ import annotations

import io
import pickletools
import zipfile
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from st_modules.checkpoints.json_files import refuse_pointer
from st_modules.errors import CheckpointError

_PICKLES_OF_OLD_FORMAT = 5
"""What torch wrote before 1.6: a number, a version, the system, the content, the keys of what follows."""

_ZIP = b"PK\x03\x04"
"""By which torch tells its newer format."""

_CALLED = frozenset(
    {
        "collections OrderedDict",
        "torch._utils _rebuild_tensor_v2",
        "torch._utils _rebuild_tensor_v3",
        "torch._utils _rebuild_parameter",
    }
)
"""What may be called to make tensors of what the file holds. torch allows more, such as zeros of any number."""

_NUMBERS = frozenset(
    {
        "torch.storage UntypedStorage",
        *(
            f"torch {name}"
            for name in dir(torch)
            if name.endswith("Storage") or isinstance(getattr(torch, name), torch.dtype)
        ),
    }
)
"""Kinds of numbers, which are named and not called."""


@dataclass(frozen=True)
class Contents:
    """What a file of ``torch.save`` may hold.

    Attributes:
        called: What may be called to make it of what the file holds.
        longest: Most bytes of what describes the tensors, about 150 bytes each.
        longest_tuple: Most entries of a tuple.
    """

    called: frozenset[str]
    longest: int
    longest_tuple: int


WEIGHTS = Contents(_CALLED, 2**20, 16)
"""Weights; their tuples are shapes, and the arguments of what makes a tensor."""

TRAINING_STATE = Contents(
    _CALLED
    | {"_codecs encode", "numpy dtype", "numpy ndarray"}
    | {f"numpy.{core}.multiarray {name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")},
    4 * 2**20,
    700,
)
"""The state of an optimiser, a schedule or random generators; that of Python's is a tuple of 625 numbers."""


class _Kind(Enum):
    """What an operation of a pickle leaves, as far as it decides what may be done with it."""

    MARK = auto()
    FUNCTION = auto()
    TEXT = auto()
    SMALL_NUMBER = auto()
    NO_ENTRIES = auto()
    TUPLE = auto()
    TUPLE_OF_TUPLES = auto()
    OTHER = auto()


_TUPLES = frozenset({_Kind.NO_ENTRIES, _Kind.TUPLE, _Kind.TUPLE_OF_TUPLES})
_KEYS = frozenset({_Kind.TEXT, _Kind.SMALL_NUMBER})
_LENGTHS = frozenset({"TUPLE1", "TUPLE2", "TUPLE3"})
_MADE = {
    "MARK": _Kind.MARK,
    "EMPTY_TUPLE": _Kind.NO_ENTRIES,
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING", "UNICODE"), _Kind.TEXT),
    **dict.fromkeys(("BININT", "BININT1", "BININT2"), _Kind.SMALL_NUMBER),
}


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


def check_pickle(path: Path, contents: Contents = WEIGHTS) -> None:
    """Make sure that a file of ``torch.save`` makes nothing but what it should hold, of what it holds.

    Raises:
        ValueError: It makes something else, or is compressed.
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        start = io.BytesIO(file.read(contents.longest))
    if start.getbuffer()[:4] != _ZIP:
        for _ in range(_PICKLES_OF_OLD_FORMAT):
            _check_calls(start, contents)
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
                if part.file_size > contents.longest:
                    raise ValueError(f"{part.filename} has {part.file_size} bytes, and {contents.longest} are the most")
                _check_calls(io.BytesIO(archive.read(part)), contents)


def _check_calls(pickle: io.BytesIO, contents: Contents) -> None:
    """Follow a pickle without making anything of it.

    It calls known functions alone. Keys are texts or small numbers and tuples are small, whose hashes take no long
    time; there is no end to what tuples of tuples, or numbers of the same hash, can take.
    """
    stack: list[_Kind] = []
    memo: dict[Any, _Kind] = {}
    for operation, argument, _ in pickletools.genops(pickle):
        name = operation.name
        unknown = name == "GLOBAL" and argument not in contents.called | _NUMBERS
        if unknown or name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX"):
            raise ValueError(f"it calls {argument or 'something by its name'}, which it does not need")
        if name.endswith("PUT"):
            memo[argument] = _last(stack, 1)[0]
        elif name.endswith("GET"):
            stack.append(memo.get(argument, _Kind.OTHER))
        else:
            taken = _take(stack, operation)
            _check_use(name, taken, contents)
            stack += _results(name, argument in contents.called, taken, operation)


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


def _check_use(name: str, taken: list[_Kind], contents: Contents) -> None:
    """Refuse what would be called, hashed or read as a storage's name and is none."""
    if name == "REDUCE" and (taken[0] is not _Kind.FUNCTION or taken[1] not in _TUPLES):
        raise ValueError("it calls something that it made, which it does not need")
    if name in ("SETITEM", "SETITEMS", "DICT"):
        keys = taken[::2] if name == "DICT" else taken[1::2]
        if not _KEYS.issuperset(keys):
            raise ValueError("it has keys that are neither text nor small numbers, which it does not need")
    if name == "BINPERSID" and taken[0] is not _Kind.TUPLE:
        raise ValueError("it names numbers by something else than their kind, key, place and length")
    is_tuple = name == "TUPLE" or name in _LENGTHS
    if is_tuple and (len(taken) > contents.longest_tuple or _Kind.TUPLE_OF_TUPLES in taken):
        raise ValueError("it has large tuples, which it does not need")


def _results(name: str, is_called: bool, taken: list[_Kind], operation: pickletools.OpcodeInfo) -> list[_Kind]:
    """Return what an operation leaves on the stack."""
    if name == "TUPLE" or name in _LENGTHS:
        return [_Kind.TUPLE_OF_TUPLES if _TUPLES.intersection(taken) else _Kind.TUPLE]
    if name == "GLOBAL" and is_called:
        return [_Kind.FUNCTION]
    return [_MADE.get(name, _Kind.OTHER)] * len(operation.stack_after)
