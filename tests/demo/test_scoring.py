"""Many questions about a gallery: what they ask, and how the answers are counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from st_modules import SentenceTransformer
from st_modules.demo.run import (
    COMPOSED,
    EDITED,
    PICTURE,
    PROMPTS,
    TEXT,
    Answer,
    Gallery,
    Question,
    make_gallery,
    write_gallery,
)
from st_modules.demo.scenes import Scene, changed_attribute
from st_modules.demo.scoring import QuestionSet, Result, Score, chance, make_question_sets, score
from st_modules.demo.wording import WORDS
from st_modules.index import Index, build

SIZE, SEED = 60, 3


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return make_gallery(SIZE, SEED)


@pytest.fixture(scope="module")
def sets(gallery: Gallery) -> list[QuestionSet]:
    return make_question_sets(gallery, SEED)


def told(scene: Scene, text: str) -> list[str]:
    """The attributes of a scene that a text has a word of."""
    words = f" {text.lower().rstrip('.')} ".replace(",", " ").replace(":", " ")
    return [name for name, value in vars(scene).items() if any(f" {word} " in words for word in WORDS[str(value)])]


def test_every_drawing_is_asked_for_in_three_ways(sets: list[QuestionSet]) -> None:
    kinds = [(each.questions[0].kind, [question.answer for question in each.questions]) for each in sets[:3]]
    assert kinds == [(kind, list(range(SIZE))) for kind in (TEXT, TEXT, PICTURE)]


def test_just_enough_words_leave_one_drawing(gallery: Gallery, sets: list[QuestionSet]) -> None:
    short = [len(told(gallery.scenes[each.answer], each.text or "")) for each in sets[1].questions]
    full = [len(told(gallery.scenes[each.answer], each.text or "")) for each in sets[0].questions]
    assert np.mean(short) + 1 < np.mean(full)
    for question in sets[1].questions:
        wanted = gallery.scenes[question.answer]
        named = [name for name in told(wanted, question.text or "") if name not in ("shape", "count")]
        alike = [
            s for s in gallery.scenes if s.shape == wanted.shape and all(vars(s)[n] == vars(wanted)[n] for n in named)
        ]
        assert len(alike) == 1 or len([s for s in alike if s.count == wanted.count]) == 1


def test_changes_are_all_pairs_that_differ_in_one_attribute(gallery: Gallery, sets: list[QuestionSet]) -> None:
    asked = {(each.scene, gallery.scenes[each.answer]) for each in sets[3].questions}
    pairs = {
        (a, b)
        for a in gallery.scenes
        for b in gallery.scenes
        if sum(vars(a)[name] != vars(b)[name] for name in vars(a)) == 1
    }
    assert asked == pairs
    assert {changed_attribute(*pair) for pair in pairs} >= set(EDITED)


def test_baselines_ask_for_the_same_with_less(sets: list[QuestionSet]) -> None:
    whole = [(each.answer, each.text, each.scene) for each in sets[3].questions]
    picture, words = sets[3].baselines.values()
    assert [(each.answer, each.text, each.scene) for each in picture] == [(place, None, s) for place, _, s in whole]
    assert [(each.answer, each.text, each.scene) for each in words] == [(place, text, None) for place, text, _ in whole]


def test_questions_are_repeatable_and_never_more_than_the_most(
    gallery: Gallery, sets: list[QuestionSet], monkeypatch: pytest.MonkeyPatch
) -> None:
    again = make_question_sets(gallery, SEED)
    assert [[(q.answer, q.text, q.scene) for q in each.questions] for each in again] == [
        [(q.answer, q.text, q.scene) for q in each.questions] for each in sets
    ]
    monkeypatch.setattr("st_modules.demo.scoring.MOST", 7)
    assert [len(each.questions) for each in make_question_sets(gallery, SEED)] == [7] * 4


def test_a_score_is_of_the_ranks() -> None:
    assert vars(Score.of([1, 2, 5, 10])) == pytest.approx({"recall_at_1": 1 / 4, "recall_at_5": 3 / 4, "mrr": 1.8 / 4})


def test_chance_is_the_mean_over_all_orders(gallery: Gallery) -> None:
    ranks = np.random.default_rng(0).permuted(np.tile(np.arange(1, SIZE + 1), (4000, 1)), axis=1)[:, 0]
    found = Score.of(ranks.tolist())
    assert vars(found) == pytest.approx(vars(chance(gallery)), abs=0.02)


def test_the_worst_is_the_first_of_those_ranked_last(gallery: Gallery) -> None:
    answers = [Answer(Question(TEXT, place), np.zeros(3), [0, 1, 2]) for place in (1, 2, 0, 2)]
    assert Result("", answers, {}).worst is answers[1]


def test_scores_are_those_of_the_vectors_and_both_beat_either(
    gallery: Gallery, sets: list[QuestionSet], tiny: SentenceTransformer, tmp_path: Path
) -> None:
    build(write_gallery(gallery, tmp_path), tmp_path / "my.index", tiny)
    results = score(Index.open(tmp_path / "my.index", tiny), gallery, sets, tiny)
    pictures = tiny.encode_document(gallery.pictures)
    for each, result in zip(sets, results, strict=True):
        queries = tiny.encode_query(
            [question.item for question in each.questions], prompt_name=PROMPTS.get(each.questions[0].kind)
        )
        np.testing.assert_allclose(
            np.stack([found.scores for found in result.answers]), queries @ pictures.T, atol=1e-5
        )
        right = np.array([found.scores[found.question.answer] for found in result.answers])
        ranks = 1 + (np.stack([found.scores for found in result.answers]) > right[:, None]).sum(axis=1)
        assert [found.rank for found in result.answers] == ranks.tolist()
    composed = results[3]
    assert composed.answers[0].question.kind == COMPOSED
    assert all(baseline.mrr < composed.score.mrr - 0.2 for baseline in composed.baselines.values())
