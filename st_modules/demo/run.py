"""The demonstration: a gallery of drawings, questions of three kinds with a known answer, and what a model answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from PIL import Image

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene, changed_attribute, is_held_out, random_scenes
from st_modules.demo.wording import caption, edits

if TYPE_CHECKING:
    import numpy as np

    from st_modules.model import SentenceTransformer

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
        """What ``encode_query`` is given."""
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

    asked = rng.sample(range(len(scenes)), 11)
    texts = [Question(TEXT, place, text=caption(scenes[place])) for place in asked[:4]]
    pictures = [shown(PICTURE, place) for place in asked[4:8]]
    composed = [
        Question(COMPOSED, scenes.index(after), words, before, draw(before, seed)) for before, words, after in changes
    ]
    return [*texts, *pictures, *composed, *(shown(CAPTION, place) for place in asked[8:])]


def answer(model: SentenceTransformer, gallery: Gallery, show_progress_bar: bool = True) -> list[Answer]:
    """Embed a gallery and its questions, and rank the gallery for each question.

    Args:
        model: The model.
        gallery: What to search.
        show_progress_bar: Whether to show the progress of embedding the gallery.
    """
    pictures = model.encode_document(gallery.pictures, show_progress_bar=show_progress_bar)
    captions = model.encode_document([{"text": text} for text in gallery.captions], show_progress_bar=False)
    answers = []
    for kind, group in groupby(gallery.questions, key=lambda question: question.kind):
        questions = list(group)
        prompt_name = PROMPTS.get(kind) if PROMPTS.get(kind) in model.prompts else None
        queries = model.encode_query(
            [question.item for question in questions], prompt_name=prompt_name, show_progress_bar=False
        )
        scores = queries @ (captions if kind == CAPTION else pictures).T
        answers += [
            Answer(question, row, row.argsort()[::-1].tolist()) for question, row in zip(questions, scores, strict=True)
        ]
    return answers
