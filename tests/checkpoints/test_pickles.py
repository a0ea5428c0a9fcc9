"""Files of torch.save make the tensors that they hold, and neither call anything else nor grow in memory."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from st_modules import CheckpointError, SentenceTransformer
from st_modules.checkpoints.pickles import load_pickle
from tests.helpers.paths import GOLDEN

WEIGHTS = {"a": torch.randn(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)}


def save_plain(path: Path) -> None:
    torch.save(WEIGHTS, path)


def save_old(path: Path) -> None:
    torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)


def save_parameters(path: Path) -> None:
    torch.save({name: torch.nn.Parameter(weight) for name, weight in WEIGHTS.items()}, path)


def save_views(path: Path) -> None:
    both = torch.cat([weight.float().flatten() for weight in WEIGHTS.values()])
    torch.save({"a": both[:12].view(3, 4), "b": both[12:].bfloat16()}, path)


@pytest.mark.parametrize("save", [save_plain, save_old, save_parameters, save_views])
def test_tensors_come_back_as_they_were_saved(save: Callable[[Path], None], tmp_path: Path) -> None:
    save(tmp_path / "weights.bin")
    found = load_pickle(tmp_path / "weights.bin")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], weight) for name, weight in WEIGHTS.items())


def write_archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


def number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little")


def call(module: str, name: str, value: int) -> bytes:
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + number(value) + b"\x85R."


ENTRY = b"X\x01\x00\x00\x00a"
"""The text "a" of a pickle."""


def nested(levels: int) -> bytes:
    """Tuples of twice the same tuple, whose hash takes twice as long with every level."""
    return b"N\x85q\x00" + b"h\x00h\x00\x86q\x00" * levels


def one_hash(count: int) -> bytes:
    """Numbers of the same hash, each with a value."""
    return b"".join(b"\x8a\x0c" + (each * (2**61 - 1)).to_bytes(12, "little") + b"N" for each in range(1, count))


def write_under(name: str) -> Callable[[Path], object]:
    """Return what writes a call under another name, which torch finds all the same."""

    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(name, call("os", "urandom", 3))
            archive.writestr("archive/version", "3\n")

    return write


def hostile_pickle(content: bytes) -> Callable[[Path], object]:
    return lambda path: write_archive(path, b"\x80\x02" + content + b".")


ORDERED = b"ccollections\nOrderedDict\n"
STORAGE = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\n"

HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "bytes of any number": (lambda path: write_archive(path, call("__builtin__", "bytearray", 2**36)), "bytearray"),
    "a tensor of any size": (lambda path: write_archive(path, call("torch", "FloatTensor", 2**40)), "FloatTensor"),
    "a function of the system": (lambda path: write_archive(path, call("os", "urandom", 2**36)), "os urandom"),
    "a name from the stack": (
        lambda path: write_archive(path, b"\x80\x04\x8c\x02os\x8c\x06system\x93."),
        "by its name",
    ),
    "a compressed pickle": (
        lambda path: write_archive(path, b"\x80\x02}." + b"N" * 10**7, zipfile.ZIP_DEFLATED),
        "it is compressed",
    ),
    "a long pickle": (lambda path: write_archive(path, b"\x80\x02}." + b"N" * 2**20), "are the most"),
    "a pickle without end": (lambda path: write_archive(path, b"\x80\x02}"), "cannot be read"),
    "a tensor that is repeated": (
        lambda path: torch.save({"a": torch.ones(1).expand(10**9, 1000)}, path),
        "the tensor a has more numbers",
    ),
    "one that is repeated, in the old format": (
        lambda path: torch.save({"a": torch.ones(1).expand(10**9)}, path, _use_new_zipfile_serialization=False),
        "the tensor a has more numbers",
    ),
    "a pickle of something else": (lambda path: path.write_bytes(pickle.dumps({"a": Path("x")})), "cannot be read"),
    "a list": (lambda path: torch.save([torch.ones(2)], path), "something else than a dictionary"),
    "nothing": (Path.touch, "cannot be read"),
    "a call in capital letters": (write_under("archive/DATA.PKL"), "it calls os urandom"),
    "a key of tuples of tuples": (hostile_pickle(b"}(" + nested(60) + b"Nu"), "large tuples"),
    "a key of very many levels": (hostile_pickle(b"}N" + b"\x85" * 900_000 + b"Ns"), "large tuples"),
    "a key of one small tuple": (hostile_pickle(b"}N\x85Ns"), "keys that are neither text nor small numbers"),
    "keys of one hash": (
        hostile_pickle(b"}(" + one_hash(60_000) + b"u"),
        "keys that are neither text nor small numbers",
    ),
    "a long tuple": (hostile_pickle(b"(" + ENTRY * 17 + b"t"), "large tuples"),
    "a storage that is named by tuples of tuples": (
        hostile_pickle(STORAGE + nested(60) + ENTRY + b"K\x00tQ"),
        "large tuples",
    ),
    "a storage that is named by no tuple": (hostile_pickle(ENTRY + b"Q"), "names numbers by something else"),
    "a storage of any length": (
        hostile_pickle(b"ctorch.storage\nUntypedStorage\n" + number(2**36) + b"\x85R"),
        "it calls something that it made",
    ),
    "a call of lists of lists": (
        hostile_pickle(b"]q\x00" + b"]q\x01h\x00ah\x00ah\x01q\x00" * 40 + b")R"),
        "it calls something that it made",
    ),
    "a dictionary of a list of keys": (hostile_pickle(ORDERED + b"]R"), "it calls something that it made"),
    "no mark": (hostile_pickle(b"u"), "it is damaged"),
    "nothing to call": (hostile_pickle(b"R"), "it is damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_anything_else_is_refused_by_its_file(kind: str, tmp_path: Path) -> None:
    write, message = HOSTILE[kind]
    path = tmp_path / "weights.bin"
    write(path)
    with pytest.raises(CheckpointError, match=rf"weights\.bin: .*{message}"):
        load_pickle(path)


@pytest.mark.parametrize("kind", ["bytes of any number", "a compressed pickle", "a tensor that is repeated"])
@pytest.mark.parametrize(
    ("row", "source", "file"),
    [
        ("gme-2b", "gme/checkpoint", "pytorch_model.bin"),
        ("vlm2vec-qwen2vl-2b", "vlm2vec/checkpoint", "adapter_model.bin"),
        ("bge-visualized-base", "bge_visualized_base", "Visualized_base_en_v1.5.pth"),
    ],
)
def test_every_pickled_file_of_a_model_is_read_so(row: str, source: str, file: str, kind: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / source, tmp_path / "checkpoint"))
    for path in [*folder.glob("*.safetensors"), folder / file]:
        path.unlink(missing_ok=True)
    HOSTILE[kind][0](folder / file)
    bases = {"vlm2vec-qwen2vl-2b": "vlm2vec/base", "bge-visualized-base": "bge_visualized_base/bge"}
    base = GOLDEN / bases[row] if row in bases else None
    with pytest.raises(CheckpointError, match=HOSTILE[kind][1]):
        SentenceTransformer(row, weights=folder, base_weights=base, device="cpu")
