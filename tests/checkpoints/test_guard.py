"""Nothing outside of a model's folder is read, whatever its files name or link to, and nothing is waited for."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from st_modules import CheckpointError, SentenceTransformer
from st_modules.checkpoints.guard import check_folder, check_subfolder
from tests.helpers.paths import GOLDEN

GME = GOLDEN / "gme" / "checkpoint"
TOWER = GOLDEN / "bge_visualized_base"
FILES = ["config.json", "model.safetensors", "tokenizer.json", "preprocessor_config.json"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GME, tmp_path / "checkpoint"))


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer("gme-2b", weights=folder, device="cpu")


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        os.chdir(path.parent)  # such an address may have 108 bytes
        server.bind(path.name)


ODD: dict[str, tuple[Callable[[Path], None], str]] = {
    "a FIFO": (os.mkfifo, "not a regular file"),
    "a folder": (Path.mkdir, "not a regular file"),
    "a socket": (make_socket, "not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "a link to /dev/zero, outside"),
    "a link to nothing": (lambda path: path.symlink_to("nothing"), "a link to nothing"),
    "a link to itself": (lambda path: path.symlink_to(path.name), "a link to nothing"),
    "a link elsewhere": (
        lambda path: path.symlink_to(GME.resolve() / path.name),
        r"a link to .*, outside of the folder\. Copy the file there",
    ),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_file_of_the_folder_is_refused_by_its_path(
    kind: str, name: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkpoint)
    make, message = ODD[kind]
    (checkpoint / name).unlink()
    make(checkpoint / name)
    with pytest.raises(CheckpointError, match=rf"checkpoint/{name}: {message}"):
        load(checkpoint)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "added_tokens.json", "chat_template.jinja", "merges.txt"])
def test_files_that_need_not_be_there_are_no_way_out_either(name: str, checkpoint: Path) -> None:
    (checkpoint / name).unlink(missing_ok=True)
    (checkpoint / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=name):
        load(checkpoint)


@pytest.mark.parametrize("part", ["weights", "base_weights"])
def test_a_base_and_what_is_built_on_it_are_looked_at_alike(part: str, tmp_path: Path) -> None:
    golden = {"weights": GOLDEN / "vlm2vec" / "checkpoint", "base_weights": GOLDEN / "vlm2vec" / "base"}
    folder = Path(shutil.copytree(golden[part], tmp_path / part))
    (folder / "other.json").symlink_to("/dev/zero")
    places: Any = {**golden, part: folder}
    with pytest.raises(CheckpointError, match=rf"{part}/other\.json: a link"):
        SentenceTransformer("vlm2vec-qwen2vl-2b", device="cpu", **places)


def test_the_file_of_a_tower_is_looked_at_too(tmp_path: Path) -> None:
    (tmp_path / "Visualized_base_en_v1.5.pth").symlink_to(TOWER / "Visualized_base_en_v1.5.pth")
    with pytest.raises(CheckpointError, match=r"\.pth: a link"):
        SentenceTransformer("bge-visualized-base", weights=tmp_path, base_weights=TOWER / "bge", device="cpu")


@pytest.mark.parametrize("name", ["README.md", "adapter_config.json", "config_sentence_transformers.json"])
def test_a_saved_model_is_looked_at_before_its_files_are_read(name: str, tmp_path: Path) -> None:
    SentenceTransformer("tiny", device="cpu").save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved" / name).unlink(missing_ok=True)
    (tmp_path / "saved" / name).symlink_to("/dev/zero")
    with pytest.raises(CheckpointError, match=f"saved/{name}: a link"):
        SentenceTransformer(str(tmp_path / "saved"), device="cpu")


@pytest.mark.parametrize("place", ["../..", "../outside", "/etc", "1_Normalize/../../outside"])
def test_the_modules_of_a_saved_model_are_in_its_folder(place: str, tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    SentenceTransformer("tiny", device="cpu").save_pretrained(str(folder))
    (tmp_path / "outside").mkdir()
    file = folder / "modules.json"
    first, second = json.loads(file.read_text())
    file.write_text(json.dumps([first, {**second, "path": place}]))
    with pytest.raises(CheckpointError, match=r"modules\.json: \[1\]\.path"):
        SentenceTransformer(str(folder), device="cpu")


def test_a_module_is_no_link_to_a_folder_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    SentenceTransformer("tiny", device="cpu").save_pretrained(str(folder))
    shutil.move(folder / "1_Normalize", tmp_path / "elsewhere")
    (folder / "1_Normalize").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="1_Normalize: a link to"):
        SentenceTransformer(str(folder), device="cpu")


def test_a_file_of_a_module_is_no_link_to_a_file_elsewhere(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    SentenceTransformer("tiny", device="cpu").save_pretrained(str(folder))
    shutil.move(folder / "1_Normalize" / "config.json", tmp_path / "elsewhere.json")
    (folder / "1_Normalize" / "config.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(CheckpointError, match=r"1_Normalize/config\.json: a link to"):
        SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/dev/zero", "a/../../x.safetensors", "", ".", "..", "C:x", "a\\b"]
)
def test_an_index_names_files_of_its_folder_alone(name: str, checkpoint: Path) -> None:
    shutil.move(checkpoint / "model.safetensors", checkpoint.parent / "x.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: it names the file"):
        load(checkpoint)


def test_a_file_of_any_suffix_that_an_index_names_is_no_link_to_a_file_elsewhere(checkpoint: Path) -> None:
    shutil.move(checkpoint / "model.safetensors", checkpoint.parent / "x.safetensors")
    (checkpoint / "model.weights").symlink_to(checkpoint.parent / "x.safetensors")
    index = {"metadata": {}, "weight_map": {"model.norm.weight": "model.weights"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"model\.weights: a link to"):
        load(checkpoint)


@pytest.mark.parametrize("content", [{}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": {"a": None}}])
def test_a_damaged_index_is_refused_by_its_name(content: object, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: weight_map"):
        load(checkpoint)


def test_a_file_that_an_index_names_must_be_there(checkpoint: Path) -> None:
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"index\.json: it names the file 'model-00001"):
        load(checkpoint)


def hub(folder: Path, cache: Path) -> Path:
    """A folder as the Hub's cache has it: a snapshot of links, its blobs, and those that repositories share."""
    snapshot, blobs, shared = (
        cache / "models--o--n" / "snapshots" / "0",
        cache / "models--o--n" / "blobs",
        cache / "blobs",
    )
    for each in (snapshot, blobs, shared / "00"):
        each.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        if path.suffix == ".safetensors":
            shutil.copyfile(path, shared / "00" / str(number))
            (blobs / str(number)).symlink_to(Path("..", "..", "blobs", "00", str(number)))
        else:
            shutil.copyfile(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(number)))
    return snapshot


