"""What the drawings of the demonstration and of the embedded model's training show.

Some scenes are held out: `is_held_out` is true for those whose shape and colour, or colour and background, never appear
together in the training data of the embedded model, and for one in ten of the rest.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

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
