"""Content blocks, of LangChain's standard and of the providers, as the parts of messages that ``encode`` takes.

Blocks are read here and not by ``message.content_blocks``: that goes by the provider that a message's metadata name
and by which packages are installed, and hands on what it does not know.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from reprlib import repr as shorten
from typing import Any, NoReturn

from langchain_core.documents.base import Blob

from langchain_gme.blobs import is_text_blob, read_image_blob
from st_modules import InputError, Place

# What blocks carry besides their content.
_ABOUT_A_BLOCK = frozenset(
    {"type", "id", "index", "mime_type", "annotations", "extras", "detail", "cache_control", "citations"}
    | {"logprobs", "phase", "signature"}
)
_SIGHT = "the models read text and images; pass a transcript as text, or frames as image blocks"
_PAGES = "pass its text as a text block, and its pages as image blocks"
_WORDS = "leave it out, or embed what the message says: message.text"
_REFUSED = {
    **dict.fromkeys(("audio", "input_audio"), _SIGHT),
    **dict.fromkeys(("file", "input_file", "document", "container_upload", "search_result"), _PAGES),
    **dict.fromkeys(("reasoning", "thinking", "redacted_thinking", "reasoningContent", "refusal"), _WORDS),
    **dict.fromkeys(("tool_call", "tool_call_chunk", "invalid_tool_call", "tool_use", "tool_result"), _WORDS),
    **dict.fromkeys(("server_tool_call", "server_tool_call_chunk", "server_tool_result"), _WORDS),
    **dict.fromkeys(("function_call", "functionCall", "functionResponse", "toolUse", "toolResult"), _WORDS),
}


def read_block(block: object, place: Place) -> dict[str, Any]:
    """Return a content block as ``{"type": "text", "text": ...}``, or the same of an image or a video.

    Args:
        block: A string, which is a text, or a block of LangChain (``type``, with or without ``source_type``), OpenAI
            (``image_url``, ``input_text``, ``input_image``), Anthropic (``source``), Bedrock Converse (``{"image":
            {"format": ..., "source": ...}}``) or Google (``media``, ``inline_data``, ``file_data``). Those of videos
            are as those of images.
        place: Where it stands, for errors.

    Raises:
        InputError: It is no block, one that is none of these, or one that lacks its content.
    """
    if isinstance(block, str):
        return _text(block)
    if isinstance(block, Mapping) and block.get("type") == "non_standard":
        block = block.get("value")
    if not isinstance(block, Mapping):
        raise InputError(
            f'of type {type(block).__name__}; pass a content block, an image as {{"type": "image", "image": ...}}',
            place,
        )
    content = {key: value for key, value in block.items() if value is not None}
    kind = content.get("type")
    if kind is None:
        return _read_untyped(content, place)
    reader = _TYPES.get(kind) if isinstance(kind, str) else None
    if reader is None:
        _refuse(kind, place)
    return reader(content, place)


def is_block(value: Mapping[Any, Any]) -> bool:
    """Whether a dictionary is a content block, and not an item with a text and an image."""
    return "type" in value or any(
        key in _UNTYPED or key in _REFUSED for key in value.keys() - {"text", "image", "video"}
    )


def read_image(value: Any, place: Place) -> Any:
    """Return what ``ImageSource`` takes for an image in a dictionary or in the metadata of a ``Document``.

    Args:
        value: An image, ``{"url": ...}``, a content block that is an image, or a ``Blob`` of one.
        place: Where it stands, for errors.

    Raises:
        InputError: It is a dictionary or a blob and no image.
    """
    if isinstance(value, Mapping) and ("type" in value or not _UNTYPED.keys().isdisjoint(value)):
        part = read_block(value, place)
        if part["type"] != "image":
            raise InputError(f"a {part['type']} block, where an image belongs; pass it as {part['type']}", place)
        return part["image"]
    return _read_value(value, place)


def read_video(value: Any, place: Place) -> Any:
    """Return what ``VideoSource`` takes for a video in a dictionary or in the metadata of a ``Document``.

    Args:
        value: A video, the list of its frames, each as of :func:`read_image`, ``{"url": ...}``, a content block that is
            a video, or a ``Blob`` of one.
        place: Where it stands, for errors.

    Raises:
        InputError: It is a dictionary or a blob and no video.
    """
    if isinstance(value, (list, tuple)):
        return [read_image(frame, place) for frame in value]
    if isinstance(value, Mapping) and ("type" in value or not _UNTYPED.keys().isdisjoint(value)):
        part = read_block(value, place)
        if part["type"] != "video":
            raise InputError(f"a {part['type']} block, where a video belongs; pass it as {part['type']}", place)
        return part["video"]
    return _read_value(value, place, "video")


def _read_value(value: Any, place: Place, medium: str = "image") -> Any:
    """An image or a video that is no block."""
    if isinstance(value, Blob):
        if is_text_blob(value, place):
            article = {"image": "an", "video": "a"}[medium]
            raise InputError(f"a blob of a text, where {article} {medium} belongs; pass it as text", place)
        return read_image_blob(value, place, medium)
    if not isinstance(value, Mapping):
        return value
    if value and value.keys() <= {"bytes", "path"}:  # as datasets of Hugging Face have images that are not decoded
        encoded, path = value.get("bytes"), value.get("path")
        if encoded is None and path is None:
            raise InputError("neither bytes nor a path; leave it out", place)
        return Path(_require_string(path, "path", place)) if encoded is None else encoded
    if "source" in value:
        _check_keys(value, {"source", "format"}, place)
        return _read_source(value["source"], place, medium)
    _check_keys(value, {"url"}, place)
    return _require_string(value.get("url"), "url", place)


def _read_untyped(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    """A block of Bedrock Converse or of Google, which is named by its one key."""
    names = [key for key in block if key in _UNTYPED or key in _REFUSED]
    if len(names) == 1 and names[0] in _UNTYPED:
        _check_keys(block, {names[0]}, place)
        return _UNTYPED[names[0]](block[names[0]], place)
    if len(names) == 1:
        _refuse(names[0], place)
    raise InputError(
        f'a block with the keys {shorten(_names(block))}, without a type; pass {{"type": "text", "text": ...}} or '
        '{"type": "image", "image": ...}',
        place,
    )


def _read_text_block(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    _check_keys(block, {"text", "source_type"}, place)
    return _text(_require_string(block.get("text"), "text", place))


def _read_image_block(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    """LangChain's of both versions, Anthropic's, and one with a path or an image in memory."""
    return _image(_read_one_of(block, _IMAGES, "an image", place))


def _read_video_block(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    """LangChain's of both versions, and one with a path, frames or a video in memory."""
    return _video(_read_one_of(block, _VIDEOS, "a video", place))


