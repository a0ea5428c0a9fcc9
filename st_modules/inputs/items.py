"""What a caller may pass as one item, brought into one form: a text, images, and an instruction.

A plain string follows sentence-transformers: the URL of an image file, a ``data:image/`` URI or the path of an existing
image file is an image, anything else is text. ``{"text": ...}`` is always text. The other forms are listed at
``parse_items``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from st_modules.errors import InputError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits

_ITEM_KEYS = frozenset({"text", "image"})
_MESSAGE_KEYS = frozenset({"role", "content"})
_IMAGE_KEYS = frozenset({"image", "url", "path", "base64"})


@dataclass(frozen=True)
class Item:
    """One thing to embed.

    Args:
        text: The text, or None when there is none ("" is a text where there is no image).
        images: The images, in order.
        instruction: The system text of a chat-style item, or None.
        index: Position in the caller's list, counted from 0.
    """

    text: str | None
    images: tuple[ImageSource, ...]
    instruction: str | None
    index: int


def parse_items(inputs: Sequence[object], limits: ImageLimits | None = None) -> list[Item]:
    """Return one ``Item`` for each input. Images are neither read nor fetched yet.

    An input is one of

    - a string (see the module's docstring),
    - an image: whatever ``ImageSource`` takes, but a string,
    - ``{"text": ..., "image": ...}`` with either or both; ``None`` values count as left out; the image is whatever
      ``ImageSource`` takes, or a list of those,
    - chat messages: one ``{"role": "user", "content": ...}``, alone or in a list, there optionally after one system
      message, whose text becomes the instruction. Content is a string or a list of parts: ``{"type": "text"}``,
      ``{"type": "image"}`` (with "image", "url", "path" or "base64") and ``{"type": "image_url"}``. Several texts are
      joined by a newline; where the texts stand among the images is not kept,
    - an ``Item``, which is returned as it is.

    Raises:
        InputError: An input is none of these or has nothing in it. The message names its index.
        ImageError: An image is of a type that cannot be an image.
    """
    limits = limits or ImageLimits()
    return [_parse(value, index, limits) for index, value in enumerate(inputs)]


def check_text(text: str, where: str) -> None:
    """Raise ``InputError`` if ``text`` has a lone surrogate, which no tokenizer can read; ``where`` says whose text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: character {error.start} of the text is a lone surrogate (a damaged emoji or a decoding error); "
            'replace it, for example with text.encode("utf-8", "replace").decode("utf-8")'
        ) from error


def _parse(value: object, index: int, limits: ImageLimits) -> Item:
    where = f"item {index}"
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return (
            _item([], [value], None, index, limits) if _names_image(value) else _item([value], [], None, index, limits)
        )
    if isinstance(value, dict) and not _MESSAGE_KEYS.isdisjoint(value):
        return _from_messages([value], index, limits)
    if isinstance(value, dict):
        return _from_dict(value, index, limits)
    if isinstance(value, list) and value and all(isinstance(message, dict) for message in value):
        return _from_messages(value, index, limits)
    if isinstance(value, (list, tuple)):
        raise InputError(
            f"{where}: a {type(value).__name__} of {len(value)} is not one item; encode each by itself, or pass "
            '{"text": ..., "image": ...} for a text with its image'
        )
    if value is None:
        raise InputError(f"{where}: None has nothing to embed; leave it out")
    return _item([], [value], None, index, limits)


def _names_image(text: str) -> bool:
    # Imported here because it takes seconds; by the time that there is something to encode, the model has done it.
    from sentence_transformers.base.modality import is_image_url_or_path

    return is_image_url_or_path(text)


def _item(texts: list[str], images: list[object], instruction: str | None, index: int, limits: ImageLimits) -> Item:
    """Check the collected parts and put them together."""
    where = f"item {index}"
    if not texts and not images:
        raise InputError(f"{where}: it has neither text nor image; leave it out or give it one")
    for text in texts:
        check_text(text, where)
    if instruction is not None:
        check_text(instruction, f"{where}, system message")
    labels = [where] if len(images) == 1 else [f"{where}, image {number}" for number in range(len(images))]
    sources = tuple(ImageSource(image, label, limits) for image, label in zip(images, labels, strict=True))
    # An empty text beside an image says nothing, and models lay out a text that is there.
    return Item("\n".join(texts) if any(texts) or (texts and not images) else None, sources, instruction, index)


