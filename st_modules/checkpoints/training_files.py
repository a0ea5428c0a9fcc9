"""The weights in a file of a whole training run: those of the model beside its optimiser, schedule and settings.

``torch.load(weights_only=True)`` refuses such a file for the objects of other libraries in it. Its pickle is followed
here instead, and nothing of it is called or made: what it would call is a name with arguments, and tensors are where
their numbers lie. Only those of the model are then mapped into memory, each as large as the file has numbers for it.
"""

from __future__ import annotations

import io
import math
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

import torch
from torch import Tensor

from st_modules.checkpoints.json_files import refuse_pointer
from st_modules.errors import CheckpointError

_LONGEST = 2**20
"""Most bytes of the pickle: about 110 for each tensor of the model, and 250 for each of the optimiser's entries."""

_MOST_DIMENSIONS = 8
_DTYPES = {
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch DoubleStorage": torch.float64,
}
_LOCAL_HEADER = struct.Struct("<26xHH")
"""The header of a part of a zip archive, which ends in the lengths of its name and of what stands after that."""

_MARK = object()


@dataclass(frozen=True, eq=False, slots=True)
class _Name:
    """What a pickle calls by its name, which is not looked up."""

    name: str


@dataclass(frozen=True, eq=False, slots=True)
class _Call:
    """A call that a pickle asks for, and that is not made."""

    function: str | None
    arguments: Any


@dataclass(frozen=True, eq=False, slots=True)
class _Storage:
    """Numbers that lie elsewhere in the file, as the pickle names them."""

    name: Any


def load_training_weights(path: Path, key: str) -> dict[str, Tensor]:
    """Read the weights of the model from a file of a training run, mapped into memory.

    Args:
        path: The file, in torch's format since 1.6.
        key: Under which the file has the model's weights.

    Returns:
        The weights by their names in the file. Of all else only the names in the pickle are read.

    Raises:
        CheckpointError: The file is damaged, or has something else than plain tensors of floats under ``key``.
    """
    refuse_pointer(path)
    try:
        with zipfile.ZipFile(path) as archive:
            parts = _list_parts(archive, path)
            pickle = _find_pickle(parts)
            folder = pickle.removesuffix("data.pkl")
            if parts.get(f"{folder}byteorder") and archive.read(f"{folder}byteorder") != b"little":
                raise ValueError("its numbers are not in little-endian order")
            weights = _weights_of(_follow(archive.read(pickle)), key)
        return _map_weights(path, weights, parts, f"{folder}data/")
    except Exception as error:  # those of damaged archives and pickles are of many classes
        raise CheckpointError(
            f"{path}: cannot be read as a training checkpoint with a dictionary of tensors under {key!r} ({error})."
        ) from error


