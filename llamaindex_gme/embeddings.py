"""``GMEEmbedding``: LlamaIndex's ``MultiModalEmbedding`` that also embeds an image with its text as one vector."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from llama_index.core.async_utils import run_jobs
from llama_index.core.base.embeddings.base import Embedding, mean_agg
from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.embeddings import MultiModalEmbedding
from llama_index.core.instrumentation import get_dispatcher  # pyright: ignore[reportPrivateImportUsage]
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode, QueryBundle
from llama_index.core.utils import get_tqdm_iterable
from pydantic import SecretStr

from llamaindex_gme.batches import NodeBatch
from llamaindex_gme.callers import (
    refuse_dropped_images,
    refuse_left_out_images,
    refuse_left_out_query_image,
    uncached_images,
)
from llamaindex_gme.nodes import as_nodes
from st_modules import InputError, Place

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from st_modules import Embedder, RemoteEmbedder, Side

_DEFAULT_MODEL = "gme-2b"
# Batches that are with a server at a time: each has its pictures in memory meanwhile.
_REQUESTS = 8
# What belongs to the process that an embedding is in.
_OF_THIS_PROCESS = frozenset({"callback_manager", "rate_limiter"})

Valid: TypeAlias = tuple[list[Embedding | None], list[InputError]]

dispatcher = get_dispatcher(__name__)
logger = logging.getLogger(__name__)


class GMEEmbedding(MultiModalEmbedding):
    """Embeddings of text, images, and images with a text, in one space.

    Texts, images and nodes get the document side of the model, queries its query side. Text is embedded as it is,
    whatever it looks like: a document that is a URL or a path is never opened. Async methods do not block the event
    loop, and calls that wait at the same time are embedded together.

    Called on nodes, as a transformation, it embeds what each node holds: its text, its image, or both as one vector.

    Args:
        model_name: Name of a model of st_modules' catalog ("gme-2b"), of a model on the Hub or of a folder; or a loaded
            ``SentenceTransformer``, in which case the embedding cannot be pickled. By default "gme-2b", or the model of
            the server at ``base_url``.
        embed_batch_size: Inputs in one batch, which is also what an event reports; 32.
        fuse: ``False`` embeds the text of nodes only, as LlamaIndex's own embeddings do.
        on_error: ``"skip"`` leaves out nodes that cannot be embedded, and logs them in one warning, where the embedding
            is called on nodes; ``"raise"`` raises for the first of them.
        query_instruction: The instruction of queries.
        text_instruction: The instruction of texts and images, for models that have one.
        device: Where the model runs.
        cache_folder: Where models from the Hub are kept.
        weights: Local files in the place of the model's repository; see ``st_modules.SentenceTransformer``.
        base_weights: Local files of what an adapter or a tower is built on.
        model_kwargs: Other arguments of ``st_modules.SentenceTransformer``.
        encode_kwargs: Arguments of its ``encode_query`` and ``encode_document``.
        batch_delay: Seconds that an async call waits for others to be embedded with; 0.005. A server has its own.
        base_url: Address of a server, ``st-modules serve``, which has the model in the place of this process. Of
            ``model_kwargs`` what says where images may come from counts beside it, and of ``encode_kwargs`` what a
            server takes.
        api_key: The key that the server asks for. ``to_dict`` and ``to_json`` leave it out; ``from_dict`` and
            ``from_json`` take it as an argument. A pickle has it.
        timeout: Seconds that a request to the server may take.
        max_retries: How often one is repeated while the server cannot be reached or is busy.
        **kwargs: The other fields of ``BaseEmbedding``. Its ``embeddings_cache`` is used for texts: it has no place
            for images, and does not tell a query from a document.

    Raises:
        ValueError: An instruction was given for a side where the model reads none, or what says how to load a model
            beside ``base_url``.
        ServerError: The server cannot be reached, asks for another key, or has another model than ``model_name``.
        UnknownModelError: The name is near one of the catalog's.
        CheckpointError: The model's files are missing, damaged, or of another architecture.

    Example:
        >>> from llamaindex_gme import GMEEmbedding
        >>> embed_model = GMEEmbedding("tiny")
        >>> len(embed_model.get_image_embedding("picture.png"))
        128
    """

    model_config = ConfigDict(extra="forbid")

    embed_batch_size: int = Field(default=32, gt=0, le=2048)
    fuse: bool = True
    on_error: Literal["raise", "skip"] = "raise"
    query_instruction: str | None = None
    text_instruction: str | None = None
    device: str | None = None
    cache_folder: str | None = None
    weights: str | None = None
    base_weights: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    batch_delay: float = Field(default=0.005, ge=0)
    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    timeout: float = Field(default=120.0, gt=0)
    max_retries: int = Field(default=5, ge=0)

    _embedder: Embedder | RemoteEmbedder = PrivateAttr()
    _is_named: bool = PrivateAttr()

    def __init__(self, model_name: str | Path | SentenceTransformer | None = None, **kwargs: Any) -> None:
        for name in ("cache_folder", "weights", "base_weights"):
            if isinstance(kwargs.get(name), os.PathLike):
                kwargs[name] = os.fspath(kwargs[name])
        if model_name is None and not kwargs.get("base_url"):
            model_name = _DEFAULT_MODEL
        super().__init__(model_name=str(model_name) if isinstance(model_name, (str, Path)) else "", **kwargs)
        self._embedder = self._load(model_name) if self.base_url is None else self._connect(self.base_url, model_name)
        self._is_named = self.base_url is not None or isinstance(model_name, (str, Path))
        self.model_name = self.model_name or self._embedder.name
        self._embedder.check_instruction("query", self.query_instruction)
        self._embedder.check_instruction("document", self.text_instruction)

    def _load(self, model: Any) -> Embedder:
        from st_modules import Embedder  # it takes seconds to import

        if self.api_key is not None:
            raise ValueError("api_key: it is for a server; pass base_url with it.")
        return Embedder.load(model, **self._loading)

    def _connect(self, base_url: str, model: Any) -> RemoteEmbedder:
        from st_modules import RemoteEmbedder  # httpx may be missing

        embedder = RemoteEmbedder(
            base_url,
            str(model) if isinstance(model, Path) else model,
            api_key=None if self.api_key is None else self.api_key.get_secret_value(),
            timeout=self.timeout,
            max_retries=self.max_retries,
            **self._loading,
        )
        embedder.check_options(self.encode_kwargs)
        return embedder

    @property
    def _loading(self) -> dict[str, Any]:
        files = {"weights": self.weights, "base_weights": self.base_weights, "cache_folder": self.cache_folder}
        return {**files, **({} if self.device is None else {"device": self.device}), **self.model_kwargs}

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised pipelines."""
        return "GMEEmbedding"

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        if not self._is_named:
            raise TypeError(
                "GMEEmbedding of a loaded model cannot be pickled, because its weights would be. Save the model and "
                "name its folder: GMEEmbedding(model_name)."
            )
        fields = type(self).model_fields.keys() - _OF_THIS_PROCESS
        return partial(type(self), **{name: getattr(self, name) for name in fields}), ()

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields, and where an ingestion cache asks, the pictures that its key would leave out."""
        return {**super().to_dict(**kwargs), **uncached_images(self._embedder.image_limits)}

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed what each node holds, and set its ``embedding``.

        Args:
            nodes: The nodes.
            **kwargs: ``show_progress``; whatever else LlamaIndex hands to transformations is for others.

        Returns:
            The same nodes; with ``on_error="skip"``, those of them that can be embedded.

        Raises:
            InputError: Something is no node, which raises with ``on_error="skip"`` too; a node's image cannot be read,
                there is nothing in it, it holds audio or video, or a splitter has dropped its document's picture. The
                message has the node's position in ``nodes`` and its id. No node has been given an embedding.
        """
        batch = self._read(nodes)
        others = [*batch.others.values()]
        show_progress = kwargs.get("show_progress", False)
        with batch.name_nodes([*batch.others]):
            parsed = others if self.on_error == "skip" else self._embedder.parse(others)
        with batch.name_nodes([*batch.texts]):
            texts = self.get_text_embedding_batch([*batch.texts.values()], **kwargs)
        if self.on_error == "skip":
            return batch.finish(texts, *self._embed_valid_batches(others, show_progress))
        with batch.name_nodes([*batch.others]):
            return batch.finish(texts, self._embed_batches(parsed, show_progress))

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Embed what each node holds without blocking the event loop; see :meth:`__call__`."""
        batch = self._read(nodes)
        others = [*batch.others.values()]
        show_progress = kwargs.get("show_progress", False)
        with batch.name_nodes([*batch.others]):
            parsed = others if self.on_error == "skip" else self._embedder.parse(others)
        with batch.name_nodes([*batch.texts]):
            texts = await self.aget_text_embedding_batch([*batch.texts.values()], **kwargs)
        if self.on_error == "skip":
            return batch.finish(texts, *await self._aembed_valid_batches(others, show_progress))
        with batch.name_nodes([*batch.others]):
            return batch.finish(texts, await self._aembed_batches(parsed, show_progress))

    def get_query_embedding(self, query: str) -> Embedding:
        """Embed a text on the query side. ``embeddings_cache`` is left out: it would return a document's embedding."""
        self._report_lookalike(query)
        return super(GMEEmbedding, self._without_cache()).get_query_embedding(query)

    async def aget_query_embedding(self, query: str) -> Embedding:
        """Embed a text on the query side, off the event loop; see :meth:`get_query_embedding`."""
        self._report_lookalike(query)
        return await super(GMEEmbedding, self._without_cache()).aget_query_embedding(query)

    def get_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Embed texts on the query side, as one vector.

        Args:
            queries: The texts.
            agg_fn: Makes one vector of theirs; the mean where it is left out.

        Raises:
            InputError: They are no list, or a retriever of core hands over the text of a query that has an image too.
        """
        if self.fuse:
            refuse_left_out_query_image()
        return super().get_agg_embedding_from_queries(_as_list(queries), agg_fn)

    async def aget_agg_embedding_from_queries(
        self, queries: list[str], agg_fn: Callable[..., Embedding] | None = None
    ) -> Embedding:
        """Embed texts as one vector, off the event loop; see :meth:`get_agg_embedding_from_queries`."""
        if self.fuse:
            refuse_left_out_query_image()
        return await super().aget_agg_embedding_from_queries(_as_list(queries), agg_fn)

    def get_multimodal_query_embedding(self, query: QueryBundle) -> Embedding:
        """Embed a query of a text, an image, or both as one vector, on the query side.

        Args:
            query: ``query_str`` is the text ("" for none), ``image_path`` the image: a path or URL, or anything else
                that :meth:`get_image_embedding` takes. Of several ``custom_embedding_strs`` the mean is returned, as
                core does it.

        Raises:
            InputError: There is neither text nor image, or the image cannot be read.
        """
        self._report_lookalikes(query)
        items = self._embedder.parse(_query_items(query))
        with self._event(items) as found:
            found += (embeddings := self._embed(items, "query"))
        return mean_agg(embeddings)

    async def aget_multimodal_query_embedding(self, query: QueryBundle) -> Embedding:
        """Embed a query off the event loop; see :meth:`get_multimodal_query_embedding`."""
        self._report_lookalikes(query)
        items = self._embedder.parse(_query_items(query))
        with self._event(items) as found:
            found += (embeddings := await self._aembed(items, "query"))
        return mean_agg(embeddings)

    def get_text_embedding_batch(self, texts: list[str], show_progress: bool = False, **kwargs: Any) -> list[Embedding]:
        """Embed texts on the document side.

        Args:
            texts: The texts.
            show_progress: Whether to show a progress bar.
            **kwargs: As in core, of no effect.

        Returns:
            One embedding a text, in the same order.

        Raises:
            InputError: Something is no text; the message has its place in ``texts``.
        """
        self._check_texts(texts)
        return super().get_text_embedding_batch(texts, show_progress, **kwargs)

    async def aget_text_embedding_batch(
        self, texts: list[str], show_progress: bool = False, **kwargs: Any
    ) -> list[Embedding]:
        """Embed texts on the document side, off the event loop; see :meth:`get_text_embedding_batch`."""
        self._check_texts(texts)
        return await super().aget_text_embedding_batch(texts, show_progress, **kwargs)

    def get_image_embedding(self, img_file_path: Any) -> Embedding:
        """Embed an image on the document side; see :meth:`get_image_embedding_batch`."""
        return self.get_image_embedding_batch([img_file_path])[0]

    async def aget_image_embedding(self, img_file_path: Any) -> Embedding:
        """Embed an image on the document side, off the event loop; see :meth:`get_image_embedding_batch`."""
        return (await self.aget_image_embedding_batch([img_file_path]))[0]

    def get_image_embedding_batch(self, img_file_paths: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        """Embed images on the document side.

        Args:
            img_file_paths: Paths, URLs, data URIs, ``BytesIO``, bytes and PIL images, in any mixture.
            show_progress: Whether to show a progress bar.

        Returns:
            One embedding an image, in the same order.

        Raises:
            InputError: An image cannot be read; the message has its place in ``img_file_paths``.
        """
        return self._embed_batches(self._embedder.parse(_image_items(img_file_paths)), show_progress)

    async def aget_image_embedding_batch(
        self, img_file_paths: Sequence[Any], show_progress: bool = False
    ) -> list[Embedding]:
        """Embed images on the document side, off the event loop; see :meth:`get_image_embedding_batch`."""
        return await self._aembed_batches(self._embedder.parse(_image_items(img_file_paths)), show_progress)

    def _get_query_embedding(self, query: str) -> Embedding:
        return self._embed(_text_items([query]), "query")[0]

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return (await self._aembed(_text_items([query]), "query"))[0]

    def _get_text_embedding(self, text: str) -> Embedding:
        return self._embed(_text_items([text]), "document")[0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return (await self._aembed(_text_items([text]), "document"))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return self._embed(_text_items(texts), "document")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[Embedding]:
        return await self._aembed(_text_items(texts), "document")

    def _get_image_embedding(self, img_file_path: Any) -> Embedding:
        return self._embed(_image_items([img_file_path]), "document")[0]

    async def _aget_image_embedding(self, img_file_path: Any) -> Embedding:
        return (await self._aembed(_image_items([img_file_path]), "document"))[0]

    def _check_texts(self, texts: list[str]) -> None:
        self._embedder.check_texts(_as_list(texts))
        if self.fuse:
            refuse_left_out_images()

    def _report_lookalike(self, query: Any) -> None:
        """Log that the text of a query looks like an image."""
        if isinstance(query, str) and self._embedder.looks_like_image(query):
            logger.warning(
                "%.80r looks like an image: it is embedded as text. For an image pass QueryBundle('', image_path=...).",
                query.strip(),
            )

    def _report_lookalikes(self, query: QueryBundle) -> None:
        for text in query.embedding_strs if not query.image_path else ():
            self._report_lookalike(text)

    def _without_cache(self) -> GMEEmbedding:
        return self if self.embeddings_cache is None else self.model_copy(update={"embeddings_cache": None})

    def _embed_batches(self, items: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        embeddings: list[Embedding] = []
        for batch in get_tqdm_iterable(self._batches(items), show_progress, "Generating embeddings"):
            with self._event(batch) as found:
                found += (embedded := self._embed(batch, "document"))
            embeddings += embedded
        return embeddings

    async def _aembed_batches(self, items: Sequence[Any], show_progress: bool = False) -> list[Embedding]:
        found = await self._run_jobs([self._aembed_batch(batch) for batch in self._batches(items)], show_progress)
        return [embedding for embeddings in found for embedding in embeddings]

    async def _run_jobs(self, jobs: list[Any], show_progress: bool) -> list[Any]:
        most = max(1, len(jobs)) if self.base_url is None else _REQUESTS
        return await run_jobs(jobs, show_progress, self.num_workers or most, desc="Generating embeddings")

    async def _aembed_batch(self, items: Sequence[Any]) -> list[Embedding]:
        with self._event(items) as found:
            found += (embeddings := await self._aembed(items, "document"))
        return embeddings

    def _embed_valid_batches(self, items: Sequence[Any], show_progress: bool) -> Valid:
        found: list[Valid] = []
        for batch in get_tqdm_iterable(self._batches(items), show_progress, "Generating embeddings"):
            with self._event(batch) as embeddings:
                found.append(self._embedder.embed_valid(batch, "document", **self._options("document")))
                embeddings += found[-1][0]
        return self._join(found)

    async def _aembed_valid_batches(self, items: Sequence[Any], show_progress: bool) -> Valid:
        jobs = [self._aembed_valid_batch(batch) for batch in self._batches(items)]
        return self._join(await self._run_jobs(jobs, show_progress))

    async def _aembed_valid_batch(self, items: Sequence[Any]) -> Valid:
        with self._event(items) as embeddings:
            found = await self._embedder.aembed_valid(
                items, "document", delay=self.batch_delay, **self._options("document")
            )
            embeddings += found[0]
        return found

    def _join(self, batches: Sequence[Valid]) -> Valid:
        return (
            [embedding for embeddings, _ in batches for embedding in embeddings],
            [error.shift(n * self.embed_batch_size) for n, (_, errors) in enumerate(batches) for error in errors],
        )

    def _read(self, nodes: Sequence[BaseNode]) -> NodeBatch:
        """Find out what each node holds; raises where that cannot be embedded, unless it is to be left out."""
        nodes = as_nodes(nodes)
        if self.fuse:
            refuse_dropped_images(nodes)
        skips = self.on_error == "skip"
        return NodeBatch(nodes, fuse=self.fuse, skips=skips, check_texts=self._embedder.check_texts)

    def _batches(self, items: Sequence[Any]) -> list[Sequence[Any]]:
        return [items[start : start + self.embed_batch_size] for start in range(0, len(items), self.embed_batch_size)]

    def _embed(self, items: Sequence[Any], side: Side) -> list[Embedding]:
        return self._embedder.embed(items, side, **self._options(side))

    async def _aembed(self, items: Sequence[Any], side: Side) -> list[Embedding]:
        return await self._embedder.aembed(items, side, delay=self.batch_delay, **self._options(side))

    def _options(self, side: Side) -> dict[str, Any]:
        instruction = self.query_instruction if side == "query" else self.text_instruction
        prompt = {} if instruction is None else {"prompt": instruction}
        return {"batch_size": self.embed_batch_size, "show_progress_bar": False, **self.encode_kwargs, **prompt}

    @contextmanager
    def _event(self, items: Sequence[Any]) -> Generator[list[Embedding | None], None, None]:
        """Core's events around embedding items, for what core has no method for; the embeddings go into the list."""
        found: list[Embedding | None] = []
        payload = self.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=payload))
        with self.callback_manager.event(CBEventType.EMBEDDING, payload={EventPayload.SERIALIZED: payload}) as event:
            yield found
            pairs = [(_describe(item), each) for item, each in zip(items, found, strict=True) if each is not None]
            chunks, embeddings = [chunk for chunk, _ in pairs], [embedding for _, embedding in pairs]
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: embeddings})
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=embeddings))


def _text_items(texts: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"text": text} for text in _as_list(texts)]


def _image_items(images: Sequence[Any]) -> list[dict[str, Any]]:
    for index, image in enumerate(images := _as_list(images)):
        if isinstance(image, (list, tuple)):  # the model would make one embedding of them
            raise InputError(
                f"a {type(image).__name__} of images where one belongs; for an embedding each, pass them to "
                "get_image_embedding_batch",
                Place(index),
            )
    return [{"image": image} for image in images]


def _as_list(values: Sequence[Any]) -> list[Any]:
    if isinstance(values, (str, bytes)) or not isinstance(values, Sequence):
        raise InputError(f"A {type(values).__name__} where a list belongs: pass a list of inputs.")
    return list(values)


def _query_items(query: QueryBundle) -> list[dict[str, Any]]:
    return [{"text": text, "image": query.image_path} for text in query.embedding_strs or [None]]


def _describe(item: Any) -> str:
    """An item as events report it."""
    is_parsed = not isinstance(item, dict)
    parts = (item.text, *item.images, item.video) if is_parsed else [*map(item.get, ("text", "image", "video"))]
    return " ".join(str(part) for part in parts if part)
