"""The module of a saved reranker that scores pairs, checked before sentence-transformers loads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

from st_modules.checkpoints.fields import Kind, check_fields, exactly, optional, whole
from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.shapes import read_shapes, refuse_numbers
from st_modules.checkpoints.weights import list_some
from st_modules.errors import CheckpointError

_WEIGHTS = "model.safetensors"
_FIELDS: dict[str, Kind] = {
    "in_features": whole(1, 2**20),
    "out_features": exactly(1),
    "bias": exactly(False),
    # What is scored is a difference of two logits, of which an activation would make something else.
    "activation_function": exactly("torch.nn.modules.linear.Identity"),
    "module_input_name": exactly("sentence_embedding"),
    "module_output_name": exactly("scores"),
}


def check_score(find: Callable[[str], str | None], folder: str) -> None:
    """Check the files of the module.

    Args:
        find: Where a file of the model is; ``None`` where it has no such file.
        folder: The folder of the module within the model's.

    Raises:
        CheckpointError: A file is missing or damaged, or a field has a value that it cannot have.
    """
    names = [str(PurePosixPath(folder, name)) for name in ("config.json", _WEIGHTS)]
    config, weights = (_require(find, name) for name in names)
    fields: dict[str, Any] = read_json(config)
    if missing := _FIELDS.keys() - fields.keys():
        raise CheckpointError(f"{config}: no {list_some(set(missing))} in it. Download or save the model again.")
    check_fields(config, fields, {**_FIELDS, "use_residual": optional(exactly(False))})
    shapes = read_shapes([weights])
    refuse_numbers(weights, shapes)
    found = {name: list(tensor.shape) for name, tensor in shapes.items()}
    if found != (needed := {"linear.weight": [1, fields["in_features"]]}):
        raise CheckpointError(f"{weights}: it has weights of the shapes {found}, and {needed} is needed.")


def _require(find: Callable[[str], str | None], name: str) -> Path:
    if (found := find(name)) is None:
        raise CheckpointError(f"modules.json names a module with the file {name}, which is not there. Copy it too.")
    return Path(found)
