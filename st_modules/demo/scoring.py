"""How often a model finds the right one, over many questions about a gallery, beside simpler ways to answer them."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from st_modules.demo.drawings import draw
from st_modules.demo.run import COMPOSED, PICTURE, PROMPTS, TEXT, Answer, Gallery, Question, read_vectors
from st_modules.demo.scenes import VALUES, Scene
from st_modules.demo.wording import edits, paraphrase, partial_caption

if TYPE_CHECKING:
    from st_modules.index import Index
    from st_modules.model import SentenceTransformer

MOST = 400
"""Questions of a set at most, so that a larger gallery takes no more time to ask."""


@dataclass(frozen=True)
class QuestionSet:
    """Questions of one kind that are counted together.

    Attributes:
        title: What they ask with.
        questions: The questions.
        baselines: The same questions with a part left out, by what is left.
    """

    title: str
    questions: list[Question]
    baselines: dict[str, list[Question]] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """How far up the right answers come.

    Attributes:
        recall_at_1: The share of the questions whose right answer is the first.
        recall_at_5: The share of those whose right answer is among the first five.
        mrr: The mean reciprocal rank of the right answer.
    """

    recall_at_1: float
    recall_at_5: float
    mrr: float

    @classmethod
    def of(cls, ranks: Iterable[int]) -> Score:
        """Compute it of ranks, counted from 1."""
        found = np.fromiter(ranks, np.float64)
        return cls(float((found <= 1).mean()), float((found <= 5).mean()), float((1 / found).mean()))


@dataclass(frozen=True)
class Result:
    """What a model made of a set of questions.

    Attributes:
        title: What they ask with.
        answers: Its answers.
        baselines: The scores of the same questions with a part left out, by what is left.
    """

    title: str
    answers: list[Answer]
    baselines: dict[str, Score]

    @property
    def score(self) -> Score:
        """The model's own."""
        return Score.of(answer.rank for answer in self.answers)

    @property
    def worst(self) -> Answer:
        """The answer in which the right one comes last; of several such, the first."""
        return max(self.answers, key=lambda answer: answer.rank)


def make_question_sets(gallery: Gallery, seed: int) -> list[QuestionSet]:
    """Ask about every drawing of a gallery, and about every two of them that differ in one attribute.

    Args:
        gallery: The gallery.
        seed: What it was made with. The same gallery and seed give the same questions.
    """
    rng = random.Random(seed)
    scenes = gallery.scenes
    places = {scene: place for place, scene in enumerate(scenes)}
    asked = sorted(rng.sample(range(len(scenes)), min(MOST, len(scenes))))
    changes = [(scene, words, places[after]) for scene in scenes for words, after in edits(scene) if after in places]
    changed = rng.sample(changes, min(MOST, len(changes)))
    # Never the gallery's own pictures.
    drawn = {scene: draw(scene, seed + 1) for scene in [*(scenes[place] for place in asked), *(c[0] for c in changed)]}

    def show(place: int, scene: Scene) -> Question:
        return Question(PICTURE, place, scene=scene, picture=drawn[scene])

    return [
        QuestionSet(
            "A description in other words",
            [Question(TEXT, place, text=paraphrase(scenes[place], rng)) for place in asked],
        ),
        QuestionSet(
            "Just enough words to mean one drawing",
            [Question(TEXT, place, text=_tell_just_enough(scenes[place], scenes, rng)) for place in asked],
        ),
        QuestionSet("Another picture of the same scene", [show(place, scenes[place]) for place in asked]),
        QuestionSet(
            "A picture and a change",
            [Question(COMPOSED, place, words, scene, drawn[scene]) for scene, words, place in changed],
            {
                "the picture alone": [show(place, scene) for scene, _, place in changed],
                "the words alone": [Question(TEXT, place, text=words) for _, words, place in changed],
            },
        ),
    ]


def _tell_just_enough(scene: Scene, scenes: Sequence[Scene], rng: random.Random) -> str:
    """Name attributes in a random order until no other scene has them all."""
    names = [name for name in VALUES if name != "shape"]
    rng.shuffle(names)
    named: list[str] = []
    alike = [other for other in scenes if other.shape == scene.shape]
    while len(alike) > 1:
        name = names.pop()
        named.append(name)
        alike = [other for other in alike if getattr(other, name) == getattr(scene, name)]
    return partial_caption(scene, named, rng)


def score(index: Index, gallery: Gallery, sets: Sequence[QuestionSet], model: SentenceTransformer) -> list[Result]:
    """Answer sets of questions by the vectors of an index.

    Args:
        index: What was built of the files that :func:`write_gallery` names.
        gallery: The gallery.
        sets: The questions.
        model: The model of the index.
    """
    groups = [questions for each in sets for questions in (each.questions, *each.baselines.values())]
    answers = iter(_compare([question for questions in groups for question in questions], model, index, gallery))
    results = []
    for each in sets:
        own = [next(answers) for _ in each.questions]
        baselines = {
            name: Score.of(next(answers).rank for _ in questions) for name, questions in each.baselines.items()
        }
        results.append(Result(each.title, own, baselines))
    return results


def chance(gallery: Gallery) -> Score:
    """The score of orders by chance: every rank is as likely as any other."""
    return Score.of(range(1, len(gallery.scenes) + 1))


def _compare(questions: Sequence[Question], model: SentenceTransformer, index: Index, gallery: Gallery) -> list[Answer]:
    pictures = read_vectors(index, gallery)
    queries = np.empty((len(questions), pictures.shape[1]), np.float32)
    for kind in dict.fromkeys(question.kind for question in questions):
        of_kind = [number for number, question in enumerate(questions) if question.kind == kind]
        name = PROMPTS.get(kind)
        # All of them in one call, which embeds those that several sets have once.
        queries[of_kind] = model.encode_query(
            [questions[number].item for number in of_kind], prompt_name=name if name in model.prompts else None
        )
    scores = queries @ pictures.T
    # Stable, so that equally similar ones stay in the gallery's order.
    rankings = (-scores).argsort(axis=1, kind="stable").tolist()
    return [Answer(*each) for each in zip(questions, scores, rankings, strict=True)]
