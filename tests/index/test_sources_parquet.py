"""Parquet files and the folders that datasets saves, row by row."""

from __future__ import annotations

import datetime
import decimal
import json
import tracemalloc
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from st_modules import InputError
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import Sources
from tests.helpers.sources import BLUE, RED, open_sources, picture_of, read_entries, read_finished, read_parts, touch

STRUCT = pa.struct({"bytes": pa.binary(), "path": pa.string()})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(RED)
    return tmp_path / "rows.parquet"


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=3)
    return path


def test_rows_have_places_ids_and_metadata(path: Path) -> None:
    texts = [f"text {number}" for number in range(200)]
    entries = read_entries(write(path, text=texts, id=pa.array(range(200), pa.uint16()), n=list(range(200))))
    assert [(entry.text, entry.id, entry.metadata["n"]) for entry in entries] == [
        (text, str(number), number) for number, text in enumerate(texts)
    ]
    assert entries[150].place == f"{path}#row=151"
    assert read_finished(path) == [str(path)]


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        (pa.array(["a.png"]), "{folder}/a.png"),
        (pa.array([RED]), "{path}#row=1"),
        (pa.array([RED], pa.large_binary()), "{path}#row=1"),
        (pa.array([{"bytes": RED, "path": None}], STRUCT), "{path}#row=1"),
        (pa.array([{"bytes": RED, "path": "gone.png"}], STRUCT), "{path}#row=1"),
        (pa.array([{"bytes": None, "path": "a.png"}], STRUCT), "{folder}/a.png"),
        (pa.array([[RED]]), "{path}#row=1"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_pictures_of_every_kind_are_read(path: Path, image: pa.Array, reference: str) -> None:
    (entry,) = read_entries(write(path, image=image))
    assert entry.image == reference.format(path=path, folder=path.parent)
    assert picture_of(entry) == RED


def test_several_pictures_are_one_item(path: Path) -> None:
    (entry,) = read_entries(write(path, image=pa.array([[RED, BLUE]])))
    assert json.loads(entry.image or "") == [f"{path}#row=1&image=1", f"{path}#row=1&image=2"]
    assert len(entry.content.load().item["image"]) == 2


def test_metadata_is_what_json_has_words_for(path: Path) -> None:
    moment = datetime.datetime(2024, 5, 6, 7, 8, 9)
    (entry,) = read_entries(
        write(
            path,
            text=["a"],
            day=[datetime.date(2024, 5, 6)],
            time=pa.array([moment], pa.timestamp("s")),
            price=[decimal.Decimal("1.50")],
            nan=[float("nan")],
            tags=[["x", None]],
            deep=[{"a": 1}],
            huge=pa.array([2**64 - 1], pa.uint64()),
        )
    )
    assert datetime.datetime.fromisoformat(entry.metadata["time"]) == moment
    assert {**entry.metadata, "time": None} == {
        **{"day": "2024-05-06", "time": None, "price": "1.50", "nan": None, "tags": ["x", None]},
        **{"deep": {"a": 1}, "huge": "18446744073709551615"},
    }


def test_columns_of_bytes_are_left_out_and_told(path: Path) -> None:
    sources = open_sources(write(path, text=["a"], raw=[b"1"]))
    (entry, _) = sources
    assert isinstance(entry, Entry)
    assert entry.metadata == {}
    assert sources.notes == [f"{path}: left out the column 'raw' of binary: metadata has no bytes"]


def test_rows_without_anything_are_told(path: Path) -> None:
    parts = read_parts(write(path, text=["a", None, ""], image=pa.array([None, None, b""]), id=["x", "y", None]))
    problems = [part for part in parts if isinstance(part, Unreadable)]
    assert [(part.place, part.id) for part in problems] == [(f"{path}#row=2", "y"), (f"{path}#row=3", None)]
    assert isinstance(parts[-1], Finished)


def test_a_text_that_is_not_utf8_is_told_and_the_others_are_read(path: Path) -> None:
    text = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa")]
    )
    parts = read_parts(write(path, id=["x", "y"], text=text))
    assert [(part.id, type(part)) for part in parts[:2]] == [("x", Unreadable), ("y", Entry)]  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("columns", "asked", "told"),
    [
        ({"text": [1]}, {}, "its column 'text' has values of type int64"),
        ({"text": ["a"]}, {"image": "photo"}, 'no column "photo"'),
        ({"text": ["a"]}, {"metadata": ("prize",)}, 'no column "prize"'),
        ({"words": ["a"]}, {}, "no column to embed"),
        ({"text": pa.array([], pa.string())}, {}, "nothing to embed in it"),
    ],
    ids=["type", "image", "metadata", "nothing", "no rows"],
)
def test_a_table_of_other_columns_is_an_error_at_once(path: Path, columns: Any, asked: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_sources(write(path, **columns), **asked)


def test_a_damaged_file_is_an_error_at_once(path: Path) -> None:
    path.write_bytes(b"PAR1" + bytes(100))
    with pytest.raises(InputError, match=r"rows.parquet: cannot be read as Parquet"):
        Sources(path)


def test_a_file_that_is_damaged_further_on_is_not_finished(path: Path) -> None:
    table = pa.table({"text": [f"{number} " + "x" * 1000 for number in range(500)]})
    pq.write_table(table, path, row_group_size=50, compression="none", use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = len(content) // 2
    content[start : start + 20_000] = b"\xff" * 20_000
    path.write_bytes(content)
    *entries, problem = read_parts(path)
    assert len(entries) > 100
    assert isinstance(problem, Unreadable)
    assert (problem.source, problem.place) == (str(path), str(path))


def test_a_damaged_shard_among_others_is_told_and_the_others_are_read(path: Path) -> None:
    write(path.with_name("a.parquet"), text=["a"])
    path.with_name("b.parquet").write_bytes(b"PAR1")
    write(path.with_name("c.parquet"), text=["c"])
    parts = read_parts(f"{path.parent}/*.parquet")
    assert [part.text for part in parts if isinstance(part, Entry)] == ["a", "c"]
    assert [part.source for part in parts if isinstance(part, Unreadable)] == [str(path.with_name("b.parquet"))]


def test_rows_that_are_equal_have_one_state_and_pictures_in_cells_one_each(path: Path) -> None:
    first, second, third = (entry.state for entry in read_entries(write(path, text=["a", "a", "b"], n=[1, 1, 1])))
    assert first == second != third
    # The picture's reference says which row it is in, and must not point to another one when rows have moved.
    first, second = (entry.state for entry in read_entries(write(path, image=[RED, RED])))
    assert first != second
    assert [entry.state for entry in read_entries(write(path, image=[RED, BLUE]))][0] == first


def test_millions_of_equal_rows_are_read_a_few_at_a_time(path: Path) -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 10_000_000, pa.int8()), ["a text that is always the same"])
    pq.write_table(pa.table({"text": column}), path)
    assert path.stat().st_size < 100_000
    sources = open_sources(path)
    tracemalloc.start()
    arrow = pa.total_allocated_bytes()
    try:
        states = {part.state for part, _ in zip(sources, range(3000), strict=False) if isinstance(part, Entry)}
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(states) == 1
    assert peak < 4 * 1024 * 1024
    assert pa.total_allocated_bytes() - arrow < 16 * 1024 * 1024
    assert sources.estimate() == 10_000_000


