"""A model in a server of ``st-modules serve``, as other libraries' interfaces call it; torch is not needed here."""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from st_modules.arguments import check_flag, check_integer, check_truncation
from st_modules.errors import ArgumentError, ServerError, shorten
from st_modules.inputs.batches import list_inputs
from st_modules.inputs.items import Item, parse_items
from st_modules.inputs.limits import ImageLimits, merge_limits
from st_modules.inputs.videos import VideoSource
from st_modules.integrations.base_embedder import BaseEmbedder
from st_modules.integrations.remote_bodies import Bodies, Body, has_visuals
from st_modules.integrations.remote_model import ServedModel, ask
from st_modules.integrations.remote_sender import Embedded, Sender
from st_modules.integrations.remote_server import RemoteServer
from st_modules.prompts.checks import check_prompt, refuse_videos
from st_modules.prompts.templates import Side

logger = logging.getLogger(__name__)

_BATCH_SIZE = 32
_OPTIONS = ("batch_size", "normalize_embeddings", "prompt", "prompt_name", "show_progress_bar", "truncate_dim")
# While the server embeds one body, the next is there already.
_AT_ONCE = 2
# So many texts, and so many characters of them, are read by the event loop itself: no thread is as fast.
_LIGHT_TEXTS, _LIGHT_CHARACTERS = 64, 100_000

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class _Options:
    """The arguments of a call."""

    prompt: str | None
    batch_size: int
    truncate_dim: int | None
    normalize: bool
    shows_progress: bool


