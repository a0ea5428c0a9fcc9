"""The command line, through its own entry point, on the golden GME checkpoint."""

from __future__ import annotations

import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from typer.testing import CliRunner, Result

from st_modules import ImageError, cli, list_models
from st_modules.evaluate import published
from tests.helpers.paths import GOLDEN

GOLDEN_GME = GOLDEN / "gme"
CASES = {case["id"]: case for case in json.loads((GOLDEN_GME / "cases.json").read_text(encoding="utf-8"))["cases"]}
EXPECTED = load_file(GOLDEN_GME / "expected.safetensors")
TEXTS = [item["text"] for item in CASES["text"]["items"]][:4]  # the fifth has line breaks
INSTRUCTION = CASES["text_instruction"]["instruction"]


def run(*args: str | Path, stdin: bytes | None = None) -> Result:
    return CliRunner().invoke(cli.app, [str(arg) for arg in args], input=stdin)


def embed(*args: str | Path, stdin: bytes | None = None) -> Result:
    return run("embed", "--quiet", "--model", "gme-2b", "--weights", GOLDEN_GME / "checkpoint", *args, stdin=stdin)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "vectors.npy"


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.with_suffix(".jsonl").read_bytes().splitlines()]


def jsonl(folder: Path, *lines: object) -> Path:
    path = folder / "data.jsonl"
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def assert_one_line_error(result: Result, code: int, *words: str) -> None:
    assert result.exit_code == code
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert [word for word in words if word not in result.stderr] == []


# ----------------------------------------------------------------------------------------------------- list


@pytest.mark.parametrize("spec", list_models(), ids=lambda spec: spec.name)
def test_list_shows_every_model_with_its_status(spec: Any) -> None:
    lines = [line.split() for line in run("list").stdout.splitlines()]
    (line,) = [line for line in lines if line[:2] == [spec.name, "available,"]]
    assert {spec.backbone, str(spec.dimension), spec.licence, *spec.parity.split()} <= set(line)


def test_list_and_help_do_not_import_torch() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from st_modules.cli import app;"
        "codes = [CliRunner().invoke(app, args).exit_code for args in (['list'], ['--help'], ['embed', '--help'])];"
        "assert codes == [0, 0, 0], codes; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_version() -> None:
    assert run("--version").stdout.startswith("st-modules 0.")


def test_the_package_is_run_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "st_modules", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == run("--version").stdout


# --------------------------------------------------------------------------------------------- wrong names


def test_unknown_model_suggests_a_near_name() -> None:
    assert_one_line_error(run("embed", "hello", "--model", "gme2b"), 2, "gme2b", "Did you mean 'gme-2b'")


def test_unknown_repository_without_network() -> None:
    assert_one_line_error(run("embed", "hello", "--model", "nobody/nothing"), 1)


@pytest.mark.parametrize("device", ["toaster", "cuda:99"])
def test_device_that_is_not_there(device: str) -> None:
    assert_one_line_error(embed("hello", "--device", device), 2, f"--device {device}: ")


def test_a_base_where_none_is_needed(out: Path) -> None:
    assert_one_line_error(embed("hello", "--base-weights", out.parent, "--out", out), 2, "built on no other")


def test_missing_weights_folder(out: Path) -> None:
    result = run("embed", "hello", "--model", "gme-2b", "--weights", out / "nowhere", "--out", out)
    assert_one_line_error(result, 1, "no such folder")


# -------------------------------------------------------------------------------------------- embed: texts


@pytest.mark.parametrize(
    ("options", "case"),
    [
        ([], "text"),
        (["--prompt", INSTRUCTION], "text_instruction"),
        (["--query", "--prompt-name", "t2i"], "text_instruction"),
        (["--document", "--prompt", INSTRUCTION], "text_document"),
    ],
)
def test_texts_give_the_vectors_of_the_original(out: Path, options: list[str], case: str) -> None:
    result = embed(*TEXTS, *options, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert np.abs(np.load(out) - EXPECTED[case][:4]).max() <= 1e-5
    assert [row["text"] for row in rows(out)] == TEXTS


def test_a_normal_run_says_one_line_and_nothing_else(out: Path) -> None:
    result = embed("hello", "--out", out)
    assert result.stdout.count("\n") == 1
    assert result.stderr == ""


def test_progress_is_shown_unless_quiet(out: Path) -> None:
    result = run("embed", "hello", "--model", "gme-2b", "--weights", GOLDEN_GME / "checkpoint", "--out", out)
    assert "100%" in result.stderr
    assert "Loading weights" not in result.stderr


def test_text_file_is_one_text_a_line_and_ids_are_line_numbers(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"\xef\xbb\xbf" + f"{TEXTS[0]}\r\n\r\n{TEXTS[1]}\n".encode())
    result = embed("--file", path, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert [(row["id"], row["text"]) for row in rows(out)] == [(f"{path}:1", TEXTS[0]), (f"{path}:3", TEXTS[1])]
    assert np.abs(np.load(out) - EXPECTED["text"][:2]).max() <= 1e-5


def test_lines_from_standard_input(out: Path) -> None:
    assert embed("--file", "-", "--out", out, stdin=b"one\ntwo\n").exit_code == 0
    assert [row["text"] for row in rows(out)] == ["one", "two"]


def test_text_file_that_is_not_utf8_names_the_line(out: Path, tmp_path: Path) -> None:
    path = tmp_path / "texts.txt"
    path.write_bytes(b"fine\n\xff\xfe\n")
    assert_one_line_error(embed("--file", path, "--out", out), 1, f"{path}:2: not UTF-8")


def test_a_file_name_among_the_texts_is_not_embedded_as_text(out: Path) -> None:
    image = GOLDEN_GME / "images" / "square.png"
    assert_one_line_error(embed(str(image), "--out", out), 2, "is a file", f"--file {image}")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        ([], 2, "Nothing to embed"),
        (["hello", "--prompt", "a", "--prompt-name", "t2i"], 2, "pass one of them"),
        (["hello", "--prompt-name", "nonesuch"], 2, "no instruction named 'nonesuch'"),
        (["--file", "nowhere.txt"], 1, "nowhere.txt: no such file"),
        (["\ud800"], 1, "text 1: character 0"),
        (["hello", "--prompt", "\ud800"], 1, "--prompt: character 0"),
        (["--file", ""], 2, "An empty path"),
        (["hello", "--weights", ""], 2, "An empty path"),
    ],
)
def test_calls_that_cannot_be_met(out: Path, args: list[str], code: int, words: str) -> None:
    assert_one_line_error(embed(*args, "--out", out), code, words)
    assert not list(out.parent.iterdir())


