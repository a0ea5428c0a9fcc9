"""``st-modules embed`` that is stopped and goes on, and that leaves out what cannot be embedded."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from st_modules import SentenceTransformer, cli
from st_modules.cli import embedding


def embed(*args: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["embed", "--quiet", *map(str, args)])


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(autouse=True)
def model(tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> SentenceTransformer:
    """The one model of these tests, so that it is not loaded for each call; four records are embedded at once."""
    monkeypatch.setattr(embedding, "BATCHES_AT_ONCE", 1)
    monkeypatch.setattr(cli.embed, "open_model", lambda *_: tiny)
    return tiny


@pytest.fixture
def calls(model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The items of each call of ``encode``."""
    calls: list[list[Any]] = []
    encode = type(model).encode

    def record(self: SentenceTransformer, items: list[Any], **options: Any) -> Any:
        calls.append(items)
        return encode(self, items, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", record)
    return calls


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"id": n, "text": f"{n} " * (1 + n % 4)}) + "\n" for n in range(10)))
    return path


@pytest.fixture
def args(source: Path) -> list[str | Path]:
    return ["--file", source, "--batch-size", "4", "--resume", "--out"]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / "v.npy"


def stop_at(number: int, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a call of ``encode`` raise."""
    encode, left = SentenceTransformer.encode, iter(range(number))

    def encode_or_stop(self: SentenceTransformer, *args: Any, **options: Any) -> Any:
        if next(left, None) is None:
            raise error
        return encode(self, *args, **options)

    monkeypatch.setattr(SentenceTransformer, "encode", encode_or_stop)


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_a_stopped_run_goes_on_to_the_same_bytes(
    out: Path, args: list[Any], calls: list[Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = out.with_name("whole") / name
    whole.parent.mkdir()
    assert embed(*args[:-2], "--out", whole).exit_code == 0
    assert [len(call) for call in calls] == [4, 4, 2]
    with monkeypatch.context() as patch:
        stop_at(2, OSError("gone"), patch)
        assert embed(*args, out.with_name(name)).exit_code == 1
    calls.clear()
    assert embed(*args, out.with_name(name)).exit_code == 0
    assert [len(call) for call in calls] == [2]
    assert files(out.parent) == files(whole.parent)
    assert not out.with_name(f"{name}.partial").exists()


def test_a_finished_output_is_told_and_stays(out: Path, args: list[Any], calls: list[Any]) -> None:
    assert embed(*args, out).exit_code == 0
    before = files(out.parent)
    calls.clear()
    result = embed(*args, out)
    assert (result.exit_code, result.stdout) == (0, f"{out} is finished already: 10 vectors.\n")
    assert (files(out.parent), sum(map(len, calls))) == (before, 1)  # one is looked at


@pytest.mark.parametrize("change", ["records", "vectors", "partner"])
def test_a_finished_output_of_something_else_is_an_error(out: Path, args: list[Any], source: Path, change: str) -> None:
    assert embed(*args, out).exit_code == 0
    if change == "records":
        source.write_text(source.read_text() + '{"text": "one more"}\n')
    elif change == "vectors":
        np.save(out, np.load(out)[:, ::-1])
    else:
        out.with_suffix(".jsonl").unlink()
    before = files(out.parent)
    result = embed(*args, out)
    assert (result.exit_code, "--force" in result.stderr, files(out.parent)) == (1, True, before)


def change_text(source: Path, tmp_path: Path) -> list[str]:
    source.write_text(source.read_text().replace("9 ", "x "))
    return []


def change_batches(source: Path, tmp_path: Path) -> list[str]:
    return ["--batch-size", "2"]


def change_prompt(source: Path, tmp_path: Path) -> list[str]:
    return ["--prompt", "Find"]


def change_side(source: Path, tmp_path: Path) -> list[str]:
    return ["--query"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_text, "another input"),
        (change_batches, "another batch size"),
        (change_prompt, "another instruction"),
        (change_side, "another side"),
    ],
)
def test_what_was_made_otherwise_is_never_mixed(
    out: Path,
    tmp_path: Path,
    args: list[Any],
    source: Path,
    change: Callable[[Path, Path], list[str]],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        stop_at(1, OSError("gone"), patch)
        assert embed(*args, out).exit_code == 1
    result = embed(*args, out, *change(source, tmp_path))
    assert (result.exit_code, words in result.stderr, result.stderr.count("\n")) == (1, True, 1)
    assert embed("--file", source, "--out", out).exit_code == 0
    assert len(np.load(out)) == 10
    assert sorted(files(out.parent)) == ["v.jsonl", "v.npy"]


def test_other_weights_are_never_mixed(
    out: Path, args: list[Any], model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(1, OSError("gone"), patch)
        assert embed(*args, out).exit_code == 1
    monkeypatch.setattr("st_modules.cli.embedding.digest_weights", lambda model: "other")
    result = embed(*args, out)
    assert (result.exit_code, "another model" in result.stderr) == (1, True)


def test_without_resume_nothing_is_kept(out: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(1, OSError("gone"), monkeypatch)
    assert embed("--file", source, "--batch-size", "4", "--out", out).exit_code == 1
    assert list(out.parent.iterdir()) == []


def write_catalogue(folder: Path, gone: str) -> Path:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    (folder / "cut.jpg").write_bytes(buffer.getvalue()[:-800])
    (folder / "good.jpg").write_bytes(buffer.getvalue())
    (folder / "no.png").write_text("no picture")
    rows = [
        {"id": "a", "text": "a"},
        {"id": "cut", "image": "cut.jpg"},
        {"id": "no", "image": "no.png"},
        {"id": "good", "image": ["good.jpg", "good.jpg"]},
        {"id": "gone", "image": ["good.jpg", gone]},
        {"id": 7, "text": "\ud800"},
    ]
    path = folder / "catalogue.jsonl"
    path.write_text("\n".join([*map(json.dumps, rows), "{", '{"text": "b"}']))
    return path


@pytest.mark.parametrize("name", ["v.npy", "v.parquet"])
def test_bad_records_are_listed_and_the_others_embedded(out: Path, tmp_path: Path, name: str) -> None:
    path = write_catalogue(tmp_path, gone="http://127.0.0.1:9/a.png")
    out = out.with_name(name)
    result = embed("--file", path, "--skip-bad", "--out", out)
    assert (result.exit_code, result.stderr) == (
        0,
        f"Skipped 5 of 8 records; see {out.with_suffix('.skipped.jsonl')}.\n",
    )
    bad = lines(out.with_suffix(".skipped.jsonl"))
    assert [(row["place"], row["id"]) for row in bad] == [
        (f"{path}:3", "no"),
        (f"{path}:6", 7),
        (f"{path}:7", f"{path}:7"),
        (f"{path}:2", "cut"),
        (f"{path}:5", "gone"),
    ]
    assert [
        word
        for word, row in zip(("no.png", "surrogate", "JSON", "cut.jpg", "image 1"), bad, strict=True)
        if word not in row["problem"]
    ] == []
    assert not [row for row in bad if row["problem"].count(str(path))]


def test_the_others_have_their_own_vectors(out: Path, tmp_path: Path, tiny: SentenceTransformer) -> None:
    path = write_catalogue(tmp_path, gone="http://127.0.0.1:9/a.png")
    assert embed("--file", path, "--skip-bad", "--out", out).exit_code == 0
    rows = lines(out.with_suffix(".jsonl"))
    assert [row["id"] for row in rows] == ["a", "good", f"{path}:8"]
    expected = tiny.encode([{"text": "a"}, {"image": [tmp_path / "good.jpg"] * 2}, {"text": "b"}])
    assert np.abs(np.load(out) - expected).max() < 1e-5


def test_an_input_of_nothing_but_bad_records_is_an_error(out: Path, tmp_path: Path) -> None:
    write_catalogue(tmp_path, gone="a.png")
    for name, problem in (("no.png", "not"), ("cut.jpg", "truncated")):
        result = embed("--file", tmp_path / name, "--skip-bad", "--resume", "--out", out)
        assert (result.exit_code, result.stderr.count("\n"), problem in result.stderr) == (1, 1, True), result.stderr
        assert result.stderr.count(str(tmp_path / name)) == 1


def test_bad_records_are_listed_once_after_a_stop(out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_catalogue(tmp_path, gone="http://127.0.0.1:9/a.png")
    path.write_text(path.read_text() + "".join('\n{"text": "more"}' for _ in range(4)))
    args = ["--file", path, "--skip-bad", "--batch-size", "4", "--resume", "--out", out]
    encode = SentenceTransformer.encode

    def encode_or_stop(self: SentenceTransformer, items: list[Any], **options: Any) -> Any:
        if any(item.text == "more" for item in items):
            raise OSError("gone")
        return encode(self, items, **options)

    with monkeypatch.context() as patch:
        patch.setattr(SentenceTransformer, "encode", encode_or_stop)
        assert embed(*args).exit_code == 1
    shutil.copytree(out.with_name("v.npy.partial"), tmp_path / "left")
    assert len(lines(tmp_path / "left" / "bad.jsonl")) == 2
    assert embed(*args).exit_code == 0
    assert [row["id"] for row in lines(out.with_suffix(".skipped.jsonl"))][3:] == ["cut", "gone"]
    assert len(np.load(out)) == 7


def test_no_list_of_an_earlier_run_stays(out: Path, tmp_path: Path) -> None:
    path = write_catalogue(tmp_path, gone="http://127.0.0.1:9/a.png")
    assert embed("--file", path, "--skip-bad", "--out", out).exit_code == 0
    assert embed("hello", "--out", out, "--force").exit_code == 0
    assert sorted(files(out.parent)) == ["v.jsonl", "v.npy"]


def test_what_a_stopped_run_has_skipped_is_not_left_out_unasked(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("text,image\na,cut.png\n" + "a,\n" * 7)
    encoded = io.BytesIO()
    Image.effect_noise((32, 32), 50).save(encoded, "PNG")
    (tmp_path / "cut.png").write_bytes(encoded.getvalue()[:-500])
    args = ["--file", source, "--batch-size", "4", "--resume", "--out", out]
    with monkeypatch.context() as patch:
        stop_at(3, OSError("gone"), patch)  # after four records, and what is left of them without the first
        assert embed(*args, "--skip-bad").exit_code == 1
    result = embed(*args)
    assert result.exit_code == 1
    assert f"{source}:2: " in result.stderr
    assert "a stopped run left it out: pass --skip-bad" in result.stderr
    assert not out.exists()
    assert embed(*args, "--skip-bad").exit_code == 0
    assert len(np.load(out)) == 7


@pytest.mark.parametrize("content", ["", "x", "[1]\n"])
def test_a_damaged_output_is_not_taken_for_finished(out: Path, args: list[Any], content: str) -> None:
    for damaged in (out, out.with_suffix(".jsonl")):
        assert embed(*args, out, "--force").exit_code == 0
        damaged.write_text(content)
        result = embed(*args, out)
        assert result.exit_code == 1
        assert "already there, with other records or vectors; pass --force to overwrite." in result.stderr
