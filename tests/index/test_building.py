"""A collection and its index: every item once, with the model's own vector, however the collection has changed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from st_modules import InputError, SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.index import IndexMismatchError, Report, build
from st_modules.index.entries import Entry, Finished, Unreadable, digest
from st_modules.integrations.embedder import Embedder
from tests.helpers.collections import Parts, by_source, draw_picture, read_errors, read_items, write_jsonl
from tests.helpers.entries import Words, write_entry
from tests.helpers.references import TOLERANCE

pytest.importorskip("lancedb")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(5):
        draw_picture(folder / f"{number}.png", number)
    (folder / "note.txt").write_text("a red circle")
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "photos.index"


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What goes through the model."""
    items: list[Any] = []
    encode = Embedder.encode

    def note(self: Embedder, some: Sequence[Any], *arguments: Any, **options: Any) -> np.ndarray:
        items.extend(some)
        return encode(self, some, *arguments, **options)

    monkeypatch.setattr(Embedder, "encode", note)
    return items


def counts(report: Report) -> dict[str, int]:
    names = ("added", "updated", "unchanged", "removed", "repeated", "failed", "embedded")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


# ------------------------------------------------------------------------------------------------- what is in a table


def test_vectors_are_those_of_encode_document(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    assert counts(build(photos, target, tiny)) == {"added": 6, "embedded": 6}
    rows = by_source(target)
    expected = tiny.encode_document([{"image": photos / "3.png"}, {"text": "a red circle"}])
    np.testing.assert_allclose([rows["3.png"]["vector"], rows["note.txt"]["vector"]], expected, atol=TOLERANCE)


def test_a_row_says_where_its_item_is_from(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny)
    row = by_source(target)["3.png"]
    path = str(photos / "3.png")
    assert (row["source"], row["image"], row["text"], row["page"]) == (path, path, None, None)
    assert row["id"] == row["content"]


def test_rows_of_tables_keep_their_ids_and_their_other_fields(
    tmp_path: Path, target: Path, tiny: SentenceTransformer
) -> None:
    rows = [{"id": 7, "text": "a", "price": 3, "tags": ["x", "y"]}, {"id": "b", "text": "b", "price": None}]
    build(write_jsonl(tmp_path / "shop.jsonl", rows), target, tiny)
    found = read_items(target)
    assert found.keys() == {"7", "b"}
    assert (found["7"]["price"], found["7"]["tags"], found["b"]["price"]) == (3, '["x", "y"]', None)


def test_only_the_metadata_that_is_asked_for_is_kept(tmp_path: Path, target: Path, tiny: SentenceTransformer) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"text": "a", "price": 3, "colour": "red"}])
    build(path, target, tiny, metadata=["colour"])
    (row,) = read_items(target).values()
    assert row["colour"] == "red"
    assert "price" not in row


def test_fields_with_the_names_of_the_indexs_own_columns_are_kept_beside_them(
    tmp_path: Path, target: Path, tiny: SentenceTransformer
) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"text": "a", "vector": 1, "source": "here", "_distance": 2.5}])
    build(path, target, tiny)
    (row,) = read_items(target).values()
    assert (row["vector_"], row["source_"], row["_distance_"], len(row["vector"])) == (1, "here", 2.5, 128)


def test_vectors_may_be_kept_in_half_precision(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny, dtype="float16")
    vector = by_source(target)["note.txt"]["vector"]
    expected = tiny.encode_document([{"text": "a red circle"}])[0].astype(np.float16)
    np.testing.assert_allclose(np.array(vector, np.float32), expected.astype(np.float32), atol=1e-3)


def test_vectors_may_be_cut_and_are_of_length_one_then(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny, truncate_dim=32)
    vector = np.array(by_source(target)["note.txt"]["vector"])
    whole = tiny.encode_document([{"text": "a red circle"}])[0][:32]
    np.testing.assert_allclose(vector, whole / np.linalg.norm(whole), atol=TOLERANCE)


def test_thumbnails_are_small_jpegs(photos: Path, target: Path, tiny: SentenceTransformer, tmp_path: Path) -> None:
    build(photos, target, tiny, thumbnails=16)
    rows = by_source(target)
    (tmp_path / "small").write_bytes(rows["1.png"]["thumbnail"])
    with Image.open(tmp_path / "small") as picture:
        assert (picture.format, picture.size) == ("JPEG", (16, 12))
    assert rows["note.txt"]["thumbnail"] is None


def test_thumbnails_of_another_size_are_made_without_embedding(
    photos: Path, target: Path, tiny: SentenceTransformer, embedded: list[Any]
) -> None:
    build(photos, target, tiny)
    embedded.clear()
    assert counts(build(photos, target, tiny, thumbnails=16)) == {"updated": 6}
    assert not embedded
    assert by_source(target)["1.png"]["thumbnail"] is not None


