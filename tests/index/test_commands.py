"""``st-modules search`` and ``export``, on the gallery's drawings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pyarrow import parquet
from typer.testing import CliRunner, Result

from st_modules import SentenceTransformer, cli
from st_modules.index.model_facts import ModelFacts, fingerprint
from tests.helpers.gallery import CAPTIONS, CHANGE, Gallery
from tests.helpers.index_tables import draw_vectors, make_index


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory, gallery: Gallery, tiny: SentenceTransformer) -> Path:
    path = tmp_path_factory.mktemp("drawings") / "my.index"
    paths = [str(each) for each in gallery.paths]
    vectors = tiny.encode_document([{"image": each} for each in paths])
    facts = ModelFacts("tiny", fingerprint(tiny), vectors.shape[1])
    texts = [*CAPTIONS[:4], "\x1b[31mhostile\u202e [bold]text[/]"]
    make_index(
        path, vectors, facts=facts, id=list("abcde"), text=texts, image=paths, source=paths, price=[1, 2, 3, 4, 5]
    )
    return path


def run(*args: str | Path) -> Result:
    return CliRunner().invoke(cli.app, [str(arg) for arg in args])


def find_ids(*args: str | Path) -> list[str]:
    result = run("search", *args, "--json")
    assert result.exit_code == 0, result.stderr
    return [json.loads(line)["id"] for line in result.stdout.splitlines()]


def assert_error(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert [word for word in words if word not in result.stderr] == []


@pytest.mark.parametrize("place", range(5))
def test_text_finds_its_picture(drawings: Path, place: int) -> None:
    assert find_ids(drawings, CAPTIONS[place], "--prompt-name", "t2i")[0] == "abcde"[place]


def test_picture_and_words_find_what_both_say(drawings: Path, gallery: Gallery) -> None:
    assert find_ids(drawings, "--image", gallery.query, "-k", "1") == ["a"]
    assert find_ids(drawings, CHANGE, "--image", gallery.query, "--prompt-name", "it2i", "-k", "1") == ["b"]


def test_json_has_one_object_a_line(drawings: Path, gallery: Gallery) -> None:
    result = run("search", drawings, "--like", "a", "-k", "2", "--where", "price > 4", "--json")
    (line,) = result.stdout.splitlines()
    record = json.loads(line)
    assert record.pop("score") < 1
    path = str(gallery.paths[4])
    assert record == {
        **{"id": "e", "source": path, "page": None, "text": "\x1b[31mhostile\u202e [bold]text[/]", "image": path},
        "metadata": {"price": 5},
    }


def test_table_shows_the_answers_and_no_control_characters(drawings: Path) -> None:
    result = run("search", drawings, "--like", "a")
    assert result.exit_code == 0
    assert r"\x1b[31mhostile\u202e [bold]text[/]" in " ".join(result.stdout.split())
    assert CAPTIONS[1] in " ".join(result.stdout.split())
    assert "\x1b" not in result.stdout


def test_words_are_looked_for_without_a_model(drawings: Path) -> None:
    code = (
        "import sys; from st_modules.cli import app; from typer.testing import CliRunner;"
        "assert not {'lancedb', 'torch'} & sys.modules.keys();"
        "result = CliRunner().invoke(app, sys.argv[1:]); assert result.exit_code == 0, result.output;"
        "assert 'torch' not in sys.modules; print(result.stdout)"
    )
    args = ["search", str(drawings), "star", "--mode", "text", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *args], check=True, capture_output=True, text=True)
    assert sorted(json.loads(line)["id"] for line in done.stdout.split("\n") if line) == ["c", "d"]
    assert done.stderr == ""


def test_both_ways_say_nothing_on_stderr(drawings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = find_ids(drawings, "green star", "--mode", "hybrid")
    assert found.index("c") < found.index("b")
    assert capfd.readouterr().err == ""  # LanceDB writes there itself


def test_text_that_is_a_file_name_is_a_text(drawings: Path, gallery: Gallery, tiny: SentenceTransformer) -> None:
    path = str(gallery.paths[0])
    result = run("search", drawings, path, "-k", "5", "--json")
    scores = {row["id"]: row["score"] for row in map(json.loads, result.stdout.splitlines())}
    picture = tiny.encode_document({"image": path})
    assert scores["a"] == pytest.approx(float(tiny.encode_query({"text": path}) @ picture), abs=1e-5)


def test_page_is_written(drawings: Path, tmp_path: Path) -> None:
    result = run("search", drawings, "a red circle", "--html", tmp_path / "out.html", "-k", "3")
    assert result.exit_code == 0
    text = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert text.count("<img ") == 3
    assert "<h1>a red circle</h1>" in text
    assert "out.html" in result.stderr


@pytest.mark.parametrize("as_picture", [True, False])
def test_a_path_of_a_picture_as_a_text_is_told(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gallery: Gallery, as_picture: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    name = "my picture.png" if as_picture else "picture"
    (tmp_path / "picture").write_bytes(gallery.query.read_bytes())  # without a suffix, and there
    result = run("search", drawings, name, "--json")
    assert result.exit_code == 0
    shown = "'my picture.png'" if as_picture else "picture"
    assert result.stderr == f"{name!r} is looked for as a text. To look for a picture: --image {shown}\n"


@pytest.mark.parametrize("where", ['"Source" = 1', '"source" > 1 AND nosuch = 1'])
def test_columns_in_double_quotes_are_no_strings(drawings: Path, where: str) -> None:
    result = run("search", drawings, "--like", "a", "--where", where)
    assert result.exit_code == 1
    assert "single quotes" not in result.stderr


@pytest.mark.parametrize("args", [["a red circle"], ["no-such-file"], ["a.png", "--mode", "text"]])
def test_other_texts_are_looked_for_without_a_word(drawings: Path, args: list[str]) -> None:
    assert run("search", drawings, *args).stderr in ("", "Nothing was found.\n")


def test_nothing_found_is_told(drawings: Path) -> None:
    result = run("search", drawings, "--like", "a", "--where", "price > 9")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "Nothing was found.\n")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], ["Nothing to look for"]),
        (["a", "--like", "b"], ["--like"]),
        (["--like", "b", "--mode", "hybrid"], ["--like", "--mode"]),
        (["a", "--prompt", "b", "--prompt-name", "t2i"], ["--prompt-name"]),
        (["a", "--mode", "text", "--prompt", "b"], ["--prompt"]),
        (["a", "--prompt-name", "nope"], ["nope", "t2i"]),
        (["a", "--html", "out.png"], ["out.png", ".html"]),
        (["a", "--model", "gme-3b"], ["gme-3b"]),
    ],
)
def test_wrong_call_is_one_line(drawings: Path, args: list[str], words: list[str]) -> None:
    assert_error(run("search", drawings, *args), 2, *words)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--like", "nobody"], ["nobody", "--like takes an id as a search prints it."]),
        (["--like", "pictures/a.png"], ["no item has the id", "To look for a picture: --image pictures/a.png"]),
        (["--like", "a", "--where", "cost < 3"], ["cost < 3", "price"]),
        (["--like", "a", "--where", '"source" = "shoe"'], ["Strings stand in single quotes: 'shoe'."]),
        (["--like", "a", "--where", 'source = "it\'s"'], ["Strings stand in single quotes: 'it''s'."]),
        (["--image", "gone.png"], ["gone.png"]),
        (["a", "--rerank", "./nowhere"], ["nowhere"]),
    ],
)
def test_error_is_one_line(drawings: Path, args: list[str], words: list[str]) -> None:
    assert_error(run("search", drawings, *args), 1, *words)


def test_index_of_another_model_is_refused(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(3, 128))
    assert_error(run("search", tmp_path / "my.index", "a circle"), 1, "fingerprint", "tiny")


@pytest.mark.parametrize("command", [["search", "a"], ["export", "--to", "x.parquet"]])
def test_index_that_is_not_there(tmp_path: Path, command: list[str]) -> None:
    assert_error(run(command[0], tmp_path / "no\x1b.index", *command[1:]), 1, r"no\x1b.index", "no index there")


def test_export_writes_the_items(drawings: Path, tmp_path: Path) -> None:
    result = run("export", drawings, "--to", tmp_path / "x.parquet")
    assert result.stdout == f"Wrote 5 items to {tmp_path / 'x.parquet'}.\n"
    assert parquet.read_table(tmp_path / "x.parquet")["id"].to_pylist() == list("abcde")
    assert_error(run("export", drawings, "--to", tmp_path / "x.parquet"), 1, "x.parquet", "--force")
    assert run("export", drawings, "--to", tmp_path / "x.parquet", "--force").exit_code == 0
