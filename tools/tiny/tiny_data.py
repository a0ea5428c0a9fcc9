"""Training data of the embedded model: rows of texts, pictures and composed items, each task a data set.

A row stores what to draw, not pixels: pictures are drawn when a batch is read. Most tasks have scenes in families of
near-identical ones, which stay together in a batch, so that every attribute decides between some of the rows; the
first ones to learn have any scenes. A row's label is the attributes of the scene that it is about.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

from datasets import Dataset, Features, List, Value

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import VALUES, Scene, changed_attribute, is_held_out, neighbours, random_scene
from st_modules.demo.wording import caption, edit, paraphrase, partial_caption

PROMPTS = {
    "t2i": "Find an image that matches the given text.",
    "t2t": "Find a text with the same meaning as the given text.",
    "i2t": "Find a text that describes the given image.",
    "it2i": "Find an image that shows the given image with the given change.",
}
"""The instructions that the model is trained with, by the name under which it saves them."""

FAMILY = 8
PLAIN_CAPTIONS = 0.3
_SCENE_VALUES: Iterator[Any] = itertools.product(*VALUES.values())
SCENES = [Scene(*values) for values in _SCENE_VALUES]
NUMBERS = {scene: number for number, scene in enumerate(SCENES)}
LABEL = List(Value("int64"), length=len(VALUES))
ITEM = {"text": Value("string"), "scene": Value("int32"), "seed": Value("int64")}

Spec = dict[str, Any]
Row = dict[str, Any]


def picture(scene: Scene, rng: random.Random) -> Spec:
    """A picture to be drawn."""
    return {"text": None, "scene": NUMBERS[scene], "seed": rng.getrandbits(40)}


def words(scene: Scene, rng: random.Random) -> Spec:
    """A description."""
    text = caption(scene) if rng.random() < PLAIN_CAPTIONS else paraphrase(scene, rng)
    return {"text": text, "scene": None, "seed": None}


def training_scene(rng: random.Random) -> Scene:
    """A random scene that is not held out."""
    while is_held_out(scene := random_scene(rng)):
        pass
    return scene


def near(scene: Scene, rng: random.Random) -> Scene:
    """A scene that differs in one attribute, each attribute being as likely as the others."""
    name = rng.choice(list(VALUES))
    others = [other for other in neighbours(scene) if changed_attribute(scene, other) == name]
    return rng.choice(others) if others else near(scene, rng)


def family(rng: random.Random, taken: set[Scene]) -> list[Scene]:
    """Scenes one or two changes apart, none of which is taken yet."""
    while (base := training_scene(rng)) in taken:
        pass
    members = [base]
    while len(members) < FAMILY:
        other = near(base if rng.random() < 0.7 else rng.choice(members), rng)
        if other not in taken and other not in members and not is_held_out(other):
            members.append(other)
    taken.update(members)
    return members


def circle(rng: random.Random, taken: set[Scene]) -> list[Scene]:
    """Scenes of which each is one change away from the one before, none of them taken yet."""
    while True:
        walk = [training_scene(rng)]
        for _ in range(50):
            if len(walk) > FAMILY:
                break
            other = near(walk[-1], rng)
            if other not in walk and not is_held_out(other):
                walk.append(other)
        if len(walk) > FAMILY and taken.isdisjoint(walk):
            taken.update(walk)
            return walk


def label(scene: Scene) -> list[int]:
    """The scene's attributes, each as the number of its value."""
    return [list(values).index(getattr(scene, name)) for name, values in VALUES.items()]


