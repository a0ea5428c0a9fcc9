"""Drawings for the examples, which the model that ships with the package knows.

Run it to make what the pages on LangChain and LlamaIndex in docs/ use: ``pictures/`` and ``report.pdf``.
"""

from __future__ import annotations

from pathlib import Path

from pages import write_pdf

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene

SCENES = {
    "red_circle.png": Scene("circle", "red", "large", 1, "center", "white"),
    "blue_circle.png": Scene("circle", "blue", "large", 1, "center", "white"),
    "green_star.png": Scene("star", "green", "large", 1, "center", "black"),
    "blue_star.png": Scene("star", "blue", "large", 1, "center", "white"),
    "purple_heart.png": Scene("heart", "purple", "small", 1, "top", "white"),
}
QUERY = "query.png"
"""Another red circle, to ask with."""


def draw_pictures(folder: Path) -> list[Path]:
    """Draw the pictures, and the one to ask with, into a folder.

    Returns:
        The paths of the pictures, without the one to ask with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw(SCENES["red_circle.png"], seed=9).save(folder / QUERY)
    for name, scene in SCENES.items():
        draw(scene).save(folder / name)
    return [folder / name for name in SCENES]


if __name__ == "__main__":
    draw_pictures(Path("pictures"))
    write_pdf(Path("report.pdf"))
