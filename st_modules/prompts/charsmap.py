"""SentencePiece's normalisation of texts, as SentencePiece itself does it.

A ``tokenizer.json`` has SentencePiece's table of replacements as a step ``Precompiled``, which the library tokenizers
applies to clusters of characters: it leaves long clusters as they are, and loses what follows a replaced character in
a short one. Texts whose accents and syllables are in parts (NFD) become other tokens by that. SentencePiece replaces
the longest match at each place (``Normalizer::NormalizePrefix``), as transformers' slow tokenizers do.
"""

from __future__ import annotations

import base64
import json
import re
from array import array
from collections.abc import Mapping
from itertools import product
from typing import Any

from tokenizers import Regex, normalizers
from tokenizers.normalizers import Normalizer

_PRINTABLE = [chr(number) for number in range(32, 127)]
# Characters of ASCII that nothing else follows need no look.
_OTHERS = re.compile(r"[ -~]?[^ -~]+")
_ALL = re.compile(".+", re.DOTALL)
# Of characters that a match has. Those of the published table have four at most.
_LONGEST = 64
_MOST_INERT = 2**16


class Charsmap:
    """Replaces the longest match of SentencePiece's table at each place of a text.

    The table is a trie in a double array (Darts): a unit has the byte that leads to it in its lowest eight bits, the
    ninth bit where a match ends with it, and the way to what follows above. A unit with the highest bit is the place of
    a replacement.

    Args:
        charsmap: The table: its size in bytes, the units, the replacements.
    """

    def __init__(self, charsmap: bytes) -> None:
        size = int.from_bytes(charsmap[:4], "little")
        self._units = array("I", charsmap[4 : 4 + size])
        self._replacements = charsmap[4 + size :]
        # Characters that no match begins with: of most texts nearly all.
        self._inert: set[str] = set()
        ascii_alone = any(self._match("".join(pair), 0) for pair in product(_PRINTABLE, repeat=2))
        self._runs = _ALL if ascii_alone else _OTHERS

    def __call__(self, text: str) -> str:
        """Return a text with every match replaced."""
        parts: list[str] = []
        done = 0
        for run in self._runs.finditer(text):
            place = max(run.start(), done)
            while place < run.end():
                match = None if text[place] in self._inert else self._match(text, place)
                if match is None:
                    place += 1
                    continue
                end, replacement = match
                parts += [text[done:place], replacement]
                place = done = end
        return "".join([*parts, text[done:]]) if parts else text

    def _match(self, text: str, start: int) -> tuple[int, str] | None:
        """Return where the longest match at a place ends, and what replaces it."""
        units, found = self._units, None
        node = _offset(units[0])
        for end in range(start, min(start + _LONGEST, len(text))):
            unit = 0
            for byte in text[end].encode():
                node ^= byte
                unit = units[node]
                if unit & 0x800000FF != byte:
                    if end == start and len(self._inert) < _MOST_INERT:
                        self._inert.add(text[start])
                    return found and (found[0], self._replacement(found[1]))
                node ^= _offset(unit)
            if unit & 256:
                found = end + 1, units[node] & 0x7FFFFFFF
        return found and (found[0], self._replacement(found[1]))

    def _replacement(self, place: int) -> str:
        return self._replacements[place : self._replacements.index(0, place)].decode()


def take_charsmap(tokenizer: Any) -> Charsmap | None:
    """Take the step ``Precompiled`` out of a tokenizer's normalizer, in place, and return what does it right.

    Args:
        tokenizer: A fast tokenizer of transformers.

    Returns:
        What texts are to be given to before the tokenizer; ``None`` where it has no such step.
    """
    backend = tokenizer.backend_tokenizer
    stated = json.loads(backend.to_str())["normalizer"]
    steps: list[dict[str, Any]] = [] if stated is None else stated.get("normalizers", [stated])
    if not steps or steps[0]["type"] != "Precompiled":
        return None
    backend.normalizer = normalizers.Sequence([_build(step) for step in steps[1:]])
    return Charsmap(base64.b64decode(steps[0]["precompiled_charsmap"]))


def _build(step: Mapping[str, Any]) -> Normalizer:
    if step["type"] == "Strip":
        # SentencePiece strips spaces alone, and the library what Rust takes for white space.
        ends = [end for side, end in (("strip_left", r"\A +"), ("strip_right", r" +\z")) if step[side]]
        return normalizers.Sequence([normalizers.Replace(Regex(end), "") for end in ends])
    sequence = normalizers.Sequence([])
    sequence.__setstate__(json.dumps({"type": "Sequence", "normalizers": [step]}).encode())
    return sequence


def _offset(unit: int) -> int:
    return (unit >> 10) << ((unit & 512) >> 6)
