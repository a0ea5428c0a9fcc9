"""A benchmark of one's own from the tables of a folder: its scores, and what is wrong in it."""

from __future__ import annotations

import csv
import functools
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
from mteb._create_dataloaders import create_dataloader
from mteb.types import PromptType
from PIL import ExifTags, Image
from sklearn.metrics import ndcg_score
from typer.testing import CliRunner

from st_modules import SentenceTransformer, cli
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import neighbours, random_scenes
from st_modules.demo.wording import caption, edit
from st_modules.errors import ArgumentError
from st_modules.evaluate import (
    BenchmarkDataError,
    Entry,
    FolderTask,
    Outcome,
    collect,
    evaluate,
    open_benchmark,
    wrap_model,
)
from tests.helpers.evaluation import similarities

Rows = list[tuple[object, ...]]
SCENES = random_scenes(19, 12, held_out=True)
NEAR = [neighbours(scene)[0] for scene in SCENES]
ROW = ("id", "text", "image")
QREL = ("query-id", "corpus-id", "score")


def write_table(path: Path, header: tuple[str, ...], rows: Rows) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def text(number: int) -> tuple[str, str]:
    return caption(SCENES[number]), ""


def picture(number: int) -> tuple[str, str]:
    return "", f"pictures/{number}.png"


def both(number: int) -> tuple[str, str]:
    return caption(SCENES[number]), f"pictures/{number}.png"


def changed(number: int) -> tuple[str, str]:
    return edit(NEAR[number], SCENES[number]), f"pictures/near-{number}.png"


def mixed(number: int) -> tuple[str, str]:
    return (text, picture, both)[number % 3](number)


Cells = Callable[[int], tuple[str, str]]


def make_folder(folder: Path, queries: Cells, documents: Cells) -> Path:
    """Write a benchmark in which a query's own scene is its best answer, and the next one is an answer too."""
    (folder / "pictures").mkdir(parents=True)
    for number, (scene, near) in enumerate(zip(SCENES, NEAR, strict=True)):
        draw(scene, seed=number).save(folder / "pictures" / f"{number}.png")
        draw(near, seed=number).save(folder / "pictures" / f"near-{number}.png")
    count = len(SCENES)
    # The ids of queries are those of documents too, of others.
    write_table(folder / "queries.csv", ROW, [(number, *queries(number)) for number in range(count)])
    write_table(folder / "corpus.csv", ROW, [(count - number, *documents(number)) for number in range(count)])
    right: Rows = [(number, count - number, 2) for number in range(count)]
    other: Rows = [(number, count - (number + 1) % count, 1) for number in range(count)]
    write_table(folder / "qrels.csv", QREL, [*right, *other])
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "mine", text, picture)


def run(model: SentenceTransformer, folder: Path, out: Path) -> Outcome:
    return evaluate(wrap_model(model, "tiny"), open_benchmark(str(folder)).entries, out, show_progress_bar=False)


# ---------------------------------------------------------------------------------------------------- scores


