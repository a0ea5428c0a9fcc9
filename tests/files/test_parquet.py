"""Parquet, by columns."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from st_modules import InputError
from tests.helpers.files import Read


def encoded(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (6, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


RED, BLUE = encoded("red"), encoded("blue")
STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(RED)
    return tmp_path / "rows.parquet"


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def contents(image: Path | list[Path]) -> Any:
    return [each.read_bytes() for each in image] if isinstance(image, list) else image.read_bytes()


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str)
def test_texts_of_every_kind_are_read_in_order(path: Path, read: Read, kind: pa.DataType) -> None:
    texts = [f"text {number % 7}" for number in range(200)]
    ids = pa.array(range(200), pa.uint16())
    records = read(write(path, text=pa.array(texts).cast(kind), id=ids)).records
    assert [(record.text, record.id) for record in records] == [(text, number) for number, text in enumerate(texts)]
    assert records[150].place == f"{path}, row 151"


@pytest.mark.parametrize(
    ("image", "name"),
    [
        (pa.array(["a.png"]), "a.png"),
        (pa.array([RED]), "{path}#row=1"),
        (pa.array([RED], pa.large_binary()), "{path}#row=1"),
        (pa.array([RED], pa.binary(len(RED))), "{path}#row=1"),
        (pa.array([{"bytes": RED, "path": None}], STRUCT), "{path}#row=1"),
        (pa.array([{"bytes": RED, "path": "cat.png"}], STRUCT), "{path}#row=1&path=cat.png"),
        (pa.array([{"bytes": None, "path": "a.png"}], STRUCT), "a.png"),
        (pa.array([["a.png", "a.png"]]), ["a.png", "a.png"]),
        (pa.array([[RED, RED]]), ["{path}#row=1&image=1", "{path}#row=1&image=2"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_images_of_every_kind_are_read(path: Path, read: Read, image: pa.Array, name: Any) -> None:
    (record,) = read(write(path, image=image)).records
    expected = [RED, RED] if isinstance(name, list) else RED
    assert contents(record.item["image"]) == expected
    assert record.image == json.loads(json.dumps(name).replace("{path}", str(path)))
    assert (record.text, record.metadata) == (None, {})


def test_images_as_datasets_writes_them(path: Path, read: Read) -> None:
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "text": datasets.Value("large_string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
    )
    pictures = [Image.new("RGB", (6, 4), "red"), None, Image.new("RGB", (6, 4), "blue")]
    data = datasets.Dataset.from_dict(
        {"image": pictures, "text": ["one", "two", None], "label": [1, 0, 1]}, features=features
    )
    data.to_parquet(str(path))
    records = read(path).records
    assert [record.text for record in records] == ["one", "two", None]
    assert [record.metadata for record in records] == [{"label": 1}, {"label": 0}, {"label": 1}]
    with Image.open(records[2].item["image"]) as image:
        assert image.tobytes() == pictures[2].tobytes()
    assert "image" not in records[1].item


def test_empty_cells_count_as_left_out(path: Path, read: Read) -> None:
    write(
        path,
        text=["a", None, "", "d", "e"],
        image=pa.array([None, RED, RED, b"", None]),
        id=["", None, "3", "4", "5"],
        nothing=pa.nulls(5),
    )
    records = read(path).records
    assert [sorted(record.item) for record in records] == [["text"], ["image"], ["image"], ["text"], ["text"]]
    assert [record.id for record in records] == [f"{path}, row 1", f"{path}, row 2", "3", "4", "5"]


def test_other_columns_are_metadata_that_json_can_hold(path: Path, read: Read) -> None:
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5)
    write(
        path,
        text=["a"],
        day=[moment.date()],
        moment=pa.array([moment], pa.timestamp("us", "UTC")),
        nano=pa.array([1], pa.timestamp("ns")),
        hour=[moment.time()],
        price=[decimal.Decimal("1.50")],
        number=[float("nan")],
        list=[[1, None, float("inf")]],
        struct=[{"a": {"b": [moment.date()]}}],
        truth=[True],
        tags=pa.array(["x"]).dictionary_encode(),
    )
    (record,) = read(path).records
    assert json.loads(json.dumps(record.metadata)) == {
        "day": "2026-01-02",
        "moment": "2026-01-02 03:04:05.000000Z",
        "nano": "1970-01-01 00:00:00.000000001",
        "hour": "03:04:05.000000",
        "price": "1.50",
        "number": None,
        "list": [1, None, None],
        "struct": {"a": {"b": ["2026-01-02"]}},
        "truth": True,
        "tags": "x",
    }


@pytest.mark.parametrize(
    "column",
    [
        pa.array([RED]),
        pa.array([[RED]]),
        pa.array([{"bytes": RED, "path": "a"}]),
        pa.array([b"0123456789abcdef"], pa.uuid()),
    ],
)
def test_other_columns_of_bytes_are_left_out_and_told(path: Path, read: Read, column: pa.Array) -> None:
    reading = read(write(path, text=["a"], thumb=column, year=[1]))
    assert reading.records[0].metadata == {"year": 1}
    (note,) = reading.notes
    assert note.startswith(f"{path}: left out the column 'thumb' of ")


@pytest.mark.parametrize(
    ("columns", "asked", "problem"),
    [
        ({"text": [1]}, {}, ": its column 'text' has values of type int64; texts are strings"),
        ({"text": [["a"]]}, {}, ": its column 'text' has values of type list"),
        ({"image": [1.5]}, {}, ": its column 'image' has values of type double"),
        ({"image": [{"bytes": b"", "other": 1}]}, {}, ": its column 'image' has values of type struct"),
        ({"text": ["a"], "id": [1.5]}, {}, ": its column 'id' has values of type double"),
        ({"number": [1]}, {"text": "number", "id": "number"}, ": its column 'number' has values of type int64; texts"),
        ({"title": ["a"]}, {}, ': no column to embed; pass --text or --image with one of "title"'),
        ({"text": ["a"]}, {"text": "title"}, ': no column "title"; there are "text"'),
        ({"image": [b"not an image"]}, {}, ", row 1: 12 bytes: not an image that can be read"),
        ({"image": ["missing.png"]}, {}, ", row 1: "),
        ({"image": pa.array([[None, RED]])}, {}, ', row 1: "image" must be a path'),
    ],
)
def test_a_wrong_table_is_told(
    path: Path, read: Read, columns: dict[str, Any], asked: dict[str, str], problem: str
) -> None:
    with pytest.raises(InputError) as caught:
        read(write(path, **columns), **asked)
    assert str(caught.value).startswith(f"{path}{problem}")


def test_all_wrong_rows_are_told_together(path: Path, read: Read) -> None:
    write(path, text=["a", None, "c", ""], image=[None, None, "missing.png", None])
    with pytest.raises(InputError) as caught:
        read(path)
    assert [line.split(": ")[0] for line in str(caught.value).splitlines()] == [f"{path}, row {n}" for n in (2, 3, 4)]


def test_two_columns_of_one_name_are_told(path: Path, read: Read) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["text", "text"]), path)
    with pytest.raises(InputError, match='more than one column has the name "text"'):
        read(path)


def test_a_string_that_is_not_utf8_is_told(path: Path, read: Read) -> None:
    broken = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff\xfe"]).buffers())
    with pytest.raises(InputError, match="row 1: its 'text' cannot be read"):
        read(write(path, text=broken))


@pytest.mark.parametrize("content", [b"PAR1", b"text\nhello\n", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_a_damaged_file_is_told(path: Path, read: Read, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(InputError, match="rows.parquet: cannot be read as Parquet"):
        read(path)


def test_a_file_whose_pages_are_damaged_is_told(path: Path, read: Read) -> None:
    content = bytearray(write(path, text=[f"text {number}" for number in range(1000)]).read_bytes())
    content[4:2000] = bytes(1996)
    path.write_bytes(content)
    with pytest.raises(InputError, match="rows.parquet: cannot be read as Parquet"):
        read(path)


def test_the_number_of_rows_is_bounded(path: Path, read: Read) -> None:
    pq.write_table(pa.table({"text": pa.nulls(10_000_001, pa.string())}), path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match="10000001 rows; at most 10000000 are read"):
        read(path)


def test_rows_that_are_missing_are_told(path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = pq.ParquetFile.iter_batches
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *args, **options: [next(batches(*args, **options))])
    with pytest.raises(InputError, match="64 rows were read of 100"):
        read(write(path, text=["a"] * 100))


def test_a_table_without_rows_has_nothing_to_embed(path: Path, read: Read) -> None:
    with pytest.raises(InputError, match="nothing to embed"):
        read(write(path, text=pa.array([], pa.string())))


def test_equal_images_are_kept_once(path: Path, read: Read) -> None:
    items = [record.item["image"] for record in read(write(path, image=[RED, BLUE, RED])).records]
    assert (items[0] == items[2], items[0] == items[1]) == (True, False)
