"""From pictures to a file of triplets: what is in it, what is left out, and runs that are stopped and go on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from st_modules import CheckpointError, InputError, SentenceTransformer, STModulesError, UnknownModelError, cli
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption
from st_modules.megapairs import (
    CaptionTemplates,
    Encoder,
    PicturePair,
    Recipe,
    Summary,
    Triplet,
    Written,
    make_triplets,
    pipeline,
    read_triplets,
    scan,
    vectors,
)

SCENES = random_scenes(21, 40)
NAMES = [f"{number:02}.png" for number in range(len(SCENES))]


class Stub:
    """A model whose vectors are random, and the same for the same item."""

    def __init__(self, seed: int, stop_at: int | None = None) -> None:
        self.seed = seed
        self.stop_at = stop_at
        self.embedded: list[str] = []

    def encode(self, items: list[dict[str, Any]], **options: Any) -> np.ndarray:
        keys = [Path(item["image"]).name if "image" in item else item["text"] for item in items]
        if self.stop_at is not None and len(self.embedded) >= self.stop_at:
            raise KeyboardInterrupt
        self.embedded += keys
        return np.array([np.random.default_rng([self.seed, *key.encode()]).normal(size=6) for key in keys])


class ByNumber(Stub):
    """One that knows a picture by the first two letters of its name."""

    def encode(self, items: list[dict[str, Any]], **options: Any) -> np.ndarray:
        return super().encode([{"text": Path(item["image"]).name[:2]} for item in items], **options)


class Stopping:
    """Templates that stop after some pairs, and that remember what they were asked."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.templates = CaptionTemplates()
        self.identity = "templates that stop"
        self.stop_at = stop_at
        self.asked: list[str] = []

    def write(self, pairs: Sequence[PicturePair]) -> Iterator[Written]:
        for pair, written in zip(pairs, self.templates.write(pairs), strict=True):
            if len(self.asked) == self.stop_at:
                raise KeyboardInterrupt
            self.asked.append(pair.label)
            # One in five is left out, so that two files grow.
            yield Written(problem="dull", detail=pair.label) if sum(pair.label.encode()) % 5 == 0 else written


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    for name, scene in zip(NAMES, SCENES, strict=True):
        draw(scene, seed=5).save(folder / name)
    rows = ({"file_name": name, "caption": caption(scene)} for name, scene in zip(NAMES, SCENES, strict=True))
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_encoder(model: Any, *arguments: Any) -> Encoder:
    """An encoder on what stands in for a model."""
    return Encoder(model, *arguments)


def recipe(visual: Any = None, other: Any = None, **options: Any) -> Recipe:
    encoders = [
        make_encoder(visual or Stub(1), "visual", 0.2, 0.8, "a"),
        make_encoder(other or Stub(2), "caption", 0.2, 0.9, "b"),
    ]
    return Recipe(encoders, **options)


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "_AT_ONCE", 7)
    monkeypatch.setattr(vectors, "_ROWS_AT_ONCE", 7)
    monkeypatch.setattr(pipeline, "block_rows", lambda dimension: 9)
    monkeypatch.setattr(pipeline, "_PAIRS_AT_ONCE", 4)


# --------------------------------------------------------------------------------------------- what "tiny" mines


@pytest.fixture(scope="session")
def mined(drawings: Path, tiny: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory) -> list[Triplet]:
    out = tmp_path_factory.mktemp("mined") / "triplets.jsonl"
    encoders = [Encoder(tiny, "visual", 0.5, 0.97, "tiny"), Encoder(tiny, "fused", 0.6, 0.97, "tiny")]
    make_triplets(drawings, out, Recipe(encoders, neighbours=8), CaptionTemplates())
    return list(read_triplets(out))


