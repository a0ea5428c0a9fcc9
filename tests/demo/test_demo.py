"""The demonstration: its questions, its command, and its page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from PIL import Image, ImageChops
from typer.testing import CliRunner

from st_modules import cli
from st_modules.demo.page import SHOWN, render
from st_modules.demo.run import CAPTION, COMPOSED, EDITED, PICTURE, TEXT, Answer, Gallery, answer, make_gallery
from st_modules.demo.scenes import changed_attribute, is_held_out
from st_modules.demo.wording import caption


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return make_gallery(40, seed=3)


class Pointing:
    """Gives a picture of the gallery a one-hot vector, and each question the vector of the place that it is told."""

    prompts: ClassVar = {"query": "", "document": "", "t2i": "Find an image.", "i2t": "Find a text."}

    def __init__(self, places: list[int]) -> None:
        self.places = list(places)
        self.documents: list[list[Any]] = []
        self.queries: list[tuple[Any, str | None]] = []

    def encode_document(self, items: list[Any], **options: object) -> np.ndarray:
        self.documents.append(items)
        return np.eye(len(items))

    def encode_query(self, items: list[Any], prompt_name: str | None, **options: object) -> np.ndarray:
        self.queries += [(item, prompt_name) for item in items]
        return np.eye(len(self.documents[0]))[[self.places.pop(0) for _ in items]] * 0.5


def same(a: Image.Image, b: Image.Image) -> bool:
    return a.size == b.size and ImageChops.difference(a, b).getbbox() is None


# ---------------------------------------------------------------------------------------------- questions


def test_gallery_is_repeatable(gallery: Gallery) -> None:
    again = make_gallery(40, seed=3)
    assert again.scenes == gallery.scenes
    pairs = enumerate(zip(again.pictures, gallery.pictures, strict=True))
    assert [number for number, (a, b) in pairs if not same(a, b)] == []


def test_gallery_has_different_scenes_that_training_left_out(gallery: Gallery) -> None:
    assert len(set(gallery.scenes)) == len(gallery.pictures) == 40
    assert [scene for scene in gallery.scenes if not is_held_out(scene)] == []


def test_there_are_questions_of_every_kind(gallery: Gallery) -> None:
    kinds = [question.kind for question in gallery.questions]
    assert kinds == [TEXT] * 4 + [PICTURE] * 4 + [COMPOSED] * len(EDITED) + [CAPTION] * 3


def test_text_questions_describe_their_answer(gallery: Gallery) -> None:
    asked = [question for question in gallery.questions if question.kind == TEXT]
    assert [question.text for question in asked] == [caption(gallery.scenes[question.answer]) for question in asked]


def test_composed_questions_change_one_attribute_and_the_unchanged_scene_is_there_too(gallery: Gallery) -> None:
    asked = [question for question in gallery.questions if question.kind == COMPOSED]
    changed = [
        changed_attribute(question.scene, gallery.scenes[question.answer]) for question in asked if question.scene
    ]
    assert tuple(changed) == EDITED
    assert [question.scene for question in asked if question.scene not in gallery.scenes] == []


def test_no_question_shows_a_picture_of_the_gallery(gallery: Gallery) -> None:
    shown = {number: question.picture for number, question in enumerate(gallery.questions) if question.picture}
    assert [(n, m) for n, a in shown.items() for m, b in enumerate(gallery.pictures) if same(a, b)] == []


def test_questions_are_asked_with_their_text_and_picture_and_the_instruction_of_their_kind(gallery: Gallery) -> None:
    model = Pointing([question.answer for question in gallery.questions])
    answer(model, gallery, show_progress_bar=False)  # type: ignore[arg-type]
    assert model.documents == [gallery.pictures, [{"text": text} for text in gallery.captions]]
    assert [(set(item), prompt_name) for item, prompt_name in model.queries] == [
        *[({"text"}, "t2i")] * 4,
        *[({"image"}, None)] * 4,
        *[({"text", "image"}, None)] * len(EDITED),  # the model has no instruction named it2i
        *[({"image"}, "i2t")] * 3,
    ]


class CaptionsOnly(Pointing):
    """Finds captions, and is wrong about every picture."""

    def encode_document(self, items: list[Any], **options: object) -> np.ndarray:
        vectors = super().encode_document(items, **options)
        return vectors if isinstance(items[0], dict) else -vectors


def test_captions_are_ranked_by_captions_and_the_rest_by_pictures(gallery: Gallery) -> None:
    model = CaptionsOnly([question.answer for question in gallery.questions])
    ranks = [found.rank for found in answer(model, gallery, show_progress_bar=False)]  # type: ignore[arg-type]
    assert ranks == [40] * (8 + len(EDITED)) + [1] * 3


def test_rank_counts_from_one(gallery: Gallery) -> None:
    found = Answer(gallery.questions[0], np.zeros(40), [5, gallery.questions[0].answer, 7])
    assert found.rank == 2


# --------------------------------------------------------------------------------------------------- page


class Page(HTMLParser):
    """Collects the page's tags, and insists that they are closed in order."""

    VOID = {"meta", "img"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(gallery: Gallery) -> str:
    rng = np.random.default_rng(0)
    answers = []
    for question in gallery.questions:
        scores = rng.uniform(-0.2, 0.5, 40)
        scores[question.answer] = 0.9
        answers.append(Answer(question, scores, scores.argsort()[::-1].tolist()))
    lost = answers[0].ranking
    answers[0] = Answer(answers[0].question, answers[0].scores, [*lost[1:10], lost[0], *lost[10:]])
    return render("a <model>", gallery, answers)


def test_page_needs_nothing_but_itself(html: str) -> None:
    page = Page(html)
    sources = [image["src"] or "" for image in page.all("img")]
    assert [source for source in sources if not source.startswith("data:image/png;base64,")] == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", html)


def test_page_escapes_what_it_is_told(html: str) -> None:
    assert "a &lt;model&gt;" in html
    assert "<model>" not in html


def test_every_picture_has_an_alt_text(html: str) -> None:
    assert [image for image in Page(html).all("img") if not image["alt"]] == []


def test_each_question_shows_the_best_pictures_and_marks_the_right_one(html: str, gallery: Gallery) -> None:
    hits = Page(html).all("li")
    assert len(hits) == SHOWN * len(gallery.questions)
    assert sum(hit.get("class") == "right" for hit in hits) == len(gallery.questions) - 1
    assert "The right one came at rank 10." in html


def test_heat_map_has_a_cell_for_every_pair_and_marks_the_diagonal(html: str, gallery: Gallery) -> None:
    cells = Page(html).all("td")
    n = sum(question.kind != CAPTION for question in gallery.questions)
    marked = [place for place, cell in enumerate(cells) if cell.get("class") == "right"]
    assert len(cells) == n * n
    assert set(range(0, n * n, n + 1)) <= set(marked)


# ------------------------------------------------------------------------------------------------ command


def test_command_writes_the_page_and_prints_the_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make_gallery(30, seed=5)
    places = [question.answer for question in gallery.questions]
    places[0] = (places[0] + 1) % 30
    monkeypatch.setattr(cli.demo, "open_model", lambda *args: Pointing(places))
    out = tmp_path / "deep" / "folder"
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(out), "--pictures", "30", "--seed", "5"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("✓ first") == len(places) - 1
    assert "0.500" in result.stdout
    Page((out / "index.html").read_text(encoding="utf-8"))


def test_command_with_an_unknown_model_writes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path), "--model", "tinyy"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert not list(tmp_path.iterdir())
