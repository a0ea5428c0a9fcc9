"""What a caller may pass as one item, brought into one form: a text, images, a video, and an instruction.

A plain string follows sentence-transformers: the URL of an image file, a ``data:image/`` URI or the path of an existing
image file is an image, anything else is text (``strings.names_image``). ``{"text": ...}`` is always text. The other
forms are listed at ``parse_items``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Number
from pathlib import Path
from typing import Any, TypeGuard

from st_modules.errors import InputError, Place, shorten
from st_modules.inputs.batches import list_inputs
from st_modules.inputs.images import ImageSource, is_image_like
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.strings import names_image, names_video, report_lookalikes
from st_modules.inputs.videos import VideoSource

_ITEM_KEYS = frozenset({"text", "image", "video"})
_MESSAGE_KEYS = frozenset({"role", "content"})
_UNDECODED_KEYS = frozenset({"bytes", "path"})
_SOURCE_KEYS = frozenset({"url", "path", "base64"})
_NOTHING = "it has neither text nor image; leave it out or give it one"


@dataclass(frozen=True)
class Item:
    """One thing to embed.

    Args:
        text: The text, or None when there is none ("" is a text where there is no image).
        images: The images, in order.
        instruction: The system text of a chat-style item, or None.
        index: Position in the caller's list, counted from 0.
        video: The video, or None.
        query: What the item is a document for, where a model reads the two together; an item without a query of its
            own. The instruction is that of the pair, and ``index`` the pair's.
    """

    text: str | None
    images: tuple[ImageSource, ...]
    instruction: str | None
    index: int
    video: VideoSource | None = None
    query: Item | None = None

    @property
    def place(self) -> Place:
        """Where it stands in the caller's list."""
        return Place(self.index) if self.query is None else pair_place(self.index)


def pair_place(index: int) -> Place:
    """Return where a pair of a query and a document stands in the caller's list."""
    return Place(index, name=f"pair {index}")


@dataclass(frozen=True)
class _Parts:
    """What was collected of an item, each in order."""

    texts: list[str] = field(default_factory=list[str])
    images: list[object] = field(default_factory=list[object])
    videos: list[object] = field(default_factory=list[object])


def parse_items(
    inputs: Iterable[object], limits: ImageLimits | None = None, *, takes_video: bool = False
) -> list[Item]:
    """Return one ``Item`` for each input. Images and videos are neither read nor fetched yet.

    An input is one of

    - a string (see the module's docstring),
    - an image: whatever ``ImageSource`` takes, but a string,
    - ``{"text": ..., "image": ...}`` with either or both; ``None`` values count as left out; the image is whatever
      ``ImageSource`` takes, or a list of those,
    - ``{"text": ..., "video": ...}``, likewise; the video is whatever ``VideoSource`` takes,
    - ``{"bytes": ..., "path": ...}``, as datasets of Hugging Face have images that are not decoded, in the place of any
      image; the path counts where the bytes are ``None``,
    - chat messages: one ``{"role": "user", "content": ...}``, alone or in a list, there optionally after one system
      message, whose text becomes the instruction. Content is a string or a list of parts: ``{"type": "text"}``,
      ``{"type": "image"}`` (with "image", "url", "path" or "base64"), ``{"type": "image_url"}``, and the same with
      "video" in the place of "image". Several texts are joined by a newline; where the texts stand among the images is
      not kept,
    - an ``Item``, which is returned as it is.

    Args:
        inputs: The inputs.
        limits: What images and videos may cost, and where they may come from.
        takes_video: Whether a string may name a video, as one that is handed to a model of videos does.

    Raises:
        InputError: An input is none of these or has nothing in it: the message names its index. Or ``inputs`` is a
            single input, or has no order (``list_inputs``).
        ImageError: An image is of a type that cannot be an image.
    """
    limits = limits or ImageLimits()
    values = list_inputs(inputs)
    items = [parse_item(value, Place(index), limits, takes_video=takes_video) for index, value in enumerate(values)]
    report_lookalikes(
        [value for value, item in zip(values, items, strict=True) if isinstance(value, str) and item.text is not None],
        limits,
    )
    return items


def parse_valid(
    inputs: Sequence[object], limits: ImageLimits | None = None, *, takes_video: bool = False
) -> tuple[list[Item | None], list[InputError]]:
    """Parse inputs as ``parse_items`` does, and go on where one is bad.

    Returns:
        One ``Item`` for each input, ``None`` where there is an error; and the errors, in order.
    """
    limits = limits or ImageLimits()
    items: list[Item | None] = []
    errors: list[InputError] = []
    for index, value in enumerate(inputs):
        try:
            items.append(parse_item(value, Place(index), limits, takes_video=takes_video))
        except InputError as error:
            items.append(None)
            errors.append(error)
    return items, errors


