"""Files of training runs: the model's tensors are mapped, and nothing else of the file is made, called or read."""

from __future__ import annotations

import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from st_modules import CheckpointError, SentenceTransformer
from st_modules.checkpoints.training_files import load_training_weights
from tests.helpers.references import reference
from tests.helpers.training_checkpoints import CLIP_SF, clip_sf_weights, save_run

WEIGHTS = {"a": torch.randn(3, 4), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.tensor(2.0)}


def test_the_published_layout_has_the_weights_that_pythons_unpickler_finds() -> None:
    found, expected = load_training_weights(CLIP_SF, "model"), clip_sf_weights()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_views_of_one_storage_are_the_views_that_were_saved(tmp_path: Path) -> None:
    both = torch.randn(4, 6)
    weights = {"columns": both[:, 1:3], "turned": both.t(), "rows": both[2:]}
    save_run({"first": torch.ones(1), **weights}, tmp_path / "run.pth")
    found = load_training_weights(tmp_path / "run.pth", "model")
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_what_is_written_to_a_weight_stays_out_of_the_file(tmp_path: Path) -> None:
    save_run(WEIGHTS, tmp_path / "run.pth")
    before = (tmp_path / "run.pth").read_bytes()
    load_training_weights(tmp_path / "run.pth", "model")["a"].zero_()
    assert (tmp_path / "run.pth").read_bytes() == before