def test_a_new_index_is_of_the_embedded_model_and_a_later_run_of_the_indexs_own(photos: Path, target: Path) -> None:
    build(photos, target, device="cpu")
    assert counts(build(photos, target, device="cpu")) == {"unchanged": 6}


# ------------------------------------------------------------------------------------------------------- what changes


def test_what_has_not_changed_is_neither_read_nor_embedded(
    photos: Path, target: Path, tiny: SentenceTransformer, embedded: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    build(photos, target, tiny)
    embedded.clear()
    monkeypatch.setattr("st_modules.index.engines.read_entry", lambda *_: pytest.fail("read"))
    assert counts(build(photos, target, tiny)) == {"unchanged": 6}
    assert not embedded


def test_a_changed_file_replaces_its_row(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny)
    (photos / "note.txt").write_text("a blue star")
    assert counts(build(photos, target, tiny)) == {"updated": 1, "unchanged": 5, "embedded": 1}
    assert by_source(target)["note.txt"]["text"] == "a blue star"


def test_a_touched_file_is_read_and_not_embedded(
    photos: Path, target: Path, tiny: SentenceTransformer, embedded: list[Any]
) -> None:
    build(photos, target, tiny)
    embedded.clear()
    os.utime(photos / "2.png", ns=(1, 1))
    assert counts(build(photos, target, tiny)) == {"updated": 1, "unchanged": 5}
    assert not embedded


@pytest.mark.parametrize("name", ["00.png", "9.png"])
def test_a_renamed_file_keeps_its_id_and_its_vector(
    photos: Path, target: Path, tiny: SentenceTransformer, embedded: list[Any], name: str
) -> None:
    build(photos, target, tiny)
    before = by_source(target)["2.png"]
    embedded.clear()
    (photos / "2.png").rename(photos / name)
    assert counts(build(photos, target, tiny)) == {"updated": 1, "unchanged": 5}
    assert not embedded
    after = by_source(target)[name]
    assert (after["id"], after["vector"]) == (before["id"], before["vector"])


def test_a_file_that_is_gone_stays_until_it_is_pruned(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny)
    (photos / "2.png").unlink()
    assert counts(build(photos, target, tiny)) == {"unchanged": 5}
    assert "2.png" in by_source(target)
    assert counts(build(photos, target, tiny, prune=True)) == {"unchanged": 5, "removed": 1}
    assert "2.png" not in by_source(target)


def test_pruning_leaves_other_sources_alone(
    photos: Path, target: Path, tiny: SentenceTransformer, tmp_path: Path
) -> None:
    build(photos, target, tiny)
    other = write_jsonl(tmp_path / "other.jsonl", [{"text": "elsewhere"}])
    assert counts(build(other, target, tiny, prune=True)) == {"added": 1, "embedded": 1}
    assert len(read_items(target)) == 7


def test_a_row_that_is_gone_from_a_table_is_dropped(tmp_path: Path, target: Path, tiny: SentenceTransformer) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"text": "a"}, {"text": "b"}, {"text": "c"}])
    build(path, target, tiny)
    write_jsonl(path, [{"text": "c"}, {"text": "a"}])
    assert counts(build(path, target, tiny)) == {"unchanged": 2, "removed": 1}
    assert {row["text"] for row in read_items(target).values()} == {"a", "c"}


def test_new_fields_of_a_row_replace_it_without_embedding(
    tmp_path: Path, target: Path, tiny: SentenceTransformer, embedded: list[Any]
) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"text": "a", "price": 1}])
    build(path, target, tiny)
    embedded.clear()
    write_jsonl(path, [{"text": "a", "price": 2}])
    assert counts(build(path, target, tiny)) == {"updated": 1}
    assert not embedded
    (row,) = read_items(target).values()
    assert row["price"] == 2


# --------------------------------------------------------------------------------------------------------- who is who


def test_equal_content_in_two_files_is_two_rows_and_embedded_once(
    photos: Path, target: Path, tiny: SentenceTransformer, embedded: list[Any]
) -> None:
    shutil.copy(photos / "1.png", photos / "copy.png")
    assert counts(build(photos, target, tiny)) == {"added": 7, "embedded": 6}
    rows = by_source(target)
    assert rows["1.png"]["vector"] == rows["copy.png"]["vector"]
    assert rows["copy.png"]["id"].startswith(rows["1.png"]["id"] + "-")
    assert len(embedded) == 7  # one is for the dimension of a new index


