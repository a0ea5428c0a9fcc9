"""Pictures drawn by code, what they are called, and how one is turned into another.

A `Scene` says what is on a picture. `draw` paints it, `caption` and
`paraphrase` describe it, `edits` lists the single changes that lead to other scenes. Everything is a function
of its arguments and a seed, so a gallery can be repeated anywhere.

Some combinations of attributes are held out: `is_held_out` is true for scenes whose shape and colour, or colour
and background, never appear together in the training data of the embedded model, and for one in ten of the rest.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from PIL import Image, ImageDraw

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring", "moon")
COLOURS = {
    "red": (214, 32, 38),
    "orange": (250, 140, 16),
    "yellow": (250, 220, 40),
    "green": (34, 150, 64),
    "blue": (32, 84, 212),
    "purple": (128, 44, 168),
    "pink": (248, 132, 182),
    "brown": (122, 74, 36),
    "black": (14, 14, 16),
    "white": (250, 250, 250),
}
BACKGROUNDS = {
    "white": (252, 252, 252),
    "black": (10, 10, 12),
    "grey": (148, 148, 148),
    "yellow": (252, 226, 70),
    "blue": (48, 104, 220),
}
SIZES = ("small", "large")
COUNTS = (1, 2, 3)
POSITIONS = ("center", "left", "right", "top", "bottom")

HELD_OUT_SHAPES = frozenset(
    (shape, colour) for i, shape in enumerate(SHAPES) for j, colour in enumerate(COLOURS) if (j - i) % len(COLOURS) == 3
)
"""Shape and colour pairs that no training picture shows: one colour of each shape."""

HELD_OUT_BACKGROUNDS = frozenset(
    {("red", "grey"), ("orange", "black"), ("green", "white"), ("purple", "yellow"), ("pink", "blue")}
)
"""Colour and background pairs that no training picture shows."""


@dataclass(frozen=True)
class Scene:
    """What is on a picture: `count` equal shapes of one colour somewhere on a plain background."""

    shape: str
    colour: str
    size: str
    count: int
    position: str
    background: str

    @property
    def is_visible(self) -> bool:
        """False when the shapes have the background's colour."""
        return self.colour != self.background


VALUES: dict[str, Sequence[str | int]] = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": SIZES,
    "count": COUNTS,
    "position": POSITIONS,
    "background": tuple(BACKGROUNDS),
}
"""Every attribute of a scene and the values that it takes."""


def is_held_out(scene: Scene) -> bool:
    """Whether the embedded model was trained without this scene."""
    if (scene.shape, scene.colour) in HELD_OUT_SHAPES or (scene.colour, scene.background) in HELD_OUT_BACKGROUNDS:
        return True
    return zlib.crc32(repr(scene).encode()) % 10 == 0


def has_unseen_pair(scene: Scene) -> bool:
    """Whether the scene joins two attributes that no training picture shows together."""
    return (scene.shape, scene.colour) in HELD_OUT_SHAPES or (scene.colour, scene.background) in HELD_OUT_BACKGROUNDS


def random_scene(rng: random.Random) -> Scene:
    """A visible scene with every attribute chosen by `rng`."""
    while True:
        values: dict[str, Any] = {name: rng.choice(values) for name, values in VALUES.items()}
        scene = Scene(**values)
        if scene.is_visible:
            return scene


def random_scenes(seed: int, n: int, held_out: bool | None = None) -> list[Scene]:
    """`n` different scenes.

    Args:
        seed: The same seed gives the same scenes.
        n: How many.
        held_out: True for scenes that training left out, False for the others, None for either.
    """
    rng = random.Random(seed)
    scenes: dict[Scene, None] = {}
    while len(scenes) < n:
        scene = random_scene(rng)
        if held_out is None or is_held_out(scene) == held_out:
            scenes[scene] = None
    return list(scenes)


def neighbours(scene: Scene) -> list[Scene]:
    """Every visible scene that differs from `scene` in exactly one attribute."""
    changed = (replace(scene, **{name: value}) for name, values in VALUES.items() for value in values)
    return [other for other in changed if other != scene and other.is_visible]


