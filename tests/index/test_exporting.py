"""An index as a Parquet file, read back by pyarrow."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from st_modules import InputError
from st_modules.index import Index, exporting
from tests.helpers.index_tables import Columns, draw_vectors, make_index


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_all_columns_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str) -> None:
    monkeypatch.setattr(exporting, "_ROWS_AT_ONCE", 7)
    vectors = draw_vectors(50)
    texts = [None if row % 3 else f"text {row}" for row in range(50)]
    columns: Columns = {"text": texts, "page": list(range(50)), "image": ["x.png"] * 50}
    make_index(
        tmp_path / "my.index",
        vectors,
        dtype,
        **columns,
        price=[row / 2 for row in range(50)],
        **Columns({"a b": ["c"] * 50}),
    )
    assert Index.open(tmp_path / "my.index").export(tmp_path / "x.parquet") == 50
    table = parquet.read_table(tmp_path / "x.parquet")
    assert table.column_names == ["id", "vector", "source", "page", "text", "image", "price", "a b"]
    assert table.schema.field("vector").type == pa.list_(pa.float32(), 16)
    read = table["vector"].combine_chunks().flatten().to_numpy().reshape(50, 16)
    np.testing.assert_array_equal(read, vectors.astype(dtype).astype(np.float32))
    assert table["id"].to_pylist() == [f"i{row:05d}" for row in range(50)]
    assert table["text"].to_pylist() == texts
    assert table["page"].to_pylist() == list(range(50))
    assert table["price"].to_pylist() == [row / 2 for row in range(50)]
    assert json.loads(table.schema.metadata[b"st_modules"])["model"] == "tiny"


def test_empty_index_has_columns(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", np.zeros((0, 16), np.float32))
    assert Index.open(tmp_path / "my.index").export(tmp_path / "x.parquet") == 0
    assert parquet.read_table(tmp_path / "x.parquet").num_rows == 0


def test_file_that_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(3))
    index = Index.open(tmp_path / "my.index")
    target = tmp_path / "x.parquet"
    target.write_bytes(b"mine")
    with pytest.raises(InputError, match="already there"):
        index.export(target)
    assert target.read_bytes() == b"mine"
    assert index.export(target, force=True) == 3
    assert parquet.read_table(target).num_rows == 3


@pytest.mark.parametrize("name", ["x.csv", "x", "nowhere/x.parquet", "folder.parquet"])
def test_what_is_no_target_is_told(tmp_path: Path, name: str) -> None:
    make_index(tmp_path / "my.index", draw_vectors(3))
    (tmp_path / "folder.parquet").mkdir()
    with pytest.raises(InputError, match=name.split("/")[0]):
        Index.open(tmp_path / "my.index").export(tmp_path / name, force=True)


def test_damage_leaves_no_file(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(30))
    index = Index.open(tmp_path / "my.index")
    for file in (tmp_path / "my.index" / "items.lance" / "data").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match="damaged"):
        index.export(tmp_path / "x.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["my.index"]
