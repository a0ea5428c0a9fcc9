"""LangChain's ways to hold a text and an image, brought into what ``SentenceTransformer.encode`` takes."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from reprlib import repr as shorten
from typing import Any, Literal, TypeAlias

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.messages import BaseMessage
from langchain_core.prompt_values import ImagePromptValue, PromptValue

from langchain_gme.blobs import read_blob
from langchain_gme.blocks import is_block, read_image, read_video
from langchain_gme.conversations import is_message, read_messages
from st_modules import ImageLimits, InputError, Place

IMAGE_KEYS = ("image", "image_path", "image_url")
"""Where a ``Document``'s metadata may hold its image; the first that is set counts."""
VIDEO_KEY = "video"
"""Where it may hold its video."""

OnError: TypeAlias = Literal["raise", "skip"]
"""What becomes of values that cannot be embedded."""


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
    """Return a sequence as a list; what is a single value, or has no order or no end of its own, is refused.

    Args:
        values: What was passed.
        name: What it is called.

    Raises:
        InputError: ``values`` is not a list of values; the message says what to pass.
    """
    single = (str, bytes, bytearray, memoryview)
    if isinstance(values, Sequence) and not isinstance(values, single):
        return list(values)
    raise InputError(f"of type {type(values).__name__}; pass a list{_how_to_list(values, name, single)}", name)


def _how_to_list(values: object, name: str, single: tuple[type, ...]) -> str:
    if isinstance(values, (*single, Mapping, Document, BaseMessage, PromptValue, Blob)):
        return f", for a single one as [{name.removesuffix('s')}]"
    if isinstance(values, (set, frozenset)):
        return f", in an order that the embeddings can have: sorted({name})"
    if hasattr(values, "columns"):
        return ", of the column that is meant: list(frame['text'])"
    return f": list({name})" if isinstance(values, Iterable) else ""


def find_place(value: Any, index: int, given_id: str | None = None) -> Place:
    """Return what errors call a value: its position among those of a call, and its id where it has one.

    Args:
        value: The value.
        index: Its position.
        given_id: The id that it was given; that of a ``Document`` where it is left out.
    """
    id_ = given_id or (value.id if isinstance(value, Document) else None)
    return Place(index, name=f"item {index}, document {id_}" if id_ else "")


@contextmanager
def name_documents(values: Sequence[Any], ids: Sequence[str | None] | None = None) -> Generator[None, None, None]:
    """Name documents by their ids in errors about inputs that stand for these values."""
    try:
        yield
    except InputError as error:
        named = name_document(error, values, ids)
        if named is error:
            raise
        raise named from error


def name_document(error: InputError, values: Sequence[Any], ids: Sequence[str | None] | None = None) -> InputError:
    """Return an error about the input that stands for one of these values with that one's id."""
    if error.index is None:
        return error
    name = find_place(values[error.index], error.index, ids[error.index] if ids else None).name
    return error.rename(name) if name else error


def check_on_error(on_error: str) -> OnError:
    """Return what becomes of items that cannot be embedded.

    Raises:
        ValueError: It is none of the values that it can have.
    """
    if on_error == "raise" or on_error == "skip":
        return on_error
    raise ValueError(f'on_error={shorten(on_error)}; pass "raise" or "skip".')


def check_documents(values: object) -> list[Document]:
    """Return documents as a list.

    Raises:
        InputError: They are no list, or something among them is no ``Document``.
    """
    documents = as_list(values, "documents")
    for index, document in enumerate(documents):
        if not isinstance(document, Document):
            place = Place(index, name=f"documents[{index}]")
            raise InputError(f"of type {type(document).__name__}; pass a Document", place)
    return documents


def to_item(value: Any, place: Place, limits: ImageLimits | None = None, *, takes_video: bool = True) -> Any:
    """Return what ``encode`` takes for one of LangChain's forms.

    Args:
        value: A string (always text); an image (path, bytes, PIL image, array ...); ``{"text": ..., "image": ...}``,
            or with "video" in the place of "image"; a content block or a list of blocks, see
            :func:`langchain_gme.blocks.read_block`; a message or a list of messages; a ``PromptValue``; a ``Blob``; a
            ``Document``, whose metadata may hold its image under one of ``IMAGE_KEYS``, and its video under
            ``VIDEO_KEY``.
        place: Where the value stands, for errors.
        limits: Which files of a text may be opened, those of blobs; ``ImageLimits()`` where it is left out. Images are
            not opened.
        takes_video: Whether the model embeds videos. To one that does not, an entry of metadata is none.

    Raises:
        InputError: It is none of these, or has nothing in it.
    """
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, Document):
        return _from_document(value, place, takes_video)
    if isinstance(value, Blob):
        return read_blob(value, place, limits)
    if isinstance(value, ImagePromptValue):
        return {"image": read_image(value.image_url, place)}
    if isinstance(value, PromptValue):
        return read_messages(value.to_messages(), place)
    if is_message(value):
        return read_messages([value], place)
    if isinstance(value, Mapping):
        return _from_mapping(value, place)
    return read_messages(list(value), place) if isinstance(value, (list, tuple)) else value


