"""``LanceDBEmbeddings``: the embedding function ``"st-modules"`` of LanceDB's registry."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from lancedb.embeddings import EmbeddingFunction, register
from pydantic import ConfigDict, Field

from st_modules.errors import list_errors
from st_modules.integrations.embedder import Embedder
from st_modules.integrations.stores import given, load_once, to_items

logger = logging.getLogger(__name__)


@register("st-modules")
class LanceDBEmbeddings(EmbeddingFunction):
    """Embeds the rows of a table of LanceDB, and what is searched for in it.

    A source column has strings, which are texts or images as ``strings`` says, encoded images (``bytes``), or structs
    with the fields ``text``, ``image`` or both. A query is a text, a PIL image, an encoded one, or a dictionary like
    such a struct. Queries get the query side of the model, rows its document side.

    The table keeps the arguments, and not the model: a process that opens it imports this class first, and loads the
    model at its first query or row. A row that cannot be embedded has no vector: ``add(..., on_bad_vectors=...)`` says
    whether that raises (LanceDB's default), drops the row or keeps it, and the log says why.

    Args:
        name: Name of a model; see :class:`st_modules.SentenceTransformer`.
        strings: What strings of the source column are: ``"text"``, or ``"image"`` for paths and URLs. A string that is
            searched for is always a text.
        query_prompt: The instruction of queries.
        document_prompt: The instruction of rows, for models that have one.
        truncate_dim: How many dimensions of the vectors to keep.
        batch_size: Most rows that go through the model at a time.
        options: Other arguments of :class:`st_modules.SentenceTransformer`, as JSON has them: ``{"device": "cpu"}``.

    Example:
        >>> from st_modules.integrations import LanceDBEmbeddings
        >>> function = LanceDBEmbeddings.create(name="tiny")
        >>> function.ndims()
        128
    """

    model_config = ConfigDict(extra="forbid")

    name: str = "gme-2b"
    strings: Literal["text", "image"] = "text"
    query_prompt: str | None = None
    document_prompt: str | None = None
    truncate_dim: int | None = None
    batch_size: int = 32
    options: dict[str, Any] = Field(default_factory=dict)

    def ndims(self) -> int:
        """Return the dimension of the vectors."""
        dimension = self._embedder.model.get_embedding_dimension() or 0
        return min(self.truncate_dim or dimension, dimension)

    def compute_query_embeddings(self, query: Any, *args: Any, **kwargs: Any) -> list[np.ndarray | None]:
        """Embed what is searched for.

        Raises:
            InputError: It cannot be embedded.
        """
        options = given(prompt=self.query_prompt, truncate_dim=self.truncate_dim)
        return [*self._embedder.encode(to_items([query], "text"), "query", **options)]

    def compute_source_embeddings(self, texts: Any, *args: Any, **kwargs: Any) -> list[np.ndarray | None]:
        """Embed values of the source column; what cannot be embedded has ``None``, and the log says why."""
        values = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else texts
        values = [values] if isinstance(values, str | bytes) else list(values)
        options = given(prompt=self.document_prompt, truncate_dim=self.truncate_dim, batch_size=self.batch_size)
        vectors, errors = self._embedder.encode_valid(to_items(values, self.strings), "document", **options)
        if errors:
            logger.warning("%d of %d rows have no vector: %s", len(errors), len(values), list_errors(errors, "; "))
        bad = {error.index for error in errors}
        return [None if place in bad else vector for place, vector in enumerate(vectors)]

    # LanceDB's own wait and try again, and what is wrong here is wrong again.
    compute_query_embeddings_with_retry = compute_query_embeddings
    compute_source_embeddings_with_retry = compute_source_embeddings

    @property
    def _embedder(self) -> Embedder:
        return load_once(self.name, self.options)
