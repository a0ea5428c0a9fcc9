"""What a bare string is: a text, or the name of an image."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import url2pathname

from st_modules.inputs.formats import has_image_suffix, is_image_file, is_regular_file

logger = logging.getLogger(__name__)

_LONGEST_NAME = 1024
_SHOWN = 80


def names_image(text: str) -> bool:
    """Whether a bare string names an image.

    As in sentence-transformers, these do: an image URL, a ``data:image/`` URI and the path of an existing image file.
    Here the file may have any name, if it begins as one of the formats that are read, and may be given by a ``file:``
    URL. An address on the web names an image where its path ends as an image's does.
    """
    # Imported here because it takes seconds; by the time that there is something to encode, the model has done it.
    from sentence_transformers.base.modality import is_image_url_or_path

    if is_image_url_or_path(text):
        return True
    if _is_web_address(text):
        return has_image_suffix(_url_path(text))
    path = _local_path(text)
    return is_regular_file(path) and is_image_file(path)


def report_lookalikes(texts: Sequence[str]) -> None:
    """Log, once, that texts of a call look like the paths of images and name none.

    Args:
        texts: The bare strings that were taken for texts.
    """
    found = [text for text in texts if _looks_like_image(text)]
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        logger.warning(
            "%s%s looks like an image's path, and no image is there: it is embedded as text. For an image pass "
            "{'image': path}, for a text {'text': ...}.",
            _show(found[0]),
            more,
        )


def _looks_like_image(text: str) -> bool:
    """Whether a text is one line that ends as an image's path does, without a word before it, or is a file's path."""
    if len(text) > _LONGEST_NAME or "\n" in text or _is_web_address(text):
        return False
    path = _local_path(text)
    anywhere = " " not in text or re.match(r"[~/\\.]|[A-Za-z]:[/\\]|file:", text)
    return bool(anywhere and has_image_suffix(path)) or is_regular_file(path)


def _is_web_address(text: str) -> bool:
    return text[:8].lower().startswith(("http://", "https://"))


def _url_path(url: str) -> str:
    try:
        return "" if " " in url else urlsplit(url).path
    except ValueError:
        return ""


def _local_path(text: str) -> str:
    """Return the path that a text would be; that of a ``file:`` URL is within it."""
    if text[:7].lower() != "file://":
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        return text
    return url2pathname(parts.path) if parts.netloc in ("", "localhost") else text


def _show(text: str) -> str:
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text)} characters)"