def _from_dict(value: dict[Any, Any], index: int, limits: ImageLimits) -> Item:
    where = f"item {index}"
    _check_keys(value, _ITEM_KEYS, where)
    text, image = value.get("text"), value.get("image")
    texts = [] if text is None else [_string(text, f'{where}, "text"')]
    images = list(image) if isinstance(image, (list, tuple)) else [] if image is None else [image]
    return _item(texts, images, None, index, limits)


def _from_messages(messages: list[dict[Any, Any]], index: int, limits: ImageLimits) -> Item:
    where = f"item {index}"
    for message in messages:
        _check_keys(message, _MESSAGE_KEYS, f"{where}, message")
    roles = [message.get("role") for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise InputError(
            f"{where}: messages with the roles {roles} are not one item; pass one user message, after at most one "
            "system message"
        )
    texts, images = _contents(messages[-1], f"{where}, user message")
    instruction = _system_text(messages[0], f"{where}, system message") if len(messages) == 2 else None
    return _item(texts, images, instruction, index, limits)


def _system_text(message: dict[Any, Any], where: str) -> str:
    texts, images = _contents(message, where)
    if images or not texts:
        raise InputError(f"{where}: an instruction is a text and nothing else; move images to the user message")
    return "\n".join(texts)


def _contents(message: dict[Any, Any], where: str) -> tuple[list[str], list[object]]:
    """The texts and the images of a message, each in order."""
    content = message.get("content")
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, (list, tuple)):
        raise InputError(f'{where}: "content" is of type {type(content).__name__}; pass a string or a list of parts')
    texts: list[str] = []
    images: list[object] = []
    for number, part in enumerate(content):
        kind, value = _part(part, f"{where}, part {number}")
        if kind == "text":
            texts.append(_string(value, f"{where}, part {number}"))
        else:
            images.append(value)
    return texts, images


def _part(part: object, where: str) -> tuple[str, object]:
    """A part of a message as ("text", string) or ("image", source)."""
    if not isinstance(part, dict):
        raise InputError(
            f'{where}: of type {type(part).__name__}; pass {{"type": "text", "text": ...}} or an image part'
        )
    kind = part.get("type")
    values = {key: value for key, value in part.items() if key != "type" and value is not None}
    if kind == "text":
        return "text", _only_value(values, {"text"}, where)[1]
    if kind == "image":
        key, value = _only_value(values, _IMAGE_KEYS, where)
        return "image", _image_value(key, value, where)
    if kind == "image_url":
        value = _only_value(values, {"image_url"}, where)[1]
        return "image", _string(value.get("url") if isinstance(value, dict) else value, where)
    raise InputError(f'{where}: the type {kind!r} cannot be embedded; known are "text", "image" and "image_url"')


def _image_value(key: str, value: object, where: str) -> object:
    if key == "path":
        return Path(_string(value, where))
    if key == "base64":
        encoded = _string(value, where)
        return encoded if encoded.startswith("data:") else f"data:image/*;base64,{encoded}"
    return value


def _only_value(values: dict[Any, Any], known: set[str] | frozenset[str], where: str) -> tuple[str, Any]:
    """The one entry that a part has besides its type."""
    _check_keys(values, known, where)
    if len(values) != 1:
        raise InputError(f"{where}: needs exactly one of {sorted(known)}, and has {sorted(values)}")
    return next(iter(values.items()))


def _string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise InputError(f"{where}: of type {type(value).__name__}; pass a string")
    return value


def _check_keys(value: dict[Any, Any], known: set[str] | frozenset[str], where: str) -> None:
    unknown = sorted(str(key) for key in value.keys() - known)
    if unknown:
        raise InputError(f"{where}: unknown keys {unknown}; known are {sorted(known)}")
