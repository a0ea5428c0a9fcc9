"""Pictures and captions to mine from: folders as ``datasets`` has them, and lists of paths."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gallery import CAPTIONS, Gallery
from PIL import Image

from st_modules import InputError
from st_modules.megapairs import Picture, read_collection, save_pictures


@pytest.fixture
def folder(tmp_path: Path, gallery: Gallery) -> Path:
    """Five pictures, the last of them in a folder below."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    for number, path in enumerate(gallery.paths):
        shutil.copy(path, folder / ("more" if number == 4 else "") / path.name)
    (folder / "notes.txt").write_text("no picture")
    return folder


NAMES = ["0.png", "1.png", "2.png", "3.png", "more/4.png"]
ROWS = [{"file_name": name, "caption": caption} for name, caption in zip(NAMES, CAPTIONS, strict=True)]


def write_rows(path: Path, rows: list[dict[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_a_folder_without_captions_has_its_pictures_sorted(folder: Path) -> None:
    assert read_collection(folder).pictures == tuple(Picture(name) for name in NAMES)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.parquet"])
def test_a_folder_has_the_captions_that_datasets_reads_in_it(folder: Path, tmp_path: Path, name: str) -> None:
    import datasets

    write_rows(folder / name, ROWS[::-1])
    dataset = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "c"))
    dataset = dataset.cast_column("image", datasets.Image(decode=False))
    theirs = {Path(row["image"]["path"]).relative_to(folder).as_posix(): row["caption"] for row in dataset}
    assert {picture.name: picture.caption for picture in read_collection(folder).pictures} == theirs


def test_pictures_that_the_metadata_does_not_name_have_no_caption(folder: Path) -> None:
    write_rows(folder / "metadata.jsonl", ROWS[:1])
    assert [picture.caption for picture in read_collection(folder).pictures] == [CAPTIONS[0], None, None, None, None]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_list_names_pictures_from_its_own_folder(folder: Path, suffix: str) -> None:
    rows = [{"image": f"pictures/{name}", "text": f" {caption} "} for name, caption in zip(NAMES[:3], CAPTIONS)]  # noqa: B905
    collection = read_collection(write_rows(folder.parent / f"list{suffix}", rows))
    assert collection.pictures == tuple(
        Picture(f"pictures/{name}", caption) for name, caption in zip(NAMES[:3], CAPTIONS, strict=False)
    )
    assert all(collection.path(number).is_file() for number in range(3))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"file_name": "nowhere.png"}, "nowhere.png: no such file"),
        ({"caption": "a dog"}, "file_name or image must be the path"),
        ({"file_name": "1.png", "caption": 3}, "caption or text must be a string"),
        ({"file_name": "0.png"}, "'0.png' is there twice"),
    ],
)
def test_wrong_rows_are_an_error(folder: Path, row: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_collection(write_rows(folder / "list.jsonl", [ROWS[0], row]))


def test_every_wrong_row_is_named(folder: Path) -> None:
    path = write_rows(folder / "list.jsonl", [{"caption": "a"}, ROWS[0], {"caption": "b"}])
    with pytest.raises(InputError) as error:
        read_collection(path)
    assert [line.split(": ")[0] for line in str(error.value).splitlines()] == [f"{path}:1", f"{path}:3"]


def test_two_metadata_files_are_an_error(folder: Path) -> None:
    for name in ("metadata.jsonl", "metadata.parquet"):
        write_rows(folder / name, ROWS)
    with pytest.raises(InputError, match="both there"):
        read_collection(folder)


@pytest.mark.parametrize(("name", "words"), [("nowhere", "no such file or folder"), ("notes.txt", "pass a folder")])
def test_a_path_that_lists_nothing_is_an_error(folder: Path, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_collection(folder / name)


def test_one_picture_is_too_few(folder: Path) -> None:
    with pytest.raises(InputError, match="1 pictures in it; pairs need at least two"):
        read_collection(folder / "more")


def test_broken_json_is_an_error_that_names_its_line(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "0.png"}\n{"file_name"\n')
    with pytest.raises(InputError, match=r"metadata.jsonl:2: not valid JSON"):
        read_collection(folder)


# ------------------------------------------------------------------------------------------ data sets with pictures


@pytest.mark.parametrize("decode", [True, False])
def test_the_pictures_of_a_dataset_are_saved_with_their_captions(
    gallery: Gallery, tmp_path: Path, decode: bool
) -> None:
    import datasets

    columns = {"picture": [str(path) for path in gallery.paths], "text": [*CAPTIONS[:4], None]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())
    dataset = datasets.Dataset.from_list([*dataset.cast_column("picture", datasets.Image(decode=False))])
    stored = [{"bytes": Path(row["picture"]["path"]).read_bytes(), "path": None} for row in dataset]
    dataset = dataset.remove_columns("picture").add_column("picture", stored)
    dataset = dataset.cast_column("picture", datasets.Image(decode=decode))
    assert save_pictures(dataset, tmp_path / "saved", image="picture", caption="text") == len(CAPTIONS)
    collection = read_collection(tmp_path / "saved")
    assert [picture.caption for picture in collection.pictures] == [*CAPTIONS[:4], None]
    for number, original in enumerate(gallery.paths):
        with Image.open(collection.path(number)) as saved, Image.open(original) as expected:
            assert saved.tobytes() == expected.tobytes()


def test_bytes_are_saved_as_they_are_under_their_formats_name(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(stream, "JPEG")
    rows = [{"image": {"bytes": stream.getvalue(), "path": "x.png"}}, {"image": Image.new("RGB", (9, 9))}]
    save_pictures(rows, tmp_path / "saved")
    names = [picture.name for picture in read_collection(tmp_path / "saved").pictures]
    assert names == ["0000/00000000.jpeg", "0000/00000001.png"]
    assert (tmp_path / "saved" / names[0]).read_bytes() == stream.getvalue()


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": "a.png"}, "row 1: 'image' is no picture, but of type str"),
        ({"image": None}, "of type NoneType"),
        ({"image": {"bytes": b"none"}}, "row 1: its bytes are no image"),
        ({"image": Image.new("L", (1, 1)), "text": 3}, "row 1: 'text' must be a string"),
    ],
)
def test_a_row_without_a_picture_is_an_error_that_names_it(tmp_path: Path, row: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        save_pictures([{"image": Image.new("L", (1, 1))}, row], tmp_path / "saved", caption="text")


def test_pictures_are_not_saved_over_others(folder: Path) -> None:
    with pytest.raises(InputError, match="not an empty folder"):
        save_pictures([], folder)
