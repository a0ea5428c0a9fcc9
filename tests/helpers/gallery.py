"""A few drawings on disk and what to ask about them, for the tests of the adapters and their stores."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene
from st_modules.demo.wording import caption

SCENES = (
    Scene("circle", "red", "large", 1, "center", "white"),
    Scene("circle", "blue", "large", 1, "center", "white"),
    Scene("star", "green", "large", 1, "center", "black"),
    Scene("star", "blue", "large", 1, "center", "white"),
    Scene("heart", "purple", "small", 1, "top", "white"),
)
CAPTIONS = tuple(caption(scene) for scene in SCENES)
RED_CIRCLE, BLUE_CIRCLE, STAR, BLUE_STAR, HEART = range(len(SCENES))
CHANGE = "make it blue"
"""With the query picture, a red circle, it asks for the blue circle; alone it is nearer to the blue star."""


@dataclass(frozen=True)
class Gallery:
    """Pictures of the scenes, and another picture of the first one to ask with."""

    paths: tuple[Path, ...]
    query: Path

    def base64(self, number: int) -> str:
        return base64.b64encode(self.paths[number].read_bytes()).decode()


def draw_gallery(folder: Path) -> Gallery:
    """Draw the gallery into a folder."""
    paths = tuple(folder / f"{number}.png" for number in range(len(SCENES)))
    for scene, path in zip(SCENES, paths, strict=True):
        draw(scene, seed=3).save(path)
    query = folder / "query.png"
    draw(SCENES[RED_CIRCLE], seed=9).save(query)
    return Gallery(paths, query)
