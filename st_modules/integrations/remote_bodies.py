"""The bodies of requests: items as JSON, as many to a body as a server takes, each prepared when its turn comes."""

from __future__ import annotations

import base64
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from st_modules.errors import InputError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.videos import VideoSource

_THREADS = 4
_CLOSING = b"]}"
_threads: ThreadPoolExecutor


def _make_threads() -> None:
    """Make the threads that read pictures: those of a process are not there in one that is forked off it."""
    global _threads
    _threads = ThreadPoolExecutor(_THREADS, "st_modules-client")


_make_threads()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_make_threads)


@dataclass(frozen=True)
class Body:
    """A request for some items.

    Args:
        items: The items.
        written: Each of them as JSON.
        head: What stands before them.
    """

    items: Sequence[Item]
    written: Sequence[bytes]
    head: bytes

    @property
    def content(self) -> bytes:
        """The whole body."""
        return b"".join((self.head, b",".join(self.written), _CLOSING))

    def halve(self) -> tuple[Body, Body]:
        """Return two bodies of half the items each."""
        middle = len(self.items) // 2
        return (
            Body(self.items[:middle], self.written[:middle], self.head),
            Body(self.items[middle:], self.written[middle:], self.head),
        )


class Bodies:
    """The bodies for the items of a call, one after the other; what was handed out is not kept.

    Args:
        items: The items.
        write_head: From the instruction of an item to what stands before the items of a body.
        most_items: Most items in a body. It may be lowered while the bodies are handed out.
        most_bytes: Most bytes of a body.

    Attributes:
        count: How many items there are in all.
        most_items: As above.
    """

    def __init__(
        self, items: Sequence[Item], write_head: Callable[[str | None], bytes], most_items: int, most_bytes: int
    ) -> None:
        self.count = len(items)
        self.most_items = most_items
        self._write_head = write_head
        self._most_bytes = most_bytes
        self._written = _write_ahead(deque(items))

    def __iter__(self) -> Iterator[Body]:
        """Yield the bodies.

        Raises:
            InputError: An item cannot be read, or is longer than a body may be.
        """
        items: list[Item] = []
        written: list[bytes] = []
        head, size = b"", 0
        for item, text in self._written:
            own = self._write_head(item.instruction)
            if items and (own != head or len(items) >= self.most_items or size + len(text) + 1 > self._most_bytes):
                yield Body(items, written, head)
                items, written = [], []
            if not items:
                head, size = own, len(own) + len(_CLOSING)
            size += len(text) + bool(items)
            if size > self._most_bytes:
                raise InputError(
                    f"{size} bytes as it is sent are over the server's limit of {self._most_bytes}; shrink its "
                    "pictures, or start the server with a larger --max-body-bytes",
                    item.place,
                )
            items.append(item)
            written.append(text)
        if items:
            yield Body(items, written, head)


def has_visuals(item: Item) -> bool:
    """Whether an item is more than a text, and has to be read from somewhere."""
    return bool(item.images) or item.video is not None


def _write_ahead(items: deque[Item]) -> Iterator[tuple[Item, bytes]]:
    """Yield the items as JSON; those that have to be read are read a few at a time."""
    waiting: deque[tuple[Item, Future[bytes] | None]] = deque()
    reading = 0
    try:
        while items or waiting:
            while items and reading < _THREADS and len(waiting) < 2 * _THREADS:
                item = items.popleft()
                reads = has_visuals(item)
                reading += reads
                waiting.append((item, _threads.submit(write_item, item) if reads else None))
            item, future = waiting.popleft()
            reading -= future is not None
            yield item, write_item(item) if future is None else future.result()
    finally:
        for _, future in waiting:
            if future is not None:
                future.cancel()


def write_item(item: Item) -> bytes:
    """Return an item as the JSON that the server takes.

    Raises:
        InputError: A picture or a video cannot be read.
    """
    value: Any = item.text
    if has_visuals(item):
        value = {} if item.text is None else {"text": item.text}
        if item.images:
            value["image"] = _only([_write_image(image) for image in item.images])
        if item.video is not None:
            value["video"] = _write_video(item.video)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _write_image(image: ImageSource) -> str:
    return _write_uri("image", image.file_bytes())


def _write_video(video: VideoSource) -> str | list[str]:
    if video.is_file:
        return _write_uri("video", video.file_bytes())
    return [_write_image(frame) for frame in video.sources]


def _write_uri(medium: str, data: bytes) -> str:
    return f"data:{medium}/*;base64,{base64.b64encode(data).decode()}"


def _only(values: list[str]) -> str | list[str]:
    return values[0] if len(values) == 1 else values
