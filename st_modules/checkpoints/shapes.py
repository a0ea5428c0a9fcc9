"""What files of weights hold, by their headers: names, shapes and precisions, without a number being read."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from st_modules.checkpoints.fields import OBJECT, check_fields
from st_modules.checkpoints.guard import find_inside
from st_modules.checkpoints.json_files import read_json, refuse_pointer
from st_modules.checkpoints.pickles import load_pickle
from st_modules.errors import CheckpointError

_MOST_TENSORS = 20_000
"""Most tensors of a model: the largest of these architectures have about a thousand."""

_LONGEST_HEADER = 16 * 2**20
_LONGEST_NAME = 1000
_DISTRIBUTED = re.compile(r"shard-\d{5}-model-\d{5}-of-\d{5}\.safetensors")
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


def find_weights(folder: Path, variant: str | None = None, use_safetensors: bool | None = None) -> list[Path]:
    """Return the files that transformers reads a model's weights from.

    Args:
        folder: Folder of the model.
        variant: The argument of ``from_pretrained``.
        use_safetensors: The argument of ``from_pretrained``.

    Raises:
        CheckpointError: An index is damaged or names something else than files of its folder, or the files are those
            of a distributed checkpoint.
    """
    for name in _list_names(folder):
        if _DISTRIBUTED.match(name):
            raise CheckpointError(f"{folder / name}: part of a distributed checkpoint. Save the model as one.")
    ending = f".{variant}" if variant else ""
    safe = [f"model{ending}.safetensors", f"model.safetensors.index{ending}.json"]
    pickled = [f"pytorch_model{ending}.bin", f"pytorch_model.bin.index{ending}.json"]
    names = [*(safe if use_safetensors is not False else ()), *(pickled if not use_safetensors else ())]
    for name in names:
        if (folder / name).is_file():
            return _read_index(folder / name) if name.endswith(".json") else [folder / name]
    return []


def read_shapes(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Return the tensors of files of weights on the meta device, which has no memory for numbers.

    Raises:
        CheckpointError: A file cannot be read or holds something else than weights, or two have the same tensor.
    """
    shapes: dict[str, Tensor] = {}
    for path in paths:
        found = _read_header(path) if path.suffix == ".safetensors" else to_shapes(load_pickle(path))
        if twice := sorted(found.keys() & shapes.keys()):
            raise CheckpointError(f"{path}: the tensor {twice[0]} is in another file of the model too.")
        shapes |= found
        if len(shapes) > _MOST_TENSORS:
            raise CheckpointError(f"{path}: more than {_MOST_TENSORS} tensors, which no model has.")
    return shapes


def read_tensors(paths: Iterable[Path], names: Collection[str]) -> dict[str, Tensor]:
    """Return some tensors of files of weights.

    Raises:
        CheckpointError: A file cannot be read or holds something else than weights.
    """
    found: dict[str, Tensor] = {}
    for path in paths:
        if path.suffix == ".safetensors":
            with safe_open(path, "pt") as file:
                found |= {name: file.get_tensor(name) for name in file.keys() if name in names}  # noqa: SIM118 - no mapping
        else:
            weights = load_pickle(path)
            found |= {name: weights[name] for name in weights.keys() & names}
    return found


def to_shapes(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors of the same shapes and precisions on the meta device."""
    return {name: torch.empty(weight.shape, dtype=weight.dtype, device="meta") for name, weight in weights.items()}


def refuse_numbers(path: Path, shapes: Mapping[str, Tensor]) -> None:
    """Refuse weights that are whole numbers or stored in 8 bits, which are quantised: their scales are elsewhere.

    Raises:
        CheckpointError: A tensor is such a one.
    """
    for name, tensor in shapes.items():
        # Older releases of transformers saved where tokens stand.
        whole = tensor.element_size() == 1 or not (tensor.is_floating_point() or name.endswith("position_ids"))
        if whole:
            raise CheckpointError(
                f"{path}: the tensor {name} is stored as {str(tensor.dtype).removeprefix('torch.')}, and weights are "
                "floats of 16 bits or more. Use the files of the model that is not quantised."
            )


def _list_names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error}).") from error


def _read_index(path: Path) -> list[Path]:
    content = read_json(path)
    parts = content.get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(name, str) for name in parts.values()):
        raise CheckpointError(f"{path}: weight_map must name a file for each tensor. Download the file again.")
    check_fields(path, {"metadata": None, **content}, {"metadata": OBJECT})
    return [find_inside(path.parent, name, path) for name in sorted(set(parts.values()))]


def _read_header(path: Path) -> dict[str, Tensor]:
    refuse_pointer(path)
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes, and {_LONGEST_HEADER} are the most")
        with safe_open(path, "pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            kinds = {name: (part.get_shape(), part.get_dtype()) for name, part in slices.items()}
        for name, (_, dtype) in kinds.items():
            if len(name) > _LONGEST_NAME or dtype not in _DTYPES:
                raise ValueError(f"the tensor {name[:100]!r} has a name or a type ({dtype}) that no weight has")
        return {name: torch.empty(shape, dtype=_DTYPES[dtype], device="meta") for name, (shape, dtype) in kinds.items()}
    except Exception as error:  # the library's own have no common class
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error
