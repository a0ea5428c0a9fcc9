"""A model as engines of data call it: a batch of columns in, the same batch with a vector and an error a row out."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import sentence_transformers

from st_modules.arguments import check_choice
from st_modules.catalog import names_folder
from st_modules.errors import ArgumentError, InputError
from st_modules.integrations.batch_columns import add_columns, list_columns, list_values
from st_modules.integrations.embedder import Embedder
from st_modules.prompts.templates import Side

_TEXT, _IMAGE = "text", "image"
_LOADING = threading.Lock()


class BatchEmbedder:
    """Embeds batches of columns: what Ray Data's ``map_batches``, Daft's UDFs and Spark's ``mapInPandas`` call.

    Making one loads nothing: the model is loaded at the first call, once for each process that holds one. It can be
    pickled at any time, and then loads its model where it is called next; one of a loaded model cannot.

    A row that cannot be embedded costs no other one: its ``error`` says what is wrong with it, and its ``vector`` is
    NaN throughout, which is near nothing. Only what is wrong with all rows raises: a model that cannot be loaded, a
    column that is not there.

    Args:
        model: Name of a model, anything else that sentence-transformers loads, or a loaded model.
        side: ``"document"`` or ``"query"``.
        text: The column of texts. Where it has its own name, ``"text"``, a batch may be without it.
        image: The column of images, likewise: paths, URLs, data URIs, encoded bytes, ``{"bytes": ..., "path": ...}``,
            PIL images, uint8 arrays; or a list of these. A row may have a text, an image, or both.
        vector: The new column of vectors.
        error: The new column of errors: ``None``, or what is wrong with the row.
        prompt: The instruction.
        prompt_name: Name of an instruction of the model's.
        truncate_dim: How many dimensions of the vectors to keep.
        batch_size: Most rows that go through the model at a time.
        dtype: ``"float32"``, or ``"float16"`` for vectors of half the size.
        weights: As of :class:`st_modules.SentenceTransformer`.
        base_weights: As of :class:`st_modules.SentenceTransformer`.
        cache_folder: As of :class:`st_modules.SentenceTransformer`.
        **model_kwargs: Its other arguments, such as ``device``, ``image_limits`` or ``model_kwargs``.

    Raises:
        ArgumentError: An argument has a value that it cannot have.

    Example:
        >>> from st_modules import BatchEmbedder
        >>> embed = BatchEmbedder("tiny")
        >>> batch = embed({"id": [1, 2], "text": ["a red circle", None]})
        >>> batch["vector"].shape, batch["error"][1]
        ((2, 128), 'it has neither text nor image; leave it out or give it one')
    """

    def __init__(
        self,
        model: str | Path | sentence_transformers.SentenceTransformer,
        *,
        side: Side = "document",
        text: str | None = _TEXT,
        image: str | None = _IMAGE,
        vector: str = "vector",
        error: str = "error",
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate_dim: int | None = None,
        batch_size: int = 32,
        dtype: str = "float32",
        weights: str | Path | None = None,
        base_weights: str | Path | None = None,
        cache_folder: str | Path | None = None,
        **model_kwargs: Any,
    ) -> None:
        check_choice("side", side, ("query", "document"))
        check_choice("dtype", dtype, ("float32", "float16"))
        if prompt is not None and prompt_name is not None:
            raise ArgumentError("prompt and prompt_name say the same; pass one of them.")
        self._model = _find_folder(model) if isinstance(model, (str, Path)) else model
        files = {"weights": weights, "base_weights": base_weights, "cache_folder": cache_folder}
        # Where it is called, another folder may be the current one.
        self._files = {name: os.path.abspath(path) for name, path in files.items() if path is not None}
        self._model_kwargs = model_kwargs
        self._side: Side = side
        self._inputs = {_TEXT: text, _IMAGE: image}
        self._vector, self._error = vector, error
        self._prompt = prompt
        self._dtype = np.dtype(dtype)
        options = {"prompt": prompt, "prompt_name": prompt_name, "truncate_dim": truncate_dim}
        self._options = {
            "batch_size": batch_size,
            "show_progress_bar": False,
            **{name: value for name, value in options.items() if value is not None},
        }
        self._embedder: Embedder | None = None

    def __getstate__(self) -> dict[str, Any]:
        if not isinstance(self._model, str):
            raise TypeError("A loaded model is not pickled; pass its name, and it is loaded where it is needed.")
        return {**self.__dict__, "_embedder": None}

    def __call__(self, batch: Any) -> Any:
        """Embed a batch.

        Args:
            batch: A dictionary of columns (lists, arrays of numpy or Arrow, series of pandas or Polars), a table or
                record batch of Arrow, or a data frame of pandas.

        Returns:
            The batch with its columns as they are, and two more: vectors, float32 or float16 of shape (rows,
            dimensions), and errors. In a table the vectors are lists of a fixed size, in a data frame arrays.

        Raises:
            ArgumentError: The batch has not the columns that it needs, or columns of unequal length.
            UnknownModelError: The name is near one of the catalog's.
            CheckpointError: The model's files are missing, damaged, or of another architecture.
        """
        vectors, errors = self.embed(self._read(batch))
        return add_columns(batch, {self._vector: vectors, self._error: errors})

    def embed(self, items: list[Any]) -> tuple[np.ndarray, list[str | None]]:
        """Embed items that are no columns.

        Args:
            items: What ``encode`` takes.

        Returns:
            The vectors, NaN throughout where an item cannot be embedded; and for each item ``None``, or what is wrong
            with it.
        """
        vectors, found = self.embedder.encode_valid(items, self._side, **self._options)
        errors: list[str | None] = [None] * len(items)
        for error in found:
            if error.index is not None:
                errors[error.index] = _describe(error)
        return vectors.astype(self._dtype, copy=False), errors

    @property
    def embedder(self) -> Embedder:
        """The model, which is loaded where it was not."""
        if self._embedder is None:
            with _LOADING:  # threads that call at once load one model
                self._embedder = self._embedder or self._load()
        return self._embedder

    def _load(self) -> Embedder:
        embedder = Embedder.load(self._model, **self._files, **self._model_kwargs)
        embedder.check_instruction(self._side, self._prompt)
        return embedder

    def _read(self, batch: Any) -> list[dict[str, Any]]:
        """Return the rows of a batch as items."""
        names = list_columns(batch)
        for part, name in self._inputs.items():
            if name not in (None, part, *names):
                raise ArgumentError(f"{part}={name!r}: the batch has no such column, but {names}.")
        columns = {part: list_values(batch[name]) for part, name in self._inputs.items() if name in names}
        if not columns:
            raise ArgumentError(f"The batch has no column of texts or images; pass text= or image=, of {names}.")
        if len({len(values) for values in columns.values()}) > 1:
            raise ArgumentError(f"{ {name: len(values) for name, values in columns.items()} }: not as many rows.")
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _find_folder(model: str | Path) -> str:
    """Return the name of a model, an absolute path where it is a folder."""
    name = str(model)
    return os.path.abspath(name) if names_folder(name) and os.path.isdir(name) else name


def _describe(error: InputError) -> str:
    """Say what is wrong with a row, whose place in its batch says nothing."""
    part = getattr(error.place, "part", "")
    return f"{part}: {error.problem}" if part else error.problem
