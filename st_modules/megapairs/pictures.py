"""The pictures that triplets are mined from: a folder, or a list of paths, with captions or without."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_modules.errors import InputError
from st_modules.extras import require
from st_modules.records import IMAGE_SUFFIXES, JSONL_SUFFIXES

IMAGE_FIELDS = ("file_name", "image")
"""Where a row has the path of its picture; ``file_name`` is what the metadata of an image folder calls it."""

CAPTION_FIELDS = ("caption", "text")
"""Where a row has its caption."""

_METADATA_FILES = ("metadata.jsonl", "metadata.parquet")


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    Attributes:
        name: Its path as triplets have it: with ``/``, and below the collection's root where it was given so.
        caption: Its description.
    """

    name: str
    caption: str | None = None


@dataclass(frozen=True)
class Collection:
    """Pictures below one folder.

    Attributes:
        root: The folder.
        pictures: The pictures, each name once, sorted by name.
    """

    root: Path
    pictures: tuple[Picture, ...]

    def path(self, number: int) -> Path:
        """The file of a picture."""
        return self.root / self.pictures[number].name

    def __len__(self) -> int:
        return len(self.pictures)


def read_collection(path: str | Path) -> Collection:
    """List pictures; none is opened.

    Args:
        path: A folder, whose pictures are found recursively and whose ``metadata.jsonl`` or ``metadata.parquet`` (as
            the image folders of ``datasets`` have it), if there is one, has their captions; or such a file anywhere,
            whose paths are relative to its folder. Rows have the path as ``file_name`` or ``image`` and maybe a
            ``caption`` or ``text``.

    Returns:
        The pictures of the folder, or those that the file names.

    Raises:
        InputError: The path is missing or holds no picture, or rows are wrong: one line for each, up to twenty.
    """
    path = Path(path)
    if path.is_dir():
        names = {file.relative_to(path).as_posix(): None for file in _images_below(path)}
        found = [path / name for name in _METADATA_FILES if (path / name).is_file()]
        if len(found) > 1:
            raise InputError(f"{path}: {' and '.join(file.name for file in found)} are both there; keep one of them.")
        captions = _captions(found[0]) if found else {}
        return _collection(path, {**names, **captions}, path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder.")
    return _collection(path.parent, _captions(path), path)


def _images_below(folder: Path) -> Iterator[Path]:
    return (file for file in folder.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())


def _collection(root: Path, captions: dict[str, str | None], source: Path) -> Collection:
    missing = [name for name in captions if not (root / name).is_file()]
    if missing:
        raise InputError(_listed([f"{source}: {root / name}: no such file." for name in missing]))
    if len(captions) < 2:
        raise InputError(f"{source}: {len(captions)} pictures in it; pairs need at least two.")
    return Collection(root, tuple(Picture(name, captions[name]) for name in sorted(captions)))


def _captions(file: Path) -> dict[str, str | None]:
    """Names and captions of the rows of a file."""
    captions: dict[str, str | None] = {}
    problems: list[str] = []
    for place, fields in _rows(file):
        problem, picture = _picture(fields)
        if picture and picture.name in captions:
            problem = f"{picture.name!r} is there twice; keep one row of it"
        if problem:
            problems.append(f"{place}: {problem}")
        elif picture:
            captions[picture.name] = picture.caption
    if problems:
        raise InputError(_listed(problems))
    return captions


def _rows(file: Path) -> Iterable[tuple[str, Any]]:
    if file.suffix.lower() in JSONL_SUFFIXES:
        return _jsonl_rows(file)
    if file.suffix.lower() == ".parquet":
        return _parquet_rows(file)
    raise InputError(f"{file}: pass a folder of pictures, or a .jsonl or .parquet file that lists them.")


def _jsonl_rows(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"{file}:{number}", json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{file}:{number}: not valid JSON: {error}") from error


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    require("pyarrow", extra="megapairs")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            known = [name for name in parquet.schema_arrow.names if name in (*IMAGE_FIELDS, *CAPTION_FIELDS)]
            rows = (row for batch in parquet.iter_batches(columns=known) for row in batch.to_pylist())
            yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))
    except pa.ArrowInvalid as error:
        raise InputError(f"{file}: not a Parquet file: {error}") from error


def _picture(fields: object) -> tuple[str | None, Picture | None]:
    """What is wrong with a row, or the picture that it names."""
    if not isinstance(fields, dict):
        return 'not a JSON object; write {"file_name": ..., "caption": ...}', None
    name, caption = _first(fields, IMAGE_FIELDS), _first(fields, CAPTION_FIELDS)
    if not isinstance(name, str) or not name:
        return f"{' or '.join(IMAGE_FIELDS)} must be the path of a picture, not {name!r:.60}", None
    if caption is not None and not isinstance(caption, str):
        return f"{' or '.join(CAPTION_FIELDS)} must be a string, not {caption!r:.60}", None
    return None, Picture(Path(name).as_posix(), caption.strip() or None if caption else None)


def _first(fields: dict[Any, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _listed(problems: list[str]) -> str:
    more = [f"… and {len(problems) - 20} more."] if len(problems) > 20 else []
    return "\n".join(problems[:20] + more)
