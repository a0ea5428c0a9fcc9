"""A node parser that keeps the picture of a document with its text."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, Field, SerializeAsAny, field_serializer, field_validator
from llama_index.core.node_parser import NodeParser, SentenceSplitter
from llama_index.core.schema import (
    BaseComponent,
    BaseNode,
    Document,
    ImageNode,
    NodeRelationship,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.utils import get_tqdm_iterable

from llamaindex_gme.callers import uncached_images
from llamaindex_gme.nodes import (
    IMAGE_ID,
    as_image_node,
    as_nodes,
    as_text_node,
    has_own_text,
    image_id,
    mark_image,
    node_image,
    node_place,
)
from st_modules import ImageLimits, InputError

_OWN = ("include_metadata", "include_prev_next_rel", "id_func")


class MultimodalNodeParser(NodeParser):
    """Splits texts as another node parser does, and keeps the picture of a document with what it says.

    Core's parsers drop the picture of a ``Document``. Here every chunk of a document's text is an ``ImageNode`` with
    the document's picture, so that a :class:`GMEEmbedding` embeds both as one vector. A document that is a picture
    alone becomes one node. Documents without a picture are split as ``node_parser`` splits them.

    The SHA-256 of the picture is in the nodes' metadata (see :func:`identify_images`).

    Args:
        node_parser: What splits the texts; core's ``SentenceSplitter`` where it is left out.
        include_metadata: As of any node parser; what ``node_parser`` says where it is left out.
        include_prev_next_rel: Likewise.
        id_func: Likewise.
        callback_manager: Likewise.
        image_limits: What a picture may cost, and where it may come from; ``ImageLimits()`` where it is left out.

    Example:
        >>> transformations = [MultimodalNodeParser(SentenceSplitter(chunk_size=512)), embed_model]
        >>> VectorStoreIndex.from_documents(documents, transformations=transformations, embed_model=embed_model)
    """

    node_parser: SerializeAsAny[NodeParser] = Field(description="What splits the texts.")
    image_limits: ImageLimits | None = Field(
        default=None, description="What a picture may cost, and where it may come from."
    )

    def __init__(self, node_parser: NodeParser | Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if isinstance(node_parser, (list, tuple)):
            raise TypeError(
                f"MultimodalNodeParser was called with a {type(node_parser).__name__}; among transformations write "
                "MultimodalNodeParser(), and give it one node parser."
            )
        if unknown := sorted(kwargs.keys() - type(self).model_fields.keys()):
            raise TypeError(
                f"MultimodalNodeParser takes no {', '.join(unknown)}; the splitter comes first, and what it is told "
                "goes into it: MultimodalNodeParser(SentenceSplitter(chunk_size=512))."
            )
        parser = SentenceSplitter() if node_parser is None else _restore(node_parser)
        _check_parser(parser)
        own = {name: kwargs[name] for name in _OWN if _is_given(kwargs.get(name))}
        if own:
            parser = parser.model_copy(update=own)
        taken = {name: getattr(parser, name) for name in (*_OWN, "callback_manager")}
        super().__init__(**{**taken, **kwargs, **own, "node_parser": parser})

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised pipelines."""
        return "MultimodalNodeParser"

    @field_validator("id_func", mode="before")
    @classmethod
    def _keep_function(cls, value: Any) -> Any:
        return value if callable(value) else None

    @field_serializer("node_parser")
    def _name_class(self, parser: NodeParser) -> dict[str, Any]:
        return _dump(parser)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Return the fields, and where an ingestion cache asks, the pictures that its key would leave out."""
        return {**super().to_dict(**kwargs), **uncached_images(self.image_limits)}

    def get_nodes_from_documents(
        self, documents: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        """Split documents.

        Args:
            documents: The documents or nodes.
            show_progress: Whether to show a progress bar.
            **kwargs: What ``node_parser`` takes besides.

        Raises:
            InputError: Something is no document or node, or has been embedded before it is split.
        """
        return super().get_nodes_from_documents(_not_embedded(documents), show_progress, **kwargs)

    async def aget_nodes_from_documents(
        self, documents: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        """Split documents off the event loop; see :meth:`get_nodes_from_documents`."""
        return await super().aget_nodes_from_documents(_not_embedded(documents), show_progress, **kwargs)

    def _parse_nodes(self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any) -> list[BaseNode]:
        found: list[BaseNode] = []
        for documents in get_tqdm_iterable(_groups(nodes), show_progress, "Parsing documents"):
            readable = [_readable(each) for each in documents]
            parsed = [] if _is_picture(documents[0]) else self.node_parser(readable, **kwargs)
            found += self._with_picture(documents[0], parsed)
        return found

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        found: list[BaseNode] = []
        for documents in get_tqdm_iterable(_groups(nodes), show_progress, "Parsing documents"):
            readable = [_readable(each) for each in documents]
            parsed = [] if _is_picture(documents[0]) else await _aparse(self.node_parser, readable, **kwargs)
            found += await asyncio.to_thread(self._with_picture, documents[0], parsed)
        return found

    def _postprocess_parsed_nodes(self, nodes: list[BaseNode], parent_doc_map: dict[str, Document]) -> list[BaseNode]:
        return nodes  # node_parser has done it

    def _with_picture(self, document: BaseNode, chunks: Sequence[BaseNode]) -> list[BaseNode]:
        """The nodes of a document that has a picture; of others, the chunks as they are."""
        image = node_image(document)
        if image is None:
            return [_resourced(chunk, document) for chunk in chunks]
        identity = _identify(document, image, self.image_limits)
        texts = list(chunks) or [self._whole(document)]
        nodes = [_resourced(as_image_node(chunk, document), document) for chunk in texts]
        for node in nodes:
            if identity is not None and isinstance(node, ImageNode):
                mark_image(node, identity)
        infos = {node.node_id: node.as_related_node_info() for node in nodes}
        for node in nodes:
            node.relationships = {kind: _renewed(related, infos) for kind, related in node.relationships.items()}
        return nodes

    def _whole(self, document: BaseNode) -> TextNode:
        """A picture without a text as a chunk."""
        chunk = as_text_node(document)
        chunk.id_ = self.id_func(0, document)
        chunk.metadata = dict(document.metadata) if self.include_metadata else {}
        chunk.relationships = {NodeRelationship.SOURCE: document.source_node or document.as_related_node_info()}
        return chunk


def _check_parser(value: Any) -> None:
    if isinstance(value, type):
        raise TypeError(f"node_parser is the class {value.__name__}; pass one of it: {value.__name__}().")
    if not isinstance(value, NodeParser):
        raise TypeError(
            f"node_parser is of type {type(value).__name__}; pass a node parser of LlamaIndex. Your own is a subclass "
            "of NodeParser, which splits in _parse_nodes and makes nodes by build_nodes_from_splits."
        )


def _not_embedded(documents: Sequence[BaseNode]) -> Any:
    """Documents of which none has an embedding: core's parsers would give it to every chunk, as if it were its own."""
    documents = as_nodes(documents)
    for index, document in enumerate(documents):
        if document.embedding is not None:
            raise InputError(
                "it has an embedding already, of all that is to be split; put the node parser before the embedding, "
                "[MultimodalNodeParser(splitter), embed_model], and load the documents anew or set their embedding to "
                "None",
                node_place(document, index),
            )
    return documents


