"""Rows of JSONL, CSV and TSV: what is embedded of them, what is kept, and what is wrong with the others."""

from __future__ import annotations

import base64
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from st_modules import ImageLimits, InputError
from st_modules.files.tables import Columns
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import SourceOptions, Sources, tables
from tests.helpers.loopback import Server, png
from tests.helpers.sources import (
    BLUE,
    RED,
    open_sources,
    picture_of,
    read_entries,
    read_parts,
    read_problems,
    touch,
)

URI = "data:image/png;base64," + base64.b64encode(RED).decode()


def write_rows(path: Path, rows: Iterable[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "a.png").write_bytes(RED)
    (tmp_path / "b.png").write_bytes(BLUE)
    return tmp_path / "rows.jsonl"


def test_a_row_has_text_picture_id_and_the_rest(path: Path) -> None:
    rest = {"price": 1.5, "tags": ["x", None], "deep": {"a": {"b": True}}, "no": None}
    (entry,) = read_entries(write_rows(path, [{"text": "a", "image": "a.png", "id": 7, **rest}]))
    assert (entry.source, entry.place) == (str(path), f"{path}:1")
    assert (entry.id, entry.text, entry.image, entry.page) == ("7", "a", str(path.parent / "a.png"), None)
    assert entry.metadata == rest
    loaded = entry.content.load()
    assert (loaded.text, loaded.item["text"], loaded.item.keys()) == ("a", "a", {"text", "image"})
    assert picture_of(entry) == RED


def test_columns_are_named(path: Path) -> None:
    rows = [{"title": "a", "photo": "a.png", "sku": "s-1", "text": "kept", "price": 3}]
    (entry,) = read_entries(write_rows(path, rows), text="title", image="photo", id="sku")
    assert (entry.text, entry.image, entry.id) == ("a", str(path.parent / "a.png"), "s-1")
    assert entry.metadata == {"text": "kept", "price": 3}


def test_an_empty_name_is_no_column(path: Path) -> None:
    (entry,) = read_entries(write_rows(path, [{"text": "a", "image": "a.png"}]), image="")
    assert (entry.image, entry.metadata) == (None, {"image": "a.png"})


def test_metadata_is_what_was_asked_for(path: Path) -> None:
    (entry,) = read_entries(write_rows(path, [{"text": "a", "x": 1, "y": 2, "z": 3}]), metadata=("y", "x"))
    assert entry.metadata == {"x": 1, "y": 2}


@pytest.mark.parametrize("named", [{"text": "titel"}, {"metadata": ("prize",)}, {"id": "sku"}], ids=str)
def test_a_field_that_no_object_has_is_an_error_at_once(path: Path, named: Any) -> None:
    (name,) = [value if isinstance(value, str) else value[0] for value in named.values()]
    with pytest.raises(InputError, match=f'rows.jsonl: no field "{name}" in its first objects; there are "text", "n"'):
        open_sources(write_rows(path, [{"text": "a", "n": 1}]), **named)


def test_values_that_a_table_has_no_word_for(path: Path) -> None:
    write_rows(path, ['{"text": "a", "nan": NaN, "inf": 1e999, "long": 123456789012345678901234567890}'])
    (entry,) = read_entries(path)
    assert entry.metadata == {"nan": None, "inf": None, "long": "123456789012345678901234567890"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "not valid JSON"),
        ("[1]", "not a JSON object"),
        ('{"text": "a", "text": "b"}', "a field is there twice"),
        ("{}", 'neither a "text" nor an "image" field'),
        ('{"text": 3}', '"text" must be a string, not 3'),
        ('{"text": "a", "id": true}', '"id" must be a string or a whole number'),
        ('{"text": "a", "id": 1.5}', '"id" must be a string or a whole number'),
        ('{"image": {"a": 1}}', '"image" must be a path, a URL, or a list'),
        ('{"image": "gone.png"}', "gone.png: no such file"),
        ('{"image": "data:image/png"}', "a data URI without a comma"),
        ('{"image": "file://host/a.png"}', "a file URL of another host"),
        ('{"image": "ftp://host/a.png"}', "an address of the protocol ftp: ..., of which no pictures are read"),
        ('{"text": "\\ud800"}', "a lone surrogate"),
        ('{"text": "a", "m": ["\\ud800"]}', "a lone surrogate"),
        ('{"text": "a", "m": ' + "[" * 500 + "]" * 500 + "}", "more than 100 deep"),
        ('{"text": "a", "m": ' + "[" * 100_000 + "]" * 100_000 + "}", "not valid JSON"),
        ('{"text": "a", "m": ' + "9" * 10_000 + "}", "not valid JSON"),
    ],
    ids=range(17),
)
def test_a_bad_row_is_told_and_the_others_are_read(path: Path, line: str, reason: str) -> None:
    first, bad, last, end = read_parts(write_rows(path, [{"text": "a"}, line, {"text": "b"}]))
    assert isinstance(first, Entry)
    assert isinstance(last, Entry)
    assert isinstance(bad, Unreadable)
    assert (bad.source, bad.place, bad.page) == (str(path), f"{path}:2", None)
    assert reason in bad.reason
    assert not bad.reason.startswith(str(path) + ":")
    assert end == Finished(str(path))


