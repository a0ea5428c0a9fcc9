"""What a LlamaIndex node holds: its text and its image, and how an ingestion cache tells images apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from llama_index.core.schema import BaseNode, ImageNode, MediaResource, MetadataMode, Node

from st_modules import ImageError, InputError, Place

IMAGE_ID = "image_sha256"
"""Key of the metadata entry that :func:`identify_images` adds."""

AnyNode = TypeVar("AnyNode", bound=BaseNode)


def node_item(node: BaseNode, index: int) -> dict[str, Any]:
    """Return what ``encode`` takes for a node.

    The text is core's, with the node's metadata; but where a node has an image and no text of its own, its metadata
    alone is not taken for one.

    Args:
        node: The node.
        index: Its position among the nodes of the call, for errors.

    Raises:
        InputError: The node holds audio or video.
    """
    for kind in ("audio", "video"):
        if isinstance(node, Node) and getattr(node, f"{kind}_resource") is not None:
            place = Place(index, name=f"node {node.node_id}")
            raise InputError(f"it holds {kind}, which cannot be embedded; take it out", place)
    image = node_image(node)
    if image is None:
        return {"text": node.get_content(metadata_mode=MetadataMode.EMBED)}
    has_text = bool(node.get_content(metadata_mode=MetadataMode.NONE).strip())
    return {"text": node.get_content(metadata_mode=MetadataMode.EMBED) if has_text else None, "image": image}


def node_image(node: BaseNode) -> str | Path | None:
    """Return a node's image as a data URI, a path or a URL, in core's order of preference; None where it has none."""
    if isinstance(node, ImageNode):
        if node.image is not None:
            return _data_uri(node.image)
        return Path(node.image_path) if node.image_path is not None else _url(node.image_url)
    if isinstance(node, Node) and isinstance(resource := node.image_resource, MediaResource):
        if resource.data is not None:
            return _data_uri(resource.data.decode())
        return resource.path if resource.path is not None else _url(resource.url)
    return None


def identify_images(nodes: Sequence[AnyNode]) -> list[AnyNode]:
    """Return copies of nodes or documents that an ingestion cache can tell apart by their images.

    The cache of LlamaIndex's ``IngestionPipeline`` goes by the text of nodes alone: two images without a text have one
    key, and the second gets the first one's embedding. This adds the SHA-256 of the image's bytes (of its address, for
    a URL) to the metadata, where the cache sees it; it is kept out of the text that is embedded and of what a language
    model reads. Call it on what you hand to ``pipeline.run``.

    Args:
        nodes: Nodes or documents; those without an image are returned as they are.

    Raises:
        ImageError: An image file cannot be read.
    """
    return [_identify(node) for node in nodes]


def _identify(node: AnyNode) -> AnyNode:
    image = node_image(node)
    if image is None:
        return node
    copy = node.model_copy(deep=True)
    copy.metadata[IMAGE_ID] = hashlib.sha256(_bytes(node, image)).hexdigest()
    for excluded in (copy.excluded_embed_metadata_keys, copy.excluded_llm_metadata_keys):
        if IMAGE_ID not in excluded:
            excluded.append(IMAGE_ID)
    if isinstance(copy, Node) and copy.text_resource is None:
        copy.text_resource = MediaResource(text="")  # without one, core leaves the metadata out of the content
    return copy


def _bytes(node: BaseNode, image: str | Path) -> bytes:
    if isinstance(image, str):
        return image.encode()
    try:
        return image.read_bytes()
    except OSError as error:
        raise ImageError(f"{image}: {error.strerror}; check the path", f"node {node.node_id}") from error


def _data_uri(image: str) -> str:
    return image if image.startswith("data:") else f"data:image/*;base64,{image}"


def _url(url: object) -> str | None:
    return None if url is None else str(url)
