"""What a LlamaIndex node holds: its text and its image or video, and how an ingestion cache tells images apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, Literal, TypeVar

from llama_index.core.base.llms.types import BaseContentBlock, TextBlock
from llama_index.core.schema import BaseNode, ImageNode, IndexNode, MediaResource, MetadataMode, Node, TextNode

from st_modules import ImageLimits, ImageSource, InputError, Place

IMAGE_ID = "image_sha256"
"""Key of the metadata entry that :func:`identify_images` adds."""

AnyNode = TypeVar("AnyNode", bound=BaseNode)

# A MediaResource makes a Path of the path that it is given, and Path makes one slash of two.
_ADDRESS = re.compile(r"(https?:)/+|file:/", re.IGNORECASE)


def as_nodes(nodes: Iterable[AnyNode]) -> Sequence[AnyNode]:
    """Return nodes as a sequence; the same, where they are one.

    Raises:
        InputError: They are no list, or something among them is no node; the message has its position and type.
    """
    if isinstance(nodes, (BaseNode, str, bytes)) or not isinstance(nodes, Iterable):
        raise InputError(f"A {type(nodes).__name__} where a list of nodes belongs: pass [node].")
    found = nodes if isinstance(nodes, Sequence) else [*nodes]
    for index, node in enumerate(found):
        if not isinstance(node, BaseNode):
            raise InputError(
                f"a {type(node).__name__}, which is no node; a text goes into TextNode(text=text), an image into "
                "ImageNode(image_path=path)",
                Place(index),
            )
    return found


def node_place(node: BaseNode, index: int) -> Place:
    """Return what errors call a node: its position among the nodes of the call, and its id."""
    return Place(index, name=f"item {index}, node {node.node_id}")


def node_item(node: BaseNode, index: int, *, fuse: bool = True) -> dict[str, Any]:
    """Return what ``encode`` takes for a node.

    The text is core's, with the node's metadata. Metadata alone is a text where the node is a ``TextNode``, as in core;
    it says nothing of a picture, and is not taken for the text of a node that is made for one.

    Args:
        node: The node.
        index: Its position among the nodes of the call, for errors.
        fuse: Whether its image, or its video, counts.

    Raises:
        InputError: There is nothing in the node, it has lost its image, or it holds audio.
    """
    place = node_place(node, index)
    image, video = node_image(node), node_video(node)
    has_text = has_own_text(node)
    if fuse:
        if isinstance(node, Node) and node.audio_resource is not None:
            raise InputError("it holds audio, which cannot be embedded; take it out", place)
        if image is None and IMAGE_ID in node.metadata:
            raise InputError(
                "its image is lost, by a splitter that keeps texts alone or a store that keeps no bytes; split with "
                "MultimodalNodeParser(splitter), and give images by path, URL or base64",
                place,
            )
        if isinstance(node, Node) and node.video_resource is not None and video is None:
            raise InputError("its video is lost, by a store that keeps no bytes; give it by path or URL", place)
        if image is not None or video is not None:
            text = node.get_content(metadata_mode=MetadataMode.EMBED) if has_text else None
            seen = {"image": image, "video": video}
            return {"text": text, **{name: value for name, value in seen.items() if value is not None}}
    elif (image is not None or video is not None) and not has_text:
        raise InputError("it has no text, and fuse=False embeds texts alone; leave it out", place)
    text = node.get_content(metadata_mode=MetadataMode.EMBED)
    if not text.strip() or (not has_text and isinstance(node, (Node, ImageNode))):
        raise InputError("it has neither text nor image; leave it out or give it one", place)
    return {"text": text}


def has_own_text(node: BaseNode) -> bool:
    """Whether a node has a text besides its metadata."""
    return bool(node.get_content(metadata_mode=MetadataMode.NONE).strip())


def node_image(node: BaseNode) -> str | Path | None:
    """Return a node's image as a data URI, a path or a URL, in core's order of preference; None where it has none."""
    if isinstance(node, ImageNode):
        return _first_image(node.image, node.image_path, node.image_url)
    if isinstance(node, Node) and isinstance(resource := node.image_resource, MediaResource):
        return _first_image(_decode(resource.data), resource.path, resource.url)
    return None


def node_video(node: BaseNode) -> str | Path | None:
    """Return a node's video as a data URI, a path or a URL, in core's order of preference; None where it has none."""
    if isinstance(node, Node) and isinstance(resource := node.video_resource, MediaResource):
        return _first_image(_decode(resource.data), resource.path, resource.url, kind="video")
    return None


class CaptionedImageNode(ImageNode):
    """An ``ImageNode`` that hands a language model its text beside its image; core's hands over the image alone."""

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[BaseContentBlock]:
        """Return blocks of the metadata, the text and the image."""
        *metadata, image = super().get_content_blocks(metadata_mode)
        return [*metadata, TextBlock(text=self.text), image]


def with_caption(node: BaseNode) -> BaseNode:
    """Return a node that hands over its text beside its image, where it is one of core's that does not."""
    if type(node) is not ImageNode or not has_own_text(node):
        return node
    return CaptionedImageNode.model_construct(**dict(node))