@pytest.mark.parametrize(
    ("queries", "documents", "category", "instruction"),
    [
        (text, picture, "t2i", "t2i"),
        (picture, text, "i2t", "i2t"),
        (picture, picture, "i2i", "i2i"),
        (text, text, "t2t", "t2t"),
        (text, mixed, "t2it", "t2it"),
        (changed, picture, "it2i", "it2i"),
        (mixed, mixed, "it2it", "it2it"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_folder_gets_the_scores_of_a_brute_force_search(
    tiny: SentenceTransformer, tmp_path: Path, queries: Cells, documents: Cells, category: str, instruction: str
) -> None:
    folder = make_folder(tmp_path / "mine", queries, documents)
    outcome = run(tiny, folder, tmp_path / "out")
    assert outcome.errors == {}
    assert FolderTask(folder).metadata.category == category

    data = FolderTask(folder).subsets()["default"]
    found = similarities(tiny, data["queries"], data["corpus"], tiny.prompts.get(instruction))
    count = len(SCENES)
    gains = {str(number): {str(count - number): 2, str(count - (number + 1) % count): 1} for number in range(count)}
    labels = [[gains[query].get(document, 0) for document in scores] for query, scores in found.items()]
    cosines = [list(scores.values()) for scores in found.values()]
    firsts = [max(scores, key=lambda document: scores[document]) for scores in found.values()]
    expected = {
        "ndcg_at_10": ndcg_score(labels, cosines, k=10),
        "recall_at_1": np.mean([(first in gains[query]) / 2 for query, first in zip(found, firsts, strict=True)]),
    }
    assert outcome.scores == {"mine": pytest.approx(expected, abs=1e-5)}
    assert outcome.scores["mine"]["ndcg_at_10"] < 1


def test_pictures_are_opened_when_they_are_embedded(folder: Path) -> None:
    for path in (folder / "pictures").iterdir():
        path.write_bytes(b"no picture")
    data = FolderTask(folder).subsets()["default"]
    assert data["corpus"].data.table.column("image")[0].as_py()["bytes"] is None


def test_a_picture_that_cannot_be_read_fails_the_task(tiny: SentenceTransformer, folder: Path, tmp_path: Path) -> None:
    (folder / "pictures" / "3.png").write_bytes(b"no picture")
    (error,) = run(tiny, folder, tmp_path / "out").errors.values()
    assert error.startswith(f"{folder / 'pictures' / '3.png'}: ")


def test_a_huge_picture_is_refused_by_its_header(tiny: SentenceTransformer, folder: Path, tmp_path: Path) -> None:
    path = folder / "pictures" / "3.png"
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 30_000, 30_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    (error,) = run(tiny, folder, tmp_path / "out").errors.values()
    assert error.startswith(f"{path}: ")
    assert "30000" in error


@pytest.mark.parametrize("documents", [picture, mixed])
def test_pictures_are_not_turned_by_their_exif_orientation(folder: Path, documents: Cells) -> None:
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    pixels = np.zeros((20, 60, 3), dtype=np.uint8)
    for number in range(len(SCENES)):
        Image.fromarray(pixels).save(folder / "pictures" / f"{number}.png", exif=turned)
    write_table(
        folder / "corpus.csv", ROW, [(len(SCENES) - number, *documents(number)) for number in range(len(SCENES))]
    )
    task = FolderTask(folder)
    batches: Any = create_dataloader(
        task.subsets()["default"]["corpus"], task_metadata=task.metadata, prompt_type=PromptType("document")
    )
    found = [image.size for batch in batches for image in batch["image"] if image is not None]
    assert set(found) == {(60, 20)}


def test_mteb_takes_the_task(tiny: SentenceTransformer, folder: Path) -> None:
    task = FolderTask(folder, "Mine", main_score="recall_at_1")
    model: Any = wrap_model(tiny, "tiny")
    for _ in range(2):  # it is loaded again
        (result,) = mteb.evaluate(model, task, cache=None, show_progress_bar=False, co2_tracker=False).task_results
        assert result.task_name == "Mine"
        assert result.get_score() == result.scores["test"][0]["recall_at_1"]


# --------------------------------------------------------------------------------------------------- results


def rewrite(path: Path, old: str, new: str) -> None:
    written = path.read_text(encoding="utf-8")
    assert old in written
    path.write_text(written.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("name", ["queries.csv", "corpus.csv", "qrels.csv", "pictures/4.png"])
def test_results_on_other_data_are_not_taken_for_those_on_these(
    tiny: SentenceTransformer, folder: Path, tmp_path: Path, name: str
) -> None:
    model, (entry,) = wrap_model(tiny, "tiny"), open_benchmark(str(folder)).entries
    run(tiny, folder, tmp_path / "out")
    assert set(collect(model, [entry], tmp_path / "out").scores) == {"mine"}
    if name.endswith(".png"):
        draw(SCENES[4], seed=99).save(folder / name)
    else:
        (folder / name).write_bytes((folder / name).read_bytes().replace(b"\r\n", b"\n"))
    assert collect(model, [entry], tmp_path / "out").scores == {}


def test_the_main_score_is_that_of_the_task_though_there_are_results_with_another(
    tiny: SentenceTransformer, folder: Path, tmp_path: Path
) -> None:
    model = wrap_model(tiny, "tiny")
    for main in ("ndcg_at_10", "recall_at_1", "ndcg_at_10"):
        made = functools.partial(FolderTask, folder, main_score=main)
        entries = [Entry("mine", "mine", ("main_score", "ndcg_at_10", "recall_at_1"), made)]
        scores = evaluate(model, entries, tmp_path / "out", show_progress_bar=False).scores["mine"]
        assert scores["main_score"] == scores[main]
        assert scores["ndcg_at_10"] != scores["recall_at_1"]


def replace_picture(folder: Path) -> None:
    draw(SCENES[4], seed=99).save(folder / "pictures" / "4.png")
    os.utime(folder / "pictures" / "4.png", ns=(1, 1))


def test_a_file_that_changed_since_its_hash_was_taken_fails_the_task(
    tiny: SentenceTransformer, folder: Path, tmp_path: Path
) -> None:
    task = FolderTask(folder)
    replace_picture(folder)
    entry = Entry("mine", "mine", ("ndcg_at_10",), lambda: task)
    outcome = evaluate(wrap_model(tiny, "tiny"), [entry], tmp_path, show_progress_bar=False)
    assert outcome.scores == {}
    assert outcome.errors["mine"].startswith(f"{folder / 'pictures' / '4.png'}: was changed or removed")


def test_a_file_that_changes_while_the_task_runs_fails_it(
    tiny: SentenceTransformer, folder: Path, tmp_path: Path
) -> None:
    task = FolderTask(folder)
    task.load_data()
    replace_picture(folder)
    entry = Entry("mine", "mine", ("ndcg_at_10",), lambda: task)
    outcome = evaluate(wrap_model(tiny, "tiny"), [entry], tmp_path, show_progress_bar=False)
    assert outcome.errors["mine"].startswith(f"{folder / 'pictures' / '4.png'}: was changed or removed")
    assert list(tmp_path.rglob("mine.json")) == []


def test_files_that_no_table_names_change_nothing(folder: Path) -> None:
    before = FolderTask(folder).metadata.revision
    (folder / "pictures" / "other.png").write_bytes(b"another")
    (folder / "notes.txt").write_text("notes", encoding="utf-8")
    assert FolderTask(folder).metadata.revision == before


# ------------------------------------------------------------------------------------------------ what is wrong


def remove_picture(folder: Path) -> None:
    (folder / "pictures" / "2.png").unlink()


def link_outside(folder: Path) -> None:
    outside = folder.parent / "outside.png"
    draw(SCENES[0], seed=0).save(outside)
    (folder / "pictures" / "2.png").unlink()
    (folder / "pictures" / "2.png").symlink_to(outside)


def append(name: str, *cells: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / name).open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(cells)

    return change


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / name, old, new)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / "qrels.csv").unlink(),
            "{}: no qrels.csv in it; a benchmark is a folder with queries.csv, corpus.csv, qrels.csv.",
        ),
        (lambda folder: (folder / "corpus.csv").write_text("", encoding="utf-8"), '{}/corpus.csv: no column "id"'),
        (lambda folder: (folder / "corpus.csv").write_bytes(b"id,text\n1,\xff\n"), "{}/corpus.csv:2: cannot be read"),
        (
            lambda folder: (folder / "corpus.csv").write_text("id,text\n", encoding="utf-8"),
            "{}/corpus.csv: no rows below the names of its columns.",
        ),
        (
            replace("qrels.csv", "corpus-id", "doc-id"),
            '{}/qrels.csv: no column "corpus-id"; there are "query-id", "doc-id", "score".',
        ),
        (replace("queries.csv", "id,text,image", "id,txt,img"), '{}/queries.csv: no column "text" or "image"; there'),
        (replace("corpus.csv", "image", "Picture"), '{}/corpus.csv: the column "Picture" is not read; call it "image"'),
        (
            lambda folder: (folder / "queries.csv").write_text("id;text\n1;a circle\n"),
            '{}/queries.csv: no column "id"; there are "id;text"; cells are separated by commas',
        ),
        (append("queries.csv", "q", "a circle"), "{}/queries.csv:14: 2 cells for 3 columns"),
        (append("queries.csv", "", "a circle", ""), "{}/queries.csv:14: an empty id."),
        (
            append("queries.csv", "q\0a", "a circle", ""),
            '{}/queries.csv:14: the id "q\\u0000a" has a control character',
        ),
        (append("corpus.csv", "d\x1b", "a circle", ""), '{}/corpus.csv:14: the id "d\\u001b" has a control character'),
        (append("queries.csv", 3, "a circle", ""), '{0}/queries.csv:14: the id "3" is that of {0}/queries.csv:5 too.'),
        (append("corpus.csv", "new", " ", ""), "{}/corpus.csv:14: neither a text nor an image"),
        (append("corpus.csv", "new", "", "9.png"), '{0}/corpus.csv:14: the image "9.png" is no file in {0}.'),
        (append("corpus.csv", "new", "", "pictures"), '{0}/corpus.csv:14: the image "pictures" is no file in {0}.'),
        (append("corpus.csv", "new", "", "../9.png"), '{0}/corpus.csv:14: the image "../9.png" is not within {0}'),
        (append("corpus.csv", "new", "", "/9.png"), '{0}/corpus.csv:14: the image "/9.png" is not within {0}'),
        (remove_picture, '{0}/corpus.csv:4: the image "pictures/2.png" is no file in {0}.'),
        (link_outside, '{0}/corpus.csv:4: the image "pictures/2.png" is not within {0}'),
        (append("qrels.csv", 99, 3, 1), '{0}/qrels.csv:26: the query-id "99" is not in {0}/queries.csv.'),
        (append("qrels.csv", 3, "d3", 1), '{0}/qrels.csv:26: the corpus-id "d3" is not in {0}/corpus.csv.'),
        (append("qrels.csv", 3, 9, 1), '{}/qrels.csv:26: "3" and "9" are in an earlier line too.'),
        (append("qrels.csv", 3, 1, "1.0"), '{}/qrels.csv:26: the score "1.0" is no whole number'),
        (append("qrels.csv", 3, 1, "-1"), '{}/qrels.csv:26: the score "-1" is no whole number'),
        (append("qrels.csv", 3, 1, ""), '{}/qrels.csv:26: the score "" is no whole number'),
        (append("qrels.csv", 3, 1, "9" * 5000), '{}/qrels.csv:26: the score "99'),
        (
            append("queries.csv", "new", "a circle", ""),
            '{0}/queries.csv:14: the query "new" has no right answer in {0}/qrels.csv',
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_line(folder: Path, change: Callable[[Path], Any], message: str) -> None:
    change(folder)
    with pytest.raises(BenchmarkDataError) as caught:
        FolderTask(folder)
    assert str(caught.value).startswith(message.format(folder))
    assert len(str(caught.value)) < 500


def test_a_query_whose_answers_all_have_the_score_0_has_no_right_one(folder: Path) -> None:
    append("queries.csv", "new", "a circle", "")(folder)
    append("qrels.csv", "new", 3, 0)(folder)
    with pytest.raises(BenchmarkDataError, match='query "new" has no right answer'):
        FolderTask(folder)


def test_a_table_of_excel_is_read(folder: Path) -> None:
    table = folder / "corpus.csv"
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert list(FolderTask(folder).data.corpus.places) == [str(len(SCENES) - number) for number in range(len(SCENES))]


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BenchmarkDataError, match=f"{tmp_path / 'none'}: no such folder"):
        FolderTask(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a/b", {}, "name='a/b': pass a name that a file can have"),
        ("", {}, "name='': pass a name"),
        ("..", {}, "name='..': pass a name"),
        ("a\0b", {}, r"name='a.x00b': pass a name"),
        ("model_meta", {}, "name='model_meta': mteb has a file of its own"),
        ("x" * 201, {}, "name='x+.*: longer than 200 bytes"),
        ("ü" * 101, {}, "name='ü+.*: longer than 200 bytes"),
        ("mine", {"main_score": "recall@1"}, "main_score='recall@1': pass one of .*'recall_at_1'"),
    ],
)
def test_a_wrong_argument_is_named(folder: Path, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        FolderTask(folder, name, **options)


def test_a_file_in_the_place_of_a_folder_is_named_as_one(folder: Path) -> None:
    with pytest.raises(BenchmarkDataError, match=r"queries\.csv: a file; pass the folder"):
        FolderTask(folder / "queries.csv")


@pytest.mark.parametrize("column", ["photographer", "picking_no", "image_width", "Imagination", "texture"])
def test_a_column_of_another_meaning_is_not_taken_for_a_misnamed_one(folder: Path, column: str) -> None:
    only = "image" if column == "texture" else "text"
    cells = ("", "pictures/0.png") if only == "image" else ("a circle", "")
    cell = cells[only == "image"]
    count = len(SCENES)
    write_table(folder / "corpus.csv", ("id", only, column), [(count - n, cell, 7) for n in range(count)])
    assert FolderTask(folder).data.corpus.kinds == [only]


@pytest.mark.parametrize("column", ["Image", "IMG", "pictures", "photo", "image_path"])
def test_a_misnamed_column_is_named_with_its_right_name(folder: Path, column: str) -> None:
    rewrite(folder / "corpus.csv", "image", column)
    with pytest.raises(BenchmarkDataError, match=f'the column "{column}" is not read; call it "image"'):
        FolderTask(folder)


def test_a_folder_whose_name_no_results_can_have_is_refused_when_it_is_opened(folder: Path) -> None:
    with pytest.raises(ArgumentError, match="name='model_meta': mteb has a file of its own"):
        open_benchmark(str(folder.rename(folder.parent / "model_meta")))


# --------------------------------------------------------------------------------------------------- command


def command(*args: str | Path) -> Any:
    return CliRunner().invoke(cli.app, ["evaluate", "tiny", "--quiet", *map(str, args)])


def test_the_command_runs_a_folder(tiny: SentenceTransformer, folder: Path, tmp_path: Path) -> None:
    result = command("--benchmark", folder, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    score = run(tiny, folder, tmp_path / "other").scores["mine"]["ndcg_at_10"]
    table = (tmp_path / "out" / "mine-tiny.md").read_text(encoding="utf-8")
    assert f"| mine | mine | ndcg_at_10 | {100 * score:.2f} |" in table


def test_the_command_names_what_is_wrong_before_a_model_is_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_picture(folder)
    monkeypatch.setattr("st_modules.cli.evaluate.open_model", None)
    result = command("--benchmark", os.path.relpath(folder))
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "corpus.csv:4: " in result.stderr
    assert result.stderr.count("\n") == 1


def test_scores_of_mtebs_own_kind_are_shown_of_a_task_in_an_entry(
    tiny: SentenceTransformer, folder: Path, tmp_path: Path
) -> None:
    entry = Entry("Mine", "mine", ("mrr_at_10",), lambda: FolderTask(folder, "Mine"))
    outcome = evaluate(wrap_model(tiny, "tiny"), [entry], tmp_path, show_progress_bar=False)
    assert 0 < outcome.scores["Mine"]["mrr_at_10"] <= 1
