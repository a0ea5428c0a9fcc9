"""What is no index, and what is in the way of reading one."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import lancedb
import pyarrow as pa
import pytest

from st_modules import InputError
from st_modules.index import Index
from st_modules.index.model_facts import ModelFacts
from tests.helpers.index_tables import draw_vectors, make_index, make_rows


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_folder_that_is_not_there_is_not_made(tmp_path: Path, scheme: str) -> None:
    with pytest.raises(InputError, match="no index there"):
        Index.open(f"{scheme}{tmp_path}/my.index")
    assert list(tmp_path.iterdir()) == []


def test_file_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "my.index").write_bytes(b"x")
    with pytest.raises(InputError, match="no index there"):
        Index.open(tmp_path / "my.index")


def test_empty_folder_is_no_index(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no index there"):
        Index.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_another_table_of_lancedb_is_no_index(tmp_path: Path) -> None:
    lancedb.connect(str(tmp_path)).create_table("items", pa.table({"id": ["a"]}))
    with pytest.raises(InputError, match="none that st-modules made"):
        Index.open(tmp_path)


def test_half_made_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "items.lance" / "_versions").mkdir(parents=True)
    with pytest.raises(InputError, match="damaged"):
        Index.open(tmp_path)


def test_later_format_is_refused(tmp_path: Path) -> None:
    facts = dataclasses.replace(ModelFacts("tiny", "0" * 32, 16), format=99, version="9.0")
    make_index(tmp_path / "my.index", draw_vectors(3), facts=facts)
    with pytest.raises(InputError, match=r"format 99.* 9\.0"):
        Index.open(tmp_path / "my.index")


@pytest.mark.parametrize("part", ["data", "_versions"])
def test_damaged_files_are_told(tmp_path: Path, part: str) -> None:
    make_index(tmp_path / "my.index", draw_vectors(30))
    for file in (tmp_path / "my.index" / "items.lance" / part).iterdir():
        file.write_bytes(b"x" * 10)
    with pytest.raises(InputError, match="my.index: damaged"):
        Index.open(tmp_path / "my.index").search_like("i00000")


def test_unknown_kind_of_address(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere://a/b"):
        Index.open("nowhere://a/b")


def test_local_url_is_a_folder(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(3))
    assert len(Index.open(f"file://{tmp_path}/my.index")) == 3


def test_errors_are_listed_by_their_sources(tmp_path: Path) -> None:
    errors = [
        {"place": "b.pdf#page=10", "source": "b.pdf", "page": 10, "reason": "damaged"},
        {"place": "b.pdf#page=9", "source": "b.pdf", "page": 9, "reason": "damaged"},
        {"place": "a.png", "id": "mine", "source": "a.png", "reason": "no image"},
    ]
    make_index(tmp_path / "my.index", draw_vectors(3), errors=errors)
    found = Index.open(tmp_path / "my.index").errors()
    assert [row["place"] for row in found] == ["a.png", "b.pdf#page=9", "b.pdf#page=10"]
    assert found[0] == {"place": "a.png", "id": "mine", "source": "a.png", "page": None, "reason": "no image"}


def test_search_sees_the_rows_of_one_commit(tmp_path: Path) -> None:
    vectors = draw_vectors(40)
    table = make_index(tmp_path / "my.index", vectors, generation=[0] * 40)
    index = Index.open(tmp_path / "my.index")

    def write() -> None:
        for generation in range(1, 15):
            rows = make_rows(vectors, generation=[generation] * 40)
            table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)

    writer = threading.Thread(target=write)
    writer.start()
    seen, is_last = [], False
    while not is_last:
        is_last = not writer.is_alive()
        hits = index.search_like("i00000", 39)
        assert len(hits) == 39
        seen.append({hit.metadata["generation"] for hit in hits})
    writer.join()
    assert seen[-1] == {14}
    assert {len(generations) for generations in seen} == {1}
    assert [min(each) for each in seen] == sorted(min(each) for each in seen)
