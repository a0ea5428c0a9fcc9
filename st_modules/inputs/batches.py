"""What a caller may pass as many inputs, told from a single one."""

from __future__ import annotations

import io
import sys
from collections.abc import Collection, Iterator, Mapping
from os import PathLike
from typing import Any, cast

from st_modules.errors import InputError


def list_inputs(inputs: Any) -> list[Any]:
    """Return the list of what holds several inputs.

    Raises:
        InputError: It is a single input, or it says nothing of the order of several; see :func:`is_batch`.
    """
    if isinstance(inputs, (list, tuple)):
        return list(cast("list[Any]", inputs))
    if not is_batch(inputs):
        raise InputError(f"Inputs of type {type(inputs).__name__}: pass a list, for a single one as [input].")
    # The items of an array are Python's own then, not arrays and scalars of numpy.
    return inputs.tolist() if _is_of(inputs, "numpy", "ndarray") else list(inputs)


def is_batch(inputs: Any) -> bool:
    """Whether something that is no list holds several inputs, in an order.

    Series, iterators, views and sequences of any kind do, and so do datasets of Hugging Face.

    Raises:
        InputError: It holds several inputs in a way that says nothing of their order, or of which column is meant.
    """
    single = (str, bytes, bytearray, memoryview, Mapping, PathLike, io.IOBase)
    if isinstance(inputs, single) or _is_of(inputs, "torch", "Tensor"):
        return False
    if isinstance(inputs, (set, frozenset)):
        raise InputError("A set has no order that embeddings could have: pass a list, as sorted(…).")
    if hasattr(inputs, "to_pylist"):
        raise InputError(f"A {type(inputs).__name__} of Arrow: pass a list, as column.to_pylist().")
    if _is_of(inputs, "datasets", "Dataset", "IterableDataset") or _is_of(
        inputs, "datasets.iterable_dataset", "IterableColumn"
    ):
        return True
    if hasattr(inputs, "columns"):
        to_rows = "to_dicts()" if hasattr(inputs, "to_dicts") else "to_dict('records')"
        raise InputError(
            f"A {type(inputs).__name__} has columns: pass the one that is meant, as list(frame['text']), or rows with "
            f"the keys text and image, as frame[['text', 'image']].{to_rows}."
        )
    if _is_of(inputs, "torch.utils.data", "IterableDataset"):
        return True
    if _is_of(inputs, "torch.utils.data", "Dataset", "DataLoader"):
        raise InputError(
            f"A {type(inputs).__name__} of torch: pass a list, as [dataset[n] for n in range(len(dataset))]."
        )
    if _is_of(inputs, "numpy", "ndarray"):
        return _holds_strings(inputs)
    return isinstance(inputs, (Iterator, Collection))


def _holds_strings(array: Any) -> bool:
    return array.ndim > 0 and array.dtype.kind in "SUOT"


def _is_of(value: object, module: str, *names: str) -> bool:
    """Whether a value is of one of the classes of a module; not where nobody has imported that."""
    loaded = sys.modules.get(module)
    classes = tuple(getattr(loaded, name) for name in names if hasattr(loaded, name))
    return bool(classes) and isinstance(value, classes)