def shards(folder: Path) -> Path:
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors").unlink()
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


def hard_link(folder: Path, path: Path) -> Path:
    path.mkdir()
    for each in folder.iterdir():
        os.link(each, path / each.name)
    return path


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "the Hub's cache": lambda folder: hub(folder, folder.parent / "cache"),
    "shards in the Hub's cache": lambda folder: hub(shards(folder), folder.parent / "cache"),
    "shards": shards,
    "a link to the folder": lambda folder: link(folder.parent / "link", folder),
    "hard links": lambda folder: hard_link(folder, folder.parent / "hard"),
    "a link within the folder": lambda folder: link(folder / "other.json", folder / "config.json").parent,
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_links_that_stay_where_they_belong_are_followed(kind: str, checkpoint: Path) -> None:
    assert load(FOLDERS[kind](checkpoint)).encode("a").shape == (64,)


def test_the_cache_is_no_way_to_files_beside_it(checkpoint: Path) -> None:
    snapshot = hub(checkpoint, checkpoint.parent / "cache")
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(checkpoint / "config.json")
    with pytest.raises(CheckpointError, match=r"config\.json: a link to .*outside"):
        load(snapshot)


def test_files_that_no_model_is_read_from_may_be_anything(checkpoint: Path) -> None:
    (checkpoint / "notes").symlink_to("/dev/zero")
    os.mkfifo(checkpoint / "log")
    check_folder(checkpoint)


def test_regular_files_cost_no_look_at_each(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(1000):
        (checkpoint / f"{number}.json").touch()
    looks: list[Path] = []
    monkeypatch.setattr(Path, "resolve", lambda path, **kwargs: looks.append(path) or path)
    check_folder(checkpoint)
    assert looks == [checkpoint]


def test_a_name_with_a_zero_byte_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"source\.json: it names the folder"):
        check_subfolder(tmp_path, "a\0b", tmp_path / "source.json")
