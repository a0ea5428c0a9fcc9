"""Reading collections as the index does."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from st_modules.files.tables import Columns
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import SourceOptions, Sources


def encoded(colour: str, kind: str = "PNG", size: tuple[int, int] = (6, 4)) -> bytes:
    """A picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, kind)
    return buffer.getvalue()


RED, BLUE = encoded("red"), encoded("blue")


def open_sources(sources: Any, metadata: tuple[str, ...] | None = None, **columns: str) -> Sources:
    return Sources(sources, SourceOptions(Columns(**columns), metadata=metadata))


def read_parts(sources: Any, **columns: Any) -> list[Entry | Unreadable | Finished]:
    return list(open_sources(sources, **columns))


def read_entries(sources: Any, **columns: Any) -> list[Entry]:
    """What is to be embedded; nothing else may be there but that sources are finished."""
    parts = read_parts(sources, **columns)
    assert not [part for part in parts if isinstance(part, Unreadable)]
    return [part for part in parts if isinstance(part, Entry)]


def read_problems(sources: Any, **columns: Any) -> list[Unreadable]:
    return [part for part in read_parts(sources, **columns) if isinstance(part, Unreadable)]


def read_finished(sources: Any, **columns: Any) -> list[str]:
    return [part.source for part in read_parts(sources, **columns) if isinstance(part, Finished)]


def picture_of(entry: Entry) -> bytes:
    """The encoded picture of an entry, once it is loaded."""
    with entry.content.load().item["image"].open() as stream:
        return stream.read()


def write_tar(target: Path | io.BytesIO, members: Iterable[tuple[str, bytes]], mode: str = "w") -> None:
    file: Mapping[str, Any] = {"name": target} if isinstance(target, Path) else {"fileobj": target}
    with tarfile.open(mode=mode, **file) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def touch(path: Path, seconds: int) -> None:
    """Give a file another time, as a change does."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + seconds * 10**9))