class RemoteEmbedder(BaseEmbedder):
    """The model of a server, ``st-modules serve``, behind an integration's interface.

    Items are checked here, under limits that hold here, and errors are those of a model in this process. Images are
    read and fetched here, and sent: the server opens no file, and need not reach what is fetched. The server cuts what
    is too long, as ``encode`` does, and puts calls together that come at the same time.

    Many items are sent in several requests, two at a time. A request that is too much for the server is sent again in
    halves; one that finds it busy or gone, after a while.

    Args:
        base_url: The server's address, with or without ``/v1``: ``"http://127.0.0.1:8000"``.
        model: What the server has to call its model; ``None`` takes any.
        api_key: The key that the server asks for.
        timeout: Seconds that a request may take; more than the server's own ``--timeout``, which is 60.
        max_retries: How often a request is repeated while the server cannot be reached or is busy.
        image_limits: What an image may cost, and where it may come from.
        remote_images: ``False`` refuses image URLs. Takes the place of the field of ``image_limits``.
        allow_private_hosts: ``True`` also fetches images from addresses that are not public. Likewise.
        **loading: What says how to load a model, which is the server's affair: only ``None`` is taken.

    Raises:
        ServerError: The server cannot be reached, asks for another key, is none of ``st-modules serve``, or has another
            model.
        ValueError: An argument says how to load a model, or has a value that it cannot have.

    Example:
        >>> from st_modules import RemoteEmbedder
        >>> embedder = RemoteEmbedder("http://127.0.0.1:8000", api_key="...")
        >>> embedder.embed([{"text": "a red circle"}], "query")
    """

    def __init__(
        self,
        base_url: str,
        model: str | None = None,
        *,
        api_key: str | None = None,
        timeout: float = 120.0,
        max_retries: int = 5,
        image_limits: ImageLimits | None = None,
        remote_images: bool | None = None,
        allow_private_hosts: bool | None = None,
        **loading: Any,
    ) -> None:
        given = loading if model is None or isinstance(model, str) else {**loading, "model": model}
        if unused := sorted(name for name, value in given.items() if value is not None):
            raise ArgumentError(
                f"{', '.join(unused)}: the model is loaded by the server; start that with these, and leave them out "
                "beside base_url."
            )
        self._limits = merge_limits(image_limits, remote_images, allow_private_hosts) or ImageLimits()
        self._server = RemoteServer(base_url, api_key, timeout, max_retries)
        self._model = ask(self._server)
        self._sender = Sender(self._server, self._model)
        if model is not None and model != self.name:
            raise ServerError(
                f"{self._server.url} has the model {self.name!r}, and not {model!r}; pass that name, or none."
            )

    @property
    def name(self) -> str:
        """What the server calls its model."""
        return self._model.name

    @property
    def image_limits(self) -> ImageLimits:
        """What an image may cost and where it may come from; the server has limits of its own."""
        return self._limits

    @property
    def takes_video(self) -> bool:
        """Whether the model embeds videos."""
        return self._model.takes_video

    @property
    def dimension(self) -> int:
        """How many dimensions an embedding has."""
        return self._model.dimension

    def parse(self, items: Sequence[Any]) -> list[Item]:
        """Check items before anything is embedded; see :meth:`BaseEmbedder.parse`."""
        return parse_items(list_inputs(items), self._limits, takes_video=self.takes_video)

    def reads_instruction(self, side: Side) -> bool:
        """Whether an instruction changes anything about items of a side."""
        return side in self._model.instruction_sides

    def encode(self, items: Sequence[Any], side: Side, **options: Any) -> np.ndarray:
        """Embed items as :meth:`embed` does, into an array: a list of floats takes eight times the memory.

        Args:
            items: As for :meth:`embed`.
            side: As for :meth:`embed`.
            **options: ``prompt``, ``prompt_name``, ``truncate_dim``, ``normalize_embeddings`` and
                ``show_progress_bar`` as of ``encode``; ``batch_size`` is the most items in a request.

        Returns:
            float32 of shape (items, dimensions).

        Raises:
            InputError: An item cannot be embedded.
            ServerError: The server cannot be reached, or fails.
        """
        chosen = self._choose(options)
        bodies = self._divide(self._parse(items), side, chosen)
        report = _Report(self._model, bodies.count, chosen.shows_progress)
        with closing(report), ThreadPoolExecutor(_AT_ONCE, "st_modules-sender") as senders:
            running: deque[Any] = deque()
            for body in bodies:
                if len(running) == _AT_ONCE:
                    report.add(running.popleft().result())
                running.append(senders.submit(self._sender.send, body, bodies))
            while running:
                report.add(running.popleft().result())
        return self._finish(report, chosen)

    async def aencode(self, items: Sequence[Any], side: Side, *, delay: float = 0.0, **options: Any) -> np.ndarray:
        """Embed items as :meth:`encode` does, without blocking the event loop.

        Args:
            items: As for :meth:`embed`.
            side: As for :meth:`embed`.
            delay: Of no effect: the server puts calls together.
            **options: As of :meth:`encode`.

        Returns:
            float32 of shape (items, dimensions).
        """
        chosen = self._choose(options)
        run = _run_here if _is_light(items) else asyncio.to_thread
        bodies = self._divide(await run(self._parse, items), side, chosen)
        report = _Report(self._model, bodies.count, chosen.shows_progress)
        waiting = iter(bodies)
        running: deque[asyncio.Task[Embedded]] = deque()
        with closing(report):
            try:
                while body := await run(_next_of, waiting):
                    if len(running) == _AT_ONCE:
                        report.add(await running.popleft())
                    running.append(asyncio.create_task(self._sender.asend(body, bodies, run)))
                while running:
                    report.add(await running.popleft())
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return self._finish(report, chosen)

    def check_options(self, options: Mapping[str, Any]) -> None:
        """Raise ``ArgumentError`` where arguments of ``encode`` mean nothing to a server, or have impossible values."""
        self._choose(options)

    def _look_at_video(self, video: VideoSource) -> None:
        # Frames of a file are the server's to count, which has what reads them.
        for source in video.sources:
            _ = source.fetch() if video.is_file else source.size

    def _parse(self, items: Sequence[Any]) -> list[Item]:
        parsed = self.parse(items)
        if not self.takes_video:
            refuse_videos(parsed)
        return parsed

    def _choose(self, options: Mapping[str, Any]) -> _Options:
        if unknown := sorted(options.keys() - set(_OPTIONS)):
            raise ArgumentError(
                f"{', '.join(unknown)}: of encode, a server takes {', '.join(_OPTIONS)}, and no others."
            )
        check_truncation(options.get("truncate_dim"), self.dimension)
        check_flag("normalize_embeddings", normalize := options.get("normalize_embeddings", False))
        check_flag("show_progress_bar", shows := options.get("show_progress_bar") or False)
        return _Options(
            self._find_prompt(options.get("prompt"), options.get("prompt_name")),
            check_integer("batch_size", options.get("batch_size", _BATCH_SIZE)),
            options.get("truncate_dim"),
            normalize,
            shows,
        )

    def _find_prompt(self, prompt: object, name: str | None) -> Any:
        check_prompt(prompt)
        if prompt is not None or name is None:
            return prompt
        # Those of the two sides are there in every model of sentence-transformers, and empty.
        known = {"query": "", "document": "", **self._model.prompts}
        if name not in known:
            raise ArgumentError(f"prompt_name={shorten(name)}: the model has {', '.join(known)}.")
        return known[name]

    def _divide(self, items: list[Item], side: Side, chosen: _Options) -> Bodies:
        def write_head(own: str | None) -> bytes:
            instruction = chosen.prompt if own is None else own
            # What would change nothing is an error to the server.
            told = {} if instruction is None or not self.reads_instruction(side) else {"instruction": instruction}
            fields = {"model": self.name, "side": side, "encoding_format": "base64", "truncate": True, **told}
            return f'{json.dumps(fields, ensure_ascii=False)[:-1]},"input":['.encode()

        most = min(chosen.batch_size, self._model.max_items)
        return Bodies(items, write_head, most, self._model.max_body_bytes)

    def _finish(self, report: _Report, chosen: _Options) -> np.ndarray:
        if not report.found:
            return np.empty((0, chosen.truncate_dim or self.dimension), dtype=np.float32)
        vectors = np.concatenate(report.found)[:, : chosen.truncate_dim]
        # They come with a length of 1; as encode, what is cut keeps the length that is left to it unless one asks.
        if chosen.normalize:
            return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.ascontiguousarray(vectors)


