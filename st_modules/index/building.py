"""``build``: a collection into an index, with a model, as often as it changes."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from tqdm.auto import tqdm

from st_modules.arguments import check_choice, check_flag, check_integer, check_optional_integer
from st_modules.files.tables import Columns
from st_modules.index.engines import EmbedOptions, Engine, Known, LocalEngine
from st_modules.index.precomputed import PrecomputedEngine, Records, find_records, open_vectors
from st_modules.index.report import Report
from st_modules.index.rows import Rows
from st_modules.index.running import Collection, Run
from st_modules.index.seen import open_seen
from st_modules.index.sources import SourceOptions, Sources
from st_modules.index.table import Errors, Items, name_storage
from st_modules.index.target import Target, Wanted, open_target
from st_modules.index.text_index import ensure_text_index, has_text_index
from st_modules.index.vector_index import FEWEST_ROWS, WANTED_RECALL, build_vector_index, choose, measure_recall
from st_modules.inputs.limits import ImageLimits

if TYPE_CHECKING:
    import sentence_transformers

    from st_modules.index.ray_engine import RayOptions

Source: TypeAlias = str | os.PathLike[str]

VectorIndex: TypeAlias = Literal["auto", "hnsw", "ivf_pq"] | None

_DTYPES = ("float32", "float16")
_ENGINES = ("local", "ray")
_VECTOR_INDEXES = ("auto", "hnsw", "ivf_pq")


def build(
    sources: Source | Iterable[Source] | Collection,
    path: Source,
    model: str | Path | sentence_transformers.SentenceTransformer | None = None,
    *,
    weights: Source | None = None,
    base_weights: Source | None = None,
    device: str | None = None,
    engine: Literal["local", "ray"] | RayOptions = "local",
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
    vector_index: VectorIndex = "auto",
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
        model: Name of a model, or a loaded one. By name it is loaded as one whose weights are fixed. By default that
            of the index, and ``"tiny"`` for a new one.
        weights: As of :class:`st_modules.SentenceTransformer`, for a model by name.
        base_weights: Likewise.
        device: Likewise.
        engine: Where entries are embedded: in this process or on Ray, where :class:`st_modules.index.RayOptions` say
            more of it. There the model is loaded again in every worker, so it is passed by name.
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
            leaves searches exact. One of fewer than 256 rows gets none.
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
    if isinstance(engine, str):
        check_choice("engine", engine, _ENGINES)
    _check_arguments(dtype, thumbnails, prune, max_errors, batch_size, wait, vector_index)
    found = None if vectors is None else open_vectors(vectors, find_records(sources))
    if found is None:
        collection = _open_sources(sources, Columns(text, image, id), metadata, image_limits)
    else:
        collection = Records(find_records(sources), image_limits or ImageLimits())
    loading = {"weights": weights, "base_weights": base_weights, "device": device}
    loading = {name: value for name, value in loading.items() if value is not None}
    wanted = Wanted(model, loading, dtype, truncate_dim, instruction, prompt_name)
    with open_target(os.fspath(path), wanted, wait) as target:
        facts = target.items.facts
        options = EmbedOptions(facts.instruction, batch_size, facts.truncate_dim, thumbnails)

        @contextmanager
        def open_engine(known: Known) -> Generator[Engine, None, None]:
            if found is not None:
                yield PrecomputedEngine(found, target.embedder, options, facts.dimension)
            elif engine == "local":
                yield LocalEngine(target.embedder, options, known)
            else:
                with _open_ray(engine, options, target.model, loading) as workers:
                    yield workers

        report = _run(collection, target, open_engine, thumbnails, max_errors, prune, show_progress_bar)
        _finish(target.items, report, vector_index)
    return report


def _run(
    collection: Collection,
    target: Target,
    open_engine: Callable[[Known], AbstractContextManager[Engine]],
    thumbnails: int | None,
    max_errors: int | None,
    prune: bool,
    show_progress_bar: bool,
) -> Report:
    report = Report()
    total = collection.estimate() if show_progress_bar else None
    errors = Errors(target.database, target.path)
    with open_seen() as seen, tqdm(total=total, desc="Items", unit="items", disable=not show_progress_bar) as bar:
        covers = collection.covers
        rows = Rows(target.items, errors, seen, report, covers=covers, thumbnails=thumbnails, max_errors=max_errors)
        run = Run(collection, rows, bar)
        with open_engine(rows.find_vectors) as engine:
            run.embed(engine)
        run.drop(prune)
    report.notes = list(getattr(collection, "notes", []))
    return report


@contextmanager
def _open_ray(
    engine: str | RayOptions, options: EmbedOptions, model: Any, loading: Mapping[str, Any]
) -> Generator[Engine, None, None]:
    from st_modules.index.ray_engine import RayOptions, ray_engine
    from st_modules.integrations.batch_embedder import BatchEmbedder

    cluster = engine if isinstance(engine, RayOptions) else RayOptions()
    with ray_engine(BatchEmbedder(model, **loading), options, cluster) as workers:
        yield workers


def _finish(items: Items, report: Report, kind: VectorIndex) -> None:
    """Put a table in order whose rows are all there, and index it."""
    with name_storage(items.path):
        finished = has_text_index(items.table)
    if finished and not (report.added or report.updated or report.removed):
        return
    items.tidy()
    with name_storage(items.path):
        ensure_text_index(items.table)
        wanted = choose(len(items), items.facts.dimension) if kind == "auto" else kind
        if wanted is None or len(items) < FEWEST_ROWS:
            return
        if any(index.columns == ["vector"] for index in items.table.list_indices()):
            report.recall = measure_recall(items.table)
        if report.recall is None or report.recall < WANTED_RECALL:
            report.recall = build_vector_index(items.table, wanted).recall


def _check_arguments(
    dtype: str | None,
    thumbnails: int | None,
    prune: bool,
    max_errors: int | None,
    batch_size: int,
    wait: bool,
    vector_index: str | None,
) -> None:
    if dtype is not None:
        check_choice("dtype", dtype, _DTYPES)
    if vector_index is not None:
        check_choice("vector_index", vector_index, _VECTOR_INDEXES)
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