def test_equal_content_of_another_run_keeps_its_row(
    photos: Path, target: Path, tiny: SentenceTransformer, tmp_path: Path
) -> None:
    build(photos, target, tiny)
    (tmp_path / "others").mkdir()
    shutil.copy(photos / "1.png", tmp_path / "others" / "a.png")
    assert counts(build(tmp_path / "others", target, tiny)) == {"added": 1}
    assert {"1.png", "a.png"} < by_source(target).keys()
    assert counts(build(photos, target, tiny)) == {"unchanged": 6}


def test_rows_that_are_equal_in_everything_are_one_item(
    tmp_path: Path, target: Path, tiny: SentenceTransformer
) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"text": "a", "n": 1}, {"text": "a", "n": 2}, {"text": "a", "n": 1}])
    assert counts(build(path, target, tiny)) == {"added": 2, "repeated": 1, "embedded": 1}
    assert counts(build(path, target, tiny)) == {"unchanged": 2, "repeated": 1}


def test_an_id_that_is_given_twice_is_an_error_of_the_second(
    tmp_path: Path, target: Path, tiny: SentenceTransformer
) -> None:
    path = write_jsonl(tmp_path / "shop.jsonl", [{"id": "x", "text": "a"}, {"id": "x", "text": "b"}])
    report = build(path, target, tiny)
    assert counts(report) == {"added": 1, "failed": 1, "embedded": 1}
    assert read_items(target)["x"]["text"] == "a"
    assert report.errors[0].reason == f"its id is that of {path}:1 too; give each item an id of its own"


# ------------------------------------------------------------------------------------------------------------- errors


def test_what_cannot_be_read_is_listed_and_the_rest_is_embedded(
    photos: Path, target: Path, tiny: SentenceTransformer
) -> None:
    (photos / "2.png").write_bytes(b"no picture")
    report = build(photos, target, tiny)
    assert counts(report) == {"added": 5, "failed": 1, "embedded": 5}
    (error,) = read_errors(target)
    assert error["source"] == str(photos / "2.png")
    assert "not an image" in error["reason"]


