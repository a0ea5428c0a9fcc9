"""A domain that the embedded model never saw: a large shape in a coloured frame, and what to say about it.

Some pairs of a shape and a colour are held out: no training picture in a frame shows them. A held-out picture
is asked for among pictures that differ from it in the frame alone, so that nothing but the frame can tell them apart.

    python tools/tiny/framed_data.py shapes

writes the training data of `examples/train_tiny.yaml` to the folder `shapes`.
"""

from __future__ import annotations

import argparse
import json
import random
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from tiny_data import near, training_scene

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import BACKGROUNDS, COLOURS, SHAPES, Scene, is_held_out
from st_modules.demo.wording import WORDS, edit, paraphrase

ROWS, SEED = 2000, 7
FRAMES = ("red", "orange", "green", "blue", "purple", "pink")
"""The colours of frames."""


@dataclass(frozen=True)
class Icon:
    """What is on a picture: one large shape on a plain background, in a frame."""

    shape: str
    colour: str
    frame: str
    background: str

    @property
    def is_held_out(self) -> bool:
        """Whether training leaves the icon out."""
        return zlib.crc32(f"{self.shape} {self.colour}".encode()) % 5 == 0

    @property
    def scene(self) -> Scene:
        """The same without its frame."""
        return Scene(self.shape, self.colour, "large", 1, "center", self.background)


ICONS = [
    Icon(shape, colour, frame, background)
    for shape in SHAPES
    for colour in COLOURS
    for frame in FRAMES
    for background in BACKGROUNDS
    if background not in (colour, frame)
]
TRAINING = [icon for icon in ICONS if not icon.is_held_out]


def paint(icon: Icon, seed: int) -> Image.Image:
    """Draw an icon; the same icon and seed give the same picture."""
    picture = draw(icon.scene, seed)
    rng = random.Random(f"{icon} {seed}")
    width = round(min(picture.size) * rng.uniform(0.08, 0.12))
    tone = tuple(min(255, max(0, channel + rng.randint(-10, 10))) for channel in COLOURS[icon.frame])
    ImageDraw.Draw(picture).rectangle((0, 0, picture.width - 1, picture.height - 1), outline=tone, width=width)
    return picture


def describe(icon: Icon, rng: random.Random) -> str:
    """A description of an icon, in one of several wordings."""
    frame, colour, shape, background = (
        rng.choice(WORDS[word]) for word in (icon.frame, icon.colour, icon.shape, icon.background)
    )
    form = rng.choice(
        (
            "a {colour} {shape} on a {background} background in a {frame} frame",
            "{colour} {shape} on {background} with a {frame} frame",
            "a large {colour} {shape}, {background} background, {frame} frame",
            "framed in {frame}: a {colour} {shape} on {background}",
        )
    )
    return form.format(frame=frame, colour=colour, shape=shape, background=background)


def change(icon: Icon, rng: random.Random) -> tuple[str, Icon]:
    """Another frame for an icon: what to say, and the icon in it."""
    frame = rng.choice([each for each in FRAMES if each not in (icon.frame, icon.background)])
    said = rng.choice(WORDS[frame])
    return rng.choice(("make the frame {}", "a {} frame instead", "now in a {} frame")).format(said), replace(
        icon, frame=frame
    )


def write_training_data(folder: Path, rows: int, seed: int) -> None:
    """Draw training pictures, and write JSONL files about them.

    ``texts.jsonl`` has captions with their pictures and a picture in another frame, ``pictures.jsonl`` the same the
    other way round with a caption of another frame, and ``changes.jsonl`` pictures with a change, the result, and
    the picture itself as drawn anew. ``plain_texts.jsonl``, ``plain_pictures.jsonl`` and ``plain_changes.jsonl`` have
    the same about drawings without a frame, so that what the model knows of those is not forgotten.

    Args:
        folder: Where the pictures and the files go; it is made.
        rows: How many rows each file has.
        seed: Decides all of it.
    """
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    _write(folder, "", _endless(rng, rows), (change, describe, paint), rng)
    plain = (training_scene(rng) for _ in range(rows))
    _write(folder, "plain_", plain, (_plain_change, paraphrase, draw), rng)


def _plain_change(scene: Scene, rng: random.Random) -> tuple[str, Scene]:
    while is_held_out(other := near(scene, rng)):
        pass
    return edit(scene, other, rng.choice), other


def _write(folder: Path, prefix: str, subjects: Iterable[Any], ways: tuple[Any, Any, Any], rng: random.Random) -> None:
    """Draw subjects and write three files about them; the ways are to change, to describe and to draw one."""
    change_, describe_, draw_ = ways
    files: dict[str, list[dict[str, str]]] = {"texts": [], "pictures": [], "changes": []}
    for number, subject in enumerate(subjects):
        text, other = change_(subject, rng)
        names = {name: f"{prefix}{number}_{name}.png" for name in ("icon", "again", "other")}
        for name, what in (("icon", subject), ("again", subject), ("other", other)):
            draw_(what, rng.getrandbits(40)).save(folder / names[name])
        said, said_of_other = describe_(subject, rng), describe_(other, rng)
        files["texts"].append({"caption": said, "image": names["icon"], "other": names["other"]})
        files["pictures"].append({"image": names["again"], "caption": said, "other": said_of_other})
        files["changes"].append(
            {"image": names["icon"], "text": text, "target": names["other"], "again": names["again"]}
        )
    for name, lines in files.items():
        (folder / f"{prefix}{name}.jsonl").write_text(
            "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
        )


def _endless(rng: random.Random, rows: int) -> Iterator[Icon]:
    """Training icons in random order, each as often as the others."""
    pool: list[Icon] = []
    for _ in range(rows):
        pool = pool or rng.sample(TRAINING, len(TRAINING))
        yield pool.pop()


def main() -> None:
    """Write training data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of each file")
    parser.add_argument("--seed", type=int, default=SEED)
    arguments = parser.parse_args()
    write_training_data(arguments.folder, arguments.rows, arguments.seed)


if __name__ == "__main__":
    main()