class _Report:
    """The vectors of a call as they come, how far it is, and what was cut."""

    def __init__(self, model: ServedModel, count: int, shows_progress: bool) -> None:
        self.found: list[np.ndarray] = []
        self._model = model
        self._count = count
        self._truncated = 0
        self._bar: Any = None
        if shows_progress:
            from tqdm.auto import tqdm  # it takes a while to import

            self._bar = tqdm(total=count, desc="Items")

    def add(self, embedded: Embedded) -> None:
        self.found.append(embedded.vectors)
        self._truncated += embedded.truncated
        if self._bar is not None:
            self._bar.update(len(embedded.vectors))

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        if self._truncated:
            logger.warning(
                "%d of %d items are longer than max_length=%d tokens: the end of their text was cut.",
                self._truncated,
                self._count,
                self._model.max_length,
            )


def _is_light(items: Sequence[Any]) -> bool:
    """Whether items are a few texts, which an event loop reads and sends by itself."""
    if len(items) > _LIGHT_TEXTS:
        return False
    texts = [_text_of(item) for item in items]
    return None not in texts and sum(len(text or "") for text in texts) <= _LIGHT_CHARACTERS


def _text_of(item: object) -> str | None:
    """Return what an item is, where it is a text and nothing else."""
    if isinstance(item, Item):
        return None if has_visuals(item) else item.text
    text = item["text"] if isinstance(item, dict) and item.keys() == {"text"} else None
    return text if isinstance(text, str) else None


def _next_of(bodies: Iterator[Body]) -> Body | None:
    return next(bodies, None)


async def _run_here(function: Callable[..., _Result], *arguments: Any) -> _Result:
    return function(*arguments)