# ------------------------------------------------------------------------------------------- embed: images


def test_folder_of_images_is_searched_recursively_and_sorted(out: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for name in ("b/wide.png", "small.PNG", "a/tall.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((GOLDEN_GME / "images" / Path(name).name.lower()).read_bytes())
    (folder / "notes.txt").write_text("not an image")
    result = embed("--file", folder, "--out", out)
    assert result.exit_code == 0, result.stderr
    assert [Path(row["image"]) for row in rows(out)] == [folder / n for n in ("a/tall.png", "b/wide.png", "small.PNG")]
    assert np.abs(np.load(out) - EXPECTED["image_batch"][[1, 0, 2]]).max() <= 1e-5


def test_unreadable_images_of_a_folder_are_all_named(out: Path, tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"not an image at all")
    result = embed("--file", tmp_path, "--out", out)
    assert result.exit_code == 1
    assert [name in line for name, line in zip(("a.png", "b.jpg"), result.stderr.splitlines(), strict=True)] == [
        True
    ] * 2


def test_empty_folder(out: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_one_line_error(embed("--file", tmp_path / "empty", "--out", out), 1, "nothing to embed")


# -------------------------------------------------------------------------------------------- embed: JSONL


def test_jsonl_mixes_text_image_and_both(out: Path, tmp_path: Path) -> None:
    (tmp_path / "pictures").symlink_to(GOLDEN_GME / "images")
    fused = CASES["fused"]["items"][0]
    path = jsonl(
        tmp_path,
        {"id": 7, "text": TEXTS[0], "image": None, "year": 2024},
        {"image": "pictures/square.png"},
        "",
        {"id": "both", "text": fused["text"], "image": fused["image"].replace("images", "pictures")},
    )
    result = embed("--file", path, "--out", out)
    assert result.exit_code == 0, result.stderr
    expected = [EXPECTED["text"][0], EXPECTED["image_square"][0], EXPECTED["fused"][0]]
    assert np.abs(np.load(out) - expected).max() <= 1e-5
    assert [row["id"] for row in rows(out)] == [7, f"{path}:2", "both"]
    assert [row["image"] for row in rows(out)] == [None, "pictures/square.png", "pictures/square.png"]
    assert rows(out)[0]["metadata"] == {"year": 2024}


def test_jsonl_is_cut_at_newlines_only(out: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"text": "one\u2028line\x85still"})
    assert embed("--file", path, "--out", out).exit_code == 0
    assert [row["text"] for row in rows(out)] == ["one\u2028line\x85still"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "cut off', "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (["a", "list"], "not a JSON object"),
        ({"title": "other fields only"}, 'neither a "text" nor an "image"'),
        ({"text": None, "image": []}, 'neither a "text" nor an "image"'),
        ({"text": 5}, '"text" must be a string, not 5'),
        ({"image": {"path": "a.png"}}, '"image" must be a path'),
        ({"text": "fine", "id": 1.5}, '"id" must be'),
        ({"image": "missing.png"}, "missing.png"),
        ({"image": ["broken.png"]}, "broken.png"),
    ],
    ids=str,
)
def test_wrong_jsonl_line_is_named_by_its_number(out: Path, tmp_path: Path, line: object, problem: str) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    path = jsonl(tmp_path, {"text": "fine"}, line)
    assert_one_line_error(embed("--file", path, "--out", out), 1, f"{path}:2: ", problem)


def test_all_wrong_lines_are_named_together(out: Path, tmp_path: Path) -> None:
    path = jsonl(tmp_path, "{", {"text": "fine"}, {"text": 1})
    result = embed("--file", path, "--out", out)
    places = [line.split(": ")[1] for line in result.stderr.splitlines()]
    assert places == [f"{path}:1", f"{path}:3"]


def test_image_whose_pixels_are_damaged_is_named_by_its_line(out: Path, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-800])
    path = jsonl(tmp_path, {"text": "fine"}, {"image": "cut.jpg"})
    assert_one_line_error(embed("--file", path, "--out", out), 1, f"{path}:2: ")
    assert not list(out.parent.iterdir())


