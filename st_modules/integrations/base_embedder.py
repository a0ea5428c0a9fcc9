"""What an integration needs of a model, in this process or in a server. Nothing here needs torch."""

from __future__ import annotations

import asyncio
import hashlib
import re
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np

from st_modules.errors import InputError
from st_modules.inputs.batches import list_inputs
from st_modules.inputs.formats import has_image_suffix
from st_modules.inputs.items import Item, check_texts, parse_items, parse_valid
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.videos import VideoSource
from st_modules.integrations.skipping import Remaining, put_at
from st_modules.prompts.checks import refuse_videos
from st_modules.prompts.templates import Side

# One line that stands for a file anywhere: one word, or what begins as a path does.
_ONE_NAME = re.compile(r"\S{1,1024}|(?:[~/\\.]|[A-Za-z]:[/\\]).{1,1024}")
# Items that are checked and embedded together where some may be bad: enough for full batches, and little to do again.
_PART = 256


class BaseEmbedder(ABC):
    """A model behind an integration's interface.

    Copies, deep ones too, are the same. It cannot be pickled: an integration keeps what it was made of, and makes it
    again.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the model is called."""

    @property
    @abstractmethod
    def image_limits(self) -> ImageLimits:
        """What an image may cost and where it may come from."""

    @property
    @abstractmethod
    def takes_video(self) -> bool:
        """Whether the model embeds videos."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """How many dimensions an embedding has; 0 where the model does not say."""

    @abstractmethod
    def encode(self, items: Sequence[Any], side: Side, **options: Any) -> np.ndarray:
        """Embed items as :meth:`embed` does, into an array: a list of floats takes eight times the memory.

        Returns:
            float32 of shape (items, dimensions).
        """

    @abstractmethod
    async def aencode(self, items: Sequence[Any], side: Side, *, delay: float = 0.0, **options: Any) -> np.ndarray:
        """Embed items as :meth:`aembed` does, into an array.

        Returns:
            float32 of shape (items, dimensions).
        """

    @abstractmethod
    def parse(self, items: Sequence[Any]) -> list[Any]:
        """Check items before anything is embedded; images are not opened.

        Args:
            items: As for :meth:`embed`.

        Returns:
            The items in a form that :meth:`embed` takes too. Wherever they are passed on, in whatever batches, errors
            name their places among these.

        Raises:
            InputError: Something is no item.
        """

    @abstractmethod
    def reads_instruction(self, side: Side) -> bool:
        """Whether an instruction changes anything about items of a side."""

    @abstractmethod
    def _look_at_video(self, video: VideoSource) -> None:
        """Raise ``InputError`` where a video is bad, as far as it can be told before it is embedded."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("An embedder is not pickled; pickle what names it, and make it where it is needed.")

    def embed(self, items: Sequence[Any], side: Side, **options: Any) -> list[list[float]]:
        """Embed items in the calling thread.

        Args:
            items: What ``SentenceTransformer.encode`` takes, one an embedding.
            side: ``"query"`` or ``"document"``.
            **options: Keyword arguments of ``encode_query`` and ``encode_document``.

        Returns:
            One embedding an item, in the same order, as Python floats.

        Raises:
            InputError: An item cannot be embedded; the message has its place in ``items``.
        """
        return self.encode(items, side, **options).tolist() if items else []

    def identify(self, items: Sequence[Any]) -> list[str]:
        """Return what tells each item from others: a hash of its text, its instruction, its images and its video.

        An image counts by its encoded bytes, or by its pixels where it is in memory; that of a URL, which is not
        fetched, by its address. A video likewise. The model has no part in it.

        Args:
            items: As for :meth:`embed`.

        Returns:
            32 hexadecimal digits an item, in the same order; equal ones for equal items.

        Raises:
            InputError: Something is no item, or an image cannot be read.
        """
        parts = [
            (item.instruction, item.text, [visual.identify() for visual in (*item.images, *_videos(item))])
            for item in parse_items(self.parse(items), self.image_limits)
        ]
        return [hashlib.blake2b(repr(each).encode(), digest_size=16).hexdigest() for each in parts]

    def check_texts(self, texts: Sequence[Any]) -> None:
        """Check texts before anything is embedded, where a host library hands them on in batches of its own.

        Args:
            texts: The texts.

        Raises:
            InputError: Something is no text, or one that no tokenizer can read.
        """
        check_texts(texts)

    @staticmethod
    def looks_like_image(query: str) -> bool:
        """Whether the text of a query reads like an image: one line that ends as its path does, or a data URI.

        No file is looked for, because anybody may write a query.
        """
        text = query.strip()
        is_path = _ONE_NAME.fullmatch(text) is not None and has_image_suffix(text)
        return is_path or text[:11].lower() == "data:image/"

    async def aembed(
        self, items: Sequence[Any], side: Side, *, delay: float = 0.0, **options: Any
    ) -> list[list[float]]:
        """Embed items without blocking the event loop; calls of one side that wait at the same time become one batch.

        Args:
            items: As for :meth:`embed`.
            side: As for :meth:`embed`.
            delay: Seconds to wait for other calls where none is under way.
            **options: As for :meth:`embed`. Only calls with equal options are put together.

        Returns:
            One embedding an item, in the same order, as Python floats.

        Raises:
            InputError: An item of this call cannot be embedded; other calls get their embeddings.
        """
        return (await self.aencode(items, side, delay=delay, **options)).tolist() if items else []

    def embed_valid(
        self, items: Sequence[Any], side: Side, **options: Any
    ) -> tuple[list[list[float] | None], list[InputError]]:
        """Embed the items that can be embedded, and say what is wrong with the others.

        They are embedded a few hundred at a time. An image that is missing or no image costs a look at its header; one
        that fails later has those beside it embedded again.

        Args:
            items: As for :meth:`embed`.
            side: As for :meth:`embed`.
            **options: As for :meth:`embed`.

        Returns:
            One embedding an item, in the same order, ``None`` where it cannot be embedded; and for each of those, in
            order, its error, which has its place in ``items``.
        """
        rows, errors = self._encode_valid(items, side, options)
        return [None if row is None else row.tolist() for row in rows], errors

    def encode_valid(self, items: Sequence[Any], side: Side, **options: Any) -> tuple[np.ndarray, list[InputError]]:
        """Embed what can be embedded as :meth:`embed_valid` does, into an array.

        Returns:
            float32 of shape (items, dimensions), NaN throughout for an item that cannot be embedded; and the error of
            each of those, in order.
        """
        rows, errors = self._encode_valid(items, side, options)
        dimension = next((len(row) for row in rows if row is not None), None) or self._find_dimension(options)
        embeddings = np.full((len(rows), dimension), np.nan, dtype=np.float32)
        for place, row in enumerate(rows):
            if row is not None:
                embeddings[place] = row
        return embeddings, errors

    def _encode_valid(
        self, items: Sequence[Any], side: Side, options: Mapping[str, Any]
    ) -> tuple[list[np.ndarray | None], list[InputError]]:
        rows: list[np.ndarray | None] = []
        errors: list[InputError] = []
        for start, part in _parts(items):
            remaining: Remaining[np.ndarray] = self._inspect(part)
            while piece := remaining.take():
                try:
                    remaining.keep(piece, [*self.encode([*piece.values()], side, **options)])
                except InputError as error:
                    remaining.split(piece, error)
            rows += remaining.embeddings
            errors += [error.shift(start) for error in remaining.errors]
        return rows, errors

    def _find_dimension(self, options: Mapping[str, Any]) -> int:
        """Return the length of the model's embeddings under these arguments of ``encode``."""
        return min(options.get("truncate_dim") or self.dimension, self.dimension)

    async def aembed_valid(
        self, items: Sequence[Any], side: Side, *, delay: float = 0.0, **options: Any
    ) -> tuple[list[list[float] | None], list[InputError]]:
        """Embed the items that can be embedded without blocking the event loop; see :meth:`embed_valid`."""
        embeddings: list[list[float] | None] = []
        errors: list[InputError] = []
        for start, part in _parts(items):
            remaining: Remaining[list[float]] = await asyncio.to_thread(self._inspect, part)
            while piece := remaining.take():
                try:
                    remaining.keep(piece, await self.aembed([*piece.values()], side, delay=delay, **options))
                except InputError as error:
                    remaining.split(piece, error)
            embeddings += remaining.embeddings
            errors += [error.shift(start) for error in remaining.errors]
        return embeddings, errors

    def _inspect(self, items: list[Any]) -> Remaining[Any]:
        """Find the items that are bad as far as their form, the headers of images and the frames of videos tell."""
        parsed, found = parse_valid(items, self.image_limits, takes_video=self.takes_video)
        errors = {error.index: error for error in found if error.index is not None}
        for place, item in enumerate(parsed):
            try:
                if item is not None:
                    self._look_at(item)
            except InputError as error:
                errors[place] = put_at(error, place)
        # An item that was parsed elsewhere has the position that it had there.
        exact = all(item is None or item.index == place for place, item in enumerate(parsed))
        return Remaining(parsed, errors, exact=exact)

    def _look_at(self, item: Item) -> None:
        if not self.takes_video:
            refuse_videos([item])
        for image in item.images:
            _ = image.size
        for video in _videos(item):
            self._look_at_video(video)

    def check_instruction(self, side: Side, instruction: str | None) -> None:
        """Raise where an instruction would change nothing: the model reads none on that side.

        Args:
            side: ``"query"`` or ``"document"``.
            instruction: The instruction that was asked for; ``None`` is fine for every model.

        Raises:
            ValueError: The model reads no instruction on the side.
        """
        if instruction is not None and not self.reads_instruction(side):
            raise ValueError(
                f"The model reads no instruction on the {side} side, so {reprlib.repr(instruction)} would change "
                "nothing there. Leave it out."
            )


def _videos(item: Item) -> list[VideoSource]:
    return [] if item.video is None else [item.video]


def _parts(items: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Yield where each part of the items begins, and the part."""
    values = list_inputs(items)
    for start in range(0, len(values), _PART):
        yield start, values[start : start + _PART]
