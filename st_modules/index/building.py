"""``build``: a collection into an index, with a model, as often as it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tqdm.auto import tqdm

from st_modules.arguments import check_flag, check_integer, check_optional_integer
from st_modules.errors import ArgumentError, InputError
from st_modules.files.locks import lock_folder
from st_modules.files.tables import Columns
from st_modules.index.engines import EmbedOptions, Engine, Known, LocalEngine
from st_modules.index.entries import Entry, digest
from st_modules.index.model_facts import IndexMismatchError, ModelFacts, fingerprint, name_model
from st_modules.index.report import Report
from st_modules.index.rows import Rows
from st_modules.index.running import Collection, Run
from st_modules.index.seen import open_seen
from st_modules.index.sources import SourceOptions, Sources
from st_modules.index.table import Errors, IndexStorageError, Items, connect, has_items
from st_modules.integrations.embedder import Embedder

if TYPE_CHECKING:
    import sentence_transformers

    from st_modules.inputs.limits import ImageLimits

Source: TypeAlias = str | os.PathLike[str]
MakeEngine: TypeAlias = Callable[[Embedder, EmbedOptions, Known], Engine]
"""From a loaded model, how entries are embedded, and what looks up vectors that need not be computed, to an engine."""

_DTYPES = ("float32", "float16")


@dataclass(frozen=True)
class _Wanted:
    """What an index is asked to be; ``None`` is what it is already, or the default for a new one."""

    dtype: str | None
    truncate_dim: int | None
    instruction: str | None


def build(
    sources: Source | Iterable[Source] | Collection,
    path: Source,
    model: str | Path | sentence_transformers.SentenceTransformer = "tiny",
    *,
    weights: Source | None = None,
    base_weights: Source | None = None,
    device: str | None = None,
    engine: Literal["local", "ray"] | MakeEngine = "local",
    text: str | None = None,
    image: str | None = None,
    id: str | None = None,
    metadata: Sequence[str] | None = None,
    dtype: Literal["float32", "float16"] | None = None,
    truncate_dim: int | None = None,
    thumbnails: int | None = None,
    instruction: str | None = None,
    prompt_name: str | None = None,
    prune: bool = False,
    max_errors: int | None = None,
    batch_size: int = 32,
    image_limits: ImageLimits | None = None,
    vector_index: Literal["auto", "hnsw", "ivf_pq"] | None = "auto",
    vectors: Source | None = None,
    show_progress_bar: bool = False,
    wait: bool = False,
) -> Report:
    """Embed a collection into an index, or bring an index up to what its collection has become.

    Every item of the collection is in the index once, however often and wherever this was stopped: what was committed
    stays, and another call goes on. What has not changed since is not read again, and what has the content of something
    that is there is not embedded again. One process writes to an index at a time; others may search it meanwhile.

    Args:
        sources: Paths, URLs of fsspec and patterns of files and folders; see :class:`st_modules.index.Sources`.
        path: The index: a folder, which is made, or another database that LanceDB takes. Of a remote one it is up to
            the caller that one process writes at a time.
        model: Name of a model, or a loaded one. By name it is loaded as one whose weights are fixed.
        weights: As of :class:`st_modules.SentenceTransformer`, for a model by name.
        base_weights: Likewise.
        device: Likewise.
        engine: Where entries are embedded: in this process or on Ray; or a function that makes an engine.
        text: Column of the texts in tables; ``text`` by default, where there is one, and none where it is ``""``.
        image: Column of the images, likewise.
        id: Column of the ids, likewise. What has no id gets one from its content.
        metadata: Columns that are kept; by default all others.
        dtype: Type of the vectors in the table, float32 by default. It is decided when the index is made, as are
            ``truncate_dim`` and the instruction: later calls leave them out or say the same.
        truncate_dim: How many dimensions of a vector are kept.
        thumbnails: Keep small pictures, so many pixels wide or high at most.
        instruction: What the model is told about the documents, where it reads that.
        prompt_name: Name of one of the model's own instructions, in its place.
        prune: Delete the rows of files that are gone.
        max_errors: How many items may fail before the run stops; any number by default.
        batch_size: Most items in a batch.
        image_limits: What an image may cost, and where those that tables name may come from.
        vector_index: Which index over the vectors a large table gets; ``"auto"`` chooses by its size, and ``None``
            leaves searches exact.
        vectors: A ``.npy`` file of vectors that `st-modules embed` wrote, with its ``.jsonl`` as the only source.
        show_progress_bar: Whether to show how many items are done.
        wait: Wait for another run that writes to the index, in the place of an error.

    Returns:
        What was done. Items that cannot be read or embedded are counted there and listed in the index; the rest goes on
        without them.

    Raises:
        InputError: A source is not there or has nothing; another run writes to the index; more items failed than may.
        IndexMismatchError: The index is of another model, or was made with other options.
        IndexStorageError: The index cannot be written, as on a full disk.
        ArgumentError: An argument has a value that it cannot have.
        MissingExtraError: The extra ``index`` is not installed.

    Example:
        >>> from st_modules.index import build
        >>> build("photos", "photos.index", model="tiny").added
        1200
    """
    _check_arguments(dtype, thumbnails, prune, max_errors, batch_size, wait)
    collection = _open_sources(sources, Columns(text, image, id), metadata, image_limits)
    with _lock(os.fspath(path), wait) as place:
        loading = {"weights": weights, "base_weights": base_weights, "device": device}
        embedder = Embedder.load(model, **{name: value for name, value in loading.items() if value is not None})
        told = _find_instruction(embedder, instruction, prompt_name)
        database = connect(place)
        items = _open_items(database, place, embedder, _Wanted(dtype, truncate_dim, told))
        facts = items.facts
        options = EmbedOptions(facts.instruction, batch_size, facts.truncate_dim, thumbnails)
        report = Report()
        run = _Parts(collection, items, Errors(database, place), report, thumbnails, max_errors)
        _run(run, embedder, options, _engine_maker(engine, vectors, collection), prune, show_progress_bar)
    return report


@dataclass(frozen=True)
class _Parts:
    collection: Collection
    items: Items
    errors: Errors
    report: Report
    thumbnails: int | None
    max_errors: int | None

    def mark(self, entry: Entry) -> str:
        """Return what tells that a row is as it would be written now."""
        return digest(entry.state, entry.id, dict(entry.metadata), self.thumbnails)


def _run(
    parts: _Parts, embedder: Embedder, options: EmbedOptions, make: MakeEngine, prune: bool, show_progress_bar: bool
) -> None:
    total = parts.collection.estimate()
    with open_seen() as seen, tqdm(total=total, desc="Items", unit="items", disable=not show_progress_bar) as bar:
        rows = Rows(
            parts.items,
            parts.errors,
            seen,
            parts.report,
            covers=parts.collection.covers,
            mark=parts.mark,
            max_errors=parts.max_errors,
        )
        run = Run(parts.collection, parts.items, parts.errors, seen, rows, parts.report, bar)
        with _keep_done(rows):
            run.embed(make(embedder, options, rows.find_vectors))
        run.drop(prune)
    if rows.commits or parts.report.removed:
        parts.items.tidy()


@contextmanager
def _keep_done(rows: Rows) -> Generator[None, None, None]:
    """Where a run is stopped, have what it has done committed first."""
    try:
        yield
    except IndexStorageError:
        raise  # what cannot be written cannot be written now either
    except BaseException:
        with suppress(Exception):
            rows.commit()
        raise


def _check_arguments(
    dtype: str | None, thumbnails: int | None, prune: bool, max_errors: int | None, batch_size: int, wait: bool
) -> None:
    if dtype is not None and dtype not in _DTYPES:
        raise ArgumentError(f"dtype={dtype!r}: one of {', '.join(_DTYPES)}.")
    check_optional_integer("thumbnails", thumbnails)
    check_integer("batch_size", batch_size)
    if max_errors is not None:
        check_integer("max_errors", max_errors, least=0)
    check_flag("prune", prune)
    check_flag("wait", wait)


def _open_sources(
    sources: Source | Iterable[Source] | Collection,
    columns: Columns,
    metadata: Sequence[str] | None,
    limits: ImageLimits | None,
) -> Collection:
    if hasattr(sources, "covers"):
        return sources  # pyright: ignore[reportReturnType]
    given = {} if limits is None else {"limits": limits}
    kept = None if metadata is None else tuple(metadata)
    return Sources(sources, SourceOptions(columns, metadata=kept, **given))  # pyright: ignore[reportArgumentType]


@contextmanager
def _lock(path: str, wait: bool) -> Generator[str, None, None]:
    """Keep other runs out of an index in a folder, and make this; yield what LanceDB is told."""
    if "://" in path:
        yield path
        return
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{path}: a file; an index is a folder. Pass another name.")
    folder.mkdir(parents=True, exist_ok=True)
    with lock_folder(folder, wait):
        yield str(folder)


def _find_instruction(embedder: Embedder, instruction: str | None, prompt_name: str | None) -> str | None:
    if instruction is not None and prompt_name is not None:
        raise ArgumentError("instruction and prompt_name are two ways to say the same: pass one of them.")
    if prompt_name is not None:
        if prompt_name not in embedder.model.prompts:
            known = ", ".join(embedder.model.prompts) or "none"
            raise ArgumentError(f"prompt_name={prompt_name!r}: the model has no such instruction. It has: {known}.")
        instruction = embedder.model.prompts[prompt_name]
    try:
        embedder.check_instruction("document", instruction)
    except ValueError as error:
        raise ArgumentError(str(error)) from error
    return instruction


def _open_items(database: Any, path: str, embedder: Embedder, wanted: _Wanted) -> Items:
    if not has_items(database):
        return Items.create(database, _new_facts(embedder, wanted), path)
    items = Items.open(database, path)
    for name in ("dtype", "truncate_dim", "instruction"):
        asked, found = getattr(wanted, name), getattr(items.facts, name)
        if asked is not None and asked != found:
            raise IndexMismatchError(
                f"{path} was made with {name}={found!r}, not with {asked!r}: leave it out, or build another index."
            )
    items.facts.check_model(embedder.model, path)
    return items


def _new_facts(embedder: Embedder, wanted: _Wanted) -> ModelFacts:
    model = embedder.model
    full = model.get_embedding_dimension()
    if full is None:
        full = int(embedder.encode(["a"], "document").shape[1])
    kept = wanted.truncate_dim if wanted.truncate_dim is not None else model.truncate_dim
    if kept is not None and not 0 < kept <= full:
        raise ArgumentError(f"truncate_dim={kept}: the model's vectors have {full} dimensions.")
    return ModelFacts(
        name_model(model), fingerprint(model), kept or full, wanted.dtype or "float32", kept, wanted.instruction
    )


def _engine_maker(engine: str | MakeEngine, vectors: Source | None, collection: Collection) -> MakeEngine:
    if callable(engine):
        return engine
    if engine == "local":
        return LocalEngine
    if engine == "ray":
        from st_modules.index.ray_engine import RayEngine

        return RayEngine
    raise ArgumentError(f"engine={engine!r}: one of local, ray.")
