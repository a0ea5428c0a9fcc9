"""The pictures that triplets are mined from: a folder, or a list of paths, with captions or without."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from st_modules._imports import require
from st_modules.errors import InputError
from st_modules.files.folders import list_tree
from st_modules.files.kinds import JSONL_SUFFIXES
from st_modules.files.records import Problems
from st_modules.files.tables import name_cells, open_csv
from st_modules.inputs.formats import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import pyarrow as pa

IMAGE_FIELDS = ("file_name", "image")
"""Where a row has the path of its picture; ``file_name`` is what the metadata of an image folder calls it."""

CAPTION_FIELDS = ("caption", "text")
"""Where a row has its caption."""

_METADATA_FILES = frozenset({"metadata.csv", "metadata.jsonl", "metadata.parquet"})


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
        path: A folder, whose pictures are found recursively (folders behind symbolic links are left aside), with the
            captions of each ``metadata.jsonl``, ``metadata.csv`` or ``metadata.parquet`` in it or below it, as the
            image folders of ``datasets`` have them; or such a file anywhere. Paths in these files are relative to the
            file's folder. Rows have the path as ``file_name`` or ``image`` and maybe a ``caption`` or ``text``.

    Returns:
        The pictures of the folder, or those that the file names. Whether a file can be read is not known yet.

    Raises:
        InputError: The path is missing or holds no picture, a folder in it cannot be read, or rows are wrong: one line
            for each, up to twenty.
    """
    path = Path(path)
    if path.is_dir():
        return _folder(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder.")
    return _collection(path.parent, _captions(path), path)


def _folder(root: Path) -> Collection:
    pictures: list[Path] = []
    metadata: list[Path] = []
    problems = Problems()
    files, _ = list_tree(root, problems)
    problems.raise_all()
    for file in files:
        if file.name in _METADATA_FILES:
            metadata.append(file)
        elif file.suffix.lower() in IMAGE_SUFFIXES:
            pictures.append(file)
    told: dict[str, str | None] = {}
    for file in sorted(metadata):
        _check_alone(file)
        below = file.parent.relative_to(root)
        captions = {(below / name).as_posix(): caption for name, caption in _captions(file).items()}
        if twice := sorted(told.keys() & captions.keys()):
            raise InputError(f"{file}: another metadata file has {twice[0]!r} too; keep one row of it.")
        told |= captions
    return _collection(root, {**{file.relative_to(root).as_posix(): None for file in pictures}, **told}, root)


def _check_alone(file: Path) -> None:
    if len(found := sorted(name for name in _METADATA_FILES if (file.parent / name).is_file())) > 1:
        raise InputError(f"{file.parent}: {' and '.join(found)} are both there; keep one of them.")


def _collection(root: Path, captions: dict[str, str | None], source: Path) -> Collection:
    if problems := [
        f"{source}: {name!a}: its name is not UTF-8; rename it." for name in captions if not _is_utf8(name)
    ]:
        raise InputError(_list_problems(problems))
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
        elif picture and not (file.parent / picture.name).is_file():
            problem = f"{file.parent / picture.name}: no such file"
        if problem:
            problems.append(f"{place}: {problem}")
        elif picture:
            captions[picture.name] = picture.caption
    if problems:
        raise InputError(_list_problems(problems))
    return captions


def _rows(file: Path) -> Iterable[tuple[str, Any]]:
    if file.suffix.lower() in JSONL_SUFFIXES:
        return _jsonl_rows(file)
    if file.suffix.lower() == ".parquet":
        return _parquet_rows(file)
    if file.suffix.lower() == ".csv":
        return _csv_rows(file)
    raise InputError(f"{file}: pass a folder of pictures, or a .jsonl, .csv or .parquet file that lists them.")


def _jsonl_rows(file: Path) -> Iterator[tuple[str, Any]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield f"{file}:{number}", json.loads(line.decode("utf-8-sig"))
                except (ValueError, RecursionError) as error:
                    raise InputError(f"{file}:{number}: not valid JSON: {error}") from error


def _csv_rows(file: Path) -> Iterator[tuple[str, Any]]:
    with open_csv(file) as (names, rows):
        yield from ((place, name_cells(names, cells, place)) for place, cells in rows)


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    require("pyarrow", extra="megapairs")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            columns = _columns(parquet.schema_arrow, file)
            rows = (row for batch in parquet.iter_batches(columns=columns) for row in batch.to_pylist())
            yield from ((f"{file}, row {number}", row) for number, row in enumerate(rows, 1))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: cannot be read as Parquet: {error}") from error


def _columns(schema: pa.Schema, file: Path) -> list[str]:
    """The columns to read; those with the pictures themselves are not."""
    import pyarrow as pa

    images = [name for name in IMAGE_FIELDS if name in schema.names]
    paths = [name for name in images if not (pa.types.is_struct(schema.field(name).type) or _is_binary(schema, name))]
    if images and not paths:
        raise InputError(
            f"{file}: its column {images[0]!r} has pictures, not their paths; write them to a folder with "
            "st_modules.megapairs.save_pictures, and pass that."
        )
    return [*paths, *(name for name in CAPTION_FIELDS if name in schema.names)]


def _is_binary(schema: pa.Schema, name: str) -> bool:
    import pyarrow as pa

    return pa.types.is_binary(schema.field(name).type) or pa.types.is_large_binary(schema.field(name).type)


def _picture(fields: object) -> tuple[str | None, Picture | None]:
    """What is wrong with a row, or the picture that it names."""
    if not isinstance(fields, dict):
        return 'not a JSON object; write {"file_name": ..., "caption": ...}', None
    name, caption = _first(fields, IMAGE_FIELDS), _first(fields, CAPTION_FIELDS)
    if not isinstance(name, str) or not name:
        return f"{' or '.join(IMAGE_FIELDS)} must be the path of a picture, not {name!r:.60}", None
    if caption is not None and not isinstance(caption, str):
        return f"{' or '.join(CAPTION_FIELDS)} must be a string, not {caption!r:.60}", None
    if not _is_utf8(name) or not _is_utf8(caption or ""):
        return "a lone surrogate in it, which is no character; write the whole one", None
    return None, Picture(Path(name).as_posix(), caption.strip() or None if caption else None)


def _first(fields: dict[Any, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _list_problems(problems: list[str]) -> str:
    more = [f"… and {len(problems) - 20} more."] if len(problems) > 20 else []
    return "\n".join(problems[:20] + more)
