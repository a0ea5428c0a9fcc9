"""What a retriever found, as content blocks for a chat model."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document

from langchain_gme.content import check_documents, document_images
from st_modules import ImageLimits, ImageSource, Place


def to_content_blocks(documents: Sequence[Document], limits: ImageLimits | None = None) -> list[dict[str, Any]]:
    """Return documents as LangChain's standard content blocks: of each its text, where it has one, then its images.

    Images are where ``GMEEmbeddings`` finds them: in the metadata under "image", "image_path" or "image_url". Files,
    ``file:`` URLs, data URIs and images in memory become base64, PNG, JPEG, GIF and WebP byte for byte and any other
    format as PNG. What is on the web is not fetched: the block has its URL, for the chat model's provider to fetch.

    Args:
        documents: What a retriever found.
        limits: What each image may cost; ``ImageLimits()`` where it is left out.

    Returns:
        The blocks, in the order of the documents.

    Raises:
        InputError: Something is no ``Document``, or its metadata hold no image where one belongs.
        ImageError: An image is missing, damaged or over a limit; the message names the document.

    Example:
        >>> found = retriever.invoke("three small green stars")
        >>> chat_model.invoke([HumanMessage([{"type": "text", "text": "What is this?"}, *to_content_blocks(found)])])
    """
    blocks: list[dict[str, Any]] = []
    for index, document in enumerate(check_documents(documents)):
        place = Place(index, name=f"documents[{index}]")
        if document.page_content:
            blocks.append({"type": "text", "text": document.page_content})
        images = document_images(document, place)
        for number, image in enumerate(images):
            here = place.within(f"image {number}") if len(images) > 1 else place
            blocks.append(_image_block(image, here, limits or ImageLimits()))
    return blocks


def _image_block(image: Any, place: Place, limits: ImageLimits) -> dict[str, Any]:
    if isinstance(image, str) and image[:8].lower().startswith(("http://", "https://")):
        return {"type": "image", "url": image}
    data, kind = ImageSource(image, place, limits).encoded()
    return {"type": "image", "base64": base64.b64encode(data).decode("ascii"), "mime_type": kind}
