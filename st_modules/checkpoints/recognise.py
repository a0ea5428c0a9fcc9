"""Which model a folder is: one that bears a repository's name is that model, another is never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from st_modules.catalog import ModelSpec, list_models
from st_modules.checkpoints.guard import check_folder
from st_modules.checkpoints.hub import is_repo_id
from st_modules.checkpoints.json_files import read_json, read_json_value
from st_modules.checkpoints.locate import ADAPTER_CONFIG, SAVED_OPTIONS, lone_adapter
from st_modules.errors import CheckpointError, UnknownModelError

_MODULES = "modules.json"
_CONFIG = "config.json"


def recognise(path: Path) -> ModelSpec | None:
    """Tell which model of the catalog a folder is by its name.

    Args:
        path: A folder with the name of a model's repository, in any letter case; its folder in the cache of the Hub
            (``models--OWNER--NAME/snapshots/COMMIT``) or of ModelScope; or the ``.pth`` file of a model.

    Returns:
        The model's row; ``None`` where the name says nothing, and for a model saved by ``save_pretrained``, which its
        own files describe.

    Raises:
        UnknownModelError: The folder holds several models.
        CheckpointError: The folder has a repository's name and a model that sentence-transformers saved, and the
            repository itself has none.
    """
    if (path / SAVED_OPTIONS).is_file():
        return None
    hits = _named(path) or _named(path.resolve())
    if hits and path.is_dir():
        check_folder(path)
    if _saved_by_others(path, hits):
        raise CheckpointError(
            f"{path}: it has the name of {_list([spec.name for spec in hits])}, and a {_MODULES} of "
            f"sentence-transformers. Rename the folder to have that loaded, or pass {_call(hits[0].name, path)}."
        )
    if len(hits) > 1:
        there = [spec for spec in hits if spec.find_weights_file(path)]
        if len(there) != 1:
            calls = " or ".join(_call(spec.name, path) for spec in hits)
            raise UnknownModelError(f"{path}: it may hold several models. Pass {calls}.")
        hits = there
    return hits[0] if hits else None


def _saved_by_others(path: Path, named: Sequence[ModelSpec]) -> bool:
    """Whether a folder with the name of some models has a model that another library saved."""
    if not named or all(spec.own_modules for spec in named) or not (path / _MODULES).is_file():
        return False
    return _names_modules_of_libraries(path / _MODULES)


def _named(path: Path) -> list[ModelSpec]:
    """Return the models of a repository that has the name of a folder, or the model of a file of weights."""
    name = path.name.casefold()
    if path.is_file():
        return [spec for spec in list_models() if spec.weights_file and Path(spec.weights_file).name.casefold() == name]
    if path.parent.name == "snapshots":
        name = path.parent.parent.name.casefold()
    # The caches write OWNER--NAME, and that of ModelScope three underscores for a full stop.
    owned = name.removeprefix("models--").replace("--", "/")
    names = {owned, owned.replace("___", ".")}
    return [spec for spec in list_models(None) if not names.isdisjoint(map(str.casefold, spec.repositories))]


def refuse_unnamed(path: Path, architectures: Mapping[str, Sequence[str]], class_name: str) -> None:
    """Refuse what has the layout of the catalog's models, and neither a name nor own files that say which one it is.

    sentence-transformers would load some of them as something else, and others not at all.

    Args:
        path: A folder or a file.
        architectures: For each ``model_type`` of a ``config.json`` the names of the catalog's models that have it.
        class_name: The class of sentence-transformers that would load it.

    Raises:
        CheckpointError: It is one; the message says what to pass.
    """
    if path.is_file():
        raise CheckpointError(f"{path}: a file. Pass its folder, or the name of a model and the file as weights=.")
    own_modules = (path / _MODULES).is_file()
    if (path / SAVED_OPTIONS).is_file():
        if not own_modules:
            raise CheckpointError(f"{path}: no {_MODULES} in it, which a saved model has. Copy the whole folder.")
        return
    if own_modules and _names_modules_of_libraries(path / _MODULES):
        return
    names: Sequence[str] = [spec.name for spec in list_models() if spec.find_weights_file(path)]
    if not names and (path / _CONFIG).is_file():
        names = _of_architecture(path, architectures)
    elif not names and (path / ADAPTER_CONFIG).is_file():
        _refuse_adapter(path, architectures)
    if names:
        raise CheckpointError(
            f"{path}: it has the layout of {_list(names)}, and its name does not say which model it is. Pass the "
            f"model's name, and the folder as its weights: {_call(names[0], path)}. For what sentence-transformers "
            f"itself makes of it, use sentence_transformers.{class_name}."
        )


def _of_architecture(folder: Path, architectures: Mapping[str, Sequence[str]]) -> Sequence[str]:
    found = read_json(folder / _CONFIG).get("model_type")
    return architectures.get(found, ()) if isinstance(found, str) else ()


def _names_modules_of_libraries(path: Path) -> bool:
    """Whether a ``modules.json`` names modules, and none of its own folder's code."""
    kinds = _module_types(path)
    return bool(kinds) and all(kind.startswith(("sentence_transformers.", "st_modules.")) for kind in kinds)


