"""What is embedded: texts, pictures and files of fixed seeds, without duplicates."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

TokenCounter: TypeAlias = Callable[[Sequence[str]], list[int]]

MIN_IMAGE_TOKENS = 16
MAX_IMAGE_TOKENS = 256
_TOKEN_SIDE = 28
_SHORT = (5, 60)
_LONG = (10, 1500)
_FULL_COUNTS = {"W1": 512, "W2": 320, "W3": 256, "W4": 256, "W5": 192, "W6": 64}
TITLES = {
    "W1": "short texts of 5 to 60 tokens under an instruction",
    "W2": "texts of 10 to 1500 tokens, most of them short",
    "W3": "pictures of 16 to 256 tokens",
    "W4": "texts, pictures, and both together, in random order",
    "W5": "one short query a call, under an instruction",
    "W6": "JPEG files of 1 to 24 megapixels",
}


@dataclass(frozen=True)
class Item:
    """One thing to embed; an image is a picture in memory or the path of a file."""

    text: str | None = None
    image: Image.Image | str | None = None

    @property
    def input(self) -> object:
        """The item as ``encode`` takes it."""
        if self.text is None:
            return self.image
        # The order counts where sentence-transformers itself writes the message.
        return self.text if self.image is None else {"image": self.image, "text": self.text}


@dataclass(frozen=True)
class Workload:
    """One call of ``encode``, or one for each item.

    Attributes:
        name: Key in ``TITLES``.
        items: What is embedded.
        prompt: The instruction.
        one_by_one: Whether every item is a call of its own.
    """

    name: str
    items: list[Item]
    prompt: str | None = None
    one_by_one: bool = False

    @property
    def inputs(self) -> list[Any]:
        """The items as ``encode`` takes them."""
        return [item.input for item in self.items]


@dataclass(frozen=True)
class Limits:
    """What a family takes.

    Attributes:
        longest_text: Most tokens of a text, instruction included.
        instruction: Tokens of the instruction.
    """

    longest_text: int = _LONG[1]
    instruction: int = 30


class Author:
    """Writes texts of a given number of tokens, none of them twice.

    Args:
        count_tokens: Returns how many tokens each of some words becomes.
        seed: Decides every text.
    """

    def __init__(self, count_tokens: TokenCounter, seed: int) -> None:
        self._random = random.Random(seed)
        words = sorted({self._word() for _ in range(3000)})
        self._words = list(zip(words, count_tokens([f" {word}" for word in words]), strict=True))
        self._written: set[str] = set()

    def _word(self) -> str:
        syllables = self._random.randint(1, 4)
        return "".join(self._random.choice("bcdfghklmnprstvz") + self._random.choice("aeiou") for _ in range(syllables))

    def write(self, tokens: int) -> str:
        """Return a new text of about ``tokens`` tokens, and never more."""
        while True:
            words: list[str] = []
            left = tokens
            while fitting := [(word, cost) for word, cost in self._random.sample(self._words, 20) if cost <= left]:
                word, cost = fitting[0]
                words.append(word)
                left -= cost
            if (text := " ".join(words)) and text not in self._written:
                self._written.add(text)
                return text


def build(name: str, count_tokens: TokenCounter, limits: Limits, scale: float, folder: Path) -> Workload:
    """Make a workload.

    Args:
        name: Key in ``TITLES``.
        count_tokens: Returns how many tokens each of some words becomes.
        limits: What the family takes.
        scale: Fraction of the full number of items.
        folder: Where files are written to, and found again.

    Returns:
        The same workload for the same arguments.
    """
    number = int(name[1:])
    author = Author(count_tokens, number)
    count = max(3, round(_FULL_COUNTS[name] * scale))
    if name in ("W1", "W5"):
        prompt = author.write(limits.instruction) + ": "
        items = [Item(text) for text in _short_texts(author, count, limits)]
        return Workload(name, items, prompt, one_by_one=name == "W5")
    if name == "W2":
        return Workload(name, [Item(author.write(tokens)) for tokens in _tailed_lengths(count, limits)])
    if name == "W3":
        return Workload(name, [Item(image=image) for image in pictures(count, number)])
    if name == "W4":
        return Workload(name, _mixed(author, count, limits, number))
    return Workload(name, [Item(image=str(path)) for path in photos(folder, count, number)])


def _short_texts(author: Author, count: int, limits: Limits) -> list[str]:
    longest = min(_SHORT[1], limits.longest_text - limits.instruction - 2)
    lengths = np.linspace(_SHORT[0], longest, count).round().astype(int).tolist()
    random.Random(count).shuffle(lengths)
    return [author.write(tokens) for tokens in lengths]


def _tailed_lengths(count: int, limits: Limits) -> list[int]:
    """Quantiles of a lognormal distribution with a median of 40 tokens, shuffled."""
    quantiles = [NormalDist(np.log(40), 1.3).inv_cdf((place + 0.5) / count) for place in range(count)]
    lengths = np.exp(quantiles).clip(_LONG[0], limits.longest_text).round().astype(int).tolist()
    random.Random(count).shuffle(lengths)
    return lengths


def _mixed(author: Author, count: int, limits: Limits, seed: int) -> list[Item]:
    texts, images = _short_texts(author, count, limits), pictures(count, seed)
    kinds = [
        Item(text if place % 3 != 1 else None, image if place % 3 else None)
        for place, (text, image) in enumerate(zip(texts, images, strict=True))
    ]
    random.Random(count).shuffle(kinds)
    return kinds


def pictures(count: int, seed: int) -> list[Image.Image]:
    """Return pictures of various shapes, of 16 to 256 squares of 28 pixels, and none of them a whole number."""
    generator = np.random.default_rng(seed)
    made: list[Image.Image] = []
    for squares in generator.permutation(np.geomspace(MIN_IMAGE_TOKENS + 4, MAX_IMAGE_TOKENS - 4, count)):
        ratio = np.exp(generator.uniform(-0.5, 0.5))
        width, height = (int(_TOKEN_SIDE * np.sqrt(squares * side)) for side in (ratio, 1 / ratio))
        made.append(picture(generator, width, height))
    return made


def picture(generator: np.random.Generator, width: int, height: int) -> Image.Image:
    """Return a picture like a photo: soft shapes, smaller ones on them, and the noise of a sensor."""
    large, small = (
        Image.fromarray(generator.integers(0, 256, (height // step + 2, width // step + 2, 3), dtype=np.uint8)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for step in (max(width, height) // 4, 16)
    )
    pixels = np.asarray(Image.blend(large, small, 0.25), dtype=np.int16)
    grain = generator.normal(0, 4, (256, 256, 3)).astype(np.int16)
    repeats = (height // 256 + 1, width // 256 + 1, 1)
    return Image.fromarray((pixels + np.tile(grain, repeats)[:height, :width]).clip(0, 255).astype(np.uint8))


def photos(folder: Path, count: int, seed: int) -> list[Path]:
    """Write JPEG files of 1 to 24 megapixels, and return their paths; those that are there are kept.

    Args:
        folder: Where to.
        count: How many.
        seed: Decides every picture.

    Returns:
        The paths, in an order that has nothing to do with their sizes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:03}.jpg" for number in range(count)]
    generator = np.random.default_rng(seed)
    for path, megapixels in zip(paths, generator.permutation(np.geomspace(1, 24, count)), strict=True):
        if not path.exists():
            long, short = (int(1000 * np.sqrt(megapixels * side)) for side in (4 / 3, 3 / 4))
            size = (long, short) if generator.random() < 0.7 else (short, long)
            picture(generator, *size).save(path, quality=90)
    return paths
