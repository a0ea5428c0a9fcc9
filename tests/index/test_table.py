"""The tables of an index: columns that take whatever rows have, look-ups, and errors that say what to do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_modules import InputError
from st_modules.index import Index
from st_modules.index.model_facts import ModelFacts
from st_modules.index.table import Errors, IndexStorageError, Items, connect, has_items, open_items

lancedb = pytest.importorskip("lancedb")
FACTS = ModelFacts("tiny", "0" * 32, 4)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "made.index")


@pytest.fixture
def items(path: str) -> Items:
    return Items.create(connect(path), FACTS, path)


def row(id: str, **columns: Any) -> dict[str, Any]:
    own = {"text": None, "image": None, "thumbnail": None, "page": None, "source": "s", "content": id, "state": id}
    return {"id": id, "vector": np.ones(4, np.float32), **own, **columns}


def put(items: Items, *metadata: Mapping[str, Any]) -> None:
    start = len(items)
    items.merge([row(f"{start + number:03}") for number in range(len(metadata))], metadata)


def column(items: Items, name: str) -> tuple[str, list[Any]]:
    table = items.table.to_arrow().sort_by("id")
    return str(table[name].type), table[name].to_pylist()


# ----------------------------------------------------------------------------------------------------------- metadata


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([True, False], "bool", [True, False]),
        ([1, -(2**63)], "int64", [1, -(2**63)]),
        ([1.5, 2.0], "double", [1.5, 2.0]),
        (["a", ""], "string", ["a", ""]),
        ([[1, "ä"], {"a": None}], "string", ['[1, "ä"]', '{"a": null}']),
        ([1, 2.5], "double", [1.0, 2.5]),
        ([2.5, 1], "double", [2.5, 1.0]),
        ([1, "a"], "string", ["1", "a"]),
        (["a", 1], "string", ["a", "1"]),
        ([True, 1], "string", ["true", "1"]),
        ([2.5, "a"], "string", ["2.5", "a"]),
        ([2**63, 1], "string", [str(2**63), "1"]),
        ([None, 1], "int64", [None, 1]),
    ],
)
@pytest.mark.parametrize("commits", [1, 2])
def test_a_column_is_of_a_type_that_all_its_values_fit(
    items: Items, values: Sequence[Any], kind: str, expected: Sequence[Any], commits: int
) -> None:
    for some in [values] if commits == 1 else [values[:1], values[1:]]:
        put(items, *({"n": value} for value in some))
    assert column(items, "n") == (kind, list(expected))


def test_a_field_without_any_value_has_no_column(items: Items) -> None:
    put(items, {"n": None})
    assert "n" not in items.table.schema.names


def test_a_field_that_comes_later_is_null_before(items: Items) -> None:
    put(items, {})
    put(items, {"n": 1})
    assert column(items, "n") == ("int64", [None, 1])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("id", "id_"),
        ("content", "content_"),
        ("_rowid", "_rowid_"),
        ("_distance", "_distance_"),
        ("a.b", "a_b"),
        ("a`b", "a_b"),
        ("", "_"),
        ("*", "*_"),
        ("\0", "_"),
        ("id\0b", "id_b"),
        ("_st_modules_cast_price", "st_modules_cast_price"),
        ("Größe in cm", "Größe in cm"),
        ("ID", "ID"),
        ("it's", "it's"),
    ],
)
def test_fields_have_columns_of_their_names_or_of_what_is_near(items: Items, name: str, expected: str) -> None:
    put(items, {name: 1})
    put(items, {name: "a"})
    assert column(items, expected) == ("string", ["1", "a"])


def test_two_fields_of_a_row_never_share_a_column(items: Items) -> None:
    put(items, {"a_b": 1, "a.b": 2})
    assert (column(items, "a_b")[1], column(items, "a_b_")[1]) == ([1], [2])


def test_a_field_has_the_same_column_in_every_row_and_every_run(items: Items, path: str) -> None:
    put(items, {"a.b": 1})
    put(items, {"a_b": 2, "a.b": 3})
    again = Items.open(connect(path), path)
    put(again, {"a_b": 4}, {"a.b": 5.5})
    assert column(again, "a_b") == ("double", [1, 3, None, 5.5])
    assert column(again, "a_b_") == ("int64", [None, 2, 4, None])
    last = Items.open(connect(path), path)
    put(last, {"a.b": 6})
    assert column(last, "a_b")[1][-1] == 6


def test_it_is_told_once_that_a_column_has_another_name(items: Items, caplog: pytest.LogCaptureFixture) -> None:
    put(items, {"text": "a"}, {"text": "b"})
    put(items, {"text": "c"})
    assert [record.getMessage() for record in caplog.records] == [
        "The field 'text' is the column 'text_' of the index."
    ]


def test_it_is_told_that_a_column_has_become_text(items: Items, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        put(items, {"n": 1}, {"m": 1})
        put(items, {"n": "a"}, {"m": 2.5})
    assert [record.getMessage() for record in caplog.records] == [
        "The field 'n' has values of several types: its column is string now."
    ]


@pytest.mark.parametrize("steps", [1, 2])
def test_a_column_that_was_on_its_way_to_another_type_arrives(items: Items, path: str, steps: int) -> None:
    put(items, {"n": 1})
    items.table.add_columns({"_st_modules_cast_n": "CAST(n AS DOUBLE)"})
    if steps == 2:
        items.table.drop_columns(["n"])
    assert not any(name.startswith("_st") for name in Index.open(path).columns)
    again = Items.open(connect(path), path)
    put(again, {"n": 2.5})
    assert column(again, "n") == ("double", [1.0, 2.5])
    assert again.table.schema.names.count("n") == 1
    assert not any(name.startswith("_st") for name in again.table.schema.names)


# ----------------------------------------------------------------------------------------------------------- look-ups


@pytest.mark.parametrize("id", ["it's", 'a"b', "a\\b", "ä\n", "", "?", "$1", "%", "-- x", "x' OR '1'='1"])
def test_rows_are_found_and_deleted_by_any_id(items: Items, id: str) -> None:
    items.merge([row(id), row("other")], [{}, {}])
    assert items.find("id", [id, "nothing"], ["id", "state"]) == [{"id": id, "state": id}]
    items.delete([id])
    assert [each["id"] for rows in items.scan(["id"]) for each in rows] == ["other"]


def test_more_values_are_looked_up_than_a_condition_has(items: Items) -> None:
    items.merge([row(f"{number}") for number in range(2500)], [{}] * 2500)
    found = items.find("state", [f"{number}" for number in range(0, 5000, 2)], ["id"])
    assert sorted(int(each["id"]) for each in found) == list(range(0, 2500, 2))


def test_a_row_takes_the_place_of_the_one_with_its_id(items: Items) -> None:
    items.merge([row("a", text="old"), row("b")], [{}, {}])
    items.merge([row("a", text="new"), row("c")], [{}, {}])
    assert column(items, "text") == ("string", ["new", None, None])


def test_an_index_is_in_order_after_it_was_tidied(items: Items, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_modules.index.table._LARGE", 10)
    for start in range(0, 30, 10):
        items.merge([row(f"{start + number}") for number in range(10)], [{}] * 10)
    items.tidy()
    items.tidy()
    assert {tuple(index.columns) for index in items.table.list_indices()} == {
        ("id",),
        ("state",),
        ("content",),
        ("source",),
    }
    items.merge([row("5", text="new")], [{}])
    assert items.find("id", ["5"], ["text"]) == [{"text": "new"}]
    assert len(items) == 30


def test_errors_are_kept_by_their_source_and_their_place(path: str) -> None:
    errors = Errors(connect(path), path)
    keys = [(f"s'{number}", "p") for number in range(120)]
    for reason in ("old", "new"):
        errors.put([{"source": source, "place": place, "reason": reason} for source, place in keys])
    errors.delete(keys[:60])
    again = Errors(connect(path), path)
    assert sorted(key for found in again.scan() for key in found) == sorted(keys[60:])


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_a_folder_without_an_index_is_none(path: str) -> None:
    assert not has_items(connect(path))
    with pytest.raises(InputError, match="no index there; `st-modules index` makes one"):
        open_items(path)


def test_a_table_that_another_program_made_is_refused(path: str) -> None:
    connect(path).create_table("items", [{"id": "a"}])
    with pytest.raises(InputError, match="none that st-modules made"):
        open_items(path)


def test_a_later_format_is_refused(path: str) -> None:
    Items.create(connect(path), ModelFacts("tiny", "0" * 32, 4, format=2, version="9.9"), path)
    with pytest.raises(InputError, match=r"format 2, made by st-modules 9\.9"):
        open_items(path)


@pytest.mark.parametrize("described", [b"{", b"[]", b"{}", b"\xff"])
def test_a_damaged_description_is_refused(described: bytes) -> None:
    with pytest.raises(InputError, match="damaged"):
        ModelFacts.parse(described, "made.index")


def test_what_is_known_of_a_model_comes_back(items: Items, path: str) -> None:
    items.merge([row("a")], [{"n": 1}])
    items.merge([row("b")], [{"n": "a"}])
    items.tidy()
    assert open_items(path)[1] == FACTS


def test_what_lancedb_cannot_read_is_named_with_what_to_do(items: Items, tmp_path: Path) -> None:
    items.merge([row("a")], [{}])
    for data in (tmp_path / "made.index" / "items.lance" / "data").iterdir():
        data.write_bytes(b"")
    with pytest.raises(IndexStorageError, match=r"made\.index: the index cannot be read or written: .*goes on") as told:
        items.find("id", ["a"], ["id", "text"])
    assert ".rs" not in str(told.value)
