"""What a bare string is: a text, or the name of an image or a video."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import url2pathname

from st_modules.inputs.formats import has_image_suffix, is_base64_of_image, is_image_file, is_regular_file
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.local_files import LONGEST_PATH

logger = logging.getLogger(__name__)

_DATA_URI = "data:image/"
_VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".wmv", ".flv", ".mkv")
_LONGEST_NAME = 1024
_SHOWN = 80


def names_image(text: str, limits: ImageLimits) -> bool:
    """Whether a bare string names an image.

    As in sentence-transformers, these do: an image URL, a ``data:image/`` URI and the path of an existing image file.
    Here the file may have any name, if it begins as one of the formats that are read, and may be given by a ``file:``
    URL. An address on the web names an image where its path ends as an image's does; several lines are no address.
    A path that may not be opened is not looked for: it names an image, which is refused, where it reads like one.
    """
    # Imported here because it takes seconds; by the time that there is something to encode, the model has done it.
    from sentence_transformers.base.modality import is_image_url_or_path

    if _is_web_address(text):
        return len(text.split(maxsplit=1)) == 1 and (is_image_url_or_path(text) or has_image_suffix(_url_path(text)))
    if _is_data_uri(text):
        return True
    # No path is longer, and what looks at one reads and copies all of it.
    if len(text) > LONGEST_PATH:
        return False
    path = _local_path(text)
    if not limits.may_open(path):
        return len(text) <= _LONGEST_NAME and "\n" not in text and _reads_like_path(text)
    return is_image_url_or_path(text) or (is_regular_file(path) and is_image_file(path, limits))


def names_video(text: str, limits: ImageLimits) -> bool:
    """Whether a bare string names a video, handed to a model that takes videos.

    As in sentence-transformers, the URL of a video file and the path of an existing one do, by their endings; the
    address of a page that plays a video does not. A path that may not be opened is not looked for.
    """
    from sentence_transformers.base.modality import is_video_url_or_path

    if _is_web_address(text):
        return len(text.split(maxsplit=1)) == 1 and _url_path(text).lower().endswith(_VIDEO_SUFFIXES)
    return len(text) <= LONGEST_PATH and limits.may_open(text) and is_video_url_or_path(text)


def report_lookalikes(texts: Sequence[str], limits: ImageLimits) -> None:
    """Log, once, that texts of a call look like images and name none.

    Args:
        texts: The bare strings that were taken for texts.
        limits: Which files may be looked for.
    """
    found = [(text, likeness) for text in texts if (likeness := _find_likeness(text, limits))]
    if found:
        (text, likeness), more = found[0], f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        logger.warning(
            "%s%s %s: it is embedded as text. For an image pass {'image': path}, for a text {'text': ...}.",
            _show(text),
            more,
            likeness,
        )


def _find_likeness(text: str, limits: ImageLimits) -> str | None:
    """Say what of an image a text has: it is encoded, or one line that ends as a path does, or the path of a file."""
    stripped = text.strip()  # a line of a file keeps its end
    if _is_data_uri(stripped):
        return "looks like a data URI, and has spaces before it"
    if is_base64_of_image(text):
        return f"looks like the base64 of an image, and has no {_DATA_URI}png;base64, before it"
    if len(stripped) > _LONGEST_NAME or "\n" in stripped or _is_web_address(stripped):
        return None
    path = _local_path(stripped)
    if limits.may_open(path) and is_regular_file(path):
        return (
            "is the path of a file that is no image" if text == stripped else "looks like a path with spaces around it"
        )
    return "looks like an image's path, and no image is there" if _reads_like_path(stripped) else None


def _reads_like_path(text: str) -> bool:
    """Whether one line ends as an image's path does, and is one word or begins as a path does."""
    is_path = not re.search(r"\s", text) or re.match(r"[~/\\.]|[A-Za-z]:[/\\]|file:", text) is not None
    return is_path and has_image_suffix(_local_path(text))


def _is_data_uri(text: str) -> bool:
    return text[: len(_DATA_URI)].lower() == _DATA_URI


def _is_web_address(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _url_path(url: str) -> str:
    try:
        return urlsplit(url).path.strip()
    except ValueError:
        return ""


def _local_path(text: str) -> str:
    """Return the path that a text would be; that of a ``file:`` URL is within it."""
    if text[:6].lower() != "file:/":
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    return url2pathname(parts.path) if parts.netloc in ("", "localhost") else text


def _show(text: str) -> str:
    if is_base64_of_image(text):
        return f"A string of {len(text)} characters"
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
