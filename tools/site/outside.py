"""What the pages of a built site would load from other places."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

_ELSEWHERE = re.compile(r"\s*(?:https?:)?//", re.IGNORECASE)
_IN_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//[^\"')\s]*", re.IGNORECASE)
# A link of one of these is read by nobody before the reader follows it.
_UNREAD = {"alternate", "author", "canonical", "license", "next", "prev"}


def find_outside(site: Path) -> list[str]:
    """Find what the pages and styles of a site load by http: scripts, styles, fonts, pictures and frames.

    Args:
        site: The folder of the built site.

    Returns:
        A line for each, with the file that it is in.
    """
    found: list[str] = []
    for path in sorted(site.rglob("*")):
        if path.suffix == ".html":
            reader = _Reader()
            reader.feed(path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(site)}: {what}" for what in reader.found]
        if path.suffix == ".css":
            styles = _IN_STYLES.findall(path.read_text(encoding="utf-8"))
            found += [f"{path.relative_to(site)}: {what}" for what in styles]
    return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self._in_style = tag == "style"
        loaded = [values[name] for name in ("src", "srcset", "poster", "data") if name in values]
        if tag == "link" and not set(values.get("rel", "").split()) <= _UNREAD:
            loaded.append(values.get("href", ""))
        self.found += [f"<{tag}> {url}" for url in loaded if _ELSEWHERE.match(url)]
        self.found += _IN_STYLES.findall(values.get("style", ""))

    def handle_data(self, data: str) -> None:
        if self._in_style:
            self.found += _IN_STYLES.findall(data)
            self._in_style = False