def changed_attribute(before: Scene, after: Scene) -> str:
    """The name of the one attribute in which two neighbours differ."""
    (name,) = (f.name for f in fields(Scene) if getattr(before, f.name) != getattr(after, f.name))
    return name


# ---------------------------------------------------------------------------------------------------- words

WORDS: dict[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "dot"),
    "square": ("square", "box"),
    "triangle": ("triangle",),
    "star": ("star",),
    "heart": ("heart",),
    "diamond": ("diamond", "rhombus"),
    "cross": ("cross", "plus sign"),
    "ring": ("ring", "hoop"),
    "moon": ("moon", "crescent"),
    "red": ("red",),
    "orange": ("orange",),
    "yellow": ("yellow",),
    "green": ("green",),
    "blue": ("blue",),
    "purple": ("purple", "violet"),
    "pink": ("pink",),
    "brown": ("brown",),
    "black": ("black",),
    "white": ("white",),
    "grey": ("grey", "gray"),
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
    "1": ("a", "one", "1", "a single"),
    "2": ("two", "2", "a pair of"),
    "3": ("three", "3"),
    "center": ("in the center", "in the middle", "at the centre", "centered"),
    "left": ("on the left", "on the left side", "at the left"),
    "right": ("on the right", "on the right side", "at the right"),
    "top": ("at the top", "on top", "in the upper part"),
    "bottom": ("at the bottom", "on the bottom", "in the lower part"),
}
"""The ways to say each value of an attribute, the usual one first."""

Choose = Callable[[Sequence[str]], str]


def _first(words: Sequence[str]) -> str:
    return words[0]


def _plural(word: str) -> str:
    if word == "plus sign":
        return "plus signs"
    return word + ("es" if word.endswith(("s", "x")) else "s")


def _noun(scene: Scene, choose: Choose) -> str:
    word = choose(WORDS[scene.shape])
    return word if scene.count == 1 else _plural(word)


def _article(phrase: str) -> str:
    article, _, rest = phrase.partition(" ")
    return f"an {rest}" if article == "a" and rest[0] in "aeiou" else phrase


def caption(scene: Scene) -> str:
    """The plain description of a scene, with all of its attributes."""
    return _sentence(scene, _first)


def _sentence(scene: Scene, choose: Choose) -> str:
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    what = _article(f"{count} {size} {colour} {_noun(scene, choose)}")
    return f"{what} {choose(WORDS[scene.position])} on a {choose(WORDS[scene.background])} background"


def _short(scene: Scene, choose: Choose) -> str:
    count = "" if scene.count == 1 else choose(WORDS[str(scene.count)]) + " "
    what = f"{count}{choose(WORDS[scene.size])} {choose(WORDS[scene.colour])} {_noun(scene, choose)}"
    return f"{what} on {choose(WORDS[scene.background])}, {choose(WORDS[scene.position])}"


def _listed(scene: Scene, choose: Choose) -> str:
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    background, position = choose(WORDS[scene.background]), choose(WORDS[scene.position])
    return f"{count} {colour} {_noun(scene, choose)}, {size}, {position}, {background} background"


def _background_first(scene: Scene, choose: Choose) -> str:
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    what = _article(f"{count} {size} {colour} {_noun(scene, choose)}")
    return f"on a {choose(WORDS[scene.background])} background {choose(WORDS[scene.position])}: {what}"


def _told(scene: Scene, choose: Choose) -> str:
    verb = "is" if scene.count == 1 else "are"
    count, size, colour = (choose(WORDS[str(v)]) for v in (scene.count, scene.size, scene.colour))
    what = _article(f"{count} {size} {colour} {_noun(scene, choose)}")
    return f"{choose(WORDS[scene.position])} there {verb} {what}, the background is {choose(WORDS[scene.background])}"


_SENTENCES = (_sentence, _sentence, _short, _listed, _background_first, _told)
_OPENINGS = ("", "", "", "", "a picture of ", "a drawing of ", "an image with ", "show me ", "i want to see ")


