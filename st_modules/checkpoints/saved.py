"""The files of a saved model that sentence-transformers reads, checked before it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import sentence_transformers
from sentence_transformers.base.model import BaseModel
from sentence_transformers.base.modules import Dense
from sentence_transformers.sentence_transformer.modules import Normalize
from sentence_transformers.util import import_from_string
from torch import nn

from st_modules.checkpoints.fields import (
    NAME,
    OBJECT,
    TEXT,
    Kind,
    check_fields,
    each,
    exactly,
    one_of,
    optional,
)
from st_modules.checkpoints.json_files import check_file, read_json, read_json_value
from st_modules.checkpoints.locate import SAVED_OPTIONS
from st_modules.checkpoints.scores import check_score
from st_modules.errors import CheckpointError

MODULES = "modules.json"
_DENSE = f"{Dense.__module__}.{Dense.__name__}"

_CLASS = Kind("the path of a class", lambda value: NAME.fits(value) and "." in value.strip("."))
_RELEASE = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[a-z0-9.]*[a-z0-9])?")
_VERSION = Kind("a version", lambda value: TEXT.fits(value) and _RELEASE.fullmatch(value) is not None)
_EMBEDDING = exactly("sentence_embedding")
_NORMALIZE = {
    # With another it would leave the embedding as it is.
    "module_input_name": _EMBEDDING,
    "module_output_name": optional(_EMBEDDING),
}
# sentence-transformers calls whatever torch has by this name.
_ACTIVATION = Kind(
    "a class of torch.nn",
    lambda value: NAME.fits(value) and (not value.startswith("torch.") or value.startswith("torch.nn.modules.")),
)
_SETTINGS = {
    "__version__": OBJECT,
    "requirements": optional(OBJECT),
    "prompts": OBJECT,
}
_OWN_SETTINGS = {
    "SentenceTransformer": {
        # sentence-transformers takes one that it does not know for the cosine.
        "similarity_fn_name": one_of([*sentence_transformers.SentenceTransformer.SUPPORTED_SIMILARITY_FN_NAMES, None])
    },
    "CrossEncoder": {"activation_fn": optional(_ACTIVATION)},
}
"""The settings of models, by sentence-transformers' classes."""

Find = Callable[[str], str | None]
"""From the name of a file of the model to its path; ``None`` where it has no such file."""


def check_saved_model(
    find: Find, model_class: type[BaseModel], backbones: Collection[str], prompts: Collection[str]
) -> None:
    """Check what sentence-transformers reads of a model that this package saved; another's is left alone.

    Args:
        find: Where a file of the model is.
        model_class: The class that loads it.
        backbones: What ``modules.json`` calls the modules of this package.
        prompts: Names of prompts that the model has besides those that were saved.

    Raises:
        CheckpointError: A file is damaged, or a field has a value that it cannot have.
    """
    found = find(MODULES)
    if found is None:
        return
    modules = read_json_value(Path(found))
    if not _names_any(modules, backbones) and find(SAVED_OPTIONS) is None:
        return
    classes = _check_modules(Path(found), modules, backbones, model_class)
    if (settings := find("config_sentence_transformers.json")) is not None:
        _check_settings(Path(settings), prompts, model_class.model_type)
    if (card := find("README.md")) is not None:
        check_file(Path(card))
    if model_class.model_type == "CrossEncoder":
        if classes != [Dense]:
            raise CheckpointError(f"{found}: a reranker has one module after its first, {_DENSE}, which scores pairs.")
        check_score(find, modules[1]["path"])
    for module, module_class in zip(modules[1:], classes, strict=True):
        if (config := find(str(PurePosixPath(module["path"], "config.json")))) is not None:
            fields = read_json(Path(config))
            check_fields(Path(config), fields, _NORMALIZE if module_class is Normalize else {})


def _names_any(modules: Any, types: Collection[str]) -> bool:
    """Whether a list of modules, as far as it is one, names one of some types."""
    entries = modules if isinstance(modules, list) else []
    return any(isinstance(entry, dict) and entry.get("type") in [*types] for entry in entries)


def _check_modules(path: Path, modules: Any, backbones: Collection[str], model_class: type[BaseModel]) -> list[Any]:
    """Check the list of modules; return the classes of all but the first, ``None`` for one that is not imported."""
    if not isinstance(modules, list) or not modules or not all(isinstance(module, dict) for module in modules):
        raise CheckpointError(f"{path}: not a list of modules with their types. Download or save it again.")
    names: set[str] = set()
    classes: list[Any] = []
    for number, module in enumerate(modules):
        kinds = {
            "type": one_of(backbones) if number == 0 else _CLASS,
            "name": Kind("a name that neither a method nor another module has", _is_free(names, model_class)),
            "path": Kind("a folder within the model's", _is_within),
            "kwargs": each(NAME),
        }
        check_fields(path, {**dict.fromkeys(("type", "name", "path")), **module}, kinds, f"[{number}].")
        names.add(module["name"])
        if number:
            classes.append(_import(path, f"[{number}].type", module["type"]))
    return classes


def _is_free(taken: Collection[str], model_class: type[BaseModel]) -> Callable[[Any], bool]:
    def is_free(name: Any) -> bool:
        return NAME.fits(name) and "." not in name and name not in taken and not hasattr(model_class, name)

    return is_free


def _is_within(path: Any) -> bool:
    # Which takes the separators of other systems for such too.
    return (
        TEXT.fits(path)
        and "\0" not in path
        and not PureWindowsPath(path).anchor
        and ".." not in PureWindowsPath(path).parts
    )


def _import(path: Path, place: str, name: str) -> Any:
    """Return a class of sentence-transformers by its name; others are its own affair, which needs to be asked to."""
    if not name.startswith("sentence_transformers."):
        return None
    try:
        found: Any = import_from_string(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise CheckpointError(f"{path}: {place} is {name!r}, which sentence-transformers does not have.") from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise CheckpointError(f"{path}: {place} is {name!r}, which is no module.")
    return found


def _check_settings(path: Path, prompts: Collection[str], model_type: str) -> None:
    fields = read_json(path)
    check_fields(path, fields, {"model_type": exactly(model_type), **_SETTINGS, **_OWN_SETTINGS[model_type]})
    saved = fields.get("prompts", {})
    check_fields(path, saved, dict.fromkeys(saved, optional(TEXT)), "prompts.")
    check_fields(path, fields, {"default_prompt_name": one_of({*prompts, *saved, None})})
    check_fields(path, fields.get("__version__", {}), {"sentence_transformers": _VERSION}, "__version__.")