def _module_types(path: Path) -> list[str]:
    try:
        return [str(module["type"]) for module in read_json_value(path)]
    except (TypeError, KeyError) as error:
        raise CheckpointError(f"{path}: not a list of modules with their types. Download or save it again.") from error


def _refuse_adapter(path: Path, architectures: Mapping[str, Sequence[str]]) -> None:
    """Refuse an adapter that a model of the catalog is, or that may have been trained on one."""
    config = read_json(path / ADAPTER_CONFIG)
    base = str(config.get("base_model_name_or_path") or "")
    adapters = [spec.name for spec in list_models() if spec.base_repo_id and not spec.weights_file]
    # Where the base was a folder or a mirror, its last name is still the repository's.
    known = {spec.name: str(spec.base_repo_id).rpartition("/")[2].casefold() for spec in list_models()}
    adapters = [name for name in adapters if known[name] == Path(base).name.casefold()]
    if adapters:
        raise CheckpointError(
            f"{path}: it holds an adapter of {base}, as {_list(adapters)} is, and its name does not say which model it "
            f"is. Pass the model's name, and the folder as its weights: {_call(adapters[0], path)}, with base_weights= "
            "where what it is built on is a local folder."
        )
    if trained_on := _trained_on(config, base, architectures):
        raise lone_adapter(path, f", {_list(trained_on)},")
    if not base:
        raise lone_adapter(path)
    if not Path(base).exists() and not is_repo_id(base):
        raise lone_adapter(path, f" ({base}, which is gone),")


def _trained_on(config: Mapping[str, Any], base: str, architectures: Mapping[str, Sequence[str]]) -> Sequence[str]:
    """Return the models that an adapter may have been trained on, as far as it says so."""
    folder = Path(base)
    if base and folder.is_dir():
        if (folder / SAVED_OPTIONS).is_file():
            return [next((spec.name for spec in list_models() if spec.path == folder), base)]
        if found := recognise(folder):
            return [found.name]
        return _of_architecture(folder, architectures) if (folder / _CONFIG).is_file() else ()
    if named := [spec.name for spec in list_models() if base and base in (spec.repo_id, spec.modelscope_id)]:
        return named
    # PEFT writes down the module of the class that it adapted, as transformers.models.clip.modeling_clip.
    mapping = config.get("auto_mapping")
    library = str(mapping.get("parent_library") or "") if isinstance(mapping, dict) else ""
    return architectures.get(library.rpartition(".")[2].removeprefix("modeling_"), ())


def _call(name: str, path: Path) -> str:
    """What to pass, which has the same names wherever models are loaded: here, in the adapters, on the command line."""
    return f"{name!r} with weights={str(path)!r}"


def _list(names: Sequence[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