def test_a_bad_row_keeps_its_id(path: Path) -> None:
    (problem,) = read_problems(write_rows(path, [{"image": "gone.png", "id": 3}]))
    assert problem.id == "3"


def test_a_line_that_is_too_long_ends_the_file_unfinished(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from st_modules.files import texts

    write_rows(path, [{"text": "a"}, {"text": "b" * 1000}, {"text": "c"}])
    monkeypatch.setattr(tables, "_FIRST_ROWS", 0)
    monkeypatch.setattr(texts, "LONGEST_LINE", 500)
    entry, problem = read_parts(path)
    assert isinstance(entry, Entry)
    assert isinstance(problem, Unreadable)
    assert (problem.place, problem.source) == (str(path), str(path))
    assert "a line of more than 500 bytes" in problem.reason


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        (URI, "{path}#line=1"),
        ("file://{folder}/a.png", "{folder}/a.png"),
        ("{folder}/a.png", "{folder}/a.png"),
        ("../{name}/a.png", "{folder}/a.png"),
    ],
)
def test_pictures_are_named_in_several_ways(path: Path, image: str, reference: str) -> None:
    values = {"path": str(path), "folder": str(path.parent), "name": path.parent.name}
    (entry,) = read_entries(write_rows(path, [{"image": image.format(**values)}]))
    assert entry.image == reference.format(**values)
    assert picture_of(entry) == RED


def test_several_pictures_are_one_item(path: Path) -> None:
    (entry,) = read_entries(write_rows(path, [{"image": ["a.png", URI, "b.png"]}]))
    assert entry.image is not None
    folder = path.parent
    assert json.loads(entry.image) == [f"{folder}/a.png", f"{path}#line=1&image=2", f"{folder}/b.png"]
    contents = []
    for image in entry.content.load().item["image"]:
        with image.open() as stream:
            contents.append(stream.read())
    assert contents == [RED, RED, BLUE]


def test_a_picture_on_the_web_is_fetched_when_it_is_loaded(path: Path, server: Server) -> None:
    url = server.url()
    write_rows(path, [{"image": url}])
    (entry,) = (
        part
        for part in Sources(path, SourceOptions(limits=ImageLimits(allow_private_hosts=True)))
        if isinstance(part, Entry)
    )
    assert server.requests == []
    assert entry.image == url
    assert picture_of(entry) == png()
    (refused,) = read_entries(path)
    with pytest.raises(InputError, match="not a public address|not public"):
        refused.content.load()


def options(**limits: Any) -> SourceOptions:
    return SourceOptions(limits=ImageLimits(**limits))


@pytest.mark.parametrize(
    ("image", "limits", "told"),
    [
        ("http://example.org/a.png", {"remote_images": False}, "fetching is turned off"),
        ("s3://bucket/a.png", {"remote_images": False}, "fetching is turned off"),
        ("a.png", {"local_files": False}, "opening files is turned off"),
        ("gone.png", {"local_files": False}, "opening files is turned off"),
    ],
)
def test_what_a_table_names_is_within_the_limits(path: Path, image: str, limits: Any, told: str) -> None:
    problem, _ = Sources(write_rows(path, [{"image": image}]), options(**limits))
    assert isinstance(problem, Unreadable)
    assert told in problem.reason