def as_image_node(node: BaseNode, picture: BaseNode) -> BaseNode:
    """Return an ``ImageNode`` of a node's text, and of another's or its own image.

    Args:
        node: The node; one that is no ``TextNode``, or a reference to something else, is returned as it is.
        picture: What has the image.
    """
    if not isinstance(node, TextNode) or isinstance(node, IndexNode):
        return node
    fields = {name: getattr(node, name) for name in TextNode.model_fields if name != "metadata_separator"}
    return ImageNode(**fields, metadata_seperator=node.metadata_separator, **_image_fields(picture))


def as_text_node(node: BaseNode) -> TextNode:
    """Return a ``TextNode`` of a node's text, metadata and relationships."""
    templates = {"text_template": node.text_template} if isinstance(node, Node) else {}
    return TextNode(
        id_=node.node_id,
        text=node.get_content(metadata_mode=MetadataMode.NONE),
        embedding=node.embedding,
        metadata=node.metadata,
        excluded_embed_metadata_keys=node.excluded_embed_metadata_keys,
        excluded_llm_metadata_keys=node.excluded_llm_metadata_keys,
        relationships=node.relationships,
        metadata_template=node.metadata_template,
        metadata_seperator=node.metadata_separator,
        **templates,
    )


def image_address(path: str) -> str | Path:
    """Return what stands in the place of an image's path: a path, or a URL with both of its slashes."""
    if not (found := _ADDRESS.match(path)):
        return Path(path)
    return f"{found[1]}//{path[found.end() :]}" if found[1] else path


def identify_images(
    nodes: Iterable[AnyNode], limits: ImageLimits | None = None, *, on_error: Literal["raise", "skip"] = "raise"
) -> list[AnyNode]:
    """Return copies of nodes or documents that are told apart by their images.

    Core's document stores go by the hash of a document, in which an image is its path; where the file changes, the
    document does not. This adds the SHA-256 of the image's bytes (of its address, for an http(s) URL, which is not
    fetched) to the metadata, where hashes and caches see it; it is kept out of what is embedded and of what a language
    model reads. Call it on what you hand to ``pipeline.run`` or ``index.refresh_ref_docs``.

    Args:
        nodes: Nodes or documents; those without an image are returned as they are.
        limits: What an image may cost, and where it may come from; ``ImageLimits()`` where it is left out.
        on_error: ``"raise"``, or ``"skip"``, which writes no identity of an image that cannot be read, for a
            :class:`GMEEmbedding` with ``on_error="skip"`` to leave out and to list.

    Raises:
        ValueError: ``on_error`` is neither.
        InputError: Something is no node. An image cannot be read, or is beyond the limits (``ImageError``); the message
            has the node's position and id.
    """
    if on_error not in ("raise", "skip"):
        raise ValueError(f'on_error={shorten(on_error)}; pass "raise" or "skip".')
    return [_identify(node, index, limits, skips=on_error == "skip") for index, node in enumerate(as_nodes(nodes))]


def image_id(image: str | Path, place: Place | str, limits: ImageLimits | None = None) -> str:
    """Return the SHA-256 of an image's bytes, or of an http(s) URL.

    Raises:
        ImageError: It cannot be read, or is beyond the limits.
    """
    return ImageSource(image, place, limits).identify("sha256").hex()


def mark_image(node: BaseNode, identity: str) -> None:
    """Write the identity of a node's image into its metadata.

    Where there is a text it is no part of what is embedded. Where there is none it has to be: core's index leaves out
    nodes of which the text to embed is empty. ``node_item`` takes metadata alone for no text.
    """
    node.metadata = {**node.metadata, IMAGE_ID: identity}
    hidden = [key for key in node.excluded_embed_metadata_keys if key != IMAGE_ID]
    node.excluded_embed_metadata_keys = [*hidden, IMAGE_ID] if has_own_text(node) else hidden
    if IMAGE_ID not in node.excluded_llm_metadata_keys:
        node.excluded_llm_metadata_keys = [*node.excluded_llm_metadata_keys, IMAGE_ID]
    if isinstance(node, Node) and node.text_resource is None:
        node.text_resource = MediaResource(text="")  # without one, core leaves the metadata out of the content


def _identify(node: AnyNode, index: int, limits: ImageLimits | None, *, skips: bool) -> AnyNode:
    try:
        image = node_image(node)
        if image is None:
            return node
        identity = image_id(image, node_place(node, index), limits)
    except InputError:
        if not skips:
            raise
        identity = None
    copy = node.model_copy(deep=True)
    if identity is None:
        copy.metadata.pop(IMAGE_ID, None)  # that of the file when it could be read
    else:
        mark_image(copy, identity)
    return copy


def _first_image(data: str | None, path: object, url: object, kind: str = "image") -> str | Path | None:
    if data:
        return data if data.startswith("data:") else f"data:{kind}/*;base64,{data}"
    if path:
        return path if isinstance(path, str) and path.startswith("data:") else image_address(str(path))
    return _url(url)


def _image_fields(node: BaseNode) -> dict[str, Any]:
    if isinstance(node, ImageNode):
        return {name: getattr(node, name) for name in ("image", "image_path", "image_url", "image_mimetype")}
    resource = node.image_resource if isinstance(node, Node) else None
    if resource is None:
        return {}
    return {
        "image": _decode(resource.data),
        "image_path": None if resource.path is None else str(image_address(str(resource.path))),
        "image_url": _url(resource.url),
        "image_mimetype": resource.mimetype,
    }


def _decode(data: bytes | None) -> str | None:
    return data.decode() if data else None


def _url(url: object) -> str | None:
    return str(url) if url else None
