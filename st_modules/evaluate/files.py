"""Reading the files of published benchmarks; an error names the file and the record."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, Value

from st_modules.errors import STModulesError
from st_modules.inputs.images import ImageSource


class BenchmarkDataError(STModulesError, ValueError):
    """A benchmark's file is missing or not in its published format."""


@dataclass(frozen=True)
class JsonRecord:
    """One entry of a file.

    Attributes:
        place: Where it is, as error messages say it: ``val.json: record 3``, counted from 0.
        values: Its fields.
    """

    place: str
    values: Mapping[str, Any]

    def text(self, key: str) -> str:
        """Return a field that is a string."""
        value = self._value(key)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def id(self, key: str) -> str:
        """Return a field that is an id: a string or a whole number."""
        return self._id(key, self._value(key))

    def number(self, key: str) -> int:
        """Return a field that is a whole number."""
        value = self._value(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        return value

    def ids(self, key: str) -> list[str]:
        """Return a field that is a list of ids with at least one entry."""
        value = self._value(key)
        if not isinstance(value, list) or not value:
            raise self._wrong(key, value, "a list of ids that is not empty")
        return [self._id(key, entry) for entry in value]

    def texts(self, key: str) -> list[str]:
        """Return a field that is a list of strings."""
        value = self._value(key)
        if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
            raise self._wrong(key, value, "a list of strings")
        return value

    def record(self, key: str) -> JsonRecord:
        """Return a field that is an object."""
        value = self._value(key)
        if not isinstance(value, dict):
            raise self._wrong(key, value, "an object")
        return JsonRecord(f"{self.place}, {key!r}", value)

    def error(self, problem: str) -> BenchmarkDataError:
        """Return an error about this record."""
        return BenchmarkDataError(f"{self.place}: {problem}")

    def _value(self, key: str) -> Any:
        if key not in self.values:
            raise self.error(f"it has no {key!r}, only {sorted(self.values)}.")
        return self.values[key]

    def _id(self, key: str, value: Any) -> str:
        if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
            raise self._wrong(key, value, "an id (a string or a whole number)")
        if has_control_characters(str(value)):
            raise self._wrong(key, value, "an id without control characters")
        return str(value)

    def _wrong(self, key: str, value: Any, wanted: str) -> BenchmarkDataError:
        return self.error(f"{key!r} must be {wanted}, and is {str(value)[:80]!r}.")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        BenchmarkDataError: It is missing, or is no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkDataError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, RecursionError) as error:
        raise BenchmarkDataError(f"{path}: not a JSON file ({error}).") from error


def read_records(path: Path) -> list[JsonRecord]:
    """Read a JSON file that is a list of objects.

    Raises:
        BenchmarkDataError: It is missing, or is something else, or is empty.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise BenchmarkDataError(f"{path}: must be a list of records that is not empty.")
    for number, value in enumerate(content):
        if not isinstance(value, dict):
            raise BenchmarkDataError(f"{path}: record {number}: must be an object, and is {str(value)[:80]!r}.")
    return [JsonRecord(f"{path}: record {number}", value) for number, value in enumerate(content)]


def has_control_characters(text: str) -> bool:
    """Whether a text has a character that no id may have: what computes the scores cuts ids at NUL, or aborts."""
    return any(unicodedata.category(char) == "Cc" for char in text)


def require_image(path: Path, record: JsonRecord) -> Path:
    """Return the path of an image that is there.

    Raises:
        BenchmarkDataError: It is not; the message names the record that asks for it.
    """
    if not path.is_file():
        raise record.error(f"its image {path} does not exist.")
    return path


def rows(
    ids: Sequence[str], *, texts: Sequence[str] | None = None, images: Sequence[Path | None] | None = None
) -> Dataset:
    """Lay rows out as mteb's queries or corpus; pictures are opened when they are embedded.

    Args:
        ids: One id a row.
        texts: One text a row, the empty string for none.
        images: One picture a row, ``None`` for none.

    Raises:
        ImageError: Later, where a row is read: its picture is damaged or over a limit; the message names the file.
    """
    columns: dict[str, list[Any]] = {"id": list(ids)}
    features: dict[str, Any] = {"id": Value("string")}
    if texts is not None:
        columns["text"], features["text"] = list(texts), Value("string")
    if images is not None:
        columns["image"] = [None if path is None else str(path) for path in images]
        features["image"] = _PictureFile()
    return Dataset.from_dict(columns, features=Features(features))


class _PictureFile(Image):
    """A column of paths whose pictures are read as all pictures here are.

    What datasets reads is turned by its EXIF orientation, which the authors of the benchmarks do not do, and its errors
    name no file.
    """

    def decode_example(self, value: Any, token_per_repo_id: Any = None) -> Any:
        """Read the picture of a row, in its own mode."""
        return ImageSource(Path(value["path"]), value["path"]).load()


def content_revision(paths: Iterable[Path]) -> str:
    """Name files by their content, so that results on other data are not taken for results on these.

    Raises:
        BenchmarkDataError: A file cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(digest_file(path))
        except OSError as error:
            raise BenchmarkDataError(f"{path}: cannot be read ({error.strerror}).") from error
    return f"files-{digest.hexdigest()[:12]}"


def digest_file(path: Path) -> bytes:
    """Return the SHA-256 of a file, which may be larger than memory.

    Raises:
        OSError: It cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()
