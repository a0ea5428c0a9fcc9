"""Segments: what a layout is made of. The control tokens, texts, images and videos of an item, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from st_modules.inputs.images import ImageSource
from st_modules.inputs.videos import VideoSource


@dataclass(frozen=True)
class Special:
    """One control token."""

    token: str


@dataclass(frozen=True)
class Start:
    """What the tokenizer itself puts before a text, such as ``<s>`` or ``[CLS]``."""


@dataclass(frozen=True)
class End:
    """What the tokenizer itself puts after a text, such as ``[SEP]``."""


@dataclass(frozen=True)
class Text:
    """A stretch of text between two control tokens.

    Attributes:
        before: What the template writes before the user's text; truncation keeps it.
        user: What the user wrote; truncation trims its end.
        after: What the template writes after the user's text; truncation keeps it.
        keeps_tokens: Whether truncation keeps the first tokens as they are in the whole text, half a word's among them.
            Otherwise what is kept is read as a text by itself.
    """

    before: str
    user: str = ""
    after: str = ""
    keeps_tokens: bool = False


@dataclass(frozen=True)
class Image:
    """The place of one image.

    Attributes:
        token: Repeated once for each of the image's tokens; the empty string where any token will do, because the
            model puts its own vectors there; ``None`` where it reads the image apart from the text.
        source: The image.
        common: Whether it is likely the same in many rows, so that these may begin with it in common.
    """

    token: str | None
    source: ImageSource
    common: bool = False


@dataclass(frozen=True)
class Video:
    """The place of a video, or of a part of it.

    Attributes:
        token: Repeated once for each of the tokens that stand there.
        source: The video.
        part: Which of the parts it is that the video is divided into, from 0.
        parts: How many parts there are, of equally many tokens.
        common: As of :class:`Image`.
    """

    token: str
    source: VideoSource
    part: int = 0
    parts: int = 1
    common: bool = False


Segment: TypeAlias = Start | End | Special | Text | Image | Video


def find_control_token(segment: Segment) -> str | None:
    """Return the control token of a segment; ``None`` where it has none."""
    return segment.token if isinstance(segment, (Special, Image, Video)) else None


def find_first_text(row: Sequence[Segment]) -> int | None:
    """Return where the text is that begins a string, if one does: that of the row, or the last of several in it."""
    start = max((number for number, segment in enumerate(row) if isinstance(segment, Start)), default=0)
    written = (
        number
        for number, segment in enumerate(row)
        if number >= start and (isinstance(segment, Text) or find_control_token(segment))
    )
    first = next(written, None)
    return first if first is not None and isinstance(row[first], Text) else None


def write_segment(segment: Segment) -> str:
    """Return what a segment is in the string of a row; of an image or a video, one of its tokens."""
    if isinstance(segment, Text):
        return segment.before + segment.user + segment.after
    return find_control_token(segment) or ""
