"""``LanceDBEmbeddings``: the embedding function ``"st-modules"`` of LanceDB's registry."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from lancedb.embeddings import EmbeddingFunction, register
from pydantic import ConfigDict, Field

from st_modules.integrations.embedder import Embedder
from st_modules.integrations.stores import embed_values, load_once


@register("st-modules")
class LanceDBEmbeddings(EmbeddingFunction):
    """Embeds the rows of a table of LanceDB, and what is searched for in it.

    A source column has strings, which are texts or images as ``strings`` says, encoded images (``bytes``), or structs
    with the fields ``text``, ``image`` or both. A query is a text, a PIL image, an encoded one, or a dictionary like
    such a struct. Queries get the query side of the model, rows its document side.

    The table keeps the arguments, and not the model: a process that opens it imports this class first, and loads the
    model at its first query or row. A row that cannot be embedded raises, and nothing of its batch is added.

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

    # Whatever goes wrong here goes wrong again.
    max_retries: int = 0
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
        options = {"prompt": self.query_prompt, "truncate_dim": self.truncate_dim}
        return [*embed_values(self._embedder, [query], "query", "text", options)]

    def compute_source_embeddings(self, texts: Any, *args: Any, **kwargs: Any) -> list[np.ndarray | None]:
        """Embed values of the source column.

        Raises:
            InputError: One cannot be embedded; the message has its place in its batch.
        """
        values = texts.to_pylist() if isinstance(texts, pa.Array | pa.ChunkedArray) else texts
        values = [values] if isinstance(values, str | bytes) else list(values)
        options = {
            "prompt": self.document_prompt,
            "truncate_dim": self.truncate_dim,
            "batch_size": self.batch_size,
            "show_progress_bar": False,
        }
        return [*embed_values(self._embedder, values, "document", self.strings, options)]

    @property
    def _embedder(self) -> Embedder:
        return load_once(self.name, self.options)
