"""LangChain's ways to hold a text and an image, brought into what ``SentenceTransformer.encode`` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage

from st_modules import InputError, Place

IMAGE_KEYS = ("image", "image_path", "image_url")
"""Where a ``Document``'s metadata may hold its image; the first that is set counts."""

_ROLES = {"human": "user", "ai": "user"}
# What LangChain's standard blocks carry besides their content.
_ABOUT_A_BLOCK = frozenset({"id", "index", "mime_type", "annotations", "extras"})


def text_items(texts: object) -> list[dict[str, str]]:
    """Return texts as items that are text whatever they look like, URLs and paths included.

    Args:
        texts: A sequence of strings.

    Raises:
        InputError: ``texts`` is not a sequence of strings; the message has the place of the wrong one.
    """
    items = []
    for index, text in enumerate(as_list(texts, "texts")):
        if not isinstance(text, str):
            raise InputError(f"of type {type(text).__name__}; pass a string", Place(index, name=f"texts[{index}]"))
        items.append({"text": text})
    return items


def as_list(values: object, name: str) -> list[Any]:
    """Return a sequence as a list; a single string, which is a sequence of letters, is refused.

    Raises:
        InputError: ``values`` is not a list of values.
    """
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Sequence):
        raise InputError(f"of type {type(values).__name__}; pass a list", name)
    return list(values)


def to_item(value: Any, place: Place) -> Any:
    """Return what ``encode`` takes for one of LangChain's forms.

    Args:
        value: A string (always text); an image (path, bytes, PIL image, array ...); ``{"text": ..., "image": ...}``;
            a content block or a list of blocks, in LangChain's standard form or one that it translates; a message; a
            ``Document``, whose metadata may hold its image under one of ``IMAGE_KEYS``.
        place: Where the value stands, for errors.

    Raises:
        InputError: A list holds something that is no content block.
    """
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, Document):
        return {"text": value.page_content or None, "image": document_image(value)}
    if isinstance(value, BaseMessage):
        return [_message(value)]
    if isinstance(value, dict) and "role" in value:
        return [value]
    if isinstance(value, dict) and "type" in value:
        return to_item([value], place)
    return _from_list(list(value), place) if isinstance(value, (list, tuple)) else value


def _from_list(parts: list[Any], place: Place) -> list[dict[str, Any]]:
    """Return the message that a list of messages or of content blocks stands for, as chat messages."""
    if parts and all(isinstance(part, BaseMessage) for part in parts):
        return [_message(message) for message in parts]
    if parts and all(isinstance(part, dict) and "role" in part for part in parts):
        return parts
    for number, part in enumerate(parts):
        if not isinstance(part, (str, dict)):
            raise InputError(f"of type {type(part).__name__}; pass a content block", place.within(f"block {number}"))
    return [_message(HumanMessage(content=parts))]


def document_image(document: Document) -> Any:
    """Return the image in a document's metadata, or None."""
    return next((document.metadata[key] for key in IMAGE_KEYS if document.metadata.get(key) is not None), None)


def text_of(item: Any) -> str:
    """Return the text of what :func:`to_item` returned, and the empty string where there is none."""
    if isinstance(item, dict):
        return item.get("text") or ""
    return "\n".join(part["text"] for part in _parts(item) if part.get("type") == "text")


def image_reference(item: Any) -> str | None:
    """Return the path or URL of the first image of what :func:`to_item` returned, where it was given as one."""
    if isinstance(item, dict):
        images = item.get("image")
        candidates = images if isinstance(images, (list, tuple)) else [images]
    elif isinstance(item, list):
        candidates = [part.get(key) for part in _parts(item) for key in ("url", "path", "image", "image_url")]
    else:
        candidates = [item]
    return next((str(image) for image in candidates if _is_reference(image)), None)


def _is_reference(image: object) -> bool:
    return isinstance(image, Path) or (isinstance(image, str) and image[:5].lower() != "data:")


def _parts(item: Any) -> list[dict[str, Any]]:
    content = item[-1].get("content") if isinstance(item, list) else None
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [part for part in content or () if isinstance(part, dict)]


def _message(message: BaseMessage) -> dict[str, Any]:
    blocks: list[Any] = list(message.content_blocks)
    return {"role": _ROLES.get(message.type, message.type), "content": [_part(block) for block in blocks]}


def _part(block: dict[str, Any]) -> dict[str, Any]:
    if block.get("type") == "non_standard":
        return block["value"]
    return {key: value for key, value in block.items() if key not in _ABOUT_A_BLOCK}
