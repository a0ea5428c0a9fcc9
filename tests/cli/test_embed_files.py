"""``st-modules embed`` on the files that users have, beside the same rows and pages read by others."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pypdfium2
import pytest
from typer.testing import CliRunner, Result

from st_modules import SentenceTransformer, cli
from tests.helpers.files import write_pdf
from tests.helpers.gallery import CAPTIONS, Gallery


def embed(*args: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, ["embed", "--quiet", *map(str, args)], input=stdin)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "vectors.npy"


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.with_suffix(".jsonl").read_text(encoding="utf-8").splitlines()]


def assert_vectors(result: Result, out: Path, model: SentenceTransformer, items: list[Any]) -> None:
    assert (result.exit_code, result.stderr) == (0, "")
    assert np.abs(np.load(out) - model.encode(items)).max() < 1e-5
    assert len(rows(out)) == len(items)


def write_csv(path: Path, gallery: Gallery) -> Path:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["name", "caption", "picture"])
        writer.writerows([f"n{n}", CAPTIONS[n], gallery.paths[n] if n % 2 else ""] for n in range(5))
    return path


def fused(gallery: Gallery) -> list[dict[str, Any]]:
    return [{"text": CAPTIONS[n], "image": gallery.paths[n]} if n % 2 else {"text": CAPTIONS[n]} for n in range(5)]


def test_csv_by_columns(out: Path, tmp_path: Path, gallery: Gallery, tiny: SentenceTransformer) -> None:
    path = write_csv(tmp_path / "rows.csv", gallery)
    result = embed("--file", path, "--text", "caption", "--image", "picture", "--id", "name", "--out", out)
    assert_vectors(result, out, tiny, fused(gallery))
    assert [row["id"] for row in rows(out)] == [f"n{n}" for n in range(5)]


def test_parquet_of_datasets(out: Path, tmp_path: Path, gallery: Gallery, tiny: SentenceTransformer) -> None:
    pictures = [str(path) if n % 2 else None for n, path in enumerate(gallery.paths)]
    data = datasets.Dataset.from_dict({"image": pictures, "text": CAPTIONS, "n": range(5)})
    data.cast_column("image", datasets.Image()).to_parquet(str(tmp_path / "rows.parquet"))
    result = embed("--file", tmp_path / "rows.parquet", "--out", out)
    assert_vectors(result, out, tiny, fused(gallery))
    assert [row["metadata"] for row in rows(out)] == [{"n": n} for n in range(5)]


def test_pdf_by_page(out: Path, tmp_path: Path, tiny: SentenceTransformer) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["red", "blue", "green"], (100, 150))
    with pypdfium2.PdfDocument(path) as document:
        pages = [page.render(scale=2).to_pil() for page in document]
    assert_vectors(embed("--file", path, "--out", out), out, tiny, pages)
    assert [row["image"] for row in rows(out)] == [f"{path}#page={number}" for number in (1, 2, 3)]


@pytest.mark.parametrize("name", ["in.jsonl", "in.parquet"])
@pytest.mark.parametrize("force", [[], ["--force"]])
def test_a_file_that_is_read_is_never_written_over(name: str, force: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    if name.endswith(".jsonl"):
        path.write_text('{"text": "a", "extra": [1]}\n')
    else:
        datasets.Dataset.from_dict({"text": ["a"]}).to_parquet(path)
    content = path.read_bytes()
    out = path.with_suffix(".npy") if name.endswith(".jsonl") else path
    result = embed("--file", path, "--out", out, *force)
    assert (result.exit_code, path.read_bytes()) == (1, content)
    assert "would be written over" in result.stderr


def test_what_json_has_no_word_for_is_null(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "score": NaN, "others": [Infinity, 1.5]}\n')
    assert embed("--file", path, "--out", out).exit_code == 0
    assert [row["metadata"] for row in rows(out)] == [{"score": None, "others": [None, 1.5]}]


def test_an_empty_name_of_a_model_is_told(out: Path) -> None:
    result = embed("hello", "--model", "", "--out", out)
    assert (result.exit_code, "--model" in result.stderr) == (2, True)


def test_problems_of_all_files_are_told_together(out: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,image\n,nowhere.png\n")
    (tmp_path / "empty.txt").touch()
    names = ["missing.txt", "rows.csv", "empty.txt"]
    result = embed(*(part for name in names for part in ("--file", tmp_path / name)), "--out", out)
    assert result.exit_code == 1
    assert all(name in result.stderr for name in names)
    assert not out.exists()


def test_files_of_several_kinds(out: Path, tmp_path: Path, gallery: Gallery, tiny: SentenceTransformer) -> None:
    (tmp_path / "a.txt").write_text("a red circle\n")
    (tmp_path / "a.jsonl").write_text(json.dumps({"caption": "a star", "id": 3}))
    table, pdf = write_csv(tmp_path / "a.csv", gallery), write_pdf(tmp_path / "a.pdf", ["red"], (100, 150))
    files = [tmp_path / "a.txt", gallery.paths[2], tmp_path / "a.jsonl", pdf, table, "-"]
    options = [option for file in files for option in ("--file", file)]
    result = embed("hello", *options, "--text", "caption", "--out", out, stdin=b"one\n")
    with pypdfium2.PdfDocument(pdf) as document:
        page = document[0].render(scale=2).to_pil()
    texts = ["hello", "a red circle", "a star", *CAPTIONS, "one"]
    items: list[Any] = [*texts[:2], gallery.paths[2], texts[2], page, *texts[3:]]
    assert_vectors(result, out, tiny, items)


def test_a_folder_says_what_it_left_out(out: Path, tmp_path: Path, gallery: Gallery) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.png").write_bytes(gallery.paths[0].read_bytes())
    (folder / "a.txt").write_text("text")
    result = embed("--file", folder, "--out", out)
    assert (result.exit_code, len(rows(out))) == (0, 1)
    assert result.stderr == f"{folder}: left out 1 file that is neither image nor PDF: a.txt\n"


@pytest.mark.parametrize("name", ["\x1b[31m.txt", "a\x9b31m.txt", "a\u202e.txt", os.fsdecode(b"\xe9.txt")])
def test_names_of_files_cannot_control_the_terminal(out: Path, tmp_path: Path, gallery: Gallery, name: str) -> None:
    (tmp_path / "a.png").write_bytes(gallery.paths[0].read_bytes())
    (tmp_path / name).touch()
    result = embed("--file", tmp_path, "--out", out)
    assert result.exit_code == 0
    assert result.stderr.endswith(f": {ascii(name)[1:-1]}\n")


def test_names_in_files_cannot_control_the_terminal(out: Path, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": "\x1b]0;gone\x07.png"}))
    result = embed("--file", tmp_path / "a.jsonl", "--out", out)
    assert (result.exit_code, r"\x1b]0;gone\x07.png" in result.stderr) == (1, True)


def test_parquet_of_vectors_has_a_row_for_each_page(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = write_pdf(tmp_path / "a.pdf", ["red", "blue"])
    assert embed("--file", path, "--out", tmp_path / "v.parquet").exit_code == 0
    table = pq.read_table(tmp_path / "v.parquet").to_pylist()
    assert [row["image"] for row in table] == [[f"{path}#page=1"], [f"{path}#page=2"]]


@pytest.mark.parametrize("option", ["--text", "--image", "--id"])
def test_columns_of_a_file_that_has_none_are_a_wrong_call(out: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "a.txt").write_text("hello")
    result = embed("--file", tmp_path / "a.txt", option, "caption", "--out", out)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: --text, --image and --id name columns of")
    assert not out.exists()


@pytest.mark.parametrize("name", ["a.csv", "a.TSV", "a.parquet", "a.pdf", "a.jsonl", "a.txt", "a.jfif", "folder/"])
def test_a_file_among_the_texts_is_a_wrong_call(out: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).touch()
    result = embed(f"{tmp_path}/{name}", "--out", out)
    assert (result.exit_code, f"--file {tmp_path}/{name}" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    "text", ["folder", "missing.csv", pytest.param("a" * 5000 + ".txt", id="long"), "nul\0.txt", "or/"]
)
def test_what_is_no_file_is_a_text(out: Path, tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert embed(text, "--out", out).exit_code == 0
    assert rows(out)[0]["text"] == text


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.csv", b"title\nhello\n"),
        ("rows.csv", b"\x00\xff"),
        ("rows.jsonl", b'{"text": "fine"}\n{"text": "a\\ud800"}'),
        (os.fsdecode(b"caf\xe9.txt"), b"hello"),
        ("a.pdf", b"%PDF-1.7"),
        ("a.txt", b""),
    ],
)
def test_what_cannot_be_read_is_told_before_a_model_is_loaded(
    out: Path, tmp_path: Path, name: str, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(cli.embed, "open_model")
    (tmp_path / name).write_bytes(content)
    result = embed("--file", tmp_path / name, "--out", out)
    assert (result.exit_code, result.stderr.count("\n")) == (1, 1)
    assert result.stderr.startswith("Error: ")


@pytest.mark.parametrize("name", ["a.pdf", "a.parquet"])
def test_a_missing_package_says_what_to_install(
    out: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / name).write_bytes(b"any")
    result = embed("--file", tmp_path / name, "--out", out)
    extra = {"a.pdf": "pdf", "a.parquet": "parquet"}[name]
    assert (result.exit_code, f'pip install "st-modules[{extra}]"' in result.stderr) == (1, True)


@pytest.mark.parametrize("colours", [["red"], []])
def test_rendered_pages_do_not_stay(
    out: Path, tmp_path: Path, colours: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    result = embed("--file", write_pdf(tmp_path / "a.pdf", colours), "--out", out)
    assert result.exit_code == (0 if colours else 1)
    assert list((tmp_path / "temporary").iterdir()) == []


def write_table(kind: str, path: Path, image: str) -> Path:
    """A table of two rows, of which the second names an image."""
    if kind == "jsonl":
        path.write_text(f'{{"text": "a"}}\n{json.dumps({"image": image})}\n', encoding="utf-8")
    elif kind == "csv":
        path.write_text(f"text,image\na,\n,{image}\n", encoding="utf-8")
    elif kind == "parquet":
        datasets.Dataset.from_dict({"text": ["a", None], "image": [None, image]}).to_parquet(path)
    else:
        cells = [None, {"bytes": None, "path": image}]
        datasets.Dataset.from_dict({"text": ["a", None], "image": cells}).to_parquet(path)
    return path


TABLES = [("jsonl", "t.jsonl"), ("csv", "t.csv"), ("parquet", "t.parquet"), ("parquet of structs", "t.parquet")]


@pytest.mark.parametrize(("kind", "name"), TABLES)
def test_a_table_opens_no_files_but_those_of_the_root(
    kind: str, name: str, out: Path, tmp_path: Path, gallery: Gallery, tiny: SentenceTransformer
) -> None:
    inside, outside = gallery.paths[0], tmp_path / "outside.png"
    outside.write_bytes(inside.read_bytes())
    (tmp_path / "link.png").symlink_to(inside)
    folder = inside.parent
    table = write_table(kind, tmp_path / name, str(inside))
    result = embed("--file", table, "--root", folder, "--file", outside, "--out", out)
    assert_vectors(result, out, tiny, [{"text": "a"}, {"image": inside}, {"image": outside}])
    for option in (["--root", tmp_path / "root"], ["--no-local-files"]):
        (tmp_path / "root").mkdir(exist_ok=True)
        result = embed("--file", table, *option, "--out", out, "--force")
        assert result.exit_code == 1
        assert f"Error: {table}" in result.stderr
        assert "local_files" in result.stderr


@pytest.mark.parametrize("image", ["../outside.png", "file://{}/outside.png", "link.png", "gone.png", "{}/gone.png"])
def test_what_a_table_names_outside_of_the_root_is_refused_whether_it_is_there_or_not(
    image: str, out: Path, tmp_path: Path, gallery: Gallery
) -> None:
    (tmp_path / "outside.png").write_bytes(gallery.paths[0].read_bytes())
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "link.png").symlink_to(tmp_path / "outside.png")
    table = write_table("jsonl", tmp_path / "rows" / "t.jsonl", image.format(tmp_path))
    (tmp_path / "root").mkdir()
    result = embed("--file", table, "--root", tmp_path / "root", "--out", out)
    assert result.exit_code == 1
    assert "not within the folder" in result.stderr


def test_what_a_table_names_is_checked_again_when_it_is_embedded(
    out: Path, tmp_path: Path, gallery: Gallery, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("st_modules.cli.embed")
    open_model = module.open_model
    (tmp_path / "root").mkdir()
    picture = tmp_path / "root" / "a.png"
    picture.write_bytes(gallery.paths[0].read_bytes())

    def swap(*args: Any) -> SentenceTransformer:
        picture.unlink()
        picture.symlink_to(gallery.paths[0])
        return open_model(*args)

    monkeypatch.setattr(module, "open_model", swap)
    table = write_table("jsonl", tmp_path / "root" / "t.jsonl", "a.png")
    result = embed("--file", table, "--root", tmp_path / "root", "--out", out)
    assert result.exit_code == 1
    assert f"Error: {table}:2: {picture}: not within the folder" in result.stderr


def test_a_table_fetches_nothing_where_that_is_turned_off(out: Path, tmp_path: Path) -> None:
    table = write_table("jsonl", tmp_path / "t.jsonl", "https://a.example/a.png")
    result = embed("--file", table, "--no-remote-images", "--out", out)
    assert result.exit_code == 1
    assert f"Error: {table}:2: https://a.example/a.png: fetching is turned off" in result.stderr


@pytest.mark.parametrize("options", [["--root", "none"], ["--root", ".", "--no-local-files"]])
def test_a_root_that_says_nothing_is_a_wrong_call(options: list[str], out: Path) -> None:
    result = embed("a text", *options, "--out", out)
    assert result.exit_code == 2
    assert "--root" in result.stderr