def test_a_picture_that_only_decoding_finds_damaged_costs_no_other(
    photos: Path, target: Path, tiny: SentenceTransformer
) -> None:
    whole = draw_picture(photos / "2.png", 99).read_bytes()
    (photos / "2.png").write_bytes(whole[: len(whole) // 2])
    assert counts(build(photos, target, tiny)) == {"added": 5, "failed": 1, "embedded": 5}


def test_errors_are_forgotten_once_their_cause_is_gone(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    for name in ("1.png", "2.png"):
        (photos / name).write_bytes(b"no picture")
    build(photos, target, tiny)
    draw_picture(photos / "1.png", 50)
    (photos / "2.png").unlink()
    build(photos, target, tiny)
    assert read_errors(target) == []


def test_errors_of_other_sources_stay(photos: Path, target: Path, tiny: SentenceTransformer, tmp_path: Path) -> None:
    (photos / "2.png").write_bytes(b"no picture")
    build(photos, target, tiny)
    build(write_jsonl(tmp_path / "other.jsonl", [{"text": "elsewhere"}]), target, tiny)
    assert len(read_errors(target)) == 1


def test_the_row_of_a_file_that_cannot_be_read_any_more_is_dropped(
    photos: Path, target: Path, tiny: SentenceTransformer
) -> None:
    build(photos, target, tiny)
    (photos / "2.png").write_bytes(b"no picture")
    assert counts(build(photos, target, tiny)) == {"unchanged": 5, "removed": 1, "failed": 1}


def test_rows_of_a_source_that_was_not_read_to_its_end_stay(target: Path, tiny: SentenceTransformer) -> None:
    whole = [write_entry(number, f"text {number}") for number in range(3)]
    build(Parts([*whole, Finished("words")]), target, tiny)
    broken = Unreadable("words", "words", "the connection was lost")
    assert counts(build(Parts([whole[0], broken]), target, tiny, prune=True)) == {"unchanged": 1, "failed": 1}
    assert len(read_items(target)) == 3


def test_more_errors_than_allowed_end_the_run_and_what_is_done_stays(
    photos: Path, target: Path, tiny: SentenceTransformer
) -> None:
    for name in ("3.png", "4.png"):
        (photos / name).write_bytes(b"no picture")
    with pytest.raises(InputError, match="2 items could not be embedded, and max_errors is 1"):
        build(photos, target, tiny, max_errors=1)
    assert len(read_items(target)) == 4
    assert len(read_errors(target)) == 2


def test_a_source_that_changes_while_it_is_read_is_an_error_until_the_next_run(
    photos: Path, target: Path, tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from st_modules.index import engines

    read = engines.read_entry

    def change_and_read(entry: Entry, thumbnails: int | None) -> Any:
        if entry.source.endswith("2.png"):
            draw_picture(photos / "2.png", 77)
            os.utime(photos / "2.png", ns=(1, 1))
        return read(entry, thumbnails)

    monkeypatch.setattr(engines, "read_entry", change_and_read)
    report = build(photos, target, tiny)
    assert counts(report) == {"added": 5, "failed": 1, "embedded": 5}
    assert "changed while" in report.errors[0].reason
    monkeypatch.undo()
    assert counts(build(photos, target, tiny)) == {"added": 1, "unchanged": 5, "embedded": 1}
    expected = tiny.encode_document([{"image": photos / "2.png"}])[0]
    np.testing.assert_allclose(by_source(target)["2.png"]["vector"], expected, atol=TOLERANCE)
    assert read_errors(target) == []


# -------------------------------------------------------------------------------------------------------- being stopped


class _Stop:
    """Content whose reading ends the run."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def load(self) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), ZeroDivisionError()])
def test_what_ends_a_run_leaves_what_was_done(
    target: Path, tiny: SentenceTransformer, error: BaseException, embedded: list[Any]
) -> None:
    entries = [write_entry(number, f"text {number}") for number in range(300)]
    stop = Entry("words", "words:300", digest(300), _Stop(error), id="w300")
    with pytest.raises(type(error)):
        build(Parts([*entries, stop, Finished("words")]), target, tiny)
    assert read_items(target).keys() == {f"w{number}" for number in range(256)}
    embedded.clear()
    assert counts(build(Parts([*entries, Finished("words")]), target, tiny)) == {
        "unchanged": 256,
        "added": 44,
        "embedded": 44,
    }
    assert len(embedded) == 44


def test_a_second_writer_is_refused(target: Path, tiny: SentenceTransformer) -> None:
    refusals: list[str] = []

    class Meanwhile(Words):
        def load(self) -> Any:
            with pytest.raises(InputError) as refused:
                build(Parts([write_entry(2, "b"), Finished("words")]), target, tiny)
            refusals.append(str(refused.value))
            return super().load()

    entry = Entry("words", "words:1", digest(1), Meanwhile("a"), id="w1")
    build(Parts([entry, Finished("words")]), target, tiny)
    assert len(refusals) == 1
    assert "another run is using this folder" in refusals[0]
    assert read_items(target).keys() == {"w1"}


# ------------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("options", "words"),
    [({"dtype": "float16"}, "dtype='float32'"), ({"truncate_dim": 64}, "truncate_dim=None")],
)
def test_an_index_is_not_gone_on_with_otherwise_than_it_was_made(
    photos: Path, target: Path, tiny: SentenceTransformer, options: dict[str, Any], words: str
) -> None:
    build(photos, target, tiny)
    with pytest.raises(IndexMismatchError, match=words):
        build(photos, target, tiny, **options)


def test_an_index_goes_on_as_it_was_made(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny, dtype="float16", truncate_dim=32)
    draw_picture(photos / "new.png", 70)
    build(photos, target, tiny)
    assert len(by_source(target)["new.png"]["vector"]) == 32


def test_another_model_is_refused(photos: Path, target: Path, tiny: SentenceTransformer) -> None:
    build(photos, target, tiny)
    other = SentenceTransformer("tiny", device="cpu", max_image_tokens=15)
    with pytest.raises(IndexMismatchError, match="their vectors cannot be compared"):
        build(photos, target, other)
    with pytest.raises(IndexMismatchError, match="of tiny, and the model gme-2b is asked for"):
        build(photos, target, "gme-2b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": "int8"}, "dtype"),
        ({"engine": "spark"}, "engine"),
        ({"vector_index": "flat"}, "vector_index"),
        ({"thumbnails": 0}, "thumbnails"),
        ({"max_errors": -1}, "max_errors"),
        ({"batch_size": 0}, "batch_size"),
        ({"prune": 1}, "prune"),
        ({"wait": "yes"}, "wait"),
        ({"truncate_dim": 129}, "truncate_dim"),
        ({"instruction": "a", "prompt_name": "t2i"}, "two ways to say the same"),
        ({"prompt_name": "nothing"}, "no such instruction"),
        ({"instruction": "Find it."}, "reads no instruction on the document side"),
    ],
)
def test_what_cannot_be_is_refused(
    photos: Path, target: Path, tiny: SentenceTransformer, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        build(photos, target, tiny, **options)


def test_a_file_in_the_place_of_the_index_is_refused(photos: Path, tiny: SentenceTransformer) -> None:
    with pytest.raises(InputError, match="an index is a folder"):
        build(photos, photos / "1.png", tiny)
