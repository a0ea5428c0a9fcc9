"""JSONL, CSV and TSV, read by columns."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from st_modules import InputError
from st_modules.files import tables
from st_modules.files.records import Record
from tests.helpers.files import Read

DATA_URI = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
ROWS = [
    {"id": "7", "text": 'a "quoted", red\ncircle', "image": "", "year": "2001"},
    {"id": "", "text": "", "image": "pictures/a.png", "year": ""},
    {"id": "x", "text": " é\u2028", "image": DATA_URI, "year": " 1\t"},
    {"id": "url", "text": "", "image": "https://example.org/a.png", "year": "NA"},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (6, 4), "red").save(tmp_path / "pictures" / "a.png")
    return tmp_path


def write(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path


def write_csv(path: Path, rows: list[dict[str, str]], **options: Any) -> Path:
    with path.open("w", encoding=options.pop("encoding", "utf-8"), newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), **options)
        writer.writeheader()
        writer.writerows(rows)
    return path


def found(records: list[Record]) -> list[tuple[Any, ...]]:
    return [(record.id, record.text, record.image, record.item, record.metadata) for record in records]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rows.csv", {}),
        ("rows.CSV", {"encoding": "utf-8-sig", "lineterminator": "\n"}),
        ("rows.csv", {"quoting": csv.QUOTE_ALL}),
        ("rows.tsv", {"delimiter": "\t"}),
    ],
)
def test_a_table_is_read_by_its_columns(folder: Path, read: Read, name: str, options: dict[str, Any]) -> None:
    path = write_csv(folder / name, ROWS, **options)
    text, spaced, image = ROWS[0]["text"], ROWS[2]["text"], folder / "pictures" / "a.png"
    url = ROWS[3]["image"]
    assert found(read(path).records) == [
        ("7", text, None, {"text": text}, {"year": "2001"}),
        (f"{path}:4", None, "pictures/a.png", {"image": image}, {"year": ""}),
        ("x", spaced, DATA_URI, {"text": spaced, "image": DATA_URI}, {"year": " 1\t"}),
        ("url", None, url, {"image": url}, {"year": "NA"}),
    ]


def test_a_column_without_a_name_is_metadata(folder: Path, read: Read) -> None:
    path = write(folder / "rows.csv", ",text\n0,a\n,b\n")
    assert [record.metadata for record in read(path).records] == [{"": "0"}, {"": ""}]


def test_of_many_columns_fifty_are_told(folder: Path, read: Read) -> None:
    names = [f"c{number}" for number in range(60)]
    with pytest.raises(InputError, match='"c48", "c49" and 10 more'):
        read(write(folder / "rows.csv", ",".join(names) + "\n"))


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl"])
@pytest.mark.parametrize(
    ("columns", "item", "id_", "metadata"),
    [
        ({}, {"text": "t", "image": "a.png"}, "i", {"title": "T", "key": "k"}),
        ({"text": "title"}, {"text": "T", "image": "a.png"}, "i", {"text": "t", "key": "k"}),
        ({"text": ""}, {"image": "a.png"}, "i", {"text": "t", "title": "T", "key": "k"}),
        ({"image": "", "id": ""}, {"text": "t"}, None, {"image": "a.png", "id": "i", "title": "T", "key": "k"}),
        ({"text": "title", "id": "title"}, {"text": "T", "image": "a.png"}, "T", {"id": "i", "text": "t", "key": "k"}),
        ({"id": "key"}, {"text": "t", "image": "a.png"}, "k", {"id": "i", "title": "T"}),
    ],
)
def test_columns_are_chosen_by_name(
    folder: Path,
    read: Read,
    name: str,
    columns: dict[str, str],
    item: dict[str, str],
    id_: str | None,
    metadata: dict[str, str],
) -> None:
    row = {"id": "i", "text": "t", "image": "a.png", "title": "T", "key": "k"}
    Image.new("RGB", (6, 4), "red").save(folder / "a.png")
    path = write(folder / name, json.dumps(row)) if name == "rows.jsonl" else write_csv(folder / name, [row])
    (record,) = read(path, **columns).records
    expected = {key: folder / value if key == "image" else value for key, value in item.items()}
    assert (record.item, record.metadata) == (expected, metadata)
    assert record.id == (id_ or record.place)


@pytest.mark.parametrize(
    ("content", "columns", "problem"),
    [
        ("id,title\n1,a\n", {}, ': no column to embed; pass --text or --image with one of "id", "title"'),
        (
            "id;text\n1;a\n",
            {},
            ': no column to embed; pass --text or --image with one of "id;text"; cells are separated by commas, and by '
            "tabs in a file that ends in .tsv.",
        ),
        ("id\ttext\n1\ta\n", {"id": "id"}, ': no column "id"; there are "id\\ttext"; cells are separated by commas'),
        ("a;b\n1;x, y\n", {"text": "a;b"}, ":2: 2 cells for 1 columns; cells are separated by commas"),
        ("id\n1\n", {"text": "text"}, ': no column "text"; there are "id".'),
        ("id,text\n1,a\n", {"text": "Text"}, ': no column "Text"; there are "id", "text"'),
        ("id,text\n1,a\n", {"id": "key"}, ': no column "key"; there are "id", "text"'),
        ("id,text\n1,a\n", {"text": ""}, ": no column to embed"),
        ("text,a,a\nx,y,z\n", {}, ':1: more than one column has the name "a"'),
        ("\n\ntext,a\nx,y,z\n", {}, ":4: 3 cells for 2 columns"),
        ('text,a\n"x\ny",z\nx\n', {}, ":4: 1 cells for 2 columns"),
        ('text,a\n"x" y,z\n', {}, ":2: cannot be read as CSV"),
        ('text,a\nx,y\n"x,y\nz,\n', {}, ":3: cannot be read as CSV"),
        ("text,a\nx,y\n,y\n", {}, ':3: no "text" field'),
        ("text,image\nx,\n,\n", {}, ':3: neither a "text" nor an "image" field'),
        ("text,image\nx,missing.png\n", {}, ":2: "),
    ],
)
def test_a_wrong_table_is_told_by_its_line(
    folder: Path, read: Read, content: str, columns: dict[str, str], problem: str
) -> None:
    path = write(folder / "rows.csv", content)
    with pytest.raises(InputError) as caught:
        read(path, **columns)
    assert str(caught.value).startswith(f"{path}{problem}")
    assert "\n" not in str(caught.value)


def test_all_wrong_rows_are_told_together(folder: Path, read: Read) -> None:
    path = write(folder / "rows.csv", 'text,a\n,b\nx,y\nx\n,\n"x')
    with pytest.raises(InputError) as caught:
        read(path)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [f"{path}:{n}" for n in (2, 4, 5, 6)]


def test_a_table_that_is_not_utf8_is_told_by_its_line(folder: Path, read: Read) -> None:
    (folder / "rows.csv").write_bytes("text\nok\ncafé\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"rows.csv:3: cannot be read as CSV: not UTF-8 text"):
        read(folder / "rows.csv")


def test_a_table_without_rows_has_nothing_to_embed(folder: Path, read: Read) -> None:
    with pytest.raises(InputError, match=r"rows.csv: nothing to embed"):
        read(write(folder / "rows.csv", "text\n"))


def test_cells_longer_than_the_standard_library_reads_are_read(folder: Path, read: Read) -> None:
    csv.field_size_limit(131_072)  # the default
    path = write(folder / "rows.csv", f"text\n{'a' * 200_000}\n")
    assert len(read(path).records[0].text or "") == 200_000
    assert csv.field_size_limit() == 131_072


def test_the_length_of_a_cell_is_bounded(folder: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LONGEST_LINE", 10)
    with pytest.raises(InputError, match=r"rows.csv:2: cannot be read as CSV: field larger than field limit \(10\)"):
        read(write(folder / "rows.csv", 'text\n"aaaaaa\naaaaaa"\n'))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"text": "a\\ud800"}', 'field "text": character 1 '),
        ('{"text": "a", "id": "\\ud800"}', 'field "id": character 0 '),
        ('{"text": "a", "other": {"deep": ["b", "\\udcff"]}}', 'field "other": character 0 '),
        ('{"text": "a", "other": {"\\ud800": 1}}', 'field "other": character 0 '),
        ('{"text": "a", "\\ud800": 1}', r'field "\ud800": character 0 '),
        (f'{{"text": "a", "other": {"[" * 200}{"]" * 200}}}', 'field "other": lists and objects more than 100 deep'),
    ],
    ids=["text", "id", "list", "key", "name", "deep"],
)
def test_what_could_not_be_written_is_told_when_it_is_read(folder: Path, read: Read, line: str, problem: str) -> None:
    path = write(folder / "rows.jsonl", '{"text": "fine", "other": [["deep", {"a": null}]]}\n' + line)
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2, {problem}")


def test_a_field_that_is_there_twice_is_told(folder: Path, read: Read) -> None:
    with pytest.raises(InputError, match=r"rows.jsonl:1: not valid JSON: a field is there twice"):
        read(write(folder / "rows.jsonl", '{"text": "a", "text": "b"}'))


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"text": "caption"}, 'no field "caption"; there are "text", "image", "x"'),
        ({"id": "key"}, 'no field "key"; there are "text", "image", "x"'),
        ({"text": "", "image": ""}, "no field to embed"),
    ],
)
def test_a_field_that_no_record_has_is_told(folder: Path, read: Read, columns: dict[str, str], problem: str) -> None:
    path = write(folder / "rows.jsonl", '{"text": "a", "image": null}\n{"text": "b", "x": 1}\n')
    with pytest.raises(InputError) as caught:
        read(path, **columns)
    assert str(caught.value).startswith(f"{path}: {problem}")


def test_a_null_id_is_left_out(folder: Path, read: Read) -> None:
    path = write(folder / "rows.jsonl", '{"text": "a", "id": null}')
    assert read(path).records[0].id == f"{path}:1"


def test_what_a_wrong_cell_holds_is_shown_short(folder: Path, read: Read) -> None:
    with pytest.raises(InputError, match=r'"text" must be a string, not \[0, 0') as caught:
        read(write(folder / "rows.jsonl", json.dumps({"text": [0] * 1000})))
    assert len(str(caught.value)) < len(str(folder)) + 120