def _list_parts(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return the parts of an archive by their names, for all of which the file has the bytes."""
    parts = {part.filename: part for part in archive.infolist()}
    if len(parts) < len(archive.infolist()):
        raise ValueError("two of its parts have the same name")
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts.values()):
        raise ValueError("it is compressed, which torch.save does not do")
    if sum(part.file_size for part in parts.values()) > path.stat().st_size:
        raise ValueError("its parts are larger than the file")
    return parts


def _find_pickle(parts: Mapping[str, zipfile.ZipInfo]) -> str:
    names = [name for name in parts if name.endswith("/data.pkl")]
    if len(names) != 1:
        raise ValueError("it is no archive of torch.save")
    if (size := parts[names[0]].file_size) > _LONGEST:
        raise ValueError(f"{names[0]} has {size} bytes, and {_LONGEST} are the most")
    return names[0]


def _follow(pickle: bytes) -> Any:
    """Return what a pickle describes: numbers, texts, tuples, lists, dictionaries and the classes above.

    Dictionaries have the entries whose keys are texts, and no other keys are hashed. What is put into an object that
    a call would make is left out.
    """
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for operation, argument, _ in pickletools.genops(io.BytesIO(pickle)):
        name = operation.name
        if name in ("BINPUT", "LONG_BINPUT"):
            memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            if argument not in memo:
                raise ValueError("its pickle is damaged")
            stack.append(memo[argument])
        elif name in _STEPS:
            _STEPS[name](stack, argument)
        elif name != "STOP":
            raise ValueError(f"its pickle has the operation {name}, which torch.save does not write")
    return stack.pop()


def _take(stack: list[Any], count: int) -> list[Any]:
    taken = stack[-count:]
    if len(taken) < count or _MARK in taken:
        raise ValueError("its pickle is damaged")
    del stack[-count:]
    return taken


def _take_marked(stack: list[Any]) -> list[Any]:
    place = next((place for place in range(len(stack) - 1, -1, -1) if stack[place] is _MARK), None)
    if place is None:
        raise ValueError("its pickle is damaged")
    taken = stack[place + 1 :]
    del stack[place:]
    return taken


def _extend(stack: list[Any], values: list[Any]) -> None:
    if isinstance(stack[-1], list):
        stack[-1].extend(values)


def _update(stack: list[Any], values: list[Any]) -> None:
    if isinstance(stack[-1], dict):
        pairs = zip(values[::2], values[1::2], strict=True)
        stack[-1].update((key, value) for key, value in pairs if isinstance(key, str))


def _describe_call(function: Any, arguments: Any) -> Any:
    name = function.name if isinstance(function, _Name) else None
    # What torch has the weights in.
    return {} if name == "collections OrderedDict" and arguments == () else _Call(name, arguments)


_STEPS: dict[str, Callable[[list[Any], Any], None]] = {
    "PROTO": lambda stack, argument: None,
    "MARK": lambda stack, argument: stack.append(_MARK),
    "NONE": lambda stack, argument: stack.append(None),
    "NEWTRUE": lambda stack, argument: stack.append(True),
    "NEWFALSE": lambda stack, argument: stack.append(False),
    **dict.fromkeys(
        ("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
        lambda stack, argument: stack.append(argument),
    ),
    "GLOBAL": lambda stack, argument: stack.append(_Name(argument)),
    "EMPTY_LIST": lambda stack, argument: stack.append([]),
    "EMPTY_DICT": lambda stack, argument: stack.append({}),
    "EMPTY_TUPLE": lambda stack, argument: stack.append(()),
    "TUPLE1": lambda stack, argument: stack.append(tuple(_take(stack, 1))),
    "TUPLE2": lambda stack, argument: stack.append(tuple(_take(stack, 2))),
    "TUPLE3": lambda stack, argument: stack.append(tuple(_take(stack, 3))),
    "TUPLE": lambda stack, argument: stack.append(tuple(_take_marked(stack))),
    "APPEND": lambda stack, argument: _extend(stack, _take(stack, 1)),
    "APPENDS": lambda stack, argument: _extend(stack, _take_marked(stack)),
    "SETITEM": lambda stack, argument: _update(stack, _take(stack, 2)),
    "SETITEMS": lambda stack, argument: _update(stack, _take_marked(stack)),
    "REDUCE": lambda stack, argument: stack.append(_describe_call(*_take(stack, 2))),
    "NEWOBJ": lambda stack, argument: stack.append(_describe_call(*_take(stack, 2))),
    "BUILD": lambda stack, argument: stack.extend(_take(stack, 2)[:1]),
    "BINPERSID": lambda stack, argument: stack.append(_Storage(*_take(stack, 1))),
}
"""What operations of a pickle do to its stack: those that torch.save writes."""


def _weights_of(content: Any, key: str) -> dict[str, Any]:
    weights = content.get(key) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"it has no dictionary under {key!r}")
    return weights


def _map_weights(
    path: Path, weights: Mapping[str, Any], parts: Mapping[str, zipfile.ZipInfo], folder: str
) -> dict[str, Tensor]:
    """Map the numbers of weights into memory, from where the parts of the file in ``folder`` have them."""
    layouts = {name: _Layout.of(weight, name) for name, weight in weights.items()}
    size = path.stat().st_size
    if sum(layout.bytes for layout in layouts.values()) > size:
        raise ValueError("its tensors have more numbers than the file holds")
    # A private mapping: what is written to the tensors stays out of the file.
    mapped: Any = torch.UntypedStorage.from_file(str(path), False, size)
    with path.open("rb") as file:
        return {
            name: layout.map(mapped, file, parts.get(folder + layout.key), name) for name, layout in layouts.items()
        }


@dataclass(frozen=True)
class _Layout:
    """How the numbers of a tensor lie in a part of the file.

    Attributes:
        key: Name of the part.
        dtype: Their precision.
        offset: How many numbers come before the first.
        shape: The tensor's shape.
        strides: For each dimension how many numbers further on the next one is.
    """

    key: str
    dtype: torch.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @classmethod
    def of(cls, weight: Any, name: str) -> Self:
        """Read the layout from the call that would make the tensor.

        Raises:
            ValueError: It is another call, or has arguments that no tensor has.
        """
        if not isinstance(weight, _Call) or weight.function != "torch._utils _rebuild_tensor_v2":
            raise ValueError(f"{name[:100]} is no tensor")
        match weight.arguments:
            case (_Storage(name=("storage", _Name(name=kind), str(key), _, int())), int(offset), shape, strides, *_):
                pass
            case _:
                raise ValueError(f"{name[:100]} is a tensor of no known kind")
        if kind not in _DTYPES:
            raise ValueError(f"{name[:100]} is a {kind[:100]}, and weights are floats of 16 bits or more")
        if not (
            all(isinstance(each, tuple) and all(type(length) is int for length in each) for each in (shape, strides))
            and len(shape) == len(strides) <= _MOST_DIMENSIONS
            and min((offset, *shape, *strides)) >= 0
        ):
            raise ValueError(f"{name[:100]} is a tensor of no shape that it can have")
        return cls(key, _DTYPES[kind], offset, shape, strides)

    @property
    def bytes(self) -> int:
        """How much memory the numbers take."""
        return math.prod(self.shape) * self.dtype.itemsize

    def map(self, mapped: torch.UntypedStorage, file: BinaryIO, part: zipfile.ZipInfo | None, name: str) -> Tensor:
        """Return the tensor, whose numbers are in a part of a file that is mapped into memory.

        Raises:
            ValueError: There is no such part, or it has fewer numbers, or they do not begin where numbers can.
        """
        if part is None:
            raise ValueError(f"the numbers of the tensor {name[:100]} are missing")
        file.seek(part.header_offset)
        name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = part.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        last = self.offset + sum((length - 1) * stride for length, stride in zip(self.shape, self.strides, strict=True))
        if start % self.dtype.itemsize:
            raise ValueError(f"the numbers of the tensor {name[:100]} are not aligned, as torch.save has them")
        if (
            start + part.file_size > mapped.nbytes()
            or self.bytes > part.file_size
            or (last + 1) * self.dtype.itemsize > part.file_size
        ):
            raise ValueError(f"the tensor {name[:100]} has more numbers than the file holds for it")
        storage: Any = mapped[start : start + part.file_size]
        return torch.empty(0, dtype=self.dtype).set_(storage, self.offset, self.shape, self.strides)
