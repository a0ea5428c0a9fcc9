"""Rows of tables, whatever file they are in: text, pictures, id, and the rest as metadata."""

from __future__ import annotations

import json
import math
import os
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from st_modules.errors import ImageError, InputError
from st_modules.files.records import BadRecord, check_fields
from st_modules.files.tables import Columns, check_row
from st_modules.index.entries import Entry, Unreadable, digest
from st_modules.index.sources.items import (
    AddressPicture,
    FoundPicture,
    HeldPicture,
    ItemContent,
    MemberPicture,
    Picture,
)
from st_modules.index.sources.options import SourceOptions
from st_modules.index.sources.stored import is_remote
from st_modules.inputs.data_uris import decode_data_uri
from st_modules.inputs.image_forms import file_url_path
from st_modules.inputs.limits import ImageLimits

_PROTOCOL = re.compile(r"([a-z][a-z0-9+.-]*)://|(data):", re.IGNORECASE)
_INT64 = 2**63


@dataclass(frozen=True)
class Row:
    """A row as it was read.

    Attributes:
        source: The file, or the folder of a dataset.
        place: What messages call it.
        reference: What a picture in one of its cells is called.
        fields: Its cells by column; ``None`` is none.
    """

    source: str
    place: str
    reference: str
    fields: Mapping[str, Any]


def read_row(row: Row, columns: Columns, options: SourceOptions) -> Entry | Unreadable:
    """Turn a row into an entry, or into what is told of one that has none.

    Args:
        row: The row.
        columns: As ``Columns.choose`` returns them.
        options: How it is read.
    """
    id_ = row.fields.get(columns.id or "")
    try:
        return _make_entry(row, columns, options)
    except InputError as error:
        return report(error, row.source, row.place, write_id(id_))


def report(error: InputError, source: str, place: str, id: str | None = None, page: int | None = None) -> Unreadable:
    """Say of a part of a source that it cannot be read, by the error that tells why."""
    return Unreadable(source, place, BadRecord.of(error, place).problem, id, page)


def write_id(id_: object) -> str | None:
    """Return an id as text; what is no id, or an empty one, does not count."""
    if isinstance(id_, (str, int)) and not isinstance(id_, bool) and id_ != "":
        return str(id_).encode("utf-8", "replace").decode("utf-8")
    return None


def _make_entry(row: Row, columns: Columns, options: SourceOptions) -> Entry:
    text, image, id_ = (row.fields.get(name) if name else None for name in (columns.text, columns.image, columns.id))
    check_row(row.place, text, _without_pictures(image), id_, columns)
    used = columns.used()
    kept = {name: value for name, value in row.fields.items() if name not in used and options.keeps(name)}
    check_fields({**kept, "text": text, "id": id_}, row.place)
    rest = {name: write_plain(value) for name, value in kept.items()}
    images = cast("list[Any]", image if isinstance(image, list) else [] if image is None else [image])
    single = len(images) == 1
    pictures = tuple(
        find_picture(each, row, f"{row.reference}{'' if single else f'&image={number}'}", options.limits)
        for number, each in enumerate(images, 1)
    )
    states = [each.state for each in pictures]
    # Written here, once: it says how much is held too.
    written = json.dumps(["row", row.source, text, id_, rest, states], sort_keys=True).encode()
    references = [each.reference for each in pictures]
    return Entry(
        row.source,
        row.place,
        digest(written),
        ItemContent(row.place, text, pictures, options.limits),
        id=write_id(id_),
        text=text,
        image=json.dumps(references, ensure_ascii=False) if len(references) > 1 else next(iter(references), None),
        metadata=rest,
        held=len(written) + sum(each.held for each in pictures),
    )


def _without_pictures(cell: Any) -> Any:
    """A cell with the names of the pictures that were read with it."""
    if isinstance(cell, list):
        return [_without_pictures(each) for each in cast("list[Any]", cell)]
    return cell.reference if isinstance(cell, (HeldPicture, MemberPicture)) else cell


def find_picture(cell: Any, row: Row, reference: str, limits: ImageLimits) -> Picture:
    """Return the picture that a cell holds or names.

    Args:
        cell: The encoded picture; or a data URI, a URL, or a path relative to the folder of the row's source.
        row: The row.
        reference: What a picture in the cell itself is called.
        limits: Where pictures may come from.

    Raises:
        InputError: It is not there, or may not be read.
    """
    if not isinstance(cell, str):
        return cast("Picture", cell) if not isinstance(cell, bytes) else HeldPicture(reference, cell)
    protocol = _PROTOCOL.match(cell)
    name = "" if protocol is None else (protocol[1] or protocol[2]).lower()
    if name in ("data", "file"):
        try:
            if name == "data":
                return HeldPicture(reference, decode_data_uri(cell, limits.max_bytes))
            return FoundPicture.find(file_url_path(cell), row.place, limits)
        except ImageError as error:
            raise ImageError(error.problem, row.place) from error
    if name:
        return AddressPicture.find(cell, row.source, row.place, limits)
    if is_remote(row.source):
        return AddressPicture.find(_join_url(row.source, cell, row.place), row.source, row.place, limits)
    return FoundPicture.find(Path(os.path.dirname(row.source)) / cell, row.place, limits)


def _join_url(source: str, name: str, place: str) -> str:
    """The URL of a file by its path relative to the folder of another."""
    if name.startswith("/"):
        raise ImageError(f"{name}: an absolute path in a table that is not on this machine; write a URL", place)
    protocol, _, path = source.partition("://")
    return f"{protocol}://{posixpath.normpath(posixpath.join(posixpath.dirname(path), name))}"


def write_plain(value: Any) -> Any:
    """Return a value of metadata as JSON has it: what is no number there is null, what has no word a string."""
    if isinstance(value, (list, tuple)):
        return [write_plain(each) for each in cast("list[Any]", value)]
    if isinstance(value, dict):
        return {str(name): write_plain(each) for name, each in cast("dict[Any, Any]", value).items()}
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and not isinstance(value, bool):
        return value if -_INT64 <= value < _INT64 else str(value)
    return value if value is None or isinstance(value, (bool, str)) else str(value)
