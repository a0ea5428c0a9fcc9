"""A model as other libraries' interfaces call it: a side, a list of items, plain floats, at once or awaited."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import sentence_transformers
from typing_extensions import Self

from st_modules.backbones.base import find_backbone
from st_modules.backbones.checks import refuse_videos
from st_modules.errors import InputError
from st_modules.inputs.batches import list_inputs
from st_modules.inputs.formats import has_image_suffix
from st_modules.inputs.items import Item, check_texts, parse_items, parse_valid
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.videos import VideoSource
from st_modules.integrations.dynamic_batching import DynamicBatcher
from st_modules.integrations.others import encode_with_others
from st_modules.integrations.skipping import Remaining, put_at
from st_modules.model import SentenceTransformer
from st_modules.prompts.templates import Side

# One line that stands for a file anywhere: one word, or what begins as a path does.
_ONE_NAME = re.compile(r"\S{1,1024}|(?:[~/\\.]|[A-Za-z]:[/\\]).{1,1024}")
# Items that are checked and embedded together where some may be bad: enough for full batches, and little to do again.
_PART = 256


class Embedder:
    """A sentence-transformers model behind an integration's interface.

    Copies, deep ones too, share the model. It cannot be pickled: an integration keeps what loads the model, and loads
    it again.

    Args:
        model: A loaded model.
    """

    def __init__(self, model: sentence_transformers.SentenceTransformer) -> None:
        if not isinstance(model, sentence_transformers.SentenceTransformer):
            raise TypeError(
                f"A model of type {type(model).__name__}: pass the name of a model, or a loaded SentenceTransformer."
            )
        self.model = model
        self._batchers: dict[Side, DynamicBatcher] = {
            side: DynamicBatcher(partial(self._run, side)) for side in get_args(Side)
        }

    @classmethod
    def load(
        cls,
        model: str | Path | sentence_transformers.SentenceTransformer,
        *,
        weights: str | Path | None = None,
        base_weights: str | Path | None = None,
        cache_folder: str | Path | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a model by name, or take a loaded one as it is.

        A model that is loaded here is nobody else's to change, so it keeps what its items begin with from call to call
        (``keep_prefixes``) unless ``model_kwargs`` says otherwise. A loaded one is the caller's to decide on.

        Args:
            model: Name of a model, anything else that sentence-transformers loads, or a loaded model.
            weights: As of :class:`st_modules.SentenceTransformer`.
            base_weights: As of :class:`st_modules.SentenceTransformer`.
            cache_folder: As of :class:`st_modules.SentenceTransformer`.
            **model_kwargs: Its other arguments.

        Raises:
            UnknownModelError: The name is near one of the catalog's.
            CheckpointError: The model's files are missing, damaged, or of another architecture.
            ValueError: A loaded model was passed with arguments that say how to load it.
        """
        files = {"weights": weights, "base_weights": base_weights, "cache_folder": cache_folder}
        given = {name: os.fspath(path) for name, path in files.items() if path is not None}
        if isinstance(model, (str, Path)):
            return cls(SentenceTransformer(model, **given, **{"keep_prefixes": True, **model_kwargs}))
        if unused := sorted({**given, **model_kwargs}):
            raise ValueError(f"{', '.join(unused)}: the model is loaded already; pass its name for these to count.")
        return cls(model)

    @property
    def name(self) -> str:
        """Where the model was loaded from, or what it is where that is not known."""
        return getattr(self.model.transformers_model, "name_or_path", None) or type(self.model).__name__

    @property
    def image_limits(self) -> ImageLimits:
        """What an image may cost and where it may come from, as the model was told; the default for other models."""
        backbone = find_backbone(self.model)
        return backbone.image_limits if backbone else ImageLimits()

    @property
    def takes_video(self) -> bool:
        """Whether the model embeds videos."""
        backbone = find_backbone(self.model)
        return backbone is not None and backbone.takes_video

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("A loaded model is not pickled; pickle what names it, and load it where it is needed.")

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

    def encode(self, items: Sequence[Any], side: Side, **options: Any) -> np.ndarray:
        """Embed items as :meth:`embed` does, into an array: a list of floats takes eight times the memory.

        Returns:
            float32 of shape (items, dimensions).
        """
        method = self.model.encode_query if side == "query" else self.model.encode_document
        encode = partial(method, **{**options, "convert_to_numpy": True, "convert_to_tensor": False})
        parsed = self.parse(items)
        if parsed and find_backbone(self.model) is None:
            return np.asarray(encode_with_others(self.model, encode, parsed), dtype=np.float32)
        return np.asarray(encode(parsed), dtype=np.float32)

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
        if isinstance(self.model, SentenceTransformer):
            return self.model.parse(items)
        # A list that begins with a message would be read as one conversation.
        return [[item] if isinstance(item, dict) and "role" in item else item for item in items]

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
            (item.instruction, item.text, [visual.identify() for visual in (*item.images, *_videos([item]))])
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

    async def aencode(self, items: Sequence[Any], side: Side, *, delay: float = 0.0, **options: Any) -> np.ndarray:
        """Embed items as :meth:`aembed` does, into an array.

        Returns:
            float32 of shape (items, dimensions).
        """
        return np.asarray(await self._batchers[side](items, options, delay), dtype=np.float32)

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
        dimension = self.model.get_embedding_dimension() or 0
        return min(options.get("truncate_dim") or dimension, dimension)

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
        backbone = find_backbone(self.model)
        if backbone is None or not isinstance(self.model, SentenceTransformer):
            return Remaining(self.parse(items), {}, exact=False)
        parsed, found = parse_valid(items, self.image_limits, takes_video=backbone.takes_video)
        errors = {error.index: error for error in found if error.index is not None}
        for place, item in enumerate(parsed):
            try:
                if item and not backbone.takes_video:
                    refuse_videos([item])
                for image in item.images if item else ():
                    _ = image.size
                for video in _videos([item] if item else []):
                    _ = video.frame_count
            except InputError as error:
                errors[place] = put_at(error, place)
        # An item that was parsed elsewhere has the position that it had there.
        exact = all(item is None or item.index == place for place, item in enumerate(parsed))
        return Remaining(parsed, errors, exact=exact)

    def check_instruction(self, side: Side, instruction: str | None) -> None:
        """Raise where an instruction would change nothing: the model reads none on that side.

        Args:
            side: ``"query"`` or ``"document"``.
            instruction: The instruction that was asked for; ``None`` is fine for every model.

        Raises:
            ValueError: The model reads no instruction on the side.
        """
        backbone = find_backbone(self.model)
        # Other models get their instructions from sentence-transformers, which writes them before every text.
        if instruction is not None and backbone and not backbone.reads_instruction(side):
            raise ValueError(
                f"The model reads no instruction on the {side} side, so {reprlib.repr(instruction)} would change "
                "nothing there. Leave it out."
            )

    def _run(self, side: Side, items: list[Any], options: Mapping[str, Any]) -> list[np.ndarray]:
        return list(self.encode(items, side, **options))


def _videos(items: Sequence[Item]) -> list[VideoSource]:
    return [item.video for item in items if item.video is not None]


def _parts(items: Sequence[Any]) -> Iterator[tuple[int, list[Any]]]:
    """Yield where each part of the items begins, and the part."""
    values = list_inputs(items)
    for start in range(0, len(values), _PART):
        yield start, values[start : start + _PART]
