"""WebDataset archives: the members of one key are a sample, read one after the other."""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO, cast

from st_modules.errors import InputError, in_one_line, printable
from st_modules.files.tables import Columns, list_names, parse_object, quote
from st_modules.index.entries import Entry, Unreadable
from st_modules.index.sources.items import HeldPicture, MemberPicture, Picture
from st_modules.index.sources.notes import Notes
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.rows import Row, read_row, report
from st_modules.index.sources.stored import StoredFile
from st_modules.inputs.formats import IMAGE_SUFFIXES

LARGEST_TEXT = 16 * 1024 * 1024
"""In bytes: a member that is a text or JSON."""
MOST_MEMBERS = 100
"""Of one sample."""

# Headers of a usual archive have some hundred bytes; one may say that it has as many as the file.
_LARGEST_HEADER = 1024 * 1024
_MOST_GLOBAL_HEADERS = 1000
_BLOCK = 512
# As WebDataset divides names: all dots of a folder's name belong to the key, and the first of the file's ends it.
_NAME = re.compile(r"((?:.*/)?[^./]+)\.([^/]+)", re.DOTALL)
_TEXTS = frozenset({"txt", "text"})
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_FIRST_SAMPLES = 100


@dataclass
class _Sample:
    """The members of one key.

    Attributes:
        key: What their names have in common.
        fields: What the texts, labels and JSON among them say.
        pictures: The pictures, by what their names end in.
        problem: What is wrong with one of them.
        endings: What the names of the members read so far end in.
        size: How many bytes are read of them.
    """

    key: str
    fields: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Picture] = field(default_factory=dict)
    problem: InputError | None = None
    endings: set[str] = field(default_factory=set)
    size: int = 0


def read_tar(file: StoredFile, options: SourceOptions, notes: Notes) -> Iterator[Entry | Unreadable]:
    """Yield a sample after the other.

    A sample's columns are what its JSON says, the text of its ``.txt`` as "text", its pictures as "image", the label of
    its ``.cls`` as "cls", and "key"; each member is also a column of the name that it ends in.

    Raises:
        InputError: The archive is damaged or cut off, or has changed.
    """
    with file.open() as stream:
        for sample in _read_samples(file, stream, options, notes):
            yield _make_entry(file, sample, options)
    file.check()


def check_tar(file: StoredFile, options: SourceOptions) -> None:
    """Make sure that an archive has samples, and the first of them the columns that were asked for.

    Raises:
        InputError: It has not, or is damaged.
    """
    seen: dict[str, None] = {}
    count = 0
    try:
        with file.open() as stream:
            for sample in islice(_read_samples(file, stream, options, Notes()), _FIRST_SAMPLES):
                count += 1
                seen |= dict.fromkeys([*sample.fields, *sample.endings])
    except InputError:
        # Where there are samples before it, it is told in its turn.
        if not count:
            raise
    if not count:
        raise InputError("nothing to embed in it.", file.source)
    asked = [*options.columns.named().values(), *(options.metadata or ())]
    if unknown := [name for name in asked if name not in {*seen, "text", "image"}]:
        raise InputError(
            f"no {quote(unknown[0])} in its first {count} samples; there are {list_names(list(seen))}.", file.source
        )


def _make_entry(file: StoredFile, sample: _Sample, options: SourceOptions) -> Entry | Unreadable:
    place = f"{file.source}#{printable(sample.key)}"
    if sample.problem:
        return report(sample.problem, file.source, place)
    asked, fields = options.columns, dict(sample.fields)
    text = "text" if asked.text is None or asked.text in _TEXTS else asked.text
    image = "image" if asked.image is None else asked.image
    if image in sample.pictures:
        fields[image] = sample.pictures[image]
    elif image == "image" and sample.pictures:
        fields[image] = list(sample.pictures.values())
    columns = Columns(text, image, "id" if asked.id is None else asked.id)
    return read_row(Row(file.source, place, place, fields), columns, options)


def _read_samples(
    file: StoredFile, stream: BinaryIO, options: SourceOptions, notes: Notes
) -> Generator[_Sample, None, None]:
    sample: _Sample | None = None
    for member, data in _read_members(file, stream):
        named = _NAME.fullmatch(member.name)
        if named is None:
            notes.add("left out members whose names are no sample's: KEY.jpg, KEY.txt …", file.source)
            continue
        key, ending = named[1], named[2].lower()
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key, {"key": key})
        if sample.problem is None:
            try:
                _add_member(file, sample, ending, member, data, options, notes)
            except InputError as error:
                sample.problem = error
                sample.fields, sample.pictures = {}, {}
    if sample is not None:
        yield sample


