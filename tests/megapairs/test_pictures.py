"""Pictures and captions to mine from: folders as ``datasets`` has them, and lists of paths."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from st_modules import InputError
from st_modules.megapairs import Picture, export, read_collection, save_pictures
from tests.helpers.gallery import CAPTIONS, Gallery


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
ROWS: list[dict[str, object]] = [
    {"file_name": name, "caption": caption} for name, caption in zip(NAMES, CAPTIONS, strict=True)
]


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist([*rows]), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8-sig", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
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
    rows: Any = dataset
    theirs = {Path(row["image"]["path"]).relative_to(folder).as_posix(): row["caption"] for row in rows}
    assert {picture.name: picture.caption for picture in read_collection(folder).pictures} == theirs


def test_metadata_may_be_csv_with_quotes_and_line_ends_in_captions(folder: Path) -> None:
    # Not compared with datasets: its reader of CSV leaves the file open.
    captions = ['a "dog", running', "on two\nlines", "", "größer", "last"]
    rows: list[dict[str, object]] = [
        {"file_name": name, "id": 3, "text": text} for name, text in zip(NAMES, captions, strict=True)
    ]
    write_rows(folder / "metadata.csv", rows)
    assert [picture.caption for picture in read_collection(folder).pictures] == [*captions[:2], None, *captions[3:]]


def test_pictures_that_the_metadata_does_not_name_have_no_caption(folder: Path) -> None:
    write_rows(folder / "metadata.jsonl", ROWS[:1])
    assert [picture.caption for picture in read_collection(folder).pictures] == [CAPTIONS[0], None, None, None, None]


def test_a_folder_below_has_the_captions_of_its_own_metadata(folder: Path, tmp_path: Path) -> None:
    import datasets

    write_rows(folder / "metadata.jsonl", ROWS[:4])
    write_rows(folder / "more/metadata.jsonl", [{"file_name": "4.png", "caption": "from beside"}])
    dataset = datasets.load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "c"))
    expected = [*CAPTIONS[:4], "from beside"]
    assert sorted(dataset["caption"]) == sorted(expected)
    assert [picture.caption for picture in read_collection(folder).pictures] == expected


def test_a_picture_that_two_metadata_files_name_is_an_error(folder: Path) -> None:
    write_rows(folder / "metadata.jsonl", ROWS)
    write_rows(folder / "more/metadata.jsonl", [{"file_name": "4.png", "caption": "from beside"}])
    with pytest.raises(InputError, match=r"more/metadata.jsonl: another metadata file has 'more/4.png' too"):
        read_collection(folder)


def test_the_suffix_of_a_picture_may_be_in_capitals(folder: Path) -> None:
    (folder / "0.png").rename(folder / "0.PNG")
    assert [picture.name for picture in read_collection(folder).pictures] == ["0.PNG", *NAMES[1:]]


def test_folders_that_are_called_like_pictures_are_none_and_broken_links_are(folder: Path) -> None:
    (folder / "5.png").mkdir()
    (folder / "6.png").symlink_to("nowhere.png")
    assert [picture.name for picture in read_collection(folder).pictures] == [*NAMES[:4], "6.png", "more/4.png"]


def test_a_blank_caption_is_none(folder: Path) -> None:
    write_rows(folder / "metadata.csv", [{**row, "caption": " "} for row in ROWS])
    assert {picture.caption for picture in read_collection(folder).pictures} == {None}


def test_metadata_may_start_with_a_byte_order_mark(folder: Path) -> None:
    path = write_rows(folder / "metadata.jsonl", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert [picture.caption for picture in read_collection(folder).pictures] == list(CAPTIONS)


@pytest.mark.skipif(sys.platform != "linux", reason="only there may a name be any bytes")
def test_a_name_that_no_triplet_can_have_is_an_error(folder: Path) -> None:
    shutil.copy(folder / "0.png", os.fsdecode(os.fsencode(folder) + b"/\xff.png"))
    with pytest.raises(InputError, match=r"pictures: '\\udcff.png': its name is not UTF-8; rename it"):
        read_collection(folder)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".csv"])
def test_a_list_names_pictures_from_its_own_folder(folder: Path, suffix: str) -> None:
    rows = [{"image": f"pictures/{name}", "text": f" {caption} "} for name, caption in zip(NAMES[:3], CAPTIONS)]  # noqa: B905
    collection = read_collection(write_rows(folder.parent / f"list{suffix}", rows))
    assert collection.pictures == tuple(
        Picture(f"pictures/{name}", caption) for name, caption in zip(NAMES[:3], CAPTIONS, strict=False)
    )
    assert [number for number in range(3) if not collection.path(number).is_file()] == []


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"file_name": "nowhere.png"}, "nowhere.png: no such file"),
        ({"caption": "a dog"}, "file_name or image must be the path"),
        ({"file_name": "1.png", "caption": 3}, "caption or text must be a string"),
        ({"file_name": "0.png"}, "'0.png' is there twice"),
        ({"file_name": "./0.png"}, "'0.png' is there twice"),
        ({"file_name": "1.png", "caption": "\ud83d"}, "a lone surrogate"),
        ({"file_name": "\ud83d.png"}, "a lone surrogate"),
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


def test_of_many_wrong_rows_twenty_are_told_and_the_others_counted(folder: Path) -> None:
    with pytest.raises(InputError) as error:
        read_collection(write_rows(folder / "list.jsonl", [{"caption": "a"}] * 25))
    lines = str(error.value).splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [f"{folder / 'list.jsonl'}:{n}" for n in range(1, 21)]
    assert lines[-1] == "… and 5 more."


@pytest.mark.parametrize("decode", [True, False])
def test_parquet_that_holds_pictures_is_an_error_that_says_where_to_put_them(folder: Path, decode: bool) -> None:
    import datasets

    data = [{"bytes": (folder / name).read_bytes(), "path": None} for name in NAMES]
    dataset = datasets.Dataset.from_dict({"image": data if decode else [row["bytes"] for row in data]})
    (dataset.cast_column("image", datasets.Image()) if decode else dataset).to_parquet(str(folder / "list.parquet"))
    with pytest.raises(InputError, match=r"list.parquet: its column 'image' has pictures, not .*save_pictures"):
        read_collection(folder / "list.parquet")


def test_paths_are_read_where_parquet_has_the_pictures_too(folder: Path) -> None:
    write_rows(folder / "metadata.parquet", [{**row, "image": {"bytes": b"x", "path": None}} for row in ROWS])
    assert [picture.caption for picture in read_collection(folder).pictures] == list(CAPTIONS)


@pytest.mark.parametrize(("name", "content"), [("list.csv", b'file_name\n"0.png'), ("list.csv", b"file_name\n\xff")])
def test_damaged_csv_is_an_error_that_names_its_line(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=r"list.csv:\d: cannot be read as CSV"):
        read_collection(folder / name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("file_name,caption\n0.png\n", ":2: 1 cells for 2 columns"),
        ("file_name,caption\n0.png,a,b\n", ":2: 3 cells for 2 columns"),
        ("file_name,caption,caption\n0.png,a,b\n", ":1: more than one column has the name"),
    ],
)
def test_csv_whose_cells_fit_no_column_is_an_error(folder: Path, content: str, problem: str) -> None:
    (folder / "list.csv").write_text(content)
    with pytest.raises(InputError, match=f"list.csv{problem}"):
        read_collection(folder / "list.csv")


def test_a_folder_that_cannot_be_listed_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "below").mkdir()
    list_folder = Path.iterdir

    def refuse(path: Path) -> object:
        if path.name == "below":
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(InputError, match=r"below: cannot be read \(Permission denied\)"):
        read_collection(folder)


def test_parquet_that_is_damaged_in_the_middle_is_an_error(folder: Path) -> None:
    path = write_rows(folder / "metadata.parquet", ROWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + bytes(40) + whole[48:])
    with pytest.raises(InputError, match="metadata.parquet: cannot be read as Parquet"):
        read_collection(folder)


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
    dataset: Any = datasets.Dataset.from_dict(columns).cast_column("picture", datasets.Image())
    dataset = datasets.Dataset.from_list([*dataset.cast_column("picture", datasets.Image(decode=False))])
    stored = [{"bytes": Path(row["picture"]["path"]).read_bytes(), "path": None} for row in dataset]
    dataset = dataset.remove_columns("picture").add_column("picture", stored)
    dataset = dataset.cast_column("picture", datasets.Image(decode=decode))
    assert save_pictures(dataset, tmp_path / "saved", image="picture", caption="text") == len(CAPTIONS)
    collection = read_collection(tmp_path / "saved")
    assert [picture.caption for picture in collection.pictures] == [*CAPTIONS[:4], None]
    saved = [Image.open(collection.path(number)).tobytes() for number in range(len(CAPTIONS))]
    expected = [Image.open(path).tobytes() for path in gallery.paths]
    assert [number for number in range(len(CAPTIONS)) if saved[number] != expected[number]] == []


def test_bytes_are_saved_as_they_are_under_their_formats_name(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (9, 9), "red").save(stream, "JPEG")
    rows = [{"image": {"bytes": stream.getvalue(), "path": "x.png"}}, {"image": Image.new("RGB", (9, 9))}]
    save_pictures(rows, tmp_path / "saved")
    names = [picture.name for picture in read_collection(tmp_path / "saved").pictures]
    assert names == ["0000/00000000.jpeg", "0000/00000001.png"]
    assert (tmp_path / "saved" / names[0]).read_bytes() == stream.getvalue()


def test_bytes_of_a_file_are_read_from_its_path(gallery: Gallery, tmp_path: Path) -> None:
    import datasets

    dataset: Any = datasets.Dataset.from_dict({"image": [str(path) for path in gallery.paths]})
    save_pictures(dataset.cast_column("image", datasets.Image(decode=False)), tmp_path / "saved")
    saved = sorted((tmp_path / "saved").rglob("*.png"))
    assert [path.read_bytes() for path in saved] == [path.read_bytes() for path in gallery.paths]


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "PA", "RGBX"])
def test_pictures_of_modes_that_png_lacks_are_saved_in_rgb(tmp_path: Path, mode: str) -> None:
    picture = Image.linear_gradient("L").convert("RGB").convert("P" if mode == "PA" else mode).convert(mode)
    save_pictures([{"image": picture}], tmp_path / "saved")
    with Image.open(tmp_path / "saved/0000/00000000.png") as saved:
        assert saved.tobytes() == picture.convert("RGB").tobytes()


def test_a_folder_has_no_more_pictures_than_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_FILES_IN_A_FOLDER", 2)
    assert save_pictures([{"image": Image.new("L", (1, 1))}] * 5, tmp_path) == 5
    names = [path.relative_to(tmp_path).as_posix() for path in sorted(tmp_path.rglob("*.png"))]
    assert names == [f"{number // 2:04}/{number:08}.png" for number in range(5)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"image": Image.new("F", (1, 1))}, "row 1: .*mode 'F'"),
        (
            {"image": {"bytes": None, "path": "nowhere.png"}},
            "row 1: a picture without bytes, and its path 'nowhere.png'",
        ),
        ({"image": Image.new("L", (1, 1)), "text": "\ud83d"}, "row 1: 'text' has a lone surrogate"),
        ({"image": "a.png"}, "row 1: 'image' is no picture, but of type str"),
        ({"image": None}, "of type NoneType"),
        ({"image": {"bytes": b"none"}}, "row 1: its bytes are no image"),
        ({"image": Image.new("L", (1, 1)), "text": 3}, "row 1: 'text' must be a string"),
    ],
)
def test_a_row_without_a_picture_is_an_error_that_names_it(tmp_path: Path, row: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        save_pictures([{"image": Image.new("L", (1, 1))}, row], tmp_path / "saved", caption="text")


def test_pictures_are_not_saved_over_others(folder: Path) -> None:
    with pytest.raises(InputError, match="not an empty folder"):
        save_pictures([], folder)
