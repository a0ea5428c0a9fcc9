"""A model as other libraries' interfaces call it: a side, a list of items, plain floats, at once or awaited."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import sentence_transformers

from st_modules.backbones.base import find_backbone
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.videos import VideoSource
from st_modules.integrations.base_embedder import BaseEmbedder
from st_modules.integrations.dynamic_batching import DynamicBatcher
from st_modules.integrations.others import encode_with_others
from st_modules.integrations.skipping import Remaining
from st_modules.model import SentenceTransformer
from st_modules.prompts.templates import Side


class Embedder(BaseEmbedder):
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

    @property
    def dimension(self) -> int:
        """How many dimensions an embedding has; 0 where the model does not say."""
        return self.model.get_embedding_dimension() or 0

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

    async def aencode(self, items: Sequence[Any], side: Side, *, delay: float = 0.0, **options: Any) -> np.ndarray:
        """Embed items as :meth:`aembed` does, into an array.

        Returns:
            float32 of shape (items, dimensions).
        """
        return np.asarray(await self._batchers[side](items, options, delay), dtype=np.float32)

    def parse(self, items: Sequence[Any]) -> list[Any]:
        """Check items before anything is embedded; see :meth:`BaseEmbedder.parse`."""
        if isinstance(self.model, SentenceTransformer):
            return self.model.parse(items)
        # A list that begins with a message would be read as one conversation.
        return [[item] if isinstance(item, dict) and "role" in item else item for item in items]

    def reads_instruction(self, side: Side) -> bool:
        """Whether an instruction changes anything about items of a side."""
        backbone = find_backbone(self.model)
        # Other models get their instructions from sentence-transformers, which writes them before every text.
        return backbone is None or backbone.reads_instruction(side)

    def _inspect(self, items: list[Any]) -> Remaining[Any]:
        if find_backbone(self.model) is None or not isinstance(self.model, SentenceTransformer):
            return Remaining(self.parse(items), {}, exact=False)
        return super()._inspect(items)

    def _look_at_video(self, video: VideoSource) -> None:
        _ = video.frame_count

    def _run(self, side: Side, items: list[Any], options: Mapping[str, Any]) -> list[np.ndarray]:
        return list(self.encode(items, side, **options))