@pytest.mark.parametrize("name", ["../b.png", "../gone.png", "link.png"])
def test_no_file_outside_of_the_folder_is_opened_nor_told(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "b.png").write_bytes(RED)
    (folder / "in.png").write_bytes(RED)
    (folder / "link.png").symlink_to(tmp_path / "b.png")
    path = write_rows(folder / "t.jsonl", [{"image": name}, {"image": "in.png"}])
    problem, entry, _ = Sources(path, options(local_files=folder))
    assert isinstance(problem, Unreadable)
    assert "not within the folder that files may be opened in" in problem.reason
    assert isinstance(entry, Entry)
    assert picture_of(entry) == RED


def test_what_is_swapped_for_a_link_outwards_is_not_read(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "b.png").write_bytes(RED)
    (folder / "in.png").write_bytes(RED)
    path = write_rows(folder / "t.jsonl", [{"image": "in.png"}])
    entry, _ = Sources(path, options(local_files=folder))
    assert isinstance(entry, Entry)
    (folder / "in.png").unlink()
    (folder / "in.png").symlink_to(tmp_path / "b.png")
    with pytest.raises(InputError, match="not within the folder"):
        entry.content.load()


def test_a_pictures_size_is_within_the_limits(path: Path) -> None:
    (path.parent / "large.png").write_bytes(RED + bytes(1000))
    entry, _ = Sources(write_rows(path, [{"image": "large.png"}]), options(max_bytes=500))
    assert isinstance(entry, Entry)
    with pytest.raises(InputError, match="1075 bytes are over the limit of 500"):
        entry.content.load()


def states(path: Path) -> list[str]:
    return [entry.state for entry in read_entries(path)]


def test_rows_that_are_equal_have_one_state_wherever_they_stand(path: Path) -> None:
    first = states(write_rows(path, [{"text": "a", "n": 1}, {"n": 1, "text": "a"}, {"text": "b", "n": 1}]))
    assert first[0] == first[1] != first[2]
    assert states(write_rows(path, [{"text": "new"}, "", {"text": "b", "n": 1}]))[1] == first[2]


@pytest.mark.parametrize(
    "other",
    [
        {"text": "b", "n": 1, "id": "i", "image": "a.png"},
        {"text": "a", "n": 2, "id": "i", "image": "a.png"},
        {"text": "a", "n": 1, "id": "j", "image": "a.png"},
        {"text": "a", "n": 1, "id": "i", "image": "b.png"},
        {"text": "a", "n": "1", "id": "i", "image": "a.png"},
        {"text": "a", "id": "i", "image": "a.png"},
        {"text": "a", "m": 1, "id": "i", "image": "a.png"},
    ],
    ids=str,
)
def test_whatever_changes_in_a_row_changes_its_state(path: Path, other: dict[str, Any]) -> None:
    row = {"text": "a", "n": 1, "id": "i", "image": "a.png"}
    first, second = states(write_rows(path, [row, other]))
    assert first != second


def test_a_picture_that_changes_changes_the_state(path: Path) -> None:
    before = states(write_rows(path, [{"image": "a.png"}]))
    assert states(path) == before
    touch(path.parent / "a.png", 1)
    assert states(path) != before


def test_equal_content_is_named_alike_whatever_it_is_in(path: Path) -> None:
    (path.parent / "t.txt").write_text("some words")
    row = {"text": "some words", "n": 1}
    entries = read_entries([write_rows(path, [row, {"image": "a.png"}, {"image": URI}]), path.parent / "t.txt"])
    entries += read_entries(path.parent / "a.png")
    words, named, held, text, file = (entry.content.load().content for entry in entries)
    assert words == text
    assert named == held == file != words


def test_an_empty_text_beside_a_picture_is_none(path: Path) -> None:
    empty, alone = read_entries(write_rows(path, [{"text": "", "image": "a.png"}, {"image": "a.png"}]))
    assert empty.content.load().item.keys() == {"image"}
    assert empty.content.load().content == alone.content.load().content


# --- CSV ---


def write_csv(folder: Path, content: str, name: str = "t.csv") -> Path:
    (folder / name).write_text(content)
    return folder / name


def test_columns_of_numbers_are_numbers(path: Path) -> None:
    header = "text,int,float,mixed,zeros,plus,long,empty,words,sparse,minus"
    rows = ["a,1,1.5,1,01,+1,123456789012345678901,,x,,-0", "b,-20,2e3,0.5,2,2,1,,1,7,1"]
    entries = read_entries(write_csv(path.parent, "\n".join([header, *rows])))
    assert [entry.metadata for entry in entries] == [
        {
            **{"int": 1, "float": 1.5, "mixed": 1.0, "zeros": "01", "plus": "+1", "long": "123456789012345678901"},
            **{"empty": None, "words": "x", "sparse": None, "minus": 0.0},
        },
        {
            **{"int": -20, "float": 2000.0, "mixed": 0.5, "zeros": "2", "plus": "2", "long": "1"},
            **{"empty": None, "words": "1", "sparse": 7, "minus": 1.0},
        },
    ]
    assert {name: type(value) for name, value in entries[0].metadata.items()}["mixed"] is float


