"""Texts as UniIR writes them and OpenAI's CLIP reads them: one form for all, before a tokenizer sees them.

UniIR makes a sentence of every text. OpenAI's tokenizer then mends what was decoded wrongly (ftfy), writes out HTML's
character references, collapses white space and lower-cases. transformers' tokenizer does the last two of these alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from ftfy import TextFixerConfig, fix_text

from st_modules.errors import InputError, Place

_LINE = 512
"""Longest stretch that ftfy is given: its time grows with the square of the length for some texts (20 ms for these)."""
_MOST_READ = 2**15
"""Characters of a text that are cleaned at most, which takes three seconds for the worst."""
_ENOUGH = 2**11
"""Characters of clean text that are more than CLIP's 77 tokens, the longest of which have 24 and a space."""
_LONG_SPACE = re.compile(r"\s{129,}")
_KEPT = 64
_SPACE = re.compile(r"\s+")


def write_sentence(text: str) -> str:
    """Write a text as UniIR does: without white space and double quotes around it, with a capital and a full stop.

    The empty text stays empty.
    """
    text = text.replace("\r", "").strip().strip('"')
    if not text:
        return ""
    return text[0].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


def clean(text: str, place: Place | str) -> str:
    """Return a text as OpenAI's tokenizer splits it into words.

    Args:
        text: The text. Of a line of over 512 characters ftfy sees as many at a time.
        place: Where it stands, for errors.

    Returns:
        The clean text; of a long text a beginning that is too long for CLIP.

    Raises:
        InputError: As many characters as are read at most leave too few.
    """
    # White space is collapsed in the end, so that the middle of much of it can be left out before.
    text = _LONG_SPACE.sub(_shorten_space, text)
    config = TextFixerConfig(explain=False)
    fixed: list[str] = []
    length = 0
    for line in _lines(text[:_MOST_READ]):
        # From the first line on that looks like HTML, ftfy leaves its references alone.
        config = config._replace(unescape_html=False) if "<" in line else config
        fixed.append(fix_text(line, config))
        length += len(_unescape(fixed[-1]))
        if length > _ENOUGH:
            break
    else:
        if len(text) > _MOST_READ:
            raise InputError(
                f"a text of {len(text)} characters, of which the first {_MOST_READ} are {length} when they are clean, "
                "too few to tell its first tokens. Pass its beginning, without control characters and references.",
                place,
            )
    return _unescape("".join(fixed)).lower()


def _lines(text: str) -> Iterator[str]:
    # At those line breaks alone at which ftfy itself does.
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        yield from (line[start : start + _LINE] for start in range(0, len(line), _LINE))


def _shorten_space(found: re.Match[str]) -> str:
    # What is a line of its own stays one.
    return found[0][:_KEPT] + ("\n" if "\n" in found[0] else "") + found[0][-_KEPT:]


def _unescape(text: str) -> str:
    return _SPACE.sub(" ", html.unescape(html.unescape(text))).strip()
