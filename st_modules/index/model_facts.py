"""What an index knows of the model that its vectors are of, and whether a loaded model is that one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import st_modules
from st_modules.catalog import find_published
from st_modules.errors import InputError, STModulesError

if TYPE_CHECKING:
    import sentence_transformers
    import torch

FORMAT = 1
"""Version of the tables; an index of a later one is not read."""

_FINGERPRINT_BYTES = 16
# Hashing the weights of a large model takes seconds.
_KNOWN: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


class IndexMismatchError(STModulesError, ValueError):
    """An index is of another model than the one that it is used with, or made otherwise than it is asked for."""


@dataclass(frozen=True)
class ModelFacts:
    """The model of an index, and what becomes of its vectors.

    Attributes:
        model: What loads it: a name of the catalog, a repository or a folder.
        fingerprint: Of its weights and of what its modules are set to; ``fingerprint`` computes it.
        dimension: Dimension of the vectors in the table.
        dtype: Their type there, ``"float32"`` or ``"float16"``.
        truncate_dim: How many dimensions were kept; ``None`` is all.
        instruction: What the model was told about the documents; ``None`` is nothing.
        format: Version of the tables.
        version: That of this package, which made the index.
    """

    model: str
    fingerprint: str
    dimension: int
    dtype: str = "float32"
    truncate_dim: int | None = None
    instruction: str | None = None
    format: int = FORMAT
    version: str = st_modules.__version__

    def to_json(self) -> str:
        """Write it as the table's schema keeps it."""
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str | bytes, path: str) -> Self:
        """Read what :meth:`to_json` wrote.

        Args:
            text: The JSON.
            path: The index, for messages.

        Raises:
            InputError: It is damaged, or of a later version of this package.
        """
        try:
            values: Mapping[str, Any] = json.loads(text)
            known = {field.name: values[field.name] for field in fields(cls)}
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: what it says of its model is damaged; build it anew.") from error
        if known["format"] != FORMAT:
            raise InputError(
                f"{path}: an index of format {known['format']}, made by st-modules {known['version']}; this one reads "
                f"format {FORMAT}. Use that version, or build the index anew."
            )
        return cls(**known)

    def check_name(self, name: str, path: str) -> None:
        """Make sure, before a model is loaded, that its name is not that of another one of the catalog.

        Args:
            name: What loads the model; what the catalog does not know is for ``check_model`` to compare.
            path: The index, for messages.

        Raises:
            IndexMismatchError: It is another.
        """
        spec, own = find_published(name), find_published(self.model)
        if spec is not None and own is not None and spec != own:
            raise IndexMismatchError(
                f"{path} has vectors of {own.name}, and the model {spec.name} is asked for: their vectors cannot be "
                f"compared. Leave it out, or build another index with {spec.name}."
            )

    def check_model(self, model: sentence_transformers.SentenceTransformer, path: str) -> None:
        """Make sure that a loaded model is the one of the index.

        Args:
            model: The model.
            path: The index, for messages.

        Raises:
            IndexMismatchError: It is another.
        """
        found = fingerprint(model)
        if found != self.fingerprint:
            raise IndexMismatchError(
                f"{path} has vectors of {self.model} (fingerprint {self.fingerprint}), and this model is "
                f"{name_model(model)} (fingerprint {found}): their vectors cannot be compared. Use the index's own "
                "model with its own options, or build another index with this one."
            )


def name_model(model: sentence_transformers.SentenceTransformer) -> str:
    """Return what loads a loaded model: its name in the catalog, or where it came from."""
    spec = getattr(model, "_spec", None)
    if spec is not None:
        return spec.name
    return getattr(model.transformers_model, "name_or_path", None) or type(model).__name__


def fingerprint(model: sentence_transformers.SentenceTransformer) -> str:
    """Name what a model makes of an item by its content: its weights, and what its modules are set to.

    It is the same in every precision that the model is loaded in, and on every device: an index that was built on a GPU
    is searched on a CPU. It is computed once for a loaded model; one that is trained on is to be loaded again.

    Args:
        model: The loaded model.

    Returns:
        32 hexadecimal digits.
    """
    if model not in _KNOWN:
        digest = hashlib.blake2b(digest_size=_FINGERPRINT_BYTES)
        modules: list[Any] = list(model)
        for module in modules:
            settings = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
            digest.update(json.dumps([type(module).__name__, settings], sort_keys=True, default=repr).encode())
        for name, tensor in sorted(model.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(_as_bytes(tensor))
        _KNOWN[model] = digest.hexdigest()
    return _KNOWN[model]


def _as_bytes(tensor: torch.Tensor) -> Any:
    import torch

    # What float32 weights are rounded to where a model is loaded in bfloat16.
    same = tensor.detach().to(torch.bfloat16) if tensor.is_floating_point() else tensor.detach()
    return same.cpu().contiguous().flatten().view(torch.uint8).numpy()