def paraphrase(scene: Scene, rng: random.Random) -> str:
    """The same description in other words, another order or another case."""
    sentence = rng.choice(_SENTENCES)
    text = sentence(scene, rng.choice)
    if sentence in (_sentence, _short):
        text = rng.choice(_OPENINGS) + text
    return _in_some_case(text, rng)


def partial_caption(scene: Scene, names: Sequence[str], rng: random.Random) -> str:
    """A description that tells the shape and the attributes in `names` and is silent about the others."""
    count = rng.choice(WORDS[str(scene.count)]) if "count" in names else ("some" if scene.count > 1 else "a")
    words = [count, *(rng.choice(WORDS[str(getattr(scene, n))]) for n in ("size", "colour") if n in names)]
    text = _article(" ".join([*words, _noun(scene, rng.choice)]))
    if count == "a" and rng.random() < 0.3:
        text = text.partition(" ")[2]
    if "position" in names:
        text += " " + rng.choice(WORDS[scene.position])
    if "background" in names:
        colour = rng.choice(WORDS[scene.background])
        text += " " + rng.choice((f"on a {colour} background", f"on {colour}"))
    return _in_some_case(text, rng)


def _in_some_case(text: str, rng: random.Random) -> str:
    roll = rng.random()
    if roll < 0.2:
        text = text[0].upper() + text[1:]
    elif roll < 0.22:
        text = text.upper()
    elif roll < 0.24:
        text = text.title()
    return text + "." if rng.random() < 0.15 else text


# ---------------------------------------------------------------------------------------------------- edits

_EDITS: dict[str, tuple[str, ...]] = {
    "shape": ("as {a} {new}", "make it {a} {new}", "turn it into {a} {new}", "{a} {new} instead"),
    "colour": ("make it {new}", "in {new}", "paint it {new}", "change the color to {new}", "{new} instead"),
    "size": ("make it {new}", "{new} instead", "but {new}"),
    "position": ("move it to the {new}", "put it {at}", "now {at}"),
    "background": ("on a {new} background", "make the background {new}", "with a {new} background"),
}
_COUNT_EDITS = {
    1: ("just one of them", "only one", "a single one"),
    2: ("two of them", "make it two", "a pair of them"),
    3: ("three of them", "make it three", "now three"),
}


def edit(before: Scene, after: Scene, choose: Choose = _first) -> str:
    """What to say to turn a scene into one of its neighbours, as in "make it blue".

    Args:
        before: The scene that is changed.
        after: The scene that is wanted; it differs in one attribute.
        choose: Picks one of several wordings; the default takes the usual one, `rng.choice` any.
    """
    name = changed_attribute(before, after)
    if name == "count":
        return choose(_COUNT_EDITS[after.count])
    words = WORDS[str(getattr(after, name))]
    new = str(after.position) if name == "position" else choose(words)
    text = choose(_EDITS[name]).format(new=new, at=choose(words), a="a")
    if after.count > 1 and name == "shape":
        text = text.replace(f"a {new}", _plural(new))
    return text if before.count == 1 else text.replace(" it ", " them ")


def edits(scene: Scene) -> list[tuple[str, Scene]]:
    """Every single change of a scene: what to say, and the scene that it leads to."""
    return [(edit(scene, other), other) for other in neighbours(scene)]


# -------------------------------------------------------------------------------------------------- drawing

_SUPERSAMPLE = 3
_RADII = {
    ("large", 1): 0.27,
    ("large", 2): 0.21,
    ("large", 3): 0.155,
    ("small", 1): 0.13,
    ("small", 2): 0.11,
    ("small", 3): 0.09,
}
_ANCHORS = {"center": (0.5, 0.5), "left": (0.25, 0.5), "right": (0.75, 0.5), "top": (0.5, 0.25), "bottom": (0.5, 0.75)}
Point = tuple[float, float]
Colour = tuple[int, int, int]


