"""What the bodies of requests have as items, brought into the form that ``parse_items`` takes. Nothing names a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from st_modules.errors import InputError, Place, shorten
from st_modules.inputs.formats import is_base64_of_image

_KEYS = frozenset({"text", "image", "video"})
ITEM_SCHEMA = {
    "description": "A text, an image, a video, or several together as one vector. Images and videos are http(s) URLs, "
    "where the server allows them, or data URIs.",
    "anyOf": [
        {"type": "string", "description": "Always a text, whatever it looks like."},
        {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "image": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                "video": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
            },
            "additionalProperties": False,
        },
    ],
}
ITEMS_SCHEMA = {"anyOf": [*ITEM_SCHEMA["anyOf"], {"type": "array", "items": ITEM_SCHEMA}]}


def list_items(value: object) -> list[Any]:
    """Return the items of a field that has one or a list of them.

    Raises:
        InputError: One is none.
    """
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    return [read_item(each, Place(index)) for index, each in enumerate(values)]


def read_item(value: object, place: Place) -> dict[str, Any]:
    """Return a string or an object of ``text``, ``image`` and ``video`` as an item.

    Raises:
        InputError: It is neither.
    """
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, (int, list)):
        raise InputError(
            "tokens of another tokenizer; send the text itself (check_embedding_ctx_length=False in LangChain)", place
        )
    if not isinstance(value, Mapping):
        raise InputError(f"of type {type(value).__name__}; send a string, or an object with a text and an image", place)
    given = cast("Mapping[str, Any]", value)
    if unknown := given.keys() - _KEYS:
        raise InputError(f"unknown keys {shorten(sorted(unknown))}; known are {sorted(_KEYS)}", place)
    item: dict[str, Any] = {"text": given.get("text")}
    for key in ("image", "video"):
        if given.get(key) is not None:
            item[key] = read_sources(given[key], key, place)
    return item


def read_sources(value: object, medium: str, place: Place) -> Any:
    """Return an image or a video that is a string, or a list of those.

    Raises:
        InputError: One is neither a URL nor a data URI.
    """
    if isinstance(value, list):
        return [read_source(each, medium, place) for each in cast("list[object]", value)]
    return read_source(value, medium, place)


def read_source(value: object, medium: str, place: Place) -> str:
    """Return a URL or a data URI as it is, and the base64 of an image as a data URI.

    Raises:
        InputError: It is something else, such as a path.
    """
    if isinstance(value, str):
        if value[:8].lower().startswith(("http://", "https://", "data:")):
            return value
        if is_base64_of_image(value):
            return f"data:{medium}/*;base64,{value}"
    article = "an" if medium == "image" else "a"
    raise InputError(
        f"{article} {medium} that is no http(s) URL and no data URI; send data:{medium}/...;base64,...", place
    )