def _add_member(
    file: StoredFile,
    sample: _Sample,
    ending: str,
    member: tarfile.TarInfo,
    data: BinaryIO,
    options: SourceOptions,
    notes: Notes,
) -> None:
    place = f"{file.source}#{printable(sample.key)}, {printable(ending)}"
    if ending in sample.endings:
        raise InputError("two members of one name", place)
    sample.endings.add(ending)
    if len(sample.endings) > MOST_MEMBERS:
        raise InputError(f"more than {MOST_MEMBERS} members of one key", place)
    last = ending.rpartition(".")[2]
    if not member.isreg() or member.issparse():
        raise InputError("a link, or another member that is no plain file", place)
    if f".{last}" in IMAGE_SUFFIXES:
        sample.pictures[ending] = _find_picture(file, member, data, place, sample, options)
    elif last in _TEXTS or last in ("json", "cls"):
        _add_fields(sample.fields, ending, _read_member(member, data, place, sample, LARGEST_TEXT), place)
    else:
        notes.add(f"left out members that end in .{printable(last)[:20]}", file.source)


def _find_picture(
    file: StoredFile, member: tarfile.TarInfo, data: BinaryIO, place: str, sample: _Sample, options: SourceOptions
) -> Picture:
    name = f"{file.source}#{printable(member.name)}"
    if isinstance(data, gzip.GzipFile):
        # What is compressed can be read once, in order.
        return HeldPicture(name, _read_member(member, data, place, sample, options.limits.max_bytes))
    return MemberPicture(name, file, member.offset_data, member.size)


def _read_member(member: tarfile.TarInfo, data: BinaryIO, place: str, sample: _Sample, most: int) -> bytes:
    sample.size += member.size
    if sample.size > most:
        raise InputError(f"{sample.size} bytes of one sample are over the limit of {most}", place)
    with _name_errors(place):
        data.seek(member.offset_data)
        content = data.read(member.size)
        if len(content) < member.size:
            raise EOFError("it ends within a member")
    return content


def _add_fields(fields: dict[str, Any], ending: str, content: bytes, place: str) -> None:
    """Add what a text, a label or JSON says to the columns of its sample."""
    last = ending.rpartition(".")[2]
    if last == "json":
        given = parse_object(content, place)
        # Members have the say over what the JSON repeats of them.
        fields |= {name: value for name, value in given.items() if name not in fields}
        return
    try:
        text = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text; save it as UTF-8", place) from error
    if last == "cls":
        text = text.strip()
        fields[ending] = int(text) if _WHOLE_NUMBER.fullmatch(text) else text
    else:
        fields["text" if ending in _TEXTS else ending] = text


def _read_members(file: StoredFile, stream: BinaryIO) -> Generator[tuple[tarfile.TarInfo, BinaryIO], None, None]:
    """Yield the files in an archive and what their content is read of.

    Raises:
        InputError: The archive is damaged, or cut off.
    """
    is_compressed = not file.source.lower().endswith(".tar")
    with _name_errors(file.source):
        data = cast("BinaryIO", gzip.GzipFile(fileobj=stream)) if is_compressed else stream
        headers = _Headers(data)
        with tarfile.open(fileobj=cast("BinaryIO", headers), mode="r:") as opened:
            archive: Any = opened
            while (member := archive.next()) is not None:
                # The archive remembers all its members otherwise.
                archive.members.clear()
                if len(archive.pax_headers) > _MOST_GLOBAL_HEADERS:
                    raise InputError("headers without end", file.source)
                if not member.isdir():
                    yield member, data
            # What is no header ends an archive in tarfile's eyes, but only zeros do.
            if headers.last != bytes(_BLOCK):
                raise InputError("damaged, or cut off; it does not end as archives do.", file.source)


@contextmanager
def _name_errors(source: str) -> Generator[None, None, None]:
    try:
        yield
    except InputError:
        raise
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, OverflowError, RecursionError) as error:
        raise InputError(f"cannot be read as an archive: {in_one_line(error)}", source) from error


class _Headers:
    """What tarfile reads: headers alone, of bounded size.

    Args:
        data: The archive, uncompressed.

    Attributes:
        last: What was read last.
    """

    def __init__(self, data: BinaryIO) -> None:
        self._data = data
        self.last = b""

    def read(self, size: int) -> bytes:
        """Read a header, or a part of one."""
        if not 0 <= size <= _LARGEST_HEADER:
            raise InputError(f"a header of {size} bytes")
        self.last = self._data.read(size)
        return self.last

    def seek(self, position: int) -> int:
        """Go to a position."""
        return self._data.seek(position)

    def tell(self) -> int:
        """Return the position."""
        return self._data.tell()
