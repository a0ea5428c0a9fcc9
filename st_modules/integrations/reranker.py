"""A reranker as other libraries' interfaces call it: a query, a list of documents, plain floats, at once or awaited."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import sentence_transformers

from st_modules.backbones.base import find_backbone
from st_modules.cross_encoder import CrossEncoder
from st_modules.inputs.limits import ImageLimits


class Reranker:
    """A cross-encoder of sentence-transformers behind an integration's interface.

    Copies, deep ones too, share the model. It cannot be pickled: an integration keeps what loads the model, and loads
    it again.

    Args:
        model: A loaded model, which gives one score a pair.
    """

    def __init__(self, model: sentence_transformers.CrossEncoder) -> None:
        if not isinstance(model, sentence_transformers.CrossEncoder):
            raise TypeError(
                f"A model of type {type(model).__name__}: pass the name of a reranker, or a loaded CrossEncoder."
            )
        if model.num_labels != 1:
            raise ValueError(f"The model has {model.num_labels} labels a pair, and a reranker has one.")
        self.model = model

    @classmethod
    def load(
        cls,
        model: str | Path | sentence_transformers.CrossEncoder,
        *,
        weights: str | Path | None = None,
        cache_folder: str | Path | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a reranker by name, or take a loaded one as it is.

        One that is loaded here is nobody else's to change, so it keeps what its pairs begin with from call to call
        (``keep_prefixes``) unless ``model_kwargs`` says otherwise.

        Args:
            model: Name of a reranker, anything else that sentence-transformers loads, or a loaded model.
            weights: As of :class:`st_modules.CrossEncoder`.
            cache_folder: As of :class:`st_modules.CrossEncoder`.
            **model_kwargs: Its other arguments.

        Raises:
            UnknownModelError: The name is near one of the catalog's, or that of an embedder.
            CheckpointError: The model's files are missing, damaged, or of another architecture.
            ValueError: A loaded model was passed with arguments that say how to load it, or it has several labels.
        """
        files = {"weights": weights, "cache_folder": cache_folder}
        given = {name: os.fspath(path) for name, path in files.items() if path is not None}
        if isinstance(model, (str, Path)):
            return cls(CrossEncoder(model, **given, **{"keep_prefixes": True, **model_kwargs}))
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
        """Whether the model reads videos."""
        backbone = find_backbone(self.model)
        return backbone is not None and backbone.takes_video

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("A loaded model is not pickled; pickle what names it, and load it where it is needed.")

    def score(self, query: Any, documents: Sequence[Any], **options: Any) -> list[float]:
        """Score documents for a query in the calling thread.

        Args:
            query: What ``SentenceTransformer.encode`` takes as one item.
            documents: Likewise, several.
            **options: Keyword arguments of ``CrossEncoder.predict``, such as ``prompt`` and ``batch_size``.

        Returns:
            One score a document, in the same order; the higher the better.

        Raises:
            InputError: The query or a document cannot be read; the message has its place in ``documents``.
        """
        if not documents:
            return []
        asked = to_side(self.model, query)
        pairs = [(asked, to_side(self.model, document)) for document in documents]
        return self.model.predict(pairs, **{"show_progress_bar": False, **options, "convert_to_numpy": True}).tolist()

    async def ascore(self, query: Any, documents: Sequence[Any], **options: Any) -> list[float]:
        """Score documents for a query without blocking the event loop; see :meth:`score`."""
        return await asyncio.to_thread(self.score, query, documents, **options)


def to_side(model: Any, item: Any) -> Any:
    """Return a query or a document as a cross-encoder takes it: one of texts alone takes no dictionaries."""
    if isinstance(model, CrossEncoder) and find_backbone(model):
        return item
    if not isinstance(item, dict):
        return item
    given = {name: part for name, part in item.items() if part is not None}
    return given["text"] if given.keys() == {"text"} else given