def test_texts_and_ids_of_digits_stay_what_they_are(path: Path) -> None:
    (entry,) = read_entries(write_csv(path.parent, "text,id,image\n12,0034,a.png\n"))
    assert (entry.text, entry.id, entry.image) == ("12", "0034", str(path.parent / "a.png"))


def test_tsv_and_cells_in_quotes(path: Path) -> None:
    (entry,) = read_entries(write_csv(path.parent, 'text\tn\n"two\nlines\t,"\t3\n', "t.tsv"))
    assert (entry.text, entry.metadata) == ("two\nlines\t,", {"n": 3})


def test_a_row_of_another_length_is_told_and_the_others_are_read(path: Path) -> None:
    parts = read_parts(write_csv(path.parent, "text,n\na,1\nb\nc,3\n"))
    assert [part.metadata["n"] for part in parts if isinstance(part, Entry)] == [1, 3]
    (problem,) = [part for part in parts if isinstance(part, Unreadable)]
    assert problem.place == f"{path.parent / 't.csv'}:3"
    assert "1 cells for 2 columns" in problem.reason
    assert isinstance(parts[-1], Finished)


def test_wrong_quotes_end_the_file_unfinished(path: Path) -> None:
    parts = read_parts(write_csv(path.parent, 'text,n\na,1\n"b,2\n'))
    assert not any(isinstance(part, Finished) for part in parts)
    assert "cannot be read as CSV" in parts[-1].reason  # type: ignore[union-attr]


@pytest.mark.parametrize("named", [{"text": "titel"}, {"metadata": ("prize",)}, {"id": "sku"}], ids=str)
def test_a_column_that_is_not_there_is_an_error_at_once(path: Path, named: Any) -> None:
    with pytest.raises(InputError, match=r't.csv: no column "(titel|prize|sku)"; there are "text", "n"'):
        open_sources(write_csv(path.parent, "text,n\na,1\n"), **named)


def test_a_giant_cell_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from st_modules.files import texts

    table = write_csv(path.parent, "text,n\na,1\n" + "b" * 5000 + ",1\n")
    monkeypatch.setattr(texts, "LONGEST_LINE", 1000)
    (problem,) = read_problems(table)
    assert "a line of more than 1000 bytes" in problem.reason


def test_a_table_that_changes_while_it_is_read_is_not_finished(path: Path) -> None:
    for table in (write_csv(path.parent, "text\na\nb\n"), write_rows(path, [{"text": "a"}, {"text": "b"}])):
        parts = iter(open_sources(table))
        next(parts)
        touch(table, 1)
        last = list(parts)[-1]
        assert isinstance(last, Unreadable)
        assert last.reason == "changed while it was read; run again"


# --- memory ---


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_rows_are_not_kept(path: Path, suffix: str) -> None:
    rows = 2_000
    table = path.parent / f"t.{suffix}"
    with table.open("w") as stream:
        stream.write("text,n\n" if suffix == "csv" else "")
        for number in range(rows):
            text = f"the text of the row of the number {number}" * 250
            stream.write(f"{text},{number}\n" if suffix == "csv" else json.dumps({"text": text, "n": number}) + "\n")
    sources = open_sources(table)
    tracemalloc.start()
    try:
        count = sum(isinstance(part, Entry) for part in sources)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == rows
    assert peak < 2 * 1024 * 1024
    assert table.stat().st_size > 16 * 1024 * 1024


def test_what_an_entry_holds_is_told(path: Path) -> None:
    large, small = read_entries(
        write_rows(path, [{"text": "a" * 100_000, "image": URI}, {"text": "a", "image": "a.png"}])
    )
    assert 100_000 < large.held < 101_000
    assert small.held < 1000


def test_without_a_column_to_embed_it_says_so(path: Path) -> None:
    with pytest.raises(InputError, match="no field to embed"):
        Sources(write_rows(path, [{"text": "a"}]), SourceOptions(Columns("", "", None)))