class Calls:
    """Is pickled as a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("key", ["optimizer", "config", "epoch", "scaler"])
def test_a_call_beside_the_model_is_not_made(key: str, tmp_path: Path) -> None:
    called = tmp_path / "called"
    torch.save({"model": WEIGHTS, key: [Calls(os.mkdir, str(called))]}, tmp_path / "run.pth")
    found = load_training_weights(tmp_path / "run.pth", "model")
    assert torch.equal(found["a"], WEIGHTS["a"])
    assert not called.exists()


def test_a_call_under_the_model_is_refused_and_not_made(tmp_path: Path) -> None:
    called = tmp_path / "called"
    torch.save({"model": {**WEIGHTS, "d": Calls(os.mkdir, str(called))}}, tmp_path / "run.pth")
    with pytest.raises(CheckpointError, match=r"run\.pth: cannot be read .* \(d is no tensor\)"):
        load_training_weights(tmp_path / "run.pth", "model")
    assert not called.exists()


def text(content: str) -> bytes:
    return b"X" + len(content).to_bytes(4, "little") + content.encode()


def number(value: int) -> bytes:
    return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)


def tensor(
    shape: bytes = b"K\x02\x85", strides: bytes = b"K\x01\x85", offset: bytes = b"K\x00", pid: bytes | None = None
) -> bytes:
    """The call by which torch.save writes a tensor of the eight bytes that archives here have."""
    named = text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x02"
    storage = b"(" + named + b"tQ" if pid is None else pid
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + offset + shape + strides + b"\x89)tR"


def model(value: bytes, rest: bytes = b"") -> bytes:
    return b"}(" + text("model") + b"}" + text("a") + value + b"s" + rest + b"u"


def write_archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED, **parts: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        # First, so that its numbers are aligned.
        for name, part in {"data/0": bytes(8), "version": b"3\n", "byteorder": b"little", **parts}.items():
            archive.writestr(f"run/{name}", part)
        archive.writestr("run/data.pkl", b"\x80\x02" + content + b".")


def write_unended(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("run/data.pkl", b"\x80\x02}")


def write_unaligned(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x", b"")
        archive.writestr("run/data/0", bytes(8))
        archive.writestr("run/data.pkl", b"\x80\x02" + model(tensor()) + b".")


def write_twice(path: Path) -> None:
    write_archive(path, model(tensor()))
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("run/data/0", bytes(8))


NESTED = b"N\x85q\x00" + b"h\x00h\x00\x86q\x00" * 60
LAUGHS = b"]q\x00" + b"]q\x01(h\x00h\x00h\x00eq\x00" * 60
INERT = {
    "a call of what a call would return": b"cos\nsystem\n" + text("a") + b"\x85R)R",
    "an object with a state": b"cos\nsystem\n)\x81" + NESTED + b"b",
    "a state for a tensor": tensor() + b"}" + text("shape") + number(2**60) + b"sb",
    "a tensor of any size": tensor(shape=number(2**60) + b"\x85"),
    "a function of torch with other arguments": b"ctorch._utils\n_rebuild_tensor_v2\n]R",
    "tuples of twice the same tuple": NESTED,
    "lists of three times the same list": LAUGHS,
    "keys of such tuples": b"}" + NESTED + b"Ns",
    "keys of one hash": b"}(" + b"".join(number(each * (2**61 - 1)) + b"N" for each in range(1, 3)) + b"u",
    "a storage that is named by a list": LAUGHS + b"Q",
    "a list that is in itself": b"]q\x00h\x00a",
    "what is put into no dictionary": b"N(" + text("a") + b"Nu" + text("b") + b"Ns",
    "many levels": b"N" + b"\x85" * 900_000,
}


@pytest.mark.parametrize("kind", INERT)
def test_what_stands_beside_the_model_changes_nothing(kind: str, tmp_path: Path) -> None:
    write_archive(tmp_path / "run.pth", model(tensor(), text("config") + INERT[kind]))
    assert load_training_weights(tmp_path / "run.pth", "model")["a"].tolist() == [0.0, 0.0]


def archive_of(content: bytes, **options: Any) -> Callable[[Path], object]:
    return lambda path: write_archive(path, content, **options)


def storage(*parts: bytes) -> bytes:
    return tensor(pid=b"(" + b"".join(parts) + b"tQ")


FLOATS = b"ctorch\nFloatStorage\n"
HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no model": (lambda path: torch.save({"optimizer": {}}, path), "no dictionary under 'model'"),
    "a list": (lambda path: torch.save([WEIGHTS], path), "no dictionary under 'model'"),
    "an empty model": (lambda path: torch.save({"model": {}}, path), "no dictionary under 'model'"),
    "a model that is a list": (
        lambda path: torch.save({"model": [torch.ones(1)]}, path),
        "no dictionary under 'model'",
    ),
    "a number for a tensor": (lambda path: torch.save({"model": {"a": 5}}, path), "a is no tensor"),
    "whole numbers": (
        lambda path: torch.save({"model": {"a": torch.ones(2).long()}}, path),
        "a is a torch LongStorage",
    ),
    "the oldest format": (
        lambda path: torch.save({"model": WEIGHTS}, path, _use_new_zipfile_serialization=False),
        "not a zip file",
    ),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps({"model": 1})), "not a zip file"),
    "nothing": (Path.touch, "not a zip file"),
    "a repeated tensor": (
        lambda path: torch.save({"model": {"a": torch.ones(1).expand(10**9, 1000)}}, path),
        "more numbers than the file holds",
    ),
    "many of the same tensor": (
        lambda path: torch.save({"model": dict.fromkeys(map(str, range(999)), torch.ones(10**5))}, path),
        "more numbers than the file holds",
    ),
    "a compressed pickle": (archive_of(model(tensor()), compression=zipfile.ZIP_DEFLATED), "it is compressed"),
    "a long pickle": (archive_of(model(tensor()) + b"N" * 2**20), "are the most"),
    "two parts of one name": (write_twice, "two of its parts"),
    "two pickles": (archive_of(model(tensor()), **{"x/data.pkl": b"."}), "no archive of torch.save"),
    "big-endian numbers": (archive_of(model(tensor()), byteorder=b"big"), "little-endian"),
    "a storage that is not there": (archive_of(model(tensor()).replace(text("0"), text("1"))), "a are missing"),
    "a storage of a path": (archive_of(model(tensor()).replace(text("0"), text("../byteorder"))), "a are missing"),
    "numbers that are not aligned": (write_unaligned, "a are not aligned"),
    "a shape of more numbers": (archive_of(model(tensor(shape=b"K\x03\x85"))), "more numbers than the file holds"),
    "strides past the end": (archive_of(model(tensor(strides=number(2**60) + b"\x85"))), "more numbers than the file"),
    "an offset past the end": (archive_of(model(tensor(offset=number(2**62)))), "more numbers than the file holds"),
    "a negative stride": (archive_of(model(tensor(strides=number(-1) + b"\x85"))), "no shape that it can have"),
    "a negative length": (archive_of(model(tensor(shape=number(-1) + b"\x85"))), "no shape that it can have"),
    "a shape of true": (archive_of(model(tensor(shape=b"\x88\x85"))), "no shape that it can have"),
    "more strides than lengths": (archive_of(model(tensor(strides=b"K\x01K\x01\x86"))), "no shape that it can have"),
    "a shape that is a list": (archive_of(model(tensor(shape=b"]"))), "no shape that it can have"),
    "very many dimensions": (
        archive_of(model(tensor(shape=b"(" + b"K\x01" * 99 + b"t", strides=b"(" + b"K\x01" * 99 + b"t"))),
        "no shape that it can have",
    ),
    "a storage of another name": (
        archive_of(model(storage(text("module"), FLOATS, text("0"), text("cpu"), b"K\x02"))),
        "of no known kind",
    ),
    "a storage of a text for its kind": (
        archive_of(model(storage(text("storage"), text("torch FloatStorage"), text("0"), text("cpu"), b"K\x02"))),
        "of no known kind",
    ),
    "a storage of a number for its key": (
        archive_of(model(storage(text("storage"), FLOATS, b"K\x00", text("cpu"), b"K\x02"))),
        "of no known kind",
    ),
    "a tensor without arguments": (archive_of(model(b"ctorch._utils\n_rebuild_tensor_v2\n)R")), "of no known kind"),
    "a class by its name on the stack": (archive_of(text("os") + text("system") + b"\x93"), "STACK_GLOBAL"),
    "an operation of older pickles": (archive_of(b"I1\n"), "operation INT"),
    "no mark": (archive_of(b"u"), "damaged"),
    "a mark among operands": (archive_of(b"((\x86"), "damaged"),
    "nothing on the stack": (archive_of(b"R"), "damaged"),
    "what was not remembered": (archive_of(b"h\x07"), "damaged"),
    "no end": (write_unended, "before seeing STOP"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_else_is_refused_by_its_file(kind: str, tmp_path: Path) -> None:
    write, message = HOSTILE[kind]
    write(tmp_path / "run.pth")
    with pytest.raises(CheckpointError, match=rf"run\.pth: cannot be read as a training checkpoint .*{message}"):
        load_training_weights(tmp_path / "run.pth", "model")


def test_a_pointer_of_git_is_told(tmp_path: Path) -> None:
    (tmp_path / "run.pth").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    with pytest.raises(CheckpointError, match=r"run\.pth: .*Git"):
        load_training_weights(tmp_path / "run.pth", "model")


@pytest.mark.parametrize("form", ["file", "folder", "CLIP_SF", "repository"])
def test_the_file_is_found_in_every_folder_that_it_may_be_in(form: str, tmp_path: Path) -> None:
    inner = {"CLIP_SF": "CLIP_SF", "repository": "checkpoint/CLIP_SF"}.get(form, "")
    folder = tmp_path / inner
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(CLIP_SF, folder)
    weights = folder / CLIP_SF.name if form == "file" else tmp_path
    base = reference("clip-sf-large").base_weights
    loaded: Any = SentenceTransformer("clip-sf-large", weights=weights, base_weights=base, device="cpu")[0]
    assert torch.equal(loaded.model.text_projection.weight, clip_sf_weights()["clip_model.text_projection"].T)


def test_the_file_alone_names_the_model() -> None:
    base = reference("clip-sf-large").base_weights
    loaded = SentenceTransformer(str(CLIP_SF), base_weights=base, device="cpu")
    assert loaded[0].template == "uniir_clip"


@pytest.mark.parametrize("inner", ["", "checkpoint/CLIP_SF"])
def test_a_link_out_of_the_folder_is_not_followed(inner: str, tmp_path: Path) -> None:
    (tmp_path / inner).mkdir(parents=True, exist_ok=True)
    (tmp_path / inner / CLIP_SF.name).symlink_to(CLIP_SF)
    with pytest.raises(CheckpointError, match=r"clip_sf_large\.pth: a link to .*, outside of the folder"):
        SentenceTransformer("clip-sf-large", weights=tmp_path, base_weights=CLIP_SF.parents[1] / "base", device="cpu")


def test_the_cache_of_the_hub_may_have_it_among_its_blobs(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--TIGER-Lab--UniIR" / "snapshots" / "abc"
    (snapshot / "checkpoint" / "CLIP_SF").mkdir(parents=True)
    blob = tmp_path / "models--TIGER-Lab--UniIR" / "blobs" / "123"
    blob.parent.mkdir()
    shutil.copyfile(CLIP_SF, blob)
    (snapshot / "checkpoint" / "CLIP_SF" / CLIP_SF.name).symlink_to(blob)
    loaded = SentenceTransformer(str(snapshot), base_weights=CLIP_SF.parents[1] / "base", device="cpu")
    assert loaded[0].template == "uniir_clip"
