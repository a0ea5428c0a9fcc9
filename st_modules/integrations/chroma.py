"""``ChromaEmbeddings``: an embedding function of Chroma's for texts and images."""

from __future__ import annotations

from typing import Any

import numpy as np
from chromadb.api.types import Embeddable, EmbeddingFunction, Space
from chromadb.utils.embedding_functions import register_embedding_function

from st_modules.errors import ArgumentError
from st_modules.integrations.embedder import Embedder
from st_modules.integrations.stores import given, load_once, to_items, to_json
from st_modules.prompts.templates import Side


@register_embedding_function
class ChromaEmbeddings(EmbeddingFunction[Embeddable]):
    """Embeds documents and images of a Chroma collection, and what is searched for in it.

    Chroma embeds the documents of a call, or its images, and has no place for both of one record: embed such records by
    calling the function with ``[{"text": ..., "image": ...}]``, and add what it returns as ``embeddings=``. Queries get
    the query side of the model, the others its document side.

    The collection keeps the arguments, and not the model: a process that opens it imports this class first. The model
    is loaded at the first call. What cannot be embedded raises, and nothing of the call is added.

    Args:
        model: Name of a model; see :class:`st_modules.SentenceTransformer`.
        query_prompt: The instruction of queries.
        document_prompt: The instruction of documents and images, for models that have one.
        truncate_dim: How many dimensions of the vectors to keep.
        batch_size: Most items that go through the model at a time.
        **options: Other arguments of :class:`st_modules.SentenceTransformer`, as JSON has them.

    Raises:
        ArgumentError: Something in the options has no place in JSON.

    Example:
        >>> from st_modules.integrations import ChromaEmbeddings
        >>> embed = ChromaEmbeddings("tiny")
        >>> len(embed(["a red circle"])[0])
        128
    """

    def __init__(
        self,
        model: str = "gme-2b",
        *,
        query_prompt: str | None = None,
        document_prompt: str | None = None,
        truncate_dim: int | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        to_json(options)
        self._model = model
        self._prompts: dict[Side, str | None] = {"query": query_prompt, "document": document_prompt}
        self._truncate_dim = truncate_dim
        self._batch_size = batch_size
        self._options = options

    def __call__(self, input: Any) -> Any:
        """Embed documents or images: strings are texts, anything else is an image, or a dictionary of both.

        Raises:
            InputError: One cannot be embedded; the message has its place.
        """
        return self._embed(input, "document")

    def embed_query(self, input: Any) -> Any:
        """Embed what is searched for, likewise.

        Raises:
            InputError: It cannot be embedded; the message has its place.
        """
        return self._embed(input, "query")

    @staticmethod
    def name() -> str:
        """Return the name under which Chroma keeps the function."""
        return "st_modules"

    def default_space(self) -> Space:
        """Return how vectors are compared: by their angle."""
        return "cosine"

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, as the collection keeps them."""
        return {
            "model": self._model,
            "query_prompt": self._prompts["query"],
            "document_prompt": self._prompts["document"],
            "truncate_dim": self._truncate_dim,
            "batch_size": self._batch_size,
            **self._options,
        }

    @staticmethod
    def build_from_config(config: dict[str, Any]) -> ChromaEmbeddings:
        """Make the function that a collection was made with."""
        return ChromaEmbeddings(**config)

    def validate_config_update(self, old_config: dict[str, Any], new_config: dict[str, Any]) -> None:
        """Refuse another model for a collection that has vectors of one.

        Raises:
            ArgumentError: The vectors would be others.
        """
        kept = ("model", "document_prompt", "truncate_dim")
        if changed := [name for name in kept if old_config.get(name) != new_config.get(name)]:
            raise ArgumentError(f"{', '.join(changed)}: the vectors of the collection are others; make a new one.")

    @property
    def _embedder(self) -> Embedder:
        return load_once(self._model, self._options)

    def _embed(self, values: Any, side: Side) -> list[np.ndarray]:
        options = given(prompt=self._prompts[side], truncate_dim=self._truncate_dim, batch_size=self._batch_size)
        return [*self._embedder.encode(to_items(values, "text"), side, **options)]