def test_mined_targets_and_negatives_are_those_of_brute_force(
    mined: list[Triplet], drawings: Path, tiny: SentenceTransformer
) -> None:
    visual = tiny.encode([drawings / name for name in NAMES]).astype(np.float64)
    texts = [caption(scene) for scene in SCENES]
    fused_items = [{"image": drawings / name, "text": text} for name, text in zip(NAMES, texts, strict=True)]
    fused = tiny.encode(fused_items).astype(np.float64)
    related: dict[str, list[set[str]]] = {name: [] for name in NAMES}
    duplicates = (visual @ visual.T) > 0.97
    for found, lower in ((visual @ visual.T, 0.5), (fused @ fused.T, 0.6)):
        for query, row in enumerate(found):
            inside = [n for n in np.argsort(-row).tolist() if n != query and lower <= row[n] <= 0.97][:8]
            related[NAMES[query]].append({NAMES[n] for n in inside if not duplicates[query, n]})
    assert {triplet.q_img for triplet in mined} == {name for name, sets in related.items() if any(sets)}
    allowed = [set.union(*related[triplet.q_img]) for triplet in mined]
    assert [triplet for triplet, others in zip(mined, allowed, strict=True) if triplet.t_img not in others] == []
    assert [triplet.hns[0] for triplet in mined] == [triplet.q_img for triplet in mined]
    negatives = [
        {n for n in others if not duplicates[NAMES.index(triplet.t_img), NAMES.index(n)]} - {triplet.t_img}
        for triplet, others in zip(mined, allowed, strict=True)
    ]
    pairs = zip(mined, negatives, strict=True)
    assert [triplet for triplet, others in pairs if not set(triplet.hns[1:]) <= others] == []
    assert [len(set(triplet.hns)) for triplet in mined] == [min(5, 1 + len(others)) for others in negatives]


def test_each_encoder_gives_a_query_one_target(mined: list[Triplet]) -> None:
    counts = {name: sum(triplet.q_img == name for triplet in mined) for name in NAMES}
    assert max(counts.values()) == 2


def test_instructions_name_words_of_the_targets_caption(mined: list[Triplet]) -> None:
    assert {len(triplet.q_text) for triplet in mined} == {3}
    words = {name: set(caption(scene).split()) for name, scene in zip(NAMES, SCENES, strict=True)}
    texts = [(text, words[triplet.t_img] - words[triplet.q_img]) for triplet in mined for text in triplet.q_text]
    assert [(text, new) for text, new in texts if not new <= set(text.split())] == []


# ------------------------------------------------------------------------------------------------- stopped runs


def finished(drawings: Path, folder: Path) -> tuple[bytes, bytes]:
    """What a run writes that is not stopped."""
    out = folder / "whole.jsonl"
    make_triplets(drawings, out, recipe(), Stopping())
    return out.read_bytes(), (folder / "whole.skipped.jsonl").read_bytes()


