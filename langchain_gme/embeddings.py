"""``GMEEmbeddings``: LangChain's ``Embeddings`` for text, images, and images with a text."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langchain_core.embeddings import Embeddings
from langchain_core.runnables.config import run_in_executor
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr

from langchain_gme.callers import count_left_out
from langchain_gme.content import as_list, find_place, name_documents, text_items, to_item
from langchain_gme.precomputed import is_served, take_documents, take_query
from st_modules import InputError, Place

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from st_modules import Embedder, RemoteEmbedder, Side

logger = logging.getLogger(__name__)

_DEFAULT_MODEL = "gme-2b"
_PROMPTS = frozenset({"prompt", "prompt_name"})
_QUERY = Place(0, name="query")


class GMEEmbeddings(BaseModel, Embeddings):
    """Embeddings of text, images, and images with a text, in one space.

    The fields are those of ``HuggingFaceEmbeddings``, and some more. Text is embedded as it is, whatever it looks
    like: a document that is a URL or a path is never opened. Documents and images get the document side of the model,
    queries its query side.

    Every method has an async twin that does not block the event loop. Async calls of one side that wait at the same
    time are embedded together.

    Args:
        model_name: Name of a model of st_modules' catalog ("gme-2b"), of a model on the Hub or of a folder; ``model``
            is the same. ``model`` may also be a loaded ``SentenceTransformer``; such embeddings cannot be pickled.
        cache_folder: Where models from the Hub are kept.
        weights: Local files in the place of the model's repository; see ``st_modules.SentenceTransformer``.
        base_weights: Local files of what an adapter or a tower is built on.
        model_kwargs: Other arguments of ``st_modules.SentenceTransformer``, such as ``device`` or ``truncate_dim``.
        encode_kwargs: Arguments of its ``encode_document``, such as ``batch_size``.
        query_encode_kwargs: Arguments of its ``encode_query``; where there are none, ``encode_kwargs`` are used.
        query_instruction: The instruction of queries.
        document_instruction: The instruction of documents and images, for models that have one.
        show_progress: Whether to show a progress bar.
        batch_delay: Seconds that an async call waits for others to be embedded with; 0.005. A server has its own.
        base_url: Address of a server, ``st-modules serve``, which has the model in the place of this process. Of
            ``model_kwargs`` what says where images may come from counts beside it, and of the arguments of ``encode``
            those that a server takes; ``batch_size`` is the most items in a request.
        api_key: The key that the server asks for.
        timeout: Seconds that a request to the server may take.
        max_retries: How often one is repeated while the server cannot be reached or is busy.

    Raises:
        ValueError: An instruction was given for a side where the model reads none, or twice; or what says how to load a
            model beside ``base_url``.
        ServerError: The server cannot be reached, asks for another key, or has another model than ``model_name``.
        UnknownModelError: The name is near one of the catalog's.
        CheckpointError: The model's files are missing, damaged, or of another architecture.

    Example:
        >>> from langchain_gme import GMEEmbeddings
        >>> embeddings = GMEEmbeddings(model="tiny")
        >>> len(embeddings.embed_query("a large red circle"))
        128
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), populate_by_name=True)

    model_name: str = Field(default=_DEFAULT_MODEL, alias="model")
    cache_folder: str | Path | None = None
    weights: str | Path | None = None
    base_weights: str | Path | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    query_encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    query_instruction: str | None = None
    document_instruction: str | None = None
    show_progress: bool = False
    batch_delay: float = Field(default=0.005, ge=0)
    base_url: str | None = None
    api_key: SecretStr | None = None
    timeout: float = Field(default=120.0, gt=0)
    max_retries: int = Field(default=5, ge=0)

    _embedder: Embedder | RemoteEmbedder = PrivateAttr()
    _is_named: bool = PrivateAttr()

    def __init__(self, **kwargs: Any) -> None:
        key = "model" if "model" in kwargs else "model_name"
        model = kwargs.pop(key, None if kwargs.get("base_url") else _DEFAULT_MODEL)
        super().__init__(model=str(model) if isinstance(model, (str, Path)) else "", **kwargs)
        self._embedder = self._load(model) if self.base_url is None else self._connect(self.base_url, model)
        self._is_named = self.base_url is not None or isinstance(model, (str, Path))
        self.model_name = self.model_name or self._embedder.name
        self._check_instruction("query", self.query_instruction, self.query_encode_kwargs)
        self._check_instruction("document", self.document_instruction, self.encode_kwargs)

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
        for options in (self.encode_kwargs, self.query_encode_kwargs):
            embedder.check_options(options)
        return embedder

    @property
    def _loading(self) -> dict[str, Any]:
        files = {"weights": self.weights, "base_weights": self.base_weights, "cache_folder": self.cache_folder}
        return {**files, **self.model_kwargs}

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        if not self._is_named:
            raise TypeError(
                "GMEEmbeddings of a loaded model cannot be pickled, because its weights would be. Save the model and "
                "name its folder: GMEEmbeddings(model=...)."
            )
        return partial(type(self), **{name: getattr(self, name) for name in type(self).model_fields}), ()

    @property
    def client(self) -> SentenceTransformer:
        """The model.

        Raises:
            ValueError: It is in a server.
        """
        if self.base_url is not None:
            raise ValueError(f"The model is in the server at {self.base_url}; embedder is what is known of it here.")
        embedder: Any = self._embedder
        return embedder.model

    @property
    def embedder(self) -> Embedder | RemoteEmbedder:
        """The model as st_modules has it behind interfaces."""
        return self._embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts on the document side; see :meth:`embed_multimodal` for the result and the errors.

        A store embeds its documents by this method, which is given their texts and no images. So it warns where the
        documents have images in their metadata, or a text is empty, as that of a picture is.
        """
        items = text_items(texts)
        if (found := take_documents(self, texts)) is not None:
            return found
        self._warn_of_pictures(items)
        return self._embed(items, "document")

    def embed_query(self, text: str) -> list[float]:
        """Embed one text on the query side; see :meth:`embed_query_multimodal` for the result and the errors."""
        items = _query_items(text)
        found = take_query(self, text)
        if found is None:
            self._report_lookalike(text)
        return self._embed(items, "query")[0] if found is None else found

    def embed_image(self, uris: list[str]) -> list[list[float]]:
        """Embed images on the document side. Stores with a method for images call it by this name.

        Args:
            uris: Paths, http(s) or file URLs, and data URIs.

        Returns:
            One embedding an image, in the same order.

        Raises:
            InputError: An image cannot be read; the message has its place in ``uris``.
        """
        return self._embed(_image_items(uris, "uris"), "document")

    def embed_images(self, images: Sequence[Any]) -> list[list[float]]:
        """Embed images on the document side.

        Args:
            images: Paths, URLs, data URIs, bytes, PIL images, uint8 arrays or tensors, in any mixture.

        Returns:
            One embedding an image, in the same order.

        Raises:
            InputError: An image cannot be read; the message has its place in ``images``.
        """
        return self._embed(_image_items(images, "images"), "document")

    def embed_multimodal(self, items: Sequence[Any]) -> list[list[float]]:
        """Embed text, images, and images with a text on the document side.

        Args:
            items: Each a string (always text); an image as for :meth:`embed_images`, but no string;
                ``{"text": ..., "image": ...}`` with either or both; a LangChain content block or a list of them; a
                message, a prompt or a ``Blob``; or a ``Document`` with its image in the metadata under "image",
                "image_path" or "image_url".

        Returns:
            One embedding an item, in the same order, as Python floats.

        Raises:
            InputError: An item cannot be embedded; the message has its place in ``items``.
        """
        parsed = self._items(items)
        with name_documents(items):
            return self._embed(parsed, "document")

    def embed_query_multimodal(self, item: Any) -> list[float]:
        """Embed one text, image, or image with a text on the query side.

        Args:
            item: As for :meth:`embed_multimodal`.

        Returns:
            The embedding, as Python floats.

        Raises:
            InputError: The item cannot be embedded.
        """
        self._report_lookalike(item)
        with _name_query():
            return self._embed([self._item(item, _QUERY)], "query")[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed texts on the document side, off the event loop; see :meth:`embed_documents`."""
        items = text_items(texts)
        if (found := take_documents(self, texts)) is not None:
            return found
        self._warn_of_pictures(items)
        return await self._aembed(items, "document")

    async def aembed_query(self, text: str) -> list[float]:
        """Embed one text on the query side, off the event loop; see :meth:`embed_query`."""
        items = _query_items(text)
        found = take_query(self, text)
        if found is None:
            self._report_lookalike(text)
        return (await self._aembed(items, "query"))[0] if found is None else found

    async def aembed_image(self, uris: list[str]) -> list[list[float]]:
        """Embed images on the document side, off the event loop; see :meth:`embed_image`."""
        return await self._aembed(_image_items(uris, "uris"), "document")

    async def aembed_images(self, images: Sequence[Any]) -> list[list[float]]:
        """Embed images on the document side, off the event loop; see :meth:`embed_images`."""
        return await self._aembed(_image_items(images, "images"), "document")

    async def aembed_multimodal(self, items: Sequence[Any]) -> list[list[float]]:
        """Embed items on the document side, off the event loop; see :meth:`embed_multimodal`."""
        # A blob of text is a file to be read.
        parsed = await run_in_executor(None, self._items, items)
        with name_documents(items):
            return await self._aembed(parsed, "document")

    async def aembed_query_multimodal(self, item: Any) -> list[float]:
        """Embed one item on the query side, off the event loop; see :meth:`embed_query_multimodal`."""
        self._report_lookalike(item)
        with _name_query():
            parsed = await run_in_executor(None, self._item, item, _QUERY)
            return (await self._aembed([parsed], "query"))[0]

    def _report_lookalike(self, query: Any) -> None:
        """Log that the text of a query looks like an image."""
        if isinstance(query, str) and self._embedder.looks_like_image(query):
            logger.warning(
                "%.80r looks like an image: it is embedded as text. For an image pass {'image': path}.", query.strip()
            )

    def _warn_of_pictures(self, items: list[dict[str, str]]) -> None:
        """Warn where the texts are those of documents whose pictures are left out."""
        if is_served(self):  # a store that is being made embeds a text of its own
            return
        empty = sum(not item["text"].strip() for item in items)
        if pictures := count_left_out([item["text"] for item in items], takes_video=self._embedder.takes_video):
            said = f"{pictures} documents have pictures, which are left out: their texts alone are embedded. Add"
        elif empty:
            said = f"{empty} of {len(items)} texts are empty, and embedded as such. If they are those of pictures, add"
        else:
            return
        warnings.warn(
            f"{said} them with langchain_gme.add_multimodal(store, documents), or wrap the store in "
            "langchain_gme.MultimodalStore(store).",
            stacklevel=3,
        )

    def _check_instruction(self, side: Side, instruction: str | None, options: dict[str, Any]) -> None:
        if instruction is not None and (given := sorted(options.keys() & _PROMPTS)):
            raise ValueError(f"{', '.join(given)} and {side}_instruction say the same; pass one of them.")
        self._embedder.check_instruction(side, instruction)

    def _items(self, items: object) -> list[Any]:
        return [self._item(item, find_place(item, index)) for index, item in enumerate(as_list(items, "items"))]

    def _item(self, item: Any, place: Place) -> Any:
        return to_item(item, place, self._embedder.image_limits, takes_video=self._embedder.takes_video)

    def _embed(self, items: list[Any], side: Side) -> list[list[float]]:
        return self._embedder.embed(items, side, **self.encode_options(side))

    async def _aembed(self, items: list[Any], side: Side) -> list[list[float]]:
        return await self._embedder.aembed(items, side, delay=self.batch_delay, **self.encode_options(side))

    def encode_options(self, side: Side) -> dict[str, Any]:
        """Return the arguments of ``encode`` on a side."""
        is_query = side == "query"
        options = {
            "show_progress_bar": self.show_progress,
            **(self.query_encode_kwargs if is_query and self.query_encode_kwargs else self.encode_kwargs),
        }
        instruction = self.query_instruction if is_query else self.document_instruction
        if instruction is None:
            return options
        return {**{name: value for name, value in options.items() if name not in _PROMPTS}, "prompt": instruction}


@contextmanager
def _name_query() -> Generator[None, None, None]:
    """Call a query by that name in errors, and not the first item of a list."""
    try:
        yield
    except InputError as error:
        raise error.rename("query") from error


def _query_items(text: object) -> list[dict[str, str]]:
    if not isinstance(text, str):
        raise InputError(f"of type {type(text).__name__}; pass a string, or use embed_query_multimodal", "text")
    return [{"text": text}]


def _image_items(images: object, name: str) -> list[dict[str, Any]]:
    items = [{"image": image} for image in as_list(images, name)]
    for index, item in enumerate(items):
        if item["image"] is None:
            raise InputError("None is not an image; leave it out", Place(index, name=f"{name}[{index}]"))
    return items
