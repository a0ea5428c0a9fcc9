"""The demonstration: its questions, its index, and its command."""

from __future__ import annotations

import importlib.util
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image, ImageChops
from typer.testing import CliRunner

from st_modules import SentenceTransformer, cli
from st_modules.demo.run import (
    CAPTION,
    COMPOSED,
    EDITED,
    PICTURE,
    PROMPTS,
    TEXT,
    Answer,
    Gallery,
    answer,
    make_gallery,
    write_gallery,
)
from st_modules.demo.scenes import changed_attribute, is_held_out
from st_modules.demo.wording import caption
from st_modules.index import Hit, Index, build


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return make_gallery(40, seed=3)


class Pointing:
    """Stands in for an index of a gallery; answers each question with the place that it is told."""

    def __init__(self, places: list[int], size: int) -> None:
        self.places = list(places)
        self.size = size
        self.asked: list[tuple[Any, str | None]] = []

    def __len__(self) -> int:
        return 2 * self.size

    def search(self, item: Any, k: int, *, where: str, prompt_name: str | None) -> list[Hit]:
        self.asked.append((item, prompt_name))
        first = self.places.pop(0)
        order = [first, *(place for place in range(self.size) if place != first)]
        if "image" in where:
            return [Hit("0", 1 / n, "", image=f"/a/drawing-{place:04}.png") for n, place in enumerate(order, 1)][:k]
        return [Hit(f"caption-{place:04}", 1 / n, "") for n, place in enumerate(order, 1)][:k]


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
    assert kinds == [TEXT] * 2 + [PICTURE] * 2 + [COMPOSED] * len(EDITED) + [CAPTION] * 2


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
    index = Pointing([question.answer for question in gallery.questions], 40)
    answer(index, gallery, {"query": "", "t2i": "Find an image.", "i2t": "Find a text."})  # type: ignore[arg-type]
    assert [(set(item), prompt_name) for item, prompt_name in index.asked] == [
        *[({"text"}, "t2i")] * 2,
        *[({"image"}, None)] * 2,
        *[({"text", "image"}, None)] * len(EDITED),  # the model has no instruction named it2i
        *[({"image"}, "i2t")] * 2,
    ]


def test_places_and_scores_are_those_of_the_hits(gallery: Gallery) -> None:
    index = Pointing([7] * len(gallery.questions), 40)
    for found in answer(index, gallery, {}):  # type: ignore[arg-type]
        assert found.ranking == [7, *(place for place in range(40) if place != 7)]
        assert found.scores[[7, 0, 39]].tolist() == [1, 1 / 2, 1 / 40]


# -------------------------------------------------------------------------------------------------- index


@pytest.fixture(scope="module")
def folder(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gallery")


@pytest.fixture(scope="module")
def answers(gallery: Gallery, folder: Path, tiny: SentenceTransformer) -> list[Answer]:
    build(write_gallery(gallery, folder), folder / "my.index", tiny)
    return answer(Index.open(folder / "my.index", tiny), gallery, tiny.prompts)


def test_index_answers_as_the_vectors_do(gallery: Gallery, answers: list[Answer], tiny: SentenceTransformer) -> None:
    pictures = tiny.encode_document(gallery.pictures)
    captions = tiny.encode_document([{"text": text} for text in gallery.captions])
    for question, found in zip(gallery.questions, answers, strict=True):
        query = tiny.encode_query(question.item, prompt_name=PROMPTS.get(question.kind))
        scores = (captions if question.kind == CAPTION else pictures) @ query
        np.testing.assert_allclose(found.scores, scores, atol=1e-5)
        assert found.ranking == scores.argsort()[::-1].tolist()


def test_nothing_is_embedded_twice(gallery: Gallery, folder: Path, answers: list[Answer]) -> None:
    report = build(write_gallery(gallery, folder), folder / "my.index")
    assert (report.unchanged, report.added + report.updated + report.embedded) == (80, 0)


def test_another_gallery_takes_the_place_of_the_first_and_other_files_stay(
    tmp_path: Path, tiny: SentenceTransformer
) -> None:
    index = tmp_path / "my.index"
    build(write_gallery(make_gallery(30, seed=1), tmp_path), index, tiny, prune=True)
    own = tmp_path / "gallery" / "holiday.png"
    Image.new("RGB", (30, 30), "red").save(own)
    smaller = make_gallery(20, seed=2)
    build(write_gallery(smaller, tmp_path), index, tiny, prune=True)
    assert len(list(own.parent.iterdir())) == 21
    assert len(Index.open(index)) == 41
    for found in answer(Index.open(index, tiny), smaller, tiny.prompts):
        assert sorted(found.ranking) == list(range(20))


def test_rank_counts_from_one(gallery: Gallery) -> None:
    found = Answer(gallery.questions[0], np.zeros(40), [5, gallery.questions[0].answer, 7])
    assert found.rank == 2


# ------------------------------------------------------------------------------------------------ command


def test_command_writes_the_page_and_prints_the_answers(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "folder"
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(out), "--pictures", "30", "--seed", "5"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("✓ first") + result.stdout.count("rank ") == len(make_gallery(30, seed=5).questions)
    assert [line.split()[-3:] for line in result.stdout.splitlines() if "Chance" in line] == [
        ["0.033", "0.167", "0.133"]
    ]
    assert "st-modules serve --model tiny --index" in (out / "index.html").read_text(encoding="utf-8")
    assert len(Index.open(out / "tiny.index")) == 60


def test_command_says_how_to_serve_the_gallery_and_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "a folder"
    told = CliRunner().invoke(cli.app, ["demo", "--out", str(out), "--pictures", "20"]).stdout.splitlines()[-1]
    program, *arguments = shlex.split(told.partition(": ")[2])
    assert (program, arguments) == ("st-modules", ["serve", "--model", "tiny", "--index", str(out / "tiny.index")])
    apps: list[Any] = []
    monkeypatch.setattr("st_modules.serve.process.run", lambda app, *others: apps.append(app))
    assert CliRunner().invoke(cli.app, arguments).exit_code == 0
    assert TestClient(apps[0]).get("/v1/index").json()["index"]["count"] == 40


def test_command_without_the_extra_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lancedb" else find_spec(name))
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path / "out")])
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == 'Error: This needs lancedb: pip install "st-modules[index]"\n'
    assert not list(tmp_path.iterdir())


def test_command_with_an_unknown_model_writes_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(tmp_path), "--model", "tinyy"])
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: ")
    assert not list(tmp_path.iterdir())
