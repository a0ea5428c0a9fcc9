"""The index that is written to: locked, made or opened, and its model with it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_modules.errors import ArgumentError, InputError
from st_modules.files.locks import lock_folder
from st_modules.index.model_facts import IndexMismatchError, ModelFacts, fingerprint, name_model
from st_modules.index.table import Items, connect, has_items
from st_modules.integrations.embedder import Embedder

if TYPE_CHECKING:
    import sentence_transformers

_MODEL = "tiny"


@dataclass(frozen=True)
class Wanted:
    """What an index is asked to be; ``None`` is what it is already, or the default for a new one.

    Attributes:
        model: What loads the model, or a loaded one.
        loading: How it is loaded.
        dtype: As of :class:`ModelFacts`, as are the following.
        truncate_dim: Likewise.
        instruction: Likewise.
        prompt_name: Name of one of the model's own instructions, in its place.
    """

    model: str | Path | sentence_transformers.SentenceTransformer | None
    loading: Mapping[str, Any]
    dtype: str | None = None
    truncate_dim: int | None = None
    instruction: str | None = None
    prompt_name: str | None = None


@dataclass(frozen=True)
class Target:
    """An index that is written to.

    Attributes:
        database: LanceDB's.
        path: Where it is, for messages.
        items: Its table of items.
        embedder: Its model.
        model: What loads it, or the loaded one.
    """

    database: Any
    path: str
    items: Items
    embedder: Embedder
    model: str | Path | sentence_transformers.SentenceTransformer


@contextmanager
def open_target(path: str, wanted: Wanted, wait: bool) -> Generator[Target, None, None]:
    """Make or open an index, and keep other runs out of it.

    Args:
        path: A folder, which is made, or another database that LanceDB takes: out of this nobody is kept.
        wanted: What it is asked to be.
        wait: Whether to wait for the end of another run.

    Raises:
        InputError: Another run is in it, or there is something else.
        IndexMismatchError: It is of another model, or was made otherwise.
        ArgumentError: It cannot be as it is asked to be.
    """
    with _lock(path, wait):
        database = connect(path)
        items = Items.open(database, path) if has_items(database) else None
        model = wanted.model or (items.facts.model if items else _MODEL)
        if items is not None and isinstance(model, str | Path):
            items.facts.check_name(str(model), path)
        embedder = Embedder.load(model, **wanted.loading)
        if items is None:
            items = Items.create(database, _new_facts(embedder, wanted), path)
        else:
            _check(items.facts, embedder, wanted, path)
        yield Target(database, path, items, embedder, model)


@contextmanager
def _lock(path: str, wait: bool) -> Generator[None, None, None]:
    local = path.removeprefix("file://")
    if "://" in local:
        yield
        return
    folder = Path(local)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{path}: a file; an index is a folder. Pass another name.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, wait):
        yield


def _check(facts: ModelFacts, embedder: Embedder, wanted: Wanted, path: str) -> None:
    asked = {
        "dtype": wanted.dtype,
        "truncate_dim": wanted.truncate_dim,
        "instruction": _find_instruction(embedder, wanted),
    }
    for name, value in asked.items():
        if value is not None and value != (found := getattr(facts, name)):
            raise IndexMismatchError(
                f"{path} was made with {name}={found!r}, not with {value!r}: leave it out, or build another index."
            )
    facts.check_model(embedder.model, path)


def _new_facts(embedder: Embedder, wanted: Wanted) -> ModelFacts:
    model = embedder.model
    full = int(embedder.encode(["a"], "document", truncate_dim=None).shape[1])
    kept = wanted.truncate_dim if wanted.truncate_dim is not None else model.truncate_dim
    if kept is not None and not 0 < kept <= full:
        raise ArgumentError(f"truncate_dim={kept}: the model's vectors have {full} dimensions.")
    instruction = _find_instruction(embedder, wanted)
    return ModelFacts(name_model(model), fingerprint(model), kept or full, wanted.dtype or "float32", kept, instruction)


def _find_instruction(embedder: Embedder, wanted: Wanted) -> str | None:
    instruction = wanted.instruction
    if instruction is not None and wanted.prompt_name is not None:
        raise ArgumentError("instruction and prompt_name are two ways to say the same: pass one of them.")
    if wanted.prompt_name is not None:
        if wanted.prompt_name not in embedder.model.prompts:
            known = ", ".join(embedder.model.prompts) or "none"
            raise ArgumentError(f"prompt_name={wanted.prompt_name!r}: the model has no such instruction, but {known}.")
        instruction = embedder.model.prompts[wanted.prompt_name]
    try:
        embedder.check_instruction("document", instruction)
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    return instruction
