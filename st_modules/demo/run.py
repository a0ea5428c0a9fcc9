"""The demonstration: a gallery of drawings, questions with a known answer, and what an index of the gallery answers."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene, changed_attribute, is_held_out, random_scenes
from st_modules.demo.wording import caption, edits

if TYPE_CHECKING:
    import numpy as np

    from st_modules.index import Hit, Index

TEXT, PICTURE, COMPOSED, CAPTION = "text → picture", "picture → picture", "picture + text → picture", "picture → text"
PROMPTS = {TEXT: "t2i", COMPOSED: "it2i", CAPTION: "i2t"}
"""The instruction for each kind of question, by the name that models have for it."""

EDITED = ("colour", "background", "count", "shape", "size")
"""The attributes that the composed questions change, one each."""


@dataclass(frozen=True)
class Question:
    """Something to look up in the gallery.

    Attributes:
        kind: ``TEXT``, ``PICTURE``, ``COMPOSED`` or ``CAPTION``.
        answer: Place in the gallery of the right picture, or for ``CAPTION`` of the right caption.
        text: Its words, if it has any.
        scene: What is on its picture, if it has one.
        picture: The picture; never one of the gallery's own.
    """

    kind: str
    answer: int
    text: str | None = None
    scene: Scene | None = None
    picture: Image.Image | None = None

    @property
    def item(self) -> dict[str, Any]:
        """What the index is asked."""
        return {name: value for name, value in (("text", self.text), ("image", self.picture)) if value is not None}


@dataclass(frozen=True)
class Gallery:
    """Pictures and captions to search, and questions about them.

    Attributes:
        scenes: What is on the pictures.
        pictures: The pictures.
        captions: Their descriptions.
        questions: The questions, grouped by kind.
    """

    scenes: list[Scene]
    pictures: list[Image.Image]
    captions: list[str]
    questions: list[Question]


@dataclass(frozen=True)
class Answer:
    """How a model ranks the gallery for a question.

    Attributes:
        question: The question.
        scores: Similarity to every picture (for ``CAPTION``, every caption) of the gallery.
        ranking: Places in the gallery, the most similar first.
    """

    question: Question
    scores: np.ndarray
    ranking: list[int]

    @property
    def rank(self) -> int:
        """Rank of the right one, from 1."""
        return self.ranking.index(self.question.answer) + 1


def make_gallery(size: int, seed: int) -> Gallery:
    """Draw a gallery and ask about it.

    Every scene is one that the embedded model was trained without. For each composed question the gallery holds
    both the wanted picture and one of the unchanged scene, which a model that ignores the words would prefer.

    Args:
        size: Number of pictures.
        seed: The same size and seed give the same gallery.
    """
    rng = random.Random(seed)
    changes = [_change(attribute, rng) for attribute in EDITED]
    asked = [scene for before, _, after in changes for scene in (before, after)]
    scenes = list(dict.fromkeys([*asked, *random_scenes(seed, size, held_out=True)]))[:size]
    rng.shuffle(scenes)
    pictures, captions = [draw(scene, seed) for scene in scenes], [caption(scene) for scene in scenes]
    return Gallery(scenes, pictures, captions, _questions(scenes, changes, seed + 1, rng))


def _change(attribute: str, rng: random.Random) -> tuple[Scene, str, Scene]:
    """An edit of one attribute: the scene before, the words, the scene after."""
    while True:
        (before,) = random_scenes(rng.randrange(2**32), 1, held_out=True)
        fitting = [
            (words, after)
            for words, after in edits(before)
            if changed_attribute(before, after) == attribute and is_held_out(after)
        ]
        if fitting:
            return before, *rng.choice(fitting)


def _questions(
    scenes: list[Scene], changes: Sequence[tuple[Scene, str, Scene]], seed: int, rng: random.Random
) -> list[Question]:
    def shown(kind: str, place: int) -> Question:
        return Question(kind, place, scene=scenes[place], picture=draw(scenes[place], seed))

    asked = rng.sample(range(len(scenes)), 6)
    texts = [Question(TEXT, place, text=caption(scenes[place])) for place in asked[:2]]
    pictures = [shown(PICTURE, place) for place in asked[2:4]]
    composed = [
        Question(COMPOSED, scenes.index(after), words, before, draw(before, seed)) for before, words, after in changes
    ]
    return [*texts, *pictures, *composed, *(shown(CAPTION, place) for place in asked[4:])]


def write_gallery(gallery: Gallery, folder: Path) -> list[Path]:
    """Write a gallery to files: each picture, and the captions as JSONL.

    What is there already stays as it is, and pictures of a larger gallery that was there go.

    Args:
        gallery: The gallery.
        folder: Where it goes.

    Returns:
        What is to be indexed of it: the folder of the pictures, and the file of the captions.
    """
    pictures, captions = folder / "gallery", folder / "captions.jsonl"
    pictures.mkdir(parents=True, exist_ok=True)
    for place, picture in enumerate(gallery.pictures):
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        _write(pictures / _picture_name(place), buffer.getvalue())
    own = {_picture_name(place) for place in range(len(gallery.pictures))}
    for path in pictures.glob("drawing-*.png"):
        if path.name not in own:
            path.unlink()
    lines = [json.dumps({"id": _caption_id(place), "text": text}) for place, text in enumerate(gallery.captions)]
    _write(captions, "".join(f"{line}\n" for line in lines).encode())
    return [pictures, captions]


def answer(index: Index, gallery: Gallery, prompts: Container[str]) -> list[Answer]:
    """Have an index of a gallery answer its questions.

    Args:
        index: What was built of the files that :func:`write_gallery` names.
        gallery: The gallery.
        prompts: The names of the instructions that the model has.
    """
    size = len(index)
    answers = []
    for question in gallery.questions:
        name = PROMPTS.get(question.kind, "")
        wanted = "id LIKE 'caption-%'" if question.kind == CAPTION else "image IS NOT NULL"
        hits = index.search(question.item, size, where=wanted, prompt_name=name if name in prompts else None)
        answers.append(_rank(question, hits, len(gallery.scenes)))
    return answers


def read_vectors(index: Index, gallery: Gallery) -> np.ndarray:
    """Return the vectors that an index of a gallery has of its pictures, a row each."""
    import numpy as np

    # Whatever the vector, all pictures are found.
    hits = index.search_by_vector(np.ones(index.dimension), len(index), where="image IS NOT NULL")
    ids = {Path(hit.image).name: hit.id for hit in hits if hit.image}
    rows = index.get([ids[_picture_name(place)] for place in range(len(gallery.scenes))])
    return np.stack([row["vector"] for row in rows])


def _rank(question: Question, hits: Sequence[Hit], size: int) -> Answer:
    import numpy as np

    names = _caption_id if question.kind == CAPTION else _picture_name
    places = {names(place): place for place in range(size)}
    # Files that are not the gallery's own may be beside them.
    named = {Path(hit.image).name if hit.image else hit.id: hit.score for hit in hits}
    found = {places[name]: score for name, score in named.items() if name in places}
    return Answer(question, np.array([found[place] for place in range(size)]), list(found))


def _picture_name(place: int) -> str:
    return f"drawing-{place:04}.png"


def _caption_id(place: int) -> str:
    return f"caption-{place:04}"


def _write(path: Path, content: bytes) -> None:
    # A file that is written again is one that has changed.
    if not path.exists() or path.read_bytes() != content:
        path.write_bytes(content)
