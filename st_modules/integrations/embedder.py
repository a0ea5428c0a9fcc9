"""A model as other libraries' interfaces call it: a side, a list of items, plain floats, at once or awaited."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import sentence_transformers
from typing_extensions import Self

from st_modules.backbones.base import find_backbone
from st_modules.inputs.items import check_texts
from st_modules.integrations.dynamic_batching import DynamicBatcher
from st_modules.model import SentenceTransformer
from st_modules.prompts.templates import Side


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
        if not items:
            return []
        encode = self.model.encode_query if side == "query" else self.model.encode_document
        embeddings = encode(self.parse(items), **{**options, "convert_to_numpy": True, "convert_to_tensor": False})
        return np.asarray(embeddings, dtype=np.float32).tolist()

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

    def check_texts(self, texts: Sequence[Any]) -> None:
        """Check texts before anything is embedded, where a host library hands them on in batches of its own.

        Args:
            texts: The texts.

        Raises:
            InputError: Something is no text, or one that no tokenizer can read.
        """
        check_texts(texts)

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
        return await self._batchers[side](items, options, delay) if items else []

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
                f"The model reads no instruction on the {side} side, so {instruction!r} would change nothing there. "
                "Leave it out."
            )

    def _run(self, side: Side, items: list[Any], options: Mapping[str, Any]) -> list[list[float]]:
        return self.embed(items, side, **options)