async def _aparse(parser: NodeParser, documents: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
    kind = type(parser)
    own = kind.get_nodes_from_documents is not NodeParser.get_nodes_from_documents
    if own and kind.aget_nodes_from_documents is NodeParser.aget_nodes_from_documents:
        # Awaited, core's parser of hierarchies returns what it was given.
        return await asyncio.to_thread(parser, documents, **kwargs)
    return await parser.acall(documents, **kwargs)


def _groups(nodes: Sequence[BaseNode]) -> list[list[BaseNode]]:
    """Runs of documents that are split as they are, and each other document by itself."""
    keys = [index if _needs_care(node) else None for index, node in enumerate(nodes)]
    pairs = groupby(zip(keys, nodes, strict=True), key=lambda pair: pair[0])
    return [[node for _, node in group] for _, group in pairs]


def _needs_care(node: BaseNode) -> bool:
    return node_image(node) is not None or not isinstance(node, (Document, TextNode))


def _is_picture(node: BaseNode) -> bool:
    return node_image(node) is not None and not has_own_text(node)


def _readable(node: BaseNode) -> BaseNode:
    """A node that core's parsers take, in the place of a ``Node``, which they do not."""
    return node if isinstance(node, (Document, TextNode)) else as_text_node(node)


def _resourced(chunk: BaseNode, document: BaseNode) -> BaseNode:
    """A chunk whose source is the document itself, not what core's parser was given in its place."""
    if not isinstance(document, (Document, TextNode)) and chunk.ref_doc_id == document.node_id:
        chunk.relationships = {**chunk.relationships, NodeRelationship.SOURCE: document.as_related_node_info()}
    return chunk


def _identify(document: BaseNode, image: Any, limits: ImageLimits | None) -> str | None:
    """The picture's identity; None where it cannot be read, which is for the embedding to say."""
    try:
        return document.metadata.get(IMAGE_ID) or image_id(image, f"node {document.node_id}", limits)
    except InputError:
        return None


def _renewed(related: Any, infos: Mapping[str, RelatedNodeInfo]) -> Any:
    """What is related to a node, as it is now."""
    if isinstance(related, list):
        return [infos.get(info.node_id, info) for info in related]
    return infos.get(related.node_id, related)


def _is_given(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping)


def _dump(value: Any) -> Any:
    """What :func:`_restore` makes a node parser of: core's own dump knows no class of parsers in a dictionary."""
    if isinstance(value, Mapping):
        return {key: _dump(each) for key, each in value.items()}
    if not isinstance(value, NodeParser):
        return value
    inner = {name: each for name in type(value).model_fields if _holds_parsers(each := getattr(value, name))}
    # Some of core's parsers have the class_name of their base class.
    return {**value.to_dict(), **_dump(inner), "class_name": type(value).__name__}


def _holds_parsers(value: Any) -> bool:
    return isinstance(value, NodeParser) or (
        isinstance(value, Mapping) and any(isinstance(each, NodeParser) for each in value.values())
    )


def _restore(value: Any) -> Any:
    """A component of what :meth:`BaseComponent.to_dict` made of it, and of those in it."""
    if isinstance(value, list):
        return [_restore(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    # Of a function to_dict keeps the name alone.
    fields = {key: _restore(each) for key, each in value.items() if key != "id_func"}
    if (name := value.get("class_name")) is None:
        return fields
    known = {each.__name__: each for each in _subclasses(BaseComponent)}
    if name not in known:
        raise ValueError(f"{name}: no component that is imported; import its class first, or pass it: node_parser=...")
    return known[name].from_dict(fields)


def _subclasses(parent: type[BaseModel]) -> list[Any]:
    found = parent.__subclasses__()
    return [*found, *(each for child in found for each in _subclasses(child))]