def check_text(text: str, place: Place | str) -> None:
    """Raise ``InputError`` if ``text`` has a lone surrogate, which no tokenizer can read; ``place`` says whose text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"character {error.start} of the text is a lone surrogate (a damaged emoji or a decoding error); "
            'replace it, for example with text.encode("utf-8", "replace").decode("utf-8")',
            place,
        ) from error


def check_texts(texts: Sequence[object]) -> None:
    """Raise ``InputError`` where something is no string, or has a lone surrogate; the error has its index."""
    for index, text in enumerate(texts):
        if text is None:
            raise InputError(_NOTHING, Place(index))
        check_text(_require_string(text, Place(index, '"text"')), Place(index))


def parse_item(value: Any, place: Place, limits: ImageLimits, *, takes_video: bool) -> Item:
    """Return one input as an ``Item``, as ``parse_items`` does it; errors name its ``place``."""
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        if names_image(value, limits):
            return _make_item(_Parts(images=[value]), None, place, limits)
        is_video = takes_video and names_video(value, limits)
        return _make_item(_Parts(videos=[value]) if is_video else _Parts(texts=[value]), None, place, limits)
    if isinstance(value, VideoSource):
        return _make_item(_Parts(videos=[value]), None, place, limits)
    if _is_undecoded(value):
        return _make_item(_Parts(images=[value]), None, place, limits)
    if _is_dict(value):
        return (
            _from_dict(value, place, limits, takes_video)
            if _MESSAGE_KEYS.isdisjoint(value)
            else _from_messages([value], place, limits)
        )
    if is_sequence(value):
        if isinstance(value, list) and value and all(map(_is_dict, value)):
            return _from_messages(value, place, limits)
        raise InputError(
            f"a {type(value).__name__} of {len(value)} is not one item; encode each by itself, or pass "
            '{"text": ..., "image": ...} for a text with its image',
            place,
        )
    _check_image_like(value, place)
    return _make_item(_Parts(images=[value]), None, place, limits)


def _check_image_like(value: object, place: Place) -> None:
    """Raise ``InputError`` where a value is no image, and say what else it may be instead."""
    if value is None:
        raise InputError("None has nothing to embed; leave it out", place)
    if isinstance(value, Number):
        number = shorten(value) if isinstance(value, int) else value
        raise InputError(f"the number {number}; pass a text as str, and leave missing values out", place)
    if _is_missing(value):
        raise InputError(f"the missing value {value}; leave it out", place)
    if not is_image_like(value):
        raise InputError(
            f'of type {type(value).__name__}; pass a text as str, an image, or {{"text": ..., "image": ...}}, '
            "and several of these as a list: list(texts)",
            place,
        )


def _make_item(parts: _Parts, instruction: str | None, place: Place, limits: ImageLimits) -> Item:
    """Check the collected parts and put them together."""
    texts, images, videos = parts.texts, parts.images, parts.videos
    if not texts and not images and not videos:
        raise InputError(_NOTHING, place)
    if len(videos) > 1:
        raise InputError(f"{len(videos)} videos, and an item has one. Embed each by itself.", place)
    for text in texts:
        check_text(text, place)
    if instruction is not None:
        check_text(instruction, place.within("system message"))
    places = [place] if len(images) == 1 else [place.within(f"image {number}") for number in range(len(images))]
    sources = tuple(
        ImageSource(_take_encoded(image, each), each, limits) for image, each in zip(images, places, strict=True)
    )
    video = VideoSource(_take_encoded(videos[0], place), place, limits) if videos else None
    # An empty text beside an image says nothing, and models lay out a text that is there.
    text = "\n".join(texts) if any(texts) or (texts and not images and not videos) else None
    return Item(text, sources, instruction, place.index, video)


def _from_dict(value: Mapping[Any, Any], place: Place, limits: ImageLimits, takes_video: bool) -> Item:
    # A video is refused by the model, which has a name for what else takes it.
    _check_keys(value, _ITEM_KEYS, place, _ITEM_KEYS if takes_video else _ITEM_KEYS - {"video"})
    for key, part in value.items():
        if _is_missing(part):
            raise InputError(
                f"the missing value {part}; pass None for a part that an item does not have, as "
                "frame.astype(object).where(frame.notna(), None) does",
                place.within(f'"{key}"'),
            )
    text, image, video = (value.get(key) for key in ("text", "image", "video"))
    texts = [] if text is None else [_require_string(text, place.within('"text"'))]
    images = list(image) if is_sequence(image) else [] if image is None else [image]
    return _make_item(_Parts(texts, images, [] if video is None else [video]), None, place, limits)


def _from_messages(messages: list[Mapping[Any, Any]], place: Place, limits: ImageLimits) -> Item:
    for message in messages:
        _check_keys(message, _MESSAGE_KEYS, place.within("message"))
    roles = [message.get("role") for message in messages]
    if roles not in (["user"], ["system", "user"]):
        raise InputError(
            f"messages with the roles {shorten(roles)} are not one item; pass one user message, after at most one "
            "system message",
            place,
        )
    parts = _read_content(messages[-1], place.within("user message"))
    instruction = _read_system_text(messages[0], place.within("system message")) if len(messages) == 2 else None
    return _make_item(parts, instruction, place, limits)


def _read_system_text(message: Mapping[Any, Any], place: Place) -> str:
    parts = _read_content(message, place)
    if parts.images or parts.videos or not parts.texts:
        raise InputError("an instruction is a text and nothing else; move images to the user message", place)
    return "\n".join(parts.texts)


def _read_content(message: Mapping[Any, Any], place: Place) -> _Parts:
    content = message.get("content")
    if isinstance(content, str):
        return _Parts(texts=[content])
    if not is_sequence(content):
        raise InputError(f'"content" is of type {type(content).__name__}; pass a string or a list of parts', place)
    parts = _Parts()
    for number, part in enumerate(content):
        here = place.within(f"part {number}")
        kind, value = _read_part(part, here)
        if kind == "text":
            parts.texts.append(_require_string(value, here))
        else:
            (parts.images if kind == "image" else parts.videos).append(value)
    return parts


def _read_part(part: object, place: Place) -> tuple[str, object]:
    """A part of a message as ("text", string), ("image", source) or ("video", source)."""
    if not _is_dict(part):
        raise InputError(f'of type {type(part).__name__}; pass {{"type": "text", "text": ...}} or an image part', place)
    kind = part.get("type")
    values = {key: value for key, value in part.items() if key != "type" and value is not None}
    if kind == "text":
        return "text", _take_only_value(values, {"text"}, place)[1]
    for medium in ("image", "video"):
        if kind == medium:
            key, value = _take_only_value(values, _SOURCE_KEYS | {medium}, place)
            return medium, _read_source(medium, key, value, place)
        if kind == f"{medium}_url":
            value = _take_only_value(values, {f"{medium}_url"}, place)[1]
            return medium, _require_string(value.get("url") if _is_dict(value) else value, place)
    raise InputError(
        f'the type {shorten(kind)} cannot be embedded; known are "text", "image", "image_url", "video" and "video_url"',
        place,
    )


def _read_source(medium: str, key: str, value: object, place: Place) -> object:
    if key == "path":
        return Path(_require_string(value, place))
    if key == "base64":
        encoded = _require_string(value, place)
        return encoded if encoded.startswith("data:") else f"data:{medium}/*;base64,{encoded}"
    return value


def _take_only_value(values: Mapping[Any, Any], known: set[str] | frozenset[str], place: Place) -> tuple[str, Any]:
    """The one entry that a part has besides its type."""
    _check_keys(values, known, place)
    if len(values) != 1:
        raise InputError(f"needs exactly one of {sorted(known)}, and has {sorted(values)}", place)
    return next(iter(values.items()))


def _is_missing(value: object) -> bool:
    """Whether a value is what pandas has where there is none."""
    return (isinstance(value, Number) and value != value) or type(value).__name__ in ("NAType", "NaTType")


def _is_undecoded(value: object) -> TypeGuard[Mapping[Any, Any]]:
    return _is_dict(value) and bool(value) and value.keys() <= _UNDECODED_KEYS


def _take_encoded(image: object, place: Place) -> object:
    """The encoded image of one that Hugging Face's datasets have not decoded, or its path."""
    if not _is_undecoded(image):
        return image
    encoded, path = image.get("bytes"), image.get("path")
    if encoded is None and path is None:
        raise InputError("neither bytes nor a path; leave it out", place)
    return encoded if encoded is not None else Path(_require_string(path, place))


def _is_dict(value: object) -> TypeGuard[Mapping[Any, Any]]:
    # A row that `Dataset.map` of Hugging Face passes is a mapping, and no dict.
    return isinstance(value, Mapping)


def is_sequence(value: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether a value is a list or a tuple."""
    return isinstance(value, (list, tuple))


def _require_string(value: object, place: Place) -> str:
    if not isinstance(value, str):
        raise InputError(f"of type {type(value).__name__}; pass a string", place)
    return value


def _check_keys(
    value: Mapping[Any, Any],
    known: set[str] | frozenset[str],
    place: Place,
    named: set[str] | frozenset[str] | None = None,
) -> None:
    """Raise ``InputError`` where there are other keys than those known; it names these, or some of them."""
    unknown = sorted(key if isinstance(key, str) else shorten(key) for key in value.keys() - known)
    if unknown:
        raise InputError(f"unknown keys {shorten(unknown)}; known are {sorted(named or known)}", place)
