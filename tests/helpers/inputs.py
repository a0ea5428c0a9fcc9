"""Pictures and texts of several lengths, how many tokens they are, and the plain way of embedding them."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

from st_modules import EncodeOptions, SentenceTransformer
from tests.helpers.paths import GOLDEN

OFF = EncodeOptions(**{field.name: False for field in dataclasses.fields(EncodeOptions)})
"""Nothing of what saves work."""

PICTURES = [GOLDEN / "gme" / "images" / f"{name}.png" for name in ("square", "wide", "tall", "small", "gray")]


def tokens(model: SentenceTransformer, inputs: list[Any], prompt: str | None = None) -> list[int]:
    backbone: Any = model[0]
    return [len(row.ids) for row in backbone.plan(model.parse(inputs), prompt)]


def texts(count: int, longest: int = 40) -> list[str]:
    words = random.Random(count)
    return [" ".join(words.choice(["cat", "dog", "red", "car"]) for _ in range(n % longest + 1)) for n in range(count)]