def draw(scene: Scene, seed: int = 0) -> Image.Image:
    """Paint a scene.

    Args:
        scene: What to paint.
        seed: Varies what a scene leaves open: the picture's size and aspect ratio, the exact tones, places and
            angles. The same scene and seed give the same picture.

    Returns:
        An anti-aliased RGB picture with sides between 96 and 224 pixels.
    """
    rng = random.Random(f"{scene} {seed}")
    width, height = _canvas(rng)
    ground = _tone(BACKGROUNDS[scene.background], rng)
    big = Image.new("RGB", (width * _SUPERSAMPLE, height * _SUPERSAMPLE), ground)
    pen = ImageDraw.Draw(big)
    radius = _RADII[scene.size, scene.count] * min(big.size) * rng.uniform(0.92, 1.08)
    fill = _tone(COLOURS[scene.colour], rng)
    for centre in _centres(scene, big.size, radius, rng):
        _stamp(pen, scene.shape, centre, radius, math.radians(rng.uniform(-9, 9)), fill, ground)
    return big.reduce(_SUPERSAMPLE)


def _canvas(rng: random.Random) -> tuple[int, int]:
    area = rng.uniform(120, 170) ** 2
    aspect = math.exp(rng.uniform(-0.45, 0.45))
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def _tone(colour: Colour, rng: random.Random) -> Colour:
    red, green, blue = (min(255, max(0, channel + rng.randint(-10, 10))) for channel in colour)
    return red, green, blue


def _centres(scene: Scene, canvas: tuple[int, int], radius: float, rng: random.Random) -> list[Point]:
    slack, step = 0.02 * min(canvas), 2.2 * radius
    upright = scene.position in ("left", "right")
    spread = (scene.count - 1) / 2 * step
    x, y = (
        _inside(fraction * side + rng.uniform(-slack, slack), radius + (spread if along else 0.0), side)
        for fraction, side, along in zip(_ANCHORS[scene.position], canvas, (not upright, upright), strict=True)
    )
    offsets = [i * step - spread for i in range(scene.count)]
    return [(x, y + offset) if upright else (x + offset, y) for offset in offsets]


def _inside(place: float, reach: float, side: int) -> float:
    return side / 2 if 2 * reach > side else min(max(place, reach), side - reach)


def _stamp(
    pen: ImageDraw.ImageDraw, shape: str, centre: Point, radius: float, angle: float, fill: Colour, ground: Colour
) -> None:
    def disc(x: float, y: float, r: float, colour: Colour) -> None:
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    x, y = centre
    if shape in _OUTLINES:
        pen.polygon([_turned(point, centre, radius, angle) for point in _OUTLINES[shape]], fill=fill)
        return
    disc(x, y, radius * 0.95, fill)
    if shape == "ring":
        disc(x, y, radius * 0.52, ground)
    if shape == "moon":
        disc(*_turned((0.42, -0.12), centre, radius, angle), radius * 0.78, ground)


def _turned(point: Point, centre: Point, radius: float, angle: float) -> Point:
    px, py = point
    cos, sin = math.cos(angle), math.sin(angle)
    return centre[0] + radius * (px * cos - py * sin), centre[1] + radius * (px * sin + py * cos)


def _star() -> list[Point]:
    corners = ((1.05 if i % 2 == 0 else 0.42, math.pi * i / 5) for i in range(10))
    return [(r * math.sin(a), -r * math.cos(a)) for r, a in corners]


def _heart() -> list[Point]:
    turns = [2 * math.pi * i / 60 for i in range(60)]
    return [
        (math.sin(t) ** 3, -(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) / 16)
        for t in turns
    ]


def _cross(arm: float = 0.32) -> list[Point]:
    corner = [(-arm, -1.0), (arm, -1.0), (arm, -arm)]
    points: list[Point] = []
    for _ in range(4):
        points += corner
        corner = [(-py, px) for px, py in corner]
    return points


_OUTLINES: dict[str, list[Point]] = {
    "square": [(-0.82, -0.82), (0.82, -0.82), (0.82, 0.82), (-0.82, 0.82)],
    "triangle": [(0.0, -1.0), (0.98, 0.8), (-0.98, 0.8)],
    "diamond": [(0.0, -1.08), (0.78, 0.0), (0.0, 1.08), (-0.78, 0.0)],
    "star": _star(),
    "heart": _heart(),
    "cross": _cross(),
}