def families(rng: random.Random, size: int) -> list[Scene]:
    """Scenes of a batch: families that have no scene in common."""
    taken: set[Scene] = set()
    return [scene for _ in range(size // FAMILY) for scene in family(rng, taken)]


def any_scenes(rng: random.Random, size: int) -> list[Scene]:
    """Scenes of a batch: different ones."""
    scenes: dict[Scene, None] = {}
    while len(scenes) < size:
        scenes[training_scene(rng)] = None
    return list(scenes)


def describe_rows(
    *kinds: Callable[[Scene, random.Random], Spec],
    scenes: Callable[[random.Random, int], list[Scene]] = families,
) -> Callable[[random.Random, int], list[Row]]:
    """Build batches whose columns show the same scene, each in its own way."""

    def batch(rng: random.Random, size: int) -> list[Row]:
        return [
            {**dict(zip(COLUMNS, (kind(scene, rng) for kind in kinds), strict=False)), "label": label(scene)}
            for scene in scenes(rng, size)
        ]

    return batch


def compose_rows(with_negative: bool) -> Callable[[random.Random, int], list[Row]]:
    """Build batches of a picture and a change to it, the picture that results, and maybe the result in words."""

    def batch(rng: random.Random, size: int) -> list[Row]:
        taken: set[Scene] = set()
        steps = [step for _ in range(size // FAMILY) for step in itertools.pairwise(circle(rng, taken))]
        rows = []
        for before, after in steps:
            query = picture(before, rng) | {"text": edit(before, after, rng.choice)}
            row: Row = {"anchor": query, "positive": picture(after, rng)}
            if with_negative:
                row["negative"] = words(after, rng)
            rows.append(row | {"label": label(after)})
        return rows

    return batch


def composed_anywhere(rng: random.Random, size: int) -> list[Row]:
    """A batch of pictures and changes to them, and of the pictures that result, of any scenes."""
    rows = []
    for after in any_scenes(rng, size):
        while is_held_out(before := near(after, rng)):
            pass
        query = picture(before, rng) | {"text": edit(before, after, rng.choice)}
        rows.append({"anchor": query, "positive": picture(after, rng), "label": label(after)})
    return rows


def describe_partly(rng: random.Random, size: int) -> list[Row]:
    """A batch of short descriptions and pictures, of which no description fits another row's picture."""
    told: list[tuple[Scene, list[str]]] = []
    while len(told) < size:
        scene = training_scene(rng)
        names = rng.sample([name for name in VALUES if name != "shape"], rng.choice((1, 2, 2, 3, 4)))
        if not any(_fits(scene, other, known) or _fits(other, scene, names) for other, known in told):
            told.append((scene, names))
    return [
        {
            "anchor": {"text": partial_caption(scene, names, rng), "scene": None, "seed": None},
            "positive": picture(scene, rng),
        }
        for scene, names in told
    ]


def _fits(scene: Scene, described_scene: Scene, names: list[str]) -> bool:
    return all(getattr(scene, name) == getattr(described_scene, name) for name in ("shape", *names))


COLUMNS = ("anchor", "positive", "negative")
TASKS: dict[str, Callable[[random.Random, int], list[Row]]] = {
    "t2i_first": describe_rows(words, picture, scenes=any_scenes),
    "it2i_first": composed_anywhere,
    "t2i": describe_rows(words, picture, words),
    "t2i_plain": describe_rows(words, picture),
    "t2t": describe_rows(words, words, picture),
    "i2t": describe_rows(picture, words, picture),
    "it2i": compose_rows(with_negative=True),
    "it2i_plain": compose_rows(with_negative=False),
    "partial": describe_partly,
}
"""The data sets by name; those named like an instruction are trained with it, the others without one."""


def dataset(task: str, batches: int, batch_size: int, seed: int) -> Dataset:
    """The rows of a task, in the order in which they make batches."""
    rng = random.Random(f"{task} {seed}")

    def rows() -> Iterator[Row]:
        for _ in range(batches):
            yield from TASKS[task](rng, batch_size)

    listed = list(rows())
    features = Features({name: LABEL if name == "label" else ITEM for name in listed[0]})
    return Dataset.from_list(listed, features=features).with_transform(_items)


def _items(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: values if name == "label" else [_item(spec) for spec in values] for name, values in batch.items()}


def _item(spec: Spec) -> dict[str, Any]:
    item = {} if spec["text"] is None else {"text": spec["text"]}
    if spec["scene"] is not None:
        item["image"] = draw(SCENES[spec["scene"]], spec["seed"])
    return item
