"""From the items of a request to their vectors: limits, planning, batches with those of other requests."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from st_modules.arguments import check_optional_integer
from st_modules.backbones.base import Backbone, find_backbone
from st_modules.backbones.rows import Planned
from st_modules.encode.engine import default_max_tokens
from st_modules.errors import InputError
from st_modules.index.model_facts import fingerprint
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item, parse_items
from st_modules.inputs.limits import ImageLimits
from st_modules.integrations.dynamic_batching import DynamicBatcher
from st_modules.model import SentenceTransformer
from st_modules.prompts.checks import refuse_videos
from st_modules.prompts.templates import Side
from st_modules.serve.limits import ServeLimits
from st_modules.serve.metrics import Metrics
from st_modules.serve.problems import Problem

_FETCHERS = 16
_PLANNERS = min(4, os.cpu_count() or 1)
# Tokens decide where a batch ends; there are short texts of which this many would fit.
_BATCH_SIZE = 256
# Sides as clients of other APIs name them, where the model has no instruction of the name.
_SIDES: Mapping[str, Side] = {"query": "query", "document": "document", "passage": "document"}


@dataclass(frozen=True)
class Choice:
    """How a request wants its items embedded.

    Attributes:
        side: The side of a search; ``None`` is neither.
        instruction: What the model is told about the task.
        prompt_name: Name of one of the model's own instructions, or of a side.
        dimensions: How many of the first components; ``None`` is all.
        truncate: Whether the end of too long a text is cut; otherwise it is an error.
        max_length: Longest item in tokens, in the place of the model's own.
    """

    side: Side | None = None
    instruction: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    truncate: bool = False
    max_length: int | None = None


@dataclass(frozen=True)
class Embedded:
    """The answer to a request.

    Attributes:
        vectors: One for each item, float32 of shape (items, dimensions).
        tokens: Tokens of all items, as the model reads them: those of the layout, of images and of videos among them.
        visual_tokens: Those of images and videos alone.
        images: How many images there are.
        truncated: How many items lost the end of their text.
    """

    vectors: np.ndarray
    tokens: int
    visual_tokens: int
    images: int
    truncated: int


class Service:
    """Embeds the items of requests, those of several requests together.

    Args:
        model: The model, whose weights nobody changes.
        limits: What a request may cost.
        image_limits: What an image may cost. Files are never opened.
        allow_remote_images: Whether images are fetched.
        least_dimension: Fewest components that a request may ask for; by default what the catalog knows of the model.
        batch_delay: Seconds that a request waits for others which are here and not ready yet.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        limits: ServeLimits,
        image_limits: ImageLimits | None,
        allow_remote_images: bool,
        least_dimension: int | None,
        batch_delay: float,
    ) -> None:
        self.model = model
        self.backbone = _find_backbone(model)
        self.limits = limits
        self.image_limits = dataclasses.replace(
            image_limits or self.backbone.image_limits, local_files=False, remote_images=allow_remote_images
        )
        known = model.spec.least_dimension if model.spec else None
        self.dimension: int = model.get_embedding_dimension() or 0
        self.least_dimension = check_optional_integer("least_dimension", least_dimension) or known or self.dimension
        self.fingerprint = fingerprint(model)
        self.is_well = True
        self._delay = batch_delay
        self._inside = 0
        # Twice what a batch of the model takes, so that batches are full and none waits long for those before it.
        self._most_tokens = 2 * (model.max_batch_tokens or default_max_tokens(model.device))
        self._batcher = DynamicBatcher(self._run, self._most_tokens, lambda planned: planned.row.length)
        self.metrics = Metrics(lambda: self.waiting)
        self._planners = ThreadPoolExecutor(_PLANNERS, "st_modules-planner")
        # A slow server must keep nobody waiting who needs none.
        self._fetchers = ThreadPoolExecutor(_FETCHERS, "st_modules-fetcher")

    @property
    def waiting(self) -> int:
        """How many parts of requests wait for the model."""
        return self._batcher.waiting

    async def embed(self, values: Sequence[Any], choice: Choice) -> Embedded:
        """Embed the items of a request.

        Args:
            values: The items, as ``parse_items`` takes them.
            choice: How to embed them.

        Raises:
            InputError: An item cannot be embedded; the error has its position.
            Problem: The request is over a limit, or asks for what the model does not have.
        """
        self._inside += 1
        try:
            return await self._embed(values, self._resolve(choice))
        finally:
            self._inside -= 1

    async def _embed(self, values: Sequence[Any], choice: Choice) -> Embedded:
        if not 0 < len(values) <= self.limits.max_items:
            few = "nothing to embed" if not values else f"{len(values)} items are over the limit"
            raise Problem("limit" if values else "input", f"{few}; send 1 to {self.limits.max_items} items.")
        items = parse_items(values, self.image_limits, takes_video=self.backbone.takes_video)
        if not self.backbone.takes_video:
            refuse_videos(items)
        await self._fetch(items)
        loop = asyncio.get_running_loop()
        planned, visual_tokens = await loop.run_in_executor(self._planners, self._plan, items, choice)
        tokens = sum(each.row.length for each in planned)
        if tokens > self.limits.max_tokens:
            raise Problem("limit", f"{tokens} tokens are over the limit of {self.limits.max_tokens}; send fewer items.")
        # A long request goes a part at a time, so that others come in between.
        # One that is alone has nobody to wait for.
        delay = self._delay if self._inside > 1 else 0.0
        parts = [await self._batcher(part, {}, delay) for part in self._divide(planned)]
        vectors = _cut(np.stack([vector for part in parts for vector in part]), choice.dimensions)
        self.metrics.count_embedded(len(items), tokens)
        return Embedded(
            vectors,
            tokens,
            visual_tokens,
            images=sum(len(item.images) for item in items),
            truncated=sum(each.row.trimmed for each in planned),
        )

    def close(self) -> None:
        """Let go of the threads that plan and fetch."""
        self._planners.shutdown(wait=False, cancel_futures=True)
        self._fetchers.shutdown(wait=False, cancel_futures=True)

    def _resolve(self, choice: Choice) -> Choice:
        """Check a choice; the instruction takes the place of its name."""
        self._check_dimensions(choice.dimensions)
        name, known = choice.prompt_name, self.model.prompts
        if name is not None:
            if choice.instruction is not None:
                raise Problem("input", "instruction and prompt_name say the same; send one of them.", "prompt_name")
            if known.get(name):
                choice = dataclasses.replace(choice, instruction=known[name])
            elif name in _SIDES and choice.side in (None, _SIDES[name]):
                choice = dataclasses.replace(choice, side=_SIDES[name])
            else:
                names = ", ".join(key for key, prompt in known.items() if prompt) or "none"
                raise Problem("input", f"The model has no instruction of this name. It has: {names}.", "prompt_name")
        if choice.instruction and not self.backbone.reads_instruction(choice.side):
            side = f"the {choice.side} side" if choice.side else "neither side"
            raise Problem(
                "input", f"The model reads no instruction on {side}, so it would change nothing; leave it out."
            )
        return choice

    def _check_dimensions(self, dimensions: int | None) -> None:
        if dimensions is None or self.least_dimension <= dimensions <= self.dimension:
            return
        which = (
            f"was trained for {self.least_dimension} to {self.dimension} dimensions"
            if self.least_dimension < self.dimension
            else f"has embeddings of {self.dimension} dimensions, and was not trained for shorter ones"
        )
        raise Problem("input", f"The model {which}; send such a number, or none.", "dimensions")

    async def _fetch(self, items: Sequence[Item]) -> None:
        """Fetch the images that are on the web."""
        loop, fetched = asyncio.get_running_loop(), 0
        waiting = [loop.run_in_executor(self._fetchers, source.fetch) for source in _list_remote(items)]
        try:
            for each in asyncio.as_completed(waiting):
                fetched += await each
                if fetched > self.limits.max_body_bytes:
                    raise Problem(
                        "limit", f"The images have more than {self.limits.max_body_bytes} bytes in all; send fewer."
                    )
        finally:
            for each in waiting:
                each.cancel()

    def _plan(self, items: Sequence[Item], choice: Choice) -> tuple[list[Planned], int]:
        most = self.backbone.max_length
        max_length = None if choice.max_length is None else min(choice.max_length, most)
        planned = self.model.plan(items, prompt=choice.instruction, side=choice.side, max_length=max_length)
        for each in planned:
            if each.row.trimmed and not choice.truncate:
                raise InputError(
                    f"longer than {max_length or most} tokens; shorten its text, or ask for its end to be cut",
                    each.item.place,
                )
        visuals = [visual for each in planned for visual in each.row.visuals]
        return planned, sum(map(self.backbone.count_tokens, visuals))

    def _divide(self, planned: Sequence[Planned]) -> Iterator[list[Planned]]:
        part: list[Planned] = []
        tokens = 0
        for each in planned:
            tokens += each.row.length
            if part and tokens > self._most_tokens:
                yield part
                part, tokens = [], each.row.length
            part.append(each)
        yield part

    def _run(self, planned: list[Planned], options: Mapping[str, Any]) -> list[np.ndarray]:
        self.metrics.count_batch(len(planned), sum(each.row.length for each in planned))
        try:
            vectors = self.model.encode_planned(planned, batch_size=_BATCH_SIZE)
        except InputError:
            raise
        except BaseException:
            self.is_well = False
            raise
        self.is_well = True
        return list(vectors)


def _find_backbone(model: SentenceTransformer) -> Backbone:
    backbone = find_backbone(model) if isinstance(model, SentenceTransformer) else None
    if backbone is None:
        raise ValueError("Only models of the catalog are served, and models that were saved from one.")
    return backbone


def _list_remote(items: Sequence[Item]) -> list[ImageSource]:
    sources = [source for item in items for source in (*item.images, *(item.video.sources if item.video else ()))]
    return [source for source in sources if source.is_remote]


def _cut(vectors: np.ndarray, dimensions: int | None) -> np.ndarray:
    """Return the first components, of length 1 again."""
    if dimensions is None or dimensions == vectors.shape[1]:
        return vectors
    kept = vectors[:, :dimensions]
    return kept / np.linalg.norm(kept, axis=1, keepdims=True)
