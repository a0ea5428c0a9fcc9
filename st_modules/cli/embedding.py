"""Records to vectors, some at a time, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from tqdm.auto import tqdm

import st_modules
from st_modules.backbones.base import find_backbone
from st_modules.checkpoints.weights import digest_weights
from st_modules.errors import InputError, name_inputs
from st_modules.files.partial import Partial
from st_modules.files.records import BadRecord, Record
from st_modules.inputs.images import ImageSource
from st_modules.integrations.skipping import Remaining

if TYPE_CHECKING:
    from st_modules.model import SentenceTransformer

Encode: TypeAlias = Callable[[list[Any]], np.ndarray]

BATCHES_AT_ONCE = 8
"""Records that are embedded in one call, in batches: what a stopped run loses, and what batches are planned over."""

_SAME = 0.999


def embed_records(
    model: SentenceTransformer,
    encode: Encode,
    records: Sequence[Record],
    partial: Partial,
    *,
    step: int,
    skip_bad: bool,
    show_progress_bar: bool,
) -> None:
    """Embed the records that a stopped run has left, all of them where there was none.

    Which records are embedded together depends on their positions alone, so that a run that was stopped gives the same
    vectors as one that was not.

    Args:
        model: The model.
        encode: From a list of items to its vectors.
        records: All records.
        partial: Where the vectors go.
        step: How many records are embedded in one call.
        skip_bad: Whether records that cannot be embedded are left out.
        show_progress_bar: Whether to show how many are done.

    Raises:
        InputError: A record cannot be embedded, and is not to be left out.
    """
    with tqdm(total=len(records), initial=partial.done, desc="Records", disable=not show_progress_bar) as bar:
        while partial.done < len(records):
            start = partial.done
            some = records[start : start + step]
            items = [record.item for record in some]
            if skip_bad:
                vectors, errors = _embed_valid(model, encode, items)
                bad = [(start + at, _as_bad(some[at], error)) for at, error in errors.items()]
            else:
                with name_inputs(lambda index, some=some: some[index].place):
                    vectors, bad = encode(items), []
            partial.append(vectors, bad, len(some))
            bar.update(len(some))


def _embed_valid(
    model: SentenceTransformer, encode: Encode, items: list[Any]
) -> tuple[np.ndarray | None, dict[int, InputError]]:
    """Vectors of the items that can be embedded, ``None`` where none can, and the errors of the others by place."""
    # Items that were parsed together have their places in errors, in whatever pieces they are embedded.
    remaining = Remaining(model.parse(items), {}, exact=find_backbone(model) is not None)
    while piece := remaining.take():
        try:
            remaining.keep(piece, encode([*piece.values()]).tolist())
        except InputError as error:
            remaining.split(piece, error)
    vectors = [vector for vector in remaining.embeddings if vector is not None]
    errors = {error.index: error for error in remaining.errors if error.index is not None}
    return np.array(vectors, np.float32) if vectors else None, errors


def _as_bad(record: Record, error: InputError) -> BadRecord:
    return BadRecord.of(error.rename(record.place), record.place, record.id)


def describe_run(
    model: SentenceTransformer, records: Sequence[Record], scratch: Path, how: Mapping[str, object]
) -> dict[str, str]:
    """Return what the vectors of a run depend on, by what messages call it.

    Images in files count by their sizes and times, those of URLs by their addresses.

    Args:
        model: The loaded model.
        records: All records.
        scratch: The folder of images that are in no file of their own, which are named by their content.
        how: What else the vectors depend on, by what messages call it.
    """
    weights = digest_weights(model)
    modules = [(type(module).__name__, _configuration(module)) for module in model]
    libraries = (st_modules.__version__, *map(_version, ("torch", "transformers", "sentence_transformers")))
    return {
        "model": repr((weights, modules, str(model.device.type))),
        "version of the libraries": repr(libraries),
        **{name: repr(value) for name, value in how.items()},
        "input": _digest(records, scratch),
    }


def is_of_model(first: np.ndarray, record: Record, encode: Encode) -> bool:
    """Whether a vector is the one that the model has for a record, but for what differs with the batch."""
    vector = encode([record.item])[0]
    if vector.shape != first.shape:
        return False
    lengths = float(np.linalg.norm(first)) * float(np.linalg.norm(vector))
    return float(first @ vector) > _SAME * lengths


def _configuration(module: Any) -> Any:
    # Paths in it may be those of a download cache.
    configuration = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
    return json.dumps(configuration, sort_keys=True, default=repr)


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


def _digest(records: Sequence[Record], scratch: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for record in records:
        images = record.item.get("image")
        sources = images if isinstance(images, list) else [images]
        states = [_identify(source, scratch) for source in sources]
        parts = [record.place, record.id, record.text, record.image, record.metadata, states]
        digest.update(json.dumps(parts).encode() + b"\n")
    return digest.hexdigest()


def _identify(image: ImageSource | str | Path | None, scratch: Path) -> object:
    """What tells that an image is the same as before, beside what the record says of it."""
    source = image.path if isinstance(image, ImageSource) else image
    if not isinstance(source, Path):
        return source
    if source.parent == scratch:
        return source.name
    try:
        at = source.stat()
    except OSError as error:
        return [str(source), type(error).__name__]
    return [str(source), at.st_size, at.st_mtime_ns]