# ------------------------------------------------------------------------------------------- embed: output


def test_existing_files_are_kept_unless_forced(out: Path) -> None:
    out.with_suffix(".jsonl").write_text("precious")
    assert_one_line_error(embed("hello", "--out", out), 1, "already there", "--force")
    assert out.with_suffix(".jsonl").read_text() == "precious"
    assert embed("hello", "--out", out, "--force").exit_code == 0
    assert rows(out)[0]["text"] == "hello"


def test_a_failure_while_writing_leaves_the_old_files(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.write_bytes(b"old")

    def full_disk(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "save", full_disk)
    assert_one_line_error(embed("hello", "--out", out, "--force"), 1, "No space left")
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert out.read_bytes() == b"old"


@pytest.mark.parametrize(("name", "problem"), [("vectors.csv", "write to a .npy"), ("nowhere/v.npy", "no such folder")])
def test_targets_that_cannot_be_written(tmp_path: Path, name: str, problem: str) -> None:
    assert_one_line_error(embed("hello", "--out", tmp_path / name), 1, problem)


def test_parquet_has_the_rows_in_order(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    path = jsonl(
        tmp_path, {"id": 7, "text": TEXTS[0], "year": 2024}, {"image": str(GOLDEN_GME / "images" / "square.png")}
    )
    result = embed("--file", path, "--out", tmp_path / "vectors.parquet")
    assert result.exit_code == 0, result.stderr
    table = pq.read_table(tmp_path / "vectors.parquet").to_pylist()
    assert [row["id"] for row in table] == ["7", f"{path}:2"]
    assert [row["text"] for row in table] == [TEXTS[0], None]
    assert [row["image"] for row in table] == [None, [str(GOLDEN_GME / "images" / "square.png")]]
    assert json.loads(table[0]["metadata"]) == {"year": 2024}
    expected = [EXPECTED["text"][0], EXPECTED["image_square"][0]]
    assert np.abs(np.array([row["embedding"] for row in table]) - expected).max() <= 1e-5


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert_one_line_error(embed("hello", "--out", tmp_path / "v.parquet"), 1, 'pip install "st-modules[parquet]"')


# ------------------------------------------------------------------------------------------------- verify


class Scripted:
    """A model whose similarities are what the published scores say, but for an error."""

    def __init__(self, scores: tuple[published.Score, ...], error: float) -> None:
        self.values = iter([score.published + error for score in scores])
        self.asked: list[tuple[dict[str, Any], str | None]] = []

    def encode_query(self, item: dict[str, Any], prompt: str | None) -> np.ndarray:
        self.asked.append((item, prompt))
        return np.array([next(self.values)])

    def encode_document(self, item: dict[str, Any]) -> np.ndarray:
        return np.array([1.0])


def scripted(monkeypatch: pytest.MonkeyPatch, error: float) -> Scripted:
    model = Scripted(published.PUBLISHED["gme-7b"].scores, error)
    monkeypatch.setattr(cli.models, "open_model", lambda *args: model)
    monkeypatch.setattr(
        published, "fetch_images", lambda scores: dict.fromkeys([published._WINDOW, published._FRONT], "picture")
    )
    return model


def test_verify_accepts_scores_within_the_tolerance(monkeypatch: pytest.MonkeyPatch) -> None:
    model = scripted(monkeypatch, error=0.015)
    result = run("verify", "gme-7b")
    assert result.exit_code == 0, result.stderr
    assert "0.2281" in result.stdout
    assert "0.2431" in result.stdout
    asked = [prompt for item, prompt in model.asked if item == {"text": "What kind of car is this?"}]
    assert asked == [None, "Find an image that matches the given text."]


def test_verify_refuses_scores_that_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, error=0.05)
    result = run("verify", "gme-7b")
    assert_one_line_error(result, 1, "5 of 5 scores of gme-7b differ")
    assert "0.2781" in result.stdout


def test_verify_without_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(scores: object) -> None:
        raise ImageError("example picture: fetching failed (Name or service not known)")

    monkeypatch.setattr(published, "fetch_images", offline)
    assert_one_line_error(
        run("verify", "gme-2b"), 1, "not verified: that needs the network", "Name or service not known"
    )


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("tiny", 1, "no published scores"),
        ("e5-v", 1, "no published scores"),
        ("bge-vl-base", 1, 'Compare `st-modules evaluate bge-vl-base --benchmark "circo"` with'),
        ("gme", 2, "Unknown model 'gme'"),
    ],
)
def test_verify_of_models_that_it_cannot_check(name: str, code: int, words: str) -> None:
    assert_one_line_error(run("verify", name), code, words)