def run(drawings: Path, folder: Path, made: Recipe, writer: Any) -> tuple[bytes, bytes]:
    out = folder / "out.jsonl"
    make_triplets(drawings, out, made, writer)
    return out.read_bytes(), (folder / "out.skipped.jsonl").read_bytes()


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("stop_at", [0, 1, 5, 33])
def test_a_run_that_is_stopped_while_writing_goes_on_with_the_same_bytes(
    drawings: Path, tmp_path: Path, stop_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(drawings, tmp_path, recipe(), Stopping(stop_at))
    assert not (tmp_path / "out.jsonl").exists()
    again = Stopping()
    assert run(drawings, tmp_path, recipe(), again) == finished(drawings, tmp_path)
    everything = Stopping()
    make_triplets(drawings, tmp_path / "other.jsonl", recipe(), everything)
    assert again.asked == everything.asked[stop_at:]


@pytest.mark.usefixtures("small_steps")
def test_a_run_that_is_stopped_while_reading_goes_on_with_the_same_bytes(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    stopping = [NAMES[16]]
    look = scan._scan

    def looked(path: Path) -> scan.ScannedPicture:
        if path.name in stopping:
            raise KeyboardInterrupt
        read.append(path.name)
        return look(path)

    monkeypatch.setattr(scan, "_scan", looked)
    with pytest.raises(KeyboardInterrupt):
        run(drawings, tmp_path, recipe(), Stopping())
    stopping.clear()
    read.clear()
    result = run(drawings, tmp_path, recipe(), Stopping())
    assert sorted(read) == NAMES[16:]
    assert result == finished(drawings, tmp_path)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("stop_at", [1, 8, 22])
def test_a_run_that_is_stopped_while_embedding_goes_on_with_the_same_bytes(
    drawings: Path, tmp_path: Path, stop_at: int
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(drawings, tmp_path, recipe(other=Stub(2, stop_at)), Stopping())
    again = Stub(2)
    assert run(drawings, tmp_path, recipe(other=again), Stopping()) == finished(drawings, tmp_path)
    assert len(again.embedded) == 1 + len(NAMES) - (stop_at - 1)


@pytest.mark.usefixtures("small_steps")
def test_a_run_that_is_stopped_while_searching_goes_on_with_the_same_bytes(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[range] = []
    search = pipeline.neighbours_in_band

    def stopping(rows: Any, queries: range, *args: Any) -> Any:
        searched.append(queries)
        if len(searched) == 3:
            raise KeyboardInterrupt
        return search(rows, queries, *args)

    monkeypatch.setattr(pipeline, "neighbours_in_band", stopping)
    with pytest.raises(KeyboardInterrupt):
        run(drawings, tmp_path, recipe(), Stopping())
    result = run(drawings, tmp_path, recipe(), Stopping())
    assert searched[2:5] == [range(18, 27), range(18, 27), range(27, 36)]
    assert result == finished(drawings, tmp_path)


@pytest.mark.usefixtures("small_steps")
def test_a_line_that_was_written_half_is_written_again(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(drawings, tmp_path, recipe(), Stopping(12))
    (written,) = (tmp_path / "out.jsonl.work").glob("triplets-*.jsonl")
    written.write_bytes(written.read_bytes()[:-9])
    assert run(drawings, tmp_path, recipe(), Stopping()) == finished(drawings, tmp_path)


def test_two_runs_write_the_same_bytes_and_another_seed_writes_others(drawings: Path, tmp_path: Path) -> None:
    def written(name: str, seed: int) -> bytes:
        out = tmp_path / name
        make_triplets(drawings, out, recipe(seed=seed), CaptionTemplates(seed=seed))
        return out.read_bytes()

    assert written("a.jsonl", 1) == written("b.jsonl", 1)
    assert written("a.parquet", 1) == written("b.parquet", 1)
    assert written("c.jsonl", 2) != (tmp_path / "a.jsonl").read_bytes()
    assert list(read_triplets(tmp_path / "a.parquet")) == list(read_triplets(tmp_path / "a.jsonl"))


def test_float16_takes_half_the_space_and_finds_the_same_pictures(drawings: Path, tmp_path: Path) -> None:
    def made(float16: bool) -> tuple[int, list[Triplet]]:
        out, work = tmp_path / f"{float16}.jsonl", tmp_path / "work"
        there = set(work.glob("vectors-visual-*.npy"))
        made = recipe(float16=float16, pairs=40, negatives=40)
        make_triplets(drawings, out, made, CaptionTemplates(), work=work)
        (file,) = set(work.glob("vectors-visual-*.npy")) - there
        return np.load(file).nbytes, sorted(read_triplets(out), key=lambda found: (found.q_img, found.t_img))

    (half, some), (whole, all_) = made(True), made(False)
    assert 2 * half == whole
    assert [(found.q_img, found.t_img) for found in some] == [(found.q_img, found.t_img) for found in all_]


def test_another_band_takes_the_vectors_that_are_there(drawings: Path, tmp_path: Path) -> None:
    def made(upper: float) -> Stub:
        stub = Stub(1)
        encoders = [make_encoder(stub, "visual", 0.2, upper, "a")]
        out = tmp_path / f"{upper}.jsonl"
        make_triplets(drawings, out, Recipe(encoders), CaptionTemplates(), work=tmp_path / "work")
        return stub

    assert len(made(0.8).embedded) == 1 + len(NAMES)
    assert len(made(0.7).embedded) == 1  # a look whether the vectors are this model's


def test_vectors_of_another_model_of_the_same_name_are_refused(drawings: Path, tmp_path: Path) -> None:
    def run_with(seed: int) -> None:
        out = tmp_path / f"{seed}.jsonl"
        made = Recipe([make_encoder(Stub(seed), "visual", 0.2, 0.8, "a")])
        make_triplets(drawings, out, made, CaptionTemplates(), work=tmp_path / "work")

    run_with(1)
    with pytest.raises(STModulesError, match="vectors of another model called 'a'"):
        run_with(2)


@pytest.mark.parametrize("loaded", [True, False])
def test_vectors_of_a_model_before_it_was_trained_on_are_refused(loaded: bool, drawings: Path, tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")

    def run(out: str) -> None:
        model.save_pretrained(str(tmp_path / "model"))
        encoder = Encoder(model if loaded else str(tmp_path / "model"), "visual", 0.6, 0.97, "mine")
        make_triplets(drawings, tmp_path / out, Recipe([encoder]), CaptionTemplates(), work=tmp_path / "work")

    run("before.jsonl")
    # By so little that the direction of no vector shows it.
    next(model.parameters()).data[0, 0] += 1e-3
    with pytest.raises(STModulesError, match="vectors of another model called 'mine'"):
        run("after.jsonl")


def test_a_picture_that_was_changed_is_embedded_again(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "pictures")
    made = make_triplets(folder, tmp_path / "a.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    draw(SCENES[0], seed=99).save(folder / NAMES[3])
    stub = Stub(1)
    again = make_triplets(folder, tmp_path / "b.jsonl", recipe(stub), CaptionTemplates(), work=tmp_path / "work")
    assert len(stub.embedded) == 1 + len(NAMES)
    assert again.pictures == made.pictures


def test_encoders_whose_names_make_the_same_file_name_have_their_own_vectors(drawings: Path, tmp_path: Path) -> None:
    encoders = [make_encoder(Stub(1), "visual", 0.2, 0.8, "a/b"), make_encoder(Stub(2), "visual", 0.2, 0.8, "a-b")]
    make_triplets(drawings, tmp_path / "out.jsonl", Recipe(encoders), CaptionTemplates())
    assert len(list((tmp_path / "out.jsonl.work").glob("vectors-*.npy"))) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"neighbours": 3},
        {"pairs": 2},
        {"negatives": 2},
        {"seed": 1},
        {"upper": 0.6},
        {"lower": 0.4},
        {"writer_seed": 1},
    ],
)
def test_another_recipe_in_the_same_folder_writes_what_it_writes_in_a_new_one(
    drawings: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    def written(work: str, lower: float = 0.2, upper: float = 0.8, writer_seed: int = 0, **options: Any) -> bytes:
        bands = [make_encoder(Stub(1), "visual", lower, upper, "a")]
        out = tmp_path / "out.jsonl"
        writer = CaptionTemplates(seed=writer_seed)
        make_triplets(drawings, out, Recipe(bands, **options), writer, work=tmp_path / work, overwrite=True)
        return out.read_bytes()

    before = written("work")
    after = written("work", **changes)
    assert after != before
    assert after == written("other", **changes)


def test_captions_that_were_changed_are_embedded_again(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "pictures")
    make_triplets(folder, tmp_path / "a.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    text = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(text.replace("background", "ground"))
    stub = Stub(2)
    make_triplets(folder, tmp_path / "b.jsonl", recipe(other=stub), CaptionTemplates(), work=tmp_path / "work")
    assert len(stub.embedded) == 1 + len(NAMES)


def test_a_picture_that_was_renamed_has_its_new_name(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "pictures")
    bands = Recipe([make_encoder(ByNumber(1), "visual", 0.2, 0.8, "a")])
    make_triplets(folder, tmp_path / "a.jsonl", bands, CaptionTemplates(), work=tmp_path / "work")
    (folder / NAMES[3]).rename(folder / "03-new.png")
    text = (folder / "metadata.jsonl").read_text()
    (folder / "metadata.jsonl").write_text(text.replace(NAMES[3], "03-new.png"))
    make_triplets(folder, tmp_path / "b.jsonl", bands, CaptionTemplates(), work=tmp_path / "work")
    seen = set().union(*map(names, read_triplets(tmp_path / "b.jsonl")))
    assert "03-new.png" in seen
    assert NAMES[3] not in seen


def damage(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def test_a_picture_that_was_changed_without_a_change_of_its_size_is_read_again(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "pictures")
    make_triplets(folder, tmp_path / "a.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    before = (folder / NAMES[3]).stat()
    damage(folder / NAMES[3])
    os.utime(folder / NAMES[3], ns=(before.st_atime_ns, before.st_mtime_ns + 1000))
    made = make_triplets(folder, tmp_path / "b.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    assert made.skipped == {"unreadable": 1}


def test_a_folder_like_another_one_is_read_again(drawings: Path, tmp_path: Path) -> None:
    make_triplets(drawings, tmp_path / "a.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    folder = shutil.copytree(drawings, tmp_path / "pictures")
    damage(folder / NAMES[3])
    shutil.copystat(drawings / NAMES[3], folder / NAMES[3])
    made = make_triplets(folder, tmp_path / "b.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    assert made.skipped == {"unreadable": 1}


# --------------------------------------------------------------------------------------------- one run at a time


class Second(Stopping):
    """Templates that start another run while they write."""

    def __init__(self, source: Path, out: Path, **options: Any) -> None:
        super().__init__()
        self.source, self.out, self.options = source, out, options
        self.error = ""

    def write(self, pairs: Sequence[PicturePair]) -> Iterator[Written]:
        if not self.error:
            with pytest.raises(InputError) as caught:
                make_triplets(self.source, self.out, recipe(), Stopping(), **self.options)
            self.error = str(caught.value)
        yield from super().write(pairs)


def test_a_second_run_in_the_same_folder_is_an_error_and_the_first_one_ends_as_if_alone(
    drawings: Path, tmp_path: Path
) -> None:
    second = Second(drawings, tmp_path / "second.jsonl", work=tmp_path / "out.jsonl.work")
    assert run(drawings, tmp_path, recipe(), second) == finished(drawings, tmp_path)
    assert second.error.startswith(f"{tmp_path / 'out.jsonl.work'}: another run")
    assert not (tmp_path / "second.jsonl").exists()


def test_a_run_leaves_its_folder_to_the_next_one(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(drawings, tmp_path, recipe(), Stopping(3))
    assert run(drawings, tmp_path, recipe(), Stopping()) == finished(drawings, tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    results = {f"{run}{suffix}" for run in ("out", "whole") for suffix in (".jsonl", ".skipped.jsonl")}
    assert names == results | {"out.jsonl.work", "whole.jsonl.work"}


def test_a_run_of_another_process_keeps_others_out_until_it_is_killed(drawings: Path, tmp_path: Path) -> None:
    work = tmp_path / "out.jsonl.work"
    work.mkdir()
    code = (
        "import pathlib, sys; from st_modules.files.locks import lock_folder\n"
        "with lock_folder(pathlib.Path(sys.argv[1])): print('locked', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(work)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        with pytest.raises(InputError, match="another run"):
            run(drawings, tmp_path, recipe(), Stopping())
        other.kill()
    assert run(drawings, tmp_path, recipe(), Stopping()) == finished(drawings, tmp_path)


# ---------------------------------------------------------------------------------------------- names of models


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "scan_pictures", lambda *_: pytest.fail("pictures were read"))


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("gme-2c", "Did you mean 'gme-2b'"),
        ("{}/none", "no such folder"),
        ("./none", "no such folder"),
        ("{}", "no model in it"),
        ("{}/x.jsonl", "no model in it"),
    ],
)
def test_a_model_that_is_not_there_is_an_error_before_any_picture_is_read(
    drawings: Path, tmp_path: Path, model: str, words: str
) -> None:
    (tmp_path / "x.jsonl").write_text("")
    encoders = [make_encoder(Stub(1), "visual", 0.2, 0.8, "a"), Encoder(model.format(tmp_path), "fused", 0.2, 0.8)]
    with pytest.raises(UnknownModelError, match=words) as error:
        make_triplets(drawings, tmp_path / "out.jsonl", Recipe(encoders), CaptionTemplates())
    assert str(error.value).startswith(f"{model.format(tmp_path)} (fused): ")


def test_a_model_that_is_not_there_is_an_error_before_another_one_embeds(drawings: Path, tmp_path: Path) -> None:
    make_triplets(drawings, tmp_path / "a.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")
    stub = Stub(3)
    made = Recipe([make_encoder(stub, "visual", 0.2, 0.8, "c"), Encoder("gme-2c", "fused", 0.2, 0.8)])
    with pytest.raises(UnknownModelError):
        make_triplets(drawings, tmp_path / "b.jsonl", made, CaptionTemplates(), work=tmp_path / "work")
    assert stub.embedded == []


def test_a_model_whose_vectors_are_there_need_not_be(drawings: Path, tmp_path: Path, tiny: SentenceTransformer) -> None:
    def made(lower: float) -> int:
        bands = Recipe([Encoder(str(tmp_path / "model"), "visual", lower, 0.97)])
        out = tmp_path / f"{lower}.jsonl"
        return make_triplets(drawings, out, bands, CaptionTemplates(), work=tmp_path / "work", device="cpu").triplets

    tiny.save_pretrained(str(tmp_path / "model"))
    narrow = made(0.6)
    shutil.rmtree(tmp_path / "model")
    assert made(0.5) > narrow


@pytest.mark.parametrize("model", ["{}", "no-such-owner/no-such-model"])
def test_a_model_that_does_not_load_is_an_error_that_names_it(drawings: Path, tmp_path: Path, model: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    bands = Recipe([Encoder(model.format(tmp_path), "visual", 0.2, 0.8)])
    with pytest.raises(CheckpointError, match=r"\(visual\): the model cannot be loaded: ") as error:
        make_triplets(drawings, tmp_path / "out.jsonl", bands, CaptionTemplates(), device="cpu")
    assert str(error.value).startswith(model.format(tmp_path))
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------- what is left out


@pytest.fixture
def messy(drawings: Path, tmp_path: Path) -> Path:
    """The drawings, one of them twice, one cut off, one without a caption."""
    folder = shutil.copytree(drawings, tmp_path / "messy")
    shutil.copy(folder / NAMES[0], folder / "copy.png")
    whole = (folder / NAMES[1]).read_bytes()
    (folder / NAMES[1]).write_bytes(whole[: len(whole) // 2])
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["file_name"] != NAMES[2]] + [{"file_name": "copy.png", "caption": "a copy"}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def messy_summary(messy: Path, tmp_path: Path) -> Summary:
    bands = [make_encoder(Stub(1), "visual", -1, 0.99, "a"), make_encoder(Stub(2), "caption", -1, 1, "b")]
    made = Recipe(bands, neighbours=60, pairs=60, negatives=60)
    return make_triplets(messy, tmp_path / "messy.jsonl", made, CaptionTemplates())


def left_out(summary: Summary) -> list[dict[str, str]]:
    return [json.loads(line) for line in summary.files[1].read_text(encoding="utf-8").splitlines()]


def test_a_picture_that_cannot_be_read_is_left_out_and_recorded(messy_summary: Summary) -> None:
    assert messy_summary.pictures == len(NAMES)
    assert messy_summary.skipped["unreadable"] == 1
    (row,) = [row for row in left_out(messy_summary) if row["reason"] == "unreadable"]
    assert row["picture"] == NAMES[1]
    assert row["detail"]
    assert NAMES[1] not in {name for triplet in read_triplets(messy_summary.files[0]) for name in names(triplet)}


def names(triplet: Triplet) -> set[str]:
    return {triplet.q_img, triplet.t_img, *triplet.hns}


def test_files_of_equal_contents_are_no_pair_and_no_negatives_of_each_other(messy_summary: Summary) -> None:
    seen = list(read_triplets(messy_summary.files[0]))
    assert any(triplet.q_img == "copy.png" for triplet in seen)
    both = {NAMES[0], "copy.png"}
    concerned = [triplet for triplet in seen if {triplet.q_img, triplet.t_img} & both]
    assert [triplet for triplet in concerned if both <= names(triplet)] == []


def test_pairs_without_captions_are_left_out_and_recorded(messy_summary: Summary) -> None:
    rows = [row for row in left_out(messy_summary) if row["reason"] == "no caption"]
    # 41 pictures in all, one unreadable, one without a caption: 39 others ask for it, and it asks for 39.
    assert messy_summary.skipped["no caption"] == len(rows) == 2 * 39
    assert [row for row in rows if NAMES[2] not in row["pair"]] == []


def test_every_pair_is_a_triplet_or_is_recorded(messy_summary: Summary) -> None:
    total = messy_summary.triplets + sum(messy_summary.skipped.values()) - messy_summary.skipped["unreadable"]
    assert total == 40 * 39 - 2  # without the two pairs of a picture and its copy


@pytest.mark.parametrize("reads", ["fused", "caption"])
def test_only_the_band_of_a_visual_encoder_makes_duplicates(drawings: Path, tmp_path: Path, reads: Any) -> None:
    encoders = [make_encoder(Stub(1), "visual", -1, 1, "a"), make_encoder(Stub(2), reads, -1, 0, "b")]
    made = make_triplets(drawings, tmp_path / "out.jsonl", Recipe(encoders, 40, pairs=40), CaptionTemplates())
    assert made.triplets + sum(made.skipped.values()) == 40 * 39


def test_triplets_with_fewer_negatives_than_asked_for_are_counted(
    drawings: Path, tmp_path: Path, messy_summary: Summary
) -> None:
    assert messy_summary.short == messy_summary.triplets > 0
    made = make_triplets(drawings, tmp_path / "out.jsonl", recipe(negatives=20), CaptionTemplates())
    counts = [len(triplet.hns) for triplet in read_triplets(tmp_path / "out.jsonl")]
    assert made.short == sum(count < 20 for count in counts)
    assert 0 < made.short < made.triplets


def test_broken_links_and_what_is_no_regular_file_are_recorded(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "pictures")
    (folder / "link.png").symlink_to("nowhere.png")
    (folder / "link.jpg").symlink_to(os.devnull)
    made = make_triplets(folder, tmp_path / "out.jsonl", recipe(), CaptionTemplates())
    rows = left_out(made)
    assert [(row["picture"], row["reason"]) for row in rows] == [("link.jpg", "unreadable"), ("link.png", "unreadable")]
    assert rows[0]["detail"].startswith(f"{folder / 'link.jpg'}: not a regular file")
    assert rows[1]["detail"].startswith(f"{folder / 'link.png'}: no such file")


def test_a_run_that_leaves_nothing_out_removes_the_record_of_the_one_before(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    assert len(make_triplets(drawings, out, recipe(), Stopping()).files) == 2
    assert len(make_triplets(drawings, out, recipe(), CaptionTemplates(), overwrite=True).files) == 1
    assert not (tmp_path / "out.skipped.jsonl").exists()


# ----------------------------------------------------------------------------------------------------- errors


def test_no_pair_within_any_band_is_an_error(drawings: Path, tmp_path: Path) -> None:
    made = Recipe([make_encoder(Stub(1), "visual", 0.999, 1, "a")])
    with pytest.raises(InputError, match="widen the bands"):
        make_triplets(drawings, tmp_path / "out.jsonl", made, CaptionTemplates())
    assert not (tmp_path / "out.jsonl").exists()


def test_a_caption_encoder_without_captions_is_an_error(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "bare", ignore=shutil.ignore_patterns("metadata.jsonl"))
    with pytest.raises(InputError, match=r"b \(caption\): no picture has a caption"):
        make_triplets(folder, tmp_path / "out.jsonl", recipe(), CaptionTemplates())


def test_templates_without_captions_are_an_error(drawings: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(drawings, tmp_path / "bare", ignore=shutil.ignore_patterns("metadata.jsonl"))
    made = Recipe([make_encoder(Stub(1), "visual", 0.2, 0.8, "a")])
    with pytest.raises(InputError, match="pass a chat model"):
        make_triplets(folder, tmp_path / "out.jsonl", made, CaptionTemplates())


def test_one_picture_that_can_be_read_is_too_few(drawings: Path, tmp_path: Path) -> None:
    for name in NAMES[:2]:
        shutil.copy(drawings / name, tmp_path / name)
    damage(tmp_path / NAMES[1])
    (tmp_path / "metadata.jsonl").write_text(json.dumps({"file_name": NAMES[0], "caption": "a"}))
    with pytest.raises(InputError, match="1 of 2 pictures can be read; pairs need two"):
        make_triplets(tmp_path, tmp_path / "out.jsonl", recipe(), CaptionTemplates())


def test_a_file_that_was_written_in_part_is_removed(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(triplets: Iterator[Triplet], path: Path) -> None:
        path.write_bytes(b"PAR1")
        raise OSError("no space")

    monkeypatch.setattr(pipeline, "write_parquet", fails)
    with pytest.raises(OSError, match="no space"):
        make_triplets(drawings, tmp_path / "out.parquet", recipe(), CaptionTemplates())
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet.work"]


@pytest.mark.usefixtures("nothing_is_read")
def test_a_folder_without_permission_is_an_error_before_any_picture_is_read(drawings: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        pytest.skip("this user may write everywhere")
    with pytest.raises(InputError, match="closed: no permission to write"):
        make_triplets(drawings, closed / "out.jsonl", recipe(), CaptionTemplates(), work=tmp_path / "work")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.csv", "a .jsonl or a .parquet"),
        ("no/out.jsonl", "no such folder"),
        ("x.jsonl", "already"),
        ("y.jsonl", "y.jsonl: a folder"),
    ],
)
def test_a_target_that_cannot_be_written_is_an_error(drawings: Path, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "x.jsonl").write_text("")
    (tmp_path / "y.jsonl").mkdir()
    with pytest.raises(InputError, match=words):
        make_triplets(drawings, tmp_path / name, recipe(), CaptionTemplates())


def test_a_vector_without_direction_is_an_error_that_names_the_picture(drawings: Path, tmp_path: Path) -> None:
    class Zero(Stub):
        def encode(self, items: list[dict[str, Any]], **options: Any) -> np.ndarray:
            found = super().encode(items, **options)
            found[[Path(item["image"]).name == NAMES[7] for item in items]] = 0
            return found

    made = Recipe([make_encoder(Zero(1), "visual", 0.2, 0.8, "a")])
    with pytest.raises(STModulesError, match=rf"a \(visual\): its vector of {NAMES[7]} has no direction"):
        make_triplets(drawings, tmp_path / "out.jsonl", made, CaptionTemplates())


@pytest.mark.parametrize("text", ["tiny", "tiny:visual", "tiny:visual:0.5", "tiny:visual:a:b"])
def test_an_encoder_that_is_not_spelled_right_is_an_error(text: str) -> None:
    with pytest.raises(InputError, match="MODEL:READS:LOWER:UPPER"):
        Encoder.parse(text)


def test_an_encoder_is_parsed_from_the_right() -> None:
    assert Encoder.parse("C:/models/mine:fused:-0.5:1") == Encoder("C:/models/mine", "fused", -0.5, 1.0)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("tiny", "sound", 0.1, 0.9), "can read visual, caption, fused"),
        (("tiny", "visual", 0.9, 0.1), "lower bound comes first"),
        (("tiny", "visual", 0.1, 1.1), "cosines from -1 to 1"),
        (("tiny", "visual", float("nan"), 0.9), "is not one"),
        ((Stub(1), "visual", 0.1, 0.9), "needs a name"),
    ],
)
def test_a_wrong_encoder_is_an_error(values: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Encoder(*values)


def test_the_same_encoder_twice_is_an_error() -> None:
    encoders = [Encoder("tiny", "visual", 0.1, 0.9), Encoder("tiny", "visual", 0.5, 0.9)]
    with pytest.raises(InputError, match="there twice"):
        Recipe(encoders)
    with pytest.raises(InputError, match="No encoder"):
        Recipe([])


@pytest.mark.parametrize("name", ["neighbours", "pairs", "negatives"])
def test_numbers_of_a_recipe_below_one_are_errors(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0"):
        recipe(**{name: 0})


# ------------------------------------------------------------------------------------------------- command line


def command(*args: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["megapairs", *map(str, args)])


ENCODERS = ("-e", "tiny:visual:0.5:0.97", "-e", "tiny:caption:0.5:0.97")


def test_the_command_writes_triplets_and_says_how_many(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    result = command(drawings, *ENCODERS, "--out", out, "--quiet", "--device", "cpu", "--negatives", "30")
    assert result.exit_code == 0, result.output
    written = list(read_triplets(out))
    assert f"Wrote {len(written)} triplets of 40 pictures to {out}." in result.stdout
    assert "fewer than 30 hard negatives" in result.stdout
    assert result.stderr == ""


def test_the_command_takes_a_chat_model_and_says_what_it_left_out(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = json.dumps({"common": "a", "difference": "b", "instructions": ["in another way"]})
    (tmp_path / "megapairs_cli_model.py").write_text(
        "from langchain_core.language_models import FakeListChatModel\n"
        f"model = FakeListChatModel(responses=[{answer!r}] * 9 + ['no'] * 3 + [{answer!r}] * 1000)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = ["--chat-model", "megapairs_cli_model:model", "--instructions", "1", "--max-failures", "1"]
    result = command(drawings, *ENCODERS[:2], *options, "--concurrency", "1", "-q", "--device", "cpu", "-o", "t.jsonl")
    assert result.exit_code == 0, result.output
    assert "Left out: 1 (no usable answer); see t.skipped.jsonl." in result.stdout
    assert {triplet.q_text for triplet in read_triplets(tmp_path / "t.jsonl")} == {("in another way",)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("-e", "tiny:visual"), "MODEL:READS:LOWER:UPPER"),
        ((*ENCODERS, "--out", "out.txt"), ".jsonl or a .parquet"),
        ((*ENCODERS, "--chat-model", "nothing"), "MODULE:NAME"),
    ],
)
def test_the_command_says_what_is_wrong_in_one_line(
    drawings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = command(drawings, "--quiet", *arguments)
    assert result.exit_code in (1, 2)
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.usefixtures("nothing_is_read")
@pytest.mark.parametrize("model", ["tinny", "./nowhere"])
def test_the_command_ends_with_two_for_a_model_that_is_not_there(drawings: Path, tmp_path: Path, model: str) -> None:
    result = command(drawings, "--quiet", "-e", f"{model}:visual:0.1:0.9", "-o", tmp_path / "out.jsonl")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {model} (visual): ")
    assert result.stderr.count("\n") == 1
