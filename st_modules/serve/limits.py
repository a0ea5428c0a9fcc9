"""What a request to the server may cost."""

from __future__ import annotations

from dataclasses import dataclass

from st_modules.arguments import check_integer, check_seconds


@dataclass(frozen=True)
class ServeLimits:
    """What a request may cost, and how many there may be at a time.

    Args:
        max_body_bytes: Largest body of a request; also the most bytes of all images that are fetched for one. 32 MiB.
        max_items: Most items of a request. 2048.
        max_tokens: Most tokens of a request, those of images among them. 300,000.
        max_requests: Most requests that are read, wait or run at a time; another is sent away until there is room.
            They take up to 2.5 x ``max_requests`` x ``max_body_bytes`` of memory. 256.
        timeout: Seconds that a request may take in all, from its first byte on. 60.

    Raises:
        ArgumentError: A value is of another type, or nothing can be within it.
    """

    max_body_bytes: int = 32 * 1024 * 1024
    max_items: int = 2048
    max_tokens: int = 300_000
    max_requests: int = 256
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for name in ("max_body_bytes", "max_items", "max_tokens", "max_requests"):
            check_integer(name, getattr(self, name))
        check_seconds("timeout", self.timeout)
