"""What LlamaIndex leaves out of what it hands to an embedding, found in the frames of the call.

Its indexes hand over the texts of nodes alone, its retrievers those of queries, its splitters drop the picture of a
document, and the key of its ingestion cache is made of texts. Nothing in the arguments tells such a call from one that
is meant, so the frames of core that hold the nodes or the query are looked at. Where they are not found, nothing is
refused.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from llama_index.core.indices import MultiModalVectorStoreIndex
from llama_index.core.schema import BaseNode, IndexNode, MetadataMode, QueryBundle

from llamaindex_gme.nodes import IMAGE_ID, image_id, node_image, node_place, node_video
from st_modules import ImageLimits, InputError

_EMBEDS_TEXTS = "llama_index.core.indices.utils", ("embed_nodes", "async_embed_nodes")
_RETRIEVERS = "llama_index.core.indices."
_RETRIEVER_OF_TWO_STORES = "llama_index.core.indices.multi_modal."
_MAKES_KEY = "llama_index.core.ingestion.pipeline", ("get_transformation_hash",)
_TO_DO = (
    "have it embedded before: from_documents(..., transformations=[MultimodalNodeParser(splitter), embed_model]), or "
    "index.insert_nodes(embed_model(nodes)). GMEEmbedding(..., fuse=False) embeds texts alone"
)


def refuse_left_out_images() -> None:
    """Raise where an index of core has nodes with pictures, and hands over their texts.

    Core's index of two stores is an exception: it has the pictures embedded too.

    Raises:
        InputError: A node has a picture; the message has its position and its id.
    """
    for frame in _frames(_EMBEDS_TEXTS):
        caller = frame.f_back.f_locals.get("self") if frame.f_back else None
        if isinstance(caller, MultiModalVectorStoreIndex):
            return
        nodes = frame.f_locals["nodes"]
        for index, node in enumerate(nodes):
            if node.embedding is not None:
                continue
            if node_image(node) is not None or node_video(node) is not None or IMAGE_ID in node.metadata:
                raise InputError(
                    f"it has an image, and core's index embeds texts alone; {_TO_DO}", node_place(node, index)
                )
            refuse_binary(node, index)
        refuse_dropped_images(nodes)


def refuse_left_out_query_image() -> None:
    """Raise where a retriever of core has a query with a picture, and hands over its text to the calling function.

    Core's retriever of two stores is an exception: it asks with the picture by a way of its own.

    Raises:
        InputError: The query has a picture.
    """
    caller = sys._getframe(2)
    module = str(caller.f_globals.get("__name__"))
    if not module.startswith(_RETRIEVERS) or module.startswith(_RETRIEVER_OF_TWO_STORES):
        return
    query = caller.f_locals.get("query_bundle")
    if isinstance(query, QueryBundle) and query.image_path:
        raise InputError(
            f"The query has an image, {query.image_path}, and core's retriever embeds its text alone; ask with "
            "MultimodalVectorIndexRetriever(index), in an engine by RetrieverQueryEngine.from_args(retriever). "
            "GMEEmbedding(..., fuse=False) embeds texts alone."
        )


def refuse_dropped_images(nodes: Sequence[BaseNode]) -> None:
    """Raise where a splitter has dropped the picture of a document, so that none of its nodes has it.

    Args:
        nodes: What is to be embedded.

    Raises:
        InputError: A document of the calling pipeline or index has a picture; the message has the position and the id
            of the first of its nodes.
    """
    lost: dict[str, int] = {}
    kept: set[str] = set()
    for index, node in enumerate(nodes):
        if not isinstance(node, IndexNode) and (source := node.ref_doc_id):
            if node_image(node) is None:
                lost.setdefault(source, index)
            else:
                kept.add(source)
    for source in kept:
        lost.pop(source, None)
    for document in _documents() if lost else ():
        index = lost.get(document.node_id)
        if index is not None and node_image(document) is not None:
            raise InputError(
                f"its document {document.node_id} has an image, which the splitter has dropped; pass "
                "MultimodalNodeParser(splitter) in the place of the splitter. GMEEmbedding(..., fuse=False) embeds "
                "texts alone",
                node_place(nodes[index], index),
            )


def refuse_binary(node: BaseNode, index: int) -> None:
    """Raise where the text of a node is a file of pixels, sound or pages that was read as if it were text.

    Raises:
        InputError: It is.
    """
    kind = str(node.metadata.get("file_type"))
    text = node.get_content(metadata_mode=MetadataMode.NONE)
    if (kind.startswith(("image/", "audio/", "video/")) and _has_control_characters(text)) or (
        kind == "application/pdf" and "%PDF-" in text[:1024]
    ):
        raise InputError(
            f"the bytes of a file of type {kind} were read as text; pass "
            "SimpleDirectoryReader(..., file_extractor=multimodal_readers())",
            node_place(node, index),
        )


def uncached_images(limits: ImageLimits | None) -> dict[str, list[str]]:
    """Return the pictures that the key of an ingestion cache would leave out, where one is being made.

    Args:
        limits: What a picture may cost, and where it may come from.

    Returns:
        A field for the dictionary of a transformation, of which the key is made; none elsewhere.
    """
    for frame in _frames(_MAKES_KEY, depth=3):
        images = {node_image(node): node for node in frame.f_locals["nodes"] if not _shows_image(node)}
        if found := [_name(image, node, limits) for image, node in images.items() if image is not None]:
            return {"images": found}
    return {}


def _shows_image(node: BaseNode) -> bool:
    identity = node.metadata.get(IMAGE_ID)
    return identity is not None and str(identity) in node.get_content(metadata_mode=MetadataMode.ALL)


def _name(image: Any, node: BaseNode, limits: ImageLimits | None) -> str:
    try:
        return image_id(image, node.node_id, limits)
    except InputError:  # for the embedding to say
        return str(image)


def _has_control_characters(text: str) -> bool:
    return any(ord(character) < 32 and character not in "\t\n\r\v\f" for character in text)


def _frames(place: tuple[str, tuple[str, ...]], depth: int = sys.maxsize) -> Iterator[FrameType]:
    """Yield the frame of the nearest call of functions of a module, if any."""
    module, names = place
    frame = sys._getframe(2)
    while frame and depth:
        if frame.f_code.co_name in names and frame.f_globals.get("__name__") == module:
            yield frame
            return
        frame, depth = frame.f_back, depth - 1


def _documents() -> Iterator[BaseNode]:
    """Yield the nodes that the functions of core hold which called."""
    seen: set[int] = set()
    frame = sys._getframe(2)
    while frame:
        if str(frame.f_globals.get("__name__")).startswith("llama_index.core."):
            for value in frame.f_locals.values():
                values = value if isinstance(value, (list, tuple)) else [value]
                if id(value) not in seen and values and isinstance(values[0], BaseNode):
                    seen.add(id(value))
                    yield from (each for each in values if isinstance(each, BaseNode))
        frame = frame.f_back