def _read_one_of(
    block: Mapping[Any, Any], readers: Mapping[str, Callable[[Any, str, Place], Any]], kind: str, place: Place
) -> Any:
    if block.get("source_type") == "id":
        _refuse_file(block.get("id"), "id", place)
    _check_keys(block, {*readers, "source_type"}, place)
    found = [key for key in readers if key in block]
    if len(found) != 1:
        raise InputError(f"{kind} block needs exactly one of {sorted(readers)}, and has {found}", place)
    return readers[found[0]](block[found[0]], found[0], place)


def _read_video_url(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    _check_keys(block, {"video_url"}, place)
    value = block.get("video_url")
    if isinstance(value, Mapping):
        return _video(_read_value(value, place, "video"))
    return _video(_require_string(value, "video_url", place))


def _read_image_url(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    """OpenAI's of both interfaces."""
    if "file_id" in block:
        _refuse_file(block["file_id"], "file_id", place)
    _check_keys(block, {"image_url"}, place)
    value = block.get("image_url")
    if isinstance(value, Mapping):
        return _image(_read_value(value, place))
    return _image(_require_string(value, "image_url", place))


def _read_media(block: Mapping[Any, Any], place: Place) -> dict[str, Any]:
    """Google's."""
    _check_keys(block, {"data", "file_uri", "fileUri", "mimeType", "display_name", "displayName"}, place)
    kind = block.get("mime_type", block.get("mimeType", "image/*"))
    medium = kind.lower().partition("/")[0] if isinstance(kind, str) else None
    if medium not in ("image", "video"):
        raise InputError(f"media of the type {shorten(kind)} cannot be embedded; pass a text or an image", place)
    if block.get("data") is not None:
        return _seen(medium, _read_base64(block["data"], "data", place, medium))
    return _seen(medium, _require_string(block.get("file_uri", block.get("fileUri")), "data or file_uri", place))


def _read_nested_media(value: object, place: Place) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f'media of type {type(value).__name__}; pass {{"mime_type": ..., "data": ...}}', place)
    return _read_media(value, place)


def _read_source(source: object, place: Place, medium: str = "image") -> Any:
    """Where Anthropic and Bedrock keep an image or a video."""
    if not isinstance(source, Mapping):
        raise InputError(f'"source" is of type {type(source).__name__}; pass a dictionary', place)
    if source.get("url") is not None:
        return _require_string(source["url"], "url", place)
    for key in ("data", "bytes"):
        if source.get(key) is not None:
            return _read_base64(source[key], key, place, medium)
    if elsewhere := next((key for key in ("file_id", "s3Location") if key in source), None):
        _refuse_file(source[elsewhere], elsewhere, place)
    raise InputError(f'"source" has the keys {shorten(_names(source))}, and none of "data", "bytes" and "url"', place)


def _read_path(value: object, key: str, place: Place) -> str:
    return _require_string(os.fspath(value) if isinstance(value, os.PathLike) else value, key, place)


def _read_base64(value: object, key: str, place: Place, medium: str = "image") -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    encoded = _require_string(value, key, place)
    return encoded if encoded[:5].lower() == "data:" else f"data:{medium}/*;base64,{encoded}"


def _refuse(kind: object, place: Place) -> NoReturn:
    advice = _REFUSED.get(kind) if isinstance(kind, str) else None
    if advice:
        raise InputError(f"a block of the type {shorten(kind)} cannot be embedded; {advice}", place)
    raise InputError(f"the type {shorten(kind)} cannot be embedded; known are {sorted(_TYPES)}", place)


def _refuse_file(value: object, key: str, place: Place) -> NoReturn:
    raise InputError(
        f'a file that the provider keeps ("{key}": {shorten(value)}) cannot be read here; pass the image '
        "itself, as base64 or by its URL",
        place,
    )


def _require_string(value: object, key: str, place: Place) -> str:
    if not isinstance(value, str):
        raise InputError(f'"{key}" is of type {type(value).__name__}; pass a string', place)
    return value


def _check_keys(block: Mapping[Any, Any], known: set[str], place: Place) -> None:
    if unknown := _names(block.keys() - known - _ABOUT_A_BLOCK):
        raise InputError(f"unknown keys {shorten(unknown)}; known are {sorted(known)}", place)


def _names(keys: Any) -> list[str]:
    return sorted(map(str, keys))


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _image(image: Any) -> dict[str, Any]:
    return _seen("image", image)


def _video(video: Any) -> dict[str, Any]:
    return _seen("video", video)


def _seen(medium: str, value: Any) -> dict[str, Any]:
    return {"type": medium, medium: value}


# From the key of an image block to how what stands there is read.
_IMAGES: dict[str, Callable[[Any, str, Place], Any]] = {
    "url": _require_string,
    "base64": _read_base64,
    "data": _read_base64,
    "path": _read_path,
    "image": lambda value, key, place: _read_value(value, place),
    "source": lambda value, key, place: _read_source(value, place),
    "file_id": _refuse_file,
}
_VIDEOS: dict[str, Callable[[Any, str, Place], Any]] = {
    "url": _require_string,
    "path": _read_path,
    "video": lambda value, key, place: read_video(value, place),
    "source": lambda value, key, place: _read_source(value, place, "video"),
    "file_id": _refuse_file,
    **dict.fromkeys(("base64", "data"), lambda value, key, place: _read_base64(value, key, place, "video")),
}
_TYPES: dict[str, Callable[[Mapping[Any, Any], Place], dict[str, Any]]] = {
    **dict.fromkeys(("text", "text-plain", "input_text", "output_text"), _read_text_block),
    "image": _read_image_block,
    **dict.fromkeys(("image_url", "input_image"), _read_image_url),
    "media": _read_media,
    "video": _read_video_block,
    "video_url": _read_video_url,
}
_UNTYPED: dict[str, Callable[[Any, Place], dict[str, Any]]] = {
    "text": lambda value, place: _text(_require_string(value, "text", place)),
    "image": lambda value, place: _image(_read_value(value, place)),
    "video": lambda value, place: _video(read_video(value, place)),
    "video_url": lambda value, place: _read_video_url({"video_url": value}, place),
    **dict.fromkeys(("inline_data", "inlineData", "file_data", "fileData"), _read_nested_media),
}
