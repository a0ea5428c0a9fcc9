"""Files, here or behind an fsspec URL: which there are, and reading one that is still what it was when it was found."""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, cast

from st_modules._imports import import_extra
from st_modules.errors import InputError, STModulesError, in_one_line, printable

# What tells of a file on a remote system that it is the same: the first of these that the system says.
_VERSION_FIELDS = (
    *("ETag", "etag", "e_tag", "checksum", "md5Hash", "md5", "content_md5", "generation"),
    *("mtime", "LastModified", "last_modified", "updated", "modified", "created"),
)
_CHANGED = "changed while it was read; run again"
_BUFFER = 1024 * 1024
HAS_PASSWORD = (
    "has a password, which the index would keep; put it where the file system looks for it: its environment variables, "
    "its files, or fsspec's configuration"
)


@dataclass(frozen=True)
class StoredFile:
    """A file as it was found.

    Attributes:
        source: Its absolute path, or its URL.
        size: In bytes; ``None`` where the remote system does not say.
        version: What else tells whether it has changed: the time of its last change, or a tag.
    """

    source: str
    size: int | None
    version: str

    def check(self) -> None:
        """Raise ``InputError`` where it is gone, or not what it was when it was found."""
        self._compare(find_file(self.source))

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for reading from the front; it can seek, as far as the remote system can.

        Raises:
            InputError: It is gone, has changed since it was found, or cannot be read; so within the context.
        """
        with name_errors(self.source):
            if is_remote(self.source):
                self.check()
                with open_remote(self.source) as stream:
                    yield stream
                return
            # Without waiting for the writer of a FIFO that has been put in its place.
            descriptor = os.open(self.source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
            with os.fdopen(descriptor, "rb") as stream:
                self._compare(_from_status(self.source, os.fstat(descriptor)))
                yield stream

    def read(self, most: int) -> bytes:
        """Return all of it.

        Args:
            most: Most bytes that it may have.

        Raises:
            InputError: As ``open``, it is longer, or it has changed meanwhile.
        """
        with self.open() as stream:
            content = stream.read(most + 1)
        if len(content) > most:
            raise InputError(f"over the limit of {most} bytes; make it smaller, or raise the limit", self.source)
        self.check()
        return content

    def read_part(self, offset: int, size: int) -> bytes:
        """Return a part of it.

        Raises:
            InputError: As ``open``, or it ends before.
        """
        with self.open() as stream:
            stream.seek(offset)
            content = stream.read(size)
        if len(content) < size:
            raise InputError("it ends too early; it was not written or downloaded completely", self.source)
        return content

    def _compare(self, found: StoredFile) -> None:
        if found != self:
            raise InputError(_CHANGED, self.source)


def is_remote(source: str) -> bool:
    """Whether a source, as ``make_source`` returns it, is on another file system than this machine's."""
    return not os.path.isabs(source)


def find_protocol(source: str) -> str:
    """Return the protocol of a URL; that of a path is empty."""
    protocol, separator, _ = source.partition("://")
    return protocol.lower() if separator and is_remote(source) else ""


def make_source(given: str | os.PathLike[str]) -> str:
    """Return the absolute path, or the URL as the file system itself writes it, of what a user has named.

    Raises:
        InputError: There is no such protocol, or what it needs is not installed.
    """
    text = os.fsdecode(given)
    if "://" not in text:
        return os.path.abspath(text)
    if "::" in text:
        raise InputError("a chain of file systems (::); unpack it, and pass what was in it.", text)
    if text.partition("://")[0].lower() in ("file", "local"):
        return os.path.abspath(import_extra("fsspec", extra="index").core.strip_protocol(text))
    if (shown := hide_password(text)) != text:
        raise InputError(f"{HAS_PASSWORD}.", shown)
    files, path = find_system(text)
    return str(files.unstrip_protocol(path))


def hide_password(url: str) -> str:
    """Return a URL without the user and the password in it; one that has no password as it is."""
    protocol, _, rest = url.partition("://")
    authority, slash, path = rest.partition("/")
    user, _, host = authority.rpartition("@")
    return f"{protocol}://…@{host}{slash}{path}" if ":" in user else url


def find_system(url: str) -> tuple[Any, str]:
    """Return the file system of a URL, which remembers no listings, and the path in it.

    Raises:
        InputError: There is no such protocol, or what it needs is not installed.
    """
    fsspec = import_extra("fsspec", extra="index")
    try:
        return cast("tuple[Any, str]", fsspec.url_to_fs(url, use_listings_cache=False))
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot be opened: {in_one_line(error)}", printable(url)) from error


def find_file(source: str) -> StoredFile:
    """Find a file.

    Raises:
        InputError: There is none, or it is no regular file.
    """
    with name_errors(source):
        if is_remote(source):
            files, path = find_system(source)
            info = files.info(path)
            if info.get("type") == "directory":
                raise InputError("not a file but a folder", source)
            return from_info(source, info)
        try:
            status = os.stat(source)
        except ValueError as error:
            raise InputError("no path that a file can have.", printable(source)) from error
        return _from_status(source, status)


def from_info(source: str, info: Mapping[str, Any]) -> StoredFile:
    """Make a file of what a remote system says of it."""
    size = info.get("size")
    versions = (info[name] for name in _VERSION_FIELDS if info.get(name) is not None)
    return StoredFile(source, size if isinstance(size, int) else None, _write_version(next(versions, "")))


def open_remote(url: str) -> BinaryIO:
    """Open a remote file.

    Raises:
        OSError: It cannot be opened; or whatever else its file system raises.
    """
    files, path = find_system(url)
    stream: Any = files.open(path, "rb")
    if isinstance(stream, io.BytesIO):
        # That of memory:// is one object, with one position, for all who open it.
        return io.BytesIO(stream.getvalue())
    # Lines of bounded length are read of the standard library's readers only.
    return io.BufferedReader(stream, _BUFFER)


@contextmanager
def name_errors(source: str) -> Iterator[None]:
    """Turn what a file system raises into an ``InputError`` that names the file.

    Raises:
        InputError: Something is raised within; one that is an ``InputError`` already comes out as it is.
    """
    try:
        yield
    except (STModulesError, MemoryError, GeneratorExit):
        raise
    except FileNotFoundError as error:
        raise InputError("no such file.", source) from error
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror or in_one_line(error)}).", source) from error
    except Exception as error:  # the clients of object stores have exceptions of their own
        if not is_remote(source):
            raise
        raise InputError(f"cannot be read ({in_one_line(error)}).", source) from error


def _from_status(source: str, status: os.stat_result) -> StoredFile:
    if not stat.S_ISREG(status.st_mode):
        raise InputError("not a regular file", source)
    return StoredFile(source, status.st_size, str(status.st_mtime_ns))


def _write_version(value: object) -> str:
    # One and the same time, as listings and look-ups of one system write it.
    if isinstance(value, datetime):
        value = value.timestamp()
    return str(value).strip('"')