def test_more_rows_than_that_are_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from st_modules.files import parquet

    write(path, text=["a"] * 10)
    monkeypatch.setattr(parquet, "MOST_ROWS", 9)
    with pytest.raises(InputError, match="10 rows; at most 9 are read"):
        Sources(path)


# --- datasets ---


def make_dataset(texts: list[str]) -> datasets.Dataset:
    features = datasets.Features({"text": datasets.Value("string"), "image": datasets.Image()})
    return datasets.Dataset.from_dict(
        {"text": texts, "image": [{"bytes": RED, "path": None}] * len(texts)}, features=features
    )


@pytest.fixture
def saved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    make_dataset([f"text {number}" for number in range(10)]).save_to_disk(str(tmp_path / "saved"), num_shards=3)
    return tmp_path / "saved"


def test_a_saved_dataset_is_one_source_row_by_row(saved: Path) -> None:
    entries = read_entries(saved)
    assert [entry.text for entry in entries] == [f"text {number}" for number in range(10)]
    assert {entry.source for entry in entries} == {str(saved)}
    assert (entries[9].place, entries[9].image) == (f"{saved}#row=10", f"{saved}#row=10")
    assert picture_of(entries[9]) == RED
    assert read_finished(saved) == [str(saved)]


def test_into_how_many_files_it_is_divided_makes_no_difference(saved: Path, tmp_path: Path) -> None:
    before = read_entries(saved)
    other = tmp_path / "other"
    make_dataset([f"text {number}" for number in range(10)]).save_to_disk(str(other))
    saved.rename(tmp_path / "old")
    other.rename(saved)
    assert [entry.state for entry in read_entries(saved)] == [entry.state for entry in before]


def test_the_splits_of_a_dataset_are_sources(tmp_path: Path) -> None:
    splits = [("train", make_dataset(["a", "b"])), ("test", make_dataset(["c"]))]
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert read_finished(tmp_path / "saved") == [str(tmp_path / "saved" / name) for name in ("train", "test")]
    assert [entry.text for entry in read_entries(tmp_path / "saved")] == ["a", "b", "c"]
    assert Sources(tmp_path / "saved").covers(str(tmp_path / "saved" / "gone"))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("{", "not valid JSON"),
        ("[]", "names no files"),
        ('{"_data_files": []}', "names no files"),
        ('{"_data_files": [3]}', "names no files"),
        ('{"_data_files": [{"filename": "../saved/state.json"}]}', "names no files"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow: no such file"),
        ('{"_data_files": [{"filename": "state.json"}]}', "cannot be read as an Arrow file of datasets"),
    ],
)
def test_a_damaged_dataset_is_an_error_at_once(saved: Path, state: str, told: str) -> None:
    (saved / "state.json").write_text(state)
    with pytest.raises(InputError, match=told):
        Sources(saved)


def test_a_damaged_file_of_a_dataset_leaves_it_unfinished(saved: Path) -> None:
    last = saved / "data-00002-of-00003.arrow"
    last.write_bytes(last.read_bytes()[:-200])
    sources = Sources(saved)
    *entries, problem = sources
    assert len(entries) >= 7
    assert isinstance(problem, Unreadable)
    assert "cannot be read as an Arrow file of datasets" in problem.reason


@pytest.mark.parametrize("number", [0, 2])
def test_a_file_of_a_dataset_that_changes_leaves_it_unfinished(saved: Path, number: int) -> None:
    parts = iter(Sources(saved))
    next(parts)
    touch(saved / f"data-0000{number}-of-00003.arrow", 1)
    last = list(parts)[-1]
    assert isinstance(last, Unreadable)
    assert last.reason.endswith("changed while it was read; run again")
