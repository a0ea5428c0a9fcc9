"""The answers of a search as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from st_modules.errors import STModulesError, printable
from st_modules.index.hits import Hit
from st_modules.index.pictures import encode_small, write_picture
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits

# Twice as many pixels as the page has room for: screens have small ones.
_SIDE = 480
_LONGEST_TEXT = 600
_LONGEST_VALUE = 200


def render(title: str, picture: Any, notes: Sequence[str], hits: Sequence[Hit], limits: ImageLimits) -> str:
    """Build the page.

    Args:
        title: What was asked, in words.
        picture: The picture that was asked with, as ``ImageSource`` takes it; ``None`` without one.
        notes: Where it was asked, and how.
        hits: The answers, best first.
        limits: What their pictures may cost, and where they may come from.

    Returns:
        A complete HTML document; pictures are data URIs, there are no scripts and no links to other files.
    """
    asked = "" if picture is None else _show(lambda: _read_query(picture, limits), str(picture))
    items = "".join(_item(rank, hit, limits) for rank, hit in enumerate(hits, 1))
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{_write(title)}</title>
<style>
{Path(__file__).with_name("page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
{asked}<h1>{_write(title)}</h1>
<p>{" · ".join(map(_write, notes))}</p>
</header>
<main>
{f"<ol>{items}</ol>" if hits else "<p>Nothing was found.</p>"}
</main>
</body>
</html>
"""


def _item(rank: int, hit: Hit, limits: ImageLimits) -> str:
    source = hit.source if hit.page is None else f"{hit.source}, page {hit.page}"
    text = f'<p class="text" dir="auto">{_write(_cut(hit.text, _LONGEST_TEXT))}</p>\n' if hit.text else ""
    known = {"id": hit.id, **{name: value for name, value in hit.metadata.items() if value is not None}}
    rows = "".join(
        f"<dt>{_write(name)}</dt><dd>{_write(_cut(str(value), _LONGEST_VALUE))}</dd>" for name, value in known.items()
    )
    return f"""<li>
<div class="score"><span>{rank}</span><span>{hit.score:.4f}</span></div>
{_picture(hit, limits)}{text}<p class="source">{_write(source)}</p>
<dl>{rows}</dl>
</li>
"""


def _picture(hit: Hit, limits: ImageLimits) -> str:
    return _show(lambda: write_picture(hit, limits, _SIDE), hit.image or hit.source)


def _read_query(picture: Any, limits: ImageLimits) -> bytes:
    return encode_small(ImageSource(picture, limits=limits).load(), _SIDE)


def _show(read: Callable[[], bytes | None], name: str) -> str:
    """A picture, or its name where it cannot be read."""
    try:
        picture = read()
    except (STModulesError, OSError) as error:
        reason = getattr(error, "problem", None) or str(error)
        shown = _write(_cut(reason if name in reason else f"{name}: {reason}", _LONGEST_VALUE))
        return f'<figure class="missing">{shown}</figure>\n'
    if picture is None:
        return ""
    data = base64.b64encode(picture).decode("ascii")
    return f'<figure><img src="data:image/jpeg;base64,{data}" alt="{_write(_cut(name, _LONGEST_VALUE))}"></figure>\n'


def _write(text: str) -> str:
    """Write a text out for HTML: its lines stay, other control characters and halves of characters do not."""
    return escape("\n".join(map(printable, text.splitlines())), quote=True)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
