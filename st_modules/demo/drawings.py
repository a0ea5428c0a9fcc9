"""Pictures of scenes, drawn by code: the same scene and seed give the same picture anywhere."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

from PIL import Image, ImageDraw

from st_modules.demo.scenes import BACKGROUNDS, COLOURS, Scene

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


@dataclass(frozen=True)
class Stroke:
    """A filled shape.

    Attributes:
        points: The corners of a polygon; of a disc those of the box around it.
        fill: Its colour.
        is_disc: Whether it is a disc.
    """

    points: list[Point]
    fill: Colour
    is_disc: bool = False


@dataclass(frozen=True)
class Sketch:
    """What a picture is painted of, before it is made smaller.

    Attributes:
        size: Width and height.
        ground: The colour of the background.
        strokes: The shapes, in order.
    """

    size: tuple[int, int]
    ground: Colour
    strokes: list[Stroke]


def draw(scene: Scene, seed: int = 0) -> Image.Image:
    """Paint a scene.

    Args:
        scene: What to paint.
        seed: Varies what a scene leaves open: the picture's size and aspect ratio, the exact tones, places and
            angles. The same scene and seed give the same picture.

    Returns:
        An anti-aliased RGB picture with sides between 96 and 224 pixels.
    """
    plan = sketch(scene, seed)
    big = Image.new("RGB", plan.size, plan.ground)
    pen = ImageDraw.Draw(big)
    for stroke in plan.strokes:
        paint = pen.ellipse if stroke.is_disc else pen.polygon
        paint(stroke.points, fill=stroke.fill)
    return big.reduce(_SUPERSAMPLE)


def sketch(scene: Scene, seed: int = 0) -> Sketch:
    """Lay out the picture that `draw` paints of a scene, three times as large."""
    rng = random.Random(f"{scene} {seed}")
    width, height = _canvas(rng)
    ground = _tone(BACKGROUNDS[scene.background], rng)
    size = (width * _SUPERSAMPLE, height * _SUPERSAMPLE)
    radius = _RADII[scene.size, scene.count] * min(size) * rng.uniform(0.92, 1.08)
    fill = _tone(COLOURS[scene.colour], rng)
    strokes: list[Stroke] = []
    for centre in _centres(scene, size, radius, rng):
        strokes += _stamp(scene.shape, centre, radius, math.radians(rng.uniform(-9, 9)), fill, ground)
    return Sketch(size, ground, strokes)


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


def _stamp(shape: str, centre: Point, radius: float, angle: float, fill: Colour, ground: Colour) -> Iterator[Stroke]:
    def disc(x: float, y: float, r: float, colour: Colour) -> Stroke:
        return Stroke([(x - r, y - r), (x + r, y + r)], colour, is_disc=True)

    if shape in _OUTLINES:
        yield Stroke([_turn(point, centre, radius, angle) for point in _OUTLINES[shape]], fill)
        return
    yield disc(*centre, radius * 0.95, fill)
    if shape == "ring":
        yield disc(*centre, radius * 0.52, ground)
    if shape == "moon":
        yield disc(*_turn((0.42, -0.12), centre, radius, angle), radius * 0.78, ground)


def _turn(point: Point, centre: Point, radius: float, angle: float) -> Point:
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
