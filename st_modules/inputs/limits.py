"""What an input from outside may cost, and where it may come from."""

from __future__ import annotations

import dataclasses
import os
import reprlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from st_modules.arguments import check_flag, check_integer, check_seconds
from st_modules.errors import ArgumentError
from st_modules.inputs.local_files import may_open, open_file


@dataclass(frozen=True)
class ImageLimits:
    """What an image or a video may cost, and where it may come from.

    An image that is beyond raises ``ImageError``, a video ``VideoError``.

    Args:
        max_bytes: Largest file, response or encoded image, in bytes. 64 MiB.
        max_pixels: Most pixels (width x height), read from the header before anything is decoded. 100 million.
        max_decode_seconds: Longest time that decoding may take, in seconds, as the file's structure (pixels, bits,
            scans, chunks, tags) foretells it for one core of a small server. 3 s.
        max_decode_bytes: Most memory that decoding may take beside the decoded pixels, in bytes, foretold likewise.
            512 MiB. A frame of a video may have a pixel for each 40 bytes of it, and ``max_pixels`` at most.
        max_video_bytes: Largest file, response or encoded video, in bytes. 256 MiB.
        max_video_frames: Most frames of a video, those that are not embedded too. 200,000.
        max_video_seconds: Longest video, in seconds. 2 hours.
        max_video_decode_seconds: Longest time to find a video's frames, and then to decode those that are embedded, in
            seconds. 60 s each.
        connect_timeout: Seconds to connect to a server (each address tried, and the TLS handshake). 10 s.
        read_timeout: Seconds to wait for the next bytes of a response. 10 s.
        total_timeout: Seconds for a whole fetch, all redirects together. The look-up of a host's name keeps the
            system's own timeouts. 60 s.
        max_redirects: Most redirects followed. 5.
        remote_images: Whether http(s) images and videos are fetched at all. True.
        allow_private_hosts: Whether they may come from addresses that are not public (localhost, an intranet). By
            default every address is checked, on every redirect. False.
        local_files: Which files may be opened, by paths and ``file:`` URLs, however they are written: ``True`` for
            any, ``False`` for none, or a folder (kept as an absolute path) for those in it. A path that leads
            out of the folder, by ``..`` or by a link, is refused like one of nothing. The folder says what may be
            opened, not where a path begins: a relative one counts from the current folder. True.

    Raises:
        ArgumentError: A value is of another type, or nothing can be within it.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 100_000_000
    max_decode_seconds: float = 3.0
    max_decode_bytes: int = 512 * 1024 * 1024
    max_video_bytes: int = 256 * 1024 * 1024
    max_video_frames: int = 200_000
    max_video_seconds: float = 7200.0
    max_video_decode_seconds: float = 60.0
    connect_timeout: float = 10.0
    read_timeout: float = 10.0
    total_timeout: float = 60.0
    max_redirects: int = 5
    remote_images: bool = True
    allow_private_hosts: bool = False
    local_files: bool | str | os.PathLike[str] = True

    def __post_init__(self) -> None:
        check_integer("max_bytes", self.max_bytes)
        check_integer("max_pixels", self.max_pixels)
        check_integer("max_decode_bytes", self.max_decode_bytes)
        check_integer("max_video_bytes", self.max_video_bytes)
        check_integer("max_video_frames", self.max_video_frames)
        check_integer("max_redirects", self.max_redirects, least=0)
        for name in ("max_decode_seconds", "max_video_seconds", "max_video_decode_seconds"):
            check_seconds(name, getattr(self, name))
        for name in ("connect_timeout", "read_timeout", "total_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("remote_images", "allow_private_hosts"):
            check_flag(name, getattr(self, name))
        if not isinstance(self.local_files, bool):
            object.__setattr__(self, "local_files", _check_folder(self.local_files))

    def may_open(self, path: str) -> bool:
        """Whether a path, which may be of nothing, is one that may be opened; one that is not is not looked for."""
        return may_open(path, self.local_files)

    def open_file(self, path: Path, check: Callable[[os.stat_result], None]) -> BinaryIO:
        """Open a file.

        Args:
            path: The file.
            check: Is given the file's status before anything is read of it, and raises where the file will not do.

        Raises:
            ImageError: The file may not be opened.
            OSError: It cannot be opened.
        """
        return open_file(path, self.local_files, check)


def _check_folder(value: object) -> str:
    folder = os.fspath(cast("str | os.PathLike[str]", value)) if isinstance(value, str | os.PathLike) else None
    if not isinstance(folder, str) or not os.path.isdir(folder):
        shown = repr(folder)[:200] if isinstance(folder, str) else reprlib.repr(cast(object, value))
        raise ArgumentError(f"local_files={shown}: pass True, False or the path of a folder that exists.")
    return os.path.abspath(folder)


def check_image_limits(limits: object) -> None:
    """Raise ``ArgumentError`` where something is no ``ImageLimits``."""
    if not isinstance(limits, ImageLimits):
        raise ArgumentError(
            f"image_limits={reprlib.repr(limits)}: pass an ImageLimits, as ImageLimits(max_pixels=10**7)."
        )


def merge_limits(
    image_limits: ImageLimits | None, remote_images: bool | None, allow_private_hosts: bool | None
) -> ImageLimits | None:
    """Return the limits of images, with two of their fields that arguments of a class take the place of."""
    if image_limits is not None:
        check_image_limits(image_limits)
    fields = {"remote_images": remote_images, "allow_private_hosts": allow_private_hosts}
    changes = {name: value for name, value in fields.items() if value is not None}
    return dataclasses.replace(image_limits or ImageLimits(), **changes) if changes else image_limits