def _from_document(document: Document, place: Place, takes_video: bool) -> dict[str, Any]:
    images, video = document_images(document, place), document.metadata.get(VIDEO_KEY)
    seen = {"video": read_video(video, place)} if takes_video and has_video(document.metadata) else {}
    if not document.page_content and not images and not seen:
        raise InputError(
            f"a Document with neither text nor image; leave it out, or put its image into the metadata under "
            f'"{IMAGE_KEYS[0]}"',
            place,
        )
    image = images if len(images) > 1 else next(iter(images), None)
    return {"text": document.page_content or None, "image": image, **seen}


def has_video(metadata: Mapping[str, Any]) -> bool:
    """Whether the metadata of a document names a video; ``None`` and what is empty do not."""
    value = metadata.get(VIDEO_KEY)
    return value is not None and not (isinstance(value, (str, list, tuple)) and not value)


def _from_mapping(value: Mapping[Any, Any], place: Place) -> Any:
    if value.keys() <= {"text", "image", "video"}:
        seen = {"video": read_video(value["video"], place)} if value.get("video") is not None else {}
        image = value.get("image")
        several = isinstance(image, (list, tuple))
        images = [read_image(each, place) for each in image] if several else read_image(image, place)
        return {**value, **({"image": images} if "image" in value else {}), **seen}
    if value.keys() <= {"bytes", "path"}:
        return {"image": read_image(value, place)}
    # What is no block is an item that is misspelt: encode says which keys there are.
    return read_messages([value], place) if is_block(value) else dict(value)


def document_images(document: Document, place: Place | str = "document") -> list[Any]:
    """Return the images in a document's metadata, of the first of ``IMAGE_KEYS`` that is set.

    Args:
        document: The document. What its metadata holds may be an image, ``{"url": ...}``, an image block, a ``Blob``,
            a list of these, or a list of strings as JSON, which is how a store that keeps only strings has it.
            ``None`` and the empty string mean that there is none.
        place: What to call the document in errors.

    Returns:
        The images, each as ``encode`` takes it; an empty list where there is none.

    Raises:
        InputError: What stands there is a block, a dictionary or a blob, and no image.
    """
    here = place if isinstance(place, Place) else Place(0, name=place)
    for key in IMAGE_KEYS:
        if images := _list_images(document.metadata.get(key)):
            return [read_image(image, here) for image in images]
    return []


def _list_images(value: Any) -> list[Any]:
    if value is None or (isinstance(value, str) and not value):
        return []
    if isinstance(value, str) and value.startswith('["'):
        return _parse_strings(value) or [value]
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _parse_strings(text: str) -> list[str]:
    """Return the strings of a JSON list of strings, and nothing where it is something else."""
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return parsed if isinstance(parsed, list) and all(isinstance(each, str) for each in parsed) else []


def text_of(item: Any) -> str:
    """Return the text of what :func:`to_item` returned, and the empty string where there is none."""
    if isinstance(item, Mapping):
        return item.get("text") or ""
    return "\n".join(part["text"] for part in _parts(item) if part["type"] == "text")


def image_references(item: Any) -> list[str] | None:
    """Return the paths and URLs of the images of what :func:`to_item` returned.

    Returns:
        One an image, in order; an empty list where it has no image; ``None`` where any of them is in memory, because
        references to the others would bring back another item.
    """
    references = [_reference(image) for image in _images_of(item)]
    return None if None in references else [each for each in references if each is not None]


def video_reference(item: Any) -> str | None:
    """Return the path or URL of the video of what :func:`to_item` returned; ``None`` where it has none or in memory."""
    videos = [item.get("video")] if isinstance(item, Mapping) else []
    videos += [part["video"] for part in _parts(item) if part["type"] == "video"]
    return next((_reference(video) for video in videos if video is not None), None)


def _reference(image: Any) -> str | None:
    if isinstance(image, str):
        return None if image[:5].lower() == "data:" else image
    return os.fsdecode(image) if isinstance(image, os.PathLike) else None


def _images_of(item: Any) -> list[Any]:
    if isinstance(item, Mapping):
        images = item.get("image")
        return list(images) if isinstance(images, (list, tuple)) else [] if images is None else [images]
    if isinstance(item, list):
        return [part["image"] for part in _parts(item) if part["type"] == "image"]
    return [item]


def _parts(item: Any) -> list[dict[str, Any]]:
    return item[-1]["content"] if isinstance(item, list) else []
