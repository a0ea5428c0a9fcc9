"""What an input from outside may cost."""

from __future__ import annotations

from dataclasses import dataclass

from st_modules.arguments import check_flag, check_integer, check_seconds


@dataclass(frozen=True)
class ImageLimits:
    """What an image may cost. An image over a limit raises ``ImageError``.

    Args:
        max_bytes: Largest file, response or encoded image, in bytes. 64 MiB.
        max_pixels: Most pixels (width x height), read from the header before anything is decoded. 100 million.
        connect_timeout: Seconds to connect to a server (each address tried, and the TLS handshake). 10 s.
        read_timeout: Seconds to wait for the next bytes of a response. 10 s.
        total_timeout: Seconds for a whole fetch, all redirects together. The look-up of a host's name keeps the
            system's own timeouts. 60 s.
        max_redirects: Most redirects followed. 5.
        remote_images: Whether http(s) images are fetched at all. True.
        allow_private_hosts: Whether they may come from addresses that are not public (localhost, an intranet). By
            default every address is checked, on every redirect. False.

    Raises:
        ArgumentError: A value is of another type, or nothing can be within it.
    """

    max_bytes: int = 64 * 1024 * 1024
    max_pixels: int = 100_000_000
    connect_timeout: float = 10.0
    read_timeout: float = 10.0
    total_timeout: float = 60.0
    max_redirects: int = 5
    remote_images: bool = True
    allow_private_hosts: bool = False

    def __post_init__(self) -> None:
        check_integer("max_bytes", self.max_bytes)
        check_integer("max_pixels", self.max_pixels)
        check_integer("max_redirects", self.max_redirects, least=0)
        for name in ("connect_timeout", "read_timeout", "total_timeout"):
            check_seconds(name, getattr(self, name))
        for name in ("remote_images", "allow_private_hosts"):
            check_flag(name, getattr(self, name))
