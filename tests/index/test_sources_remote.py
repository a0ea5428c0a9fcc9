"""Collections behind URLs: the same entries as on this machine."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from st_modules import ImageLimits, InputError
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import SourceOptions, Sources, pdf
from st_modules.index.sources.items import AddressPicture
from st_modules.index.sources.stored import find_file, find_system, from_info, make_source
from tests.helpers.files import write_pdf
from tests.helpers.loopback import Server
from tests.helpers.sources import (
    BLUE,
    RED,
    open_sources,
    picture_of,
    read_entries,
    read_finished,
    read_parts,
    read_problems,
    write_tar,
)

NUMBERS = itertools.count()


@pytest.fixture
def files() -> fsspec.AbstractFileSystem:
    return fsspec.filesystem("memory")


@pytest.fixture
def bucket(files: Any) -> Iterator[str]:
    name = f"bucket{next(NUMBERS)}"
    files.mkdir(f"/{name}")
    yield f"memory:///{name}"
    files.rm(f"/{name}", recursive=True)


@pytest.fixture
def collection(tmp_path: Path, bucket: str, files: Any) -> Path:
    """The same files here and in the bucket."""
    folder = tmp_path / "collection"
    (folder / "b" / "c").mkdir(parents=True)
    (folder / "z.png").write_bytes(RED)
    (folder / "b" / "c" / "a.png").write_bytes(BLUE)
    (folder / "b" / "notes.txt").write_text("some words")
    write_pdf(folder / "b" / "a.pdf", ["red", "blue"])
    (folder / "t.jsonl").write_text('{"text": "a", "image": "b/c/a.png", "n": 1}\n{"text": "b"}\n[]\n')
    (folder / "t.csv").write_text("text,image,n\na,b/../z.png,01\nb,,2\n")
    pq.write_table(pa.table({"text": ["a", "b"], "image": [RED, None]}), folder / "t.parquet")
    for name, mode in (("t.tar", "w"), ("t.tar.gz", "w:gz")):
        write_tar(folder / name, [("a.png", RED), ("a.txt", b"words"), ("b.txt", b"others")], mode)
    datasets.Dataset.from_dict({"text": ["a", "b", "c"]}).save_to_disk(str(folder / "saved"), num_shards=2)
    for path in folder.rglob("*"):
        if path.is_file():
            files.pipe(f"{bucket}/{path.relative_to(folder)}", path.read_bytes())
    return folder


def describe(root: str, parts: list[Any]) -> list[tuple[Any, ...]]:
    """What there is to say of what was read, but for where it is and when it was written."""
    described: list[tuple[Any, ...]] = []
    for part in parts:
        source = part.source.removeprefix(root)
        if isinstance(part, Entry):
            loaded = part.content.load()
            image = part.image and part.image.removeprefix(root)
            place = part.place.removeprefix(root)
            described.append((source, place, part.id, part.text, image, part.page, part.metadata, loaded.content))
        elif isinstance(part, Unreadable):
            described.append((source, part.place.removeprefix(root), part.reason))
        else:
            described.append((source,))
    return described


@pytest.mark.parametrize(
    "name",
    ["", "z.png", "b/notes.txt", "b/a.pdf", "t.jsonl", "t.csv", "t.parquet", "t.tar", "t.tar.gz", "saved"]
    + ["**/*.png", "t.*", "*/*"],
)
def test_what_is_read_is_the_same_as_on_this_machine(collection: Path, bucket: str, name: str) -> None:
    here, there = (f"{root}/{name}".rstrip("/") for root in (str(collection), bucket))
    expected = describe(str(collection), read_parts(here))
    assert len(expected) > 1
    assert describe(bucket, read_parts(there)) == expected


def test_what_is_left_out_is_told(collection: Path, bucket: str) -> None:
    sources = open_sources(bucket)
    list(sources)
    (note, *_) = sources.notes
    assert note.startswith(f"{bucket}: left out ")
    assert "saved/state.json, t.csv and 4 more" in note


def test_an_url_has_one_name(collection: Path, bucket: str) -> None:
    name = bucket.removeprefix("memory:///")
    finished = read_finished([f"memory://{name}/z.png", f"memory:///{name}/z.png", f"{bucket}/*.png"])
    assert finished == [f"{bucket}/z.png"]


def test_a_file_url_is_a_path(collection: Path) -> None:
    assert read_finished(f"file://{collection}/z.png") == [str(collection / "z.png")]


def test_what_a_bucket_covers(collection: Path, bucket: str) -> None:
    sources = open_sources([bucket])
    expected = {"z.png": True, "gone.png": True, "t.jsonl": False, "saved": False}
    assert {name: sources.covers(f"{bucket}/{name}") for name in expected} == expected
    assert not sources.covers(str(collection / "z.png"))
    assert not sources.covers(f"{bucket}2/z.png")


def test_a_new_file_is_found_in_the_next_reading(collection: Path, bucket: str, files: Any) -> None:
    sources = open_sources(bucket)
    before = [part for part in sources if isinstance(part, Finished)]
    files.pipe(f"{bucket}/new.png", RED)
    assert [part for part in sources if isinstance(part, Finished) and part not in before] == [
        Finished(f"{bucket}/new.png")
    ]


def test_an_unchanged_file_keeps_its_state_and_a_changed_one_does_not(
    collection: Path, bucket: str, files: Any
) -> None:
    names = [f"{bucket}/z.png", f"{bucket}/b/a.pdf", f"{bucket}/b/notes.txt"]
    before = [entry.state for entry in read_entries(names)]
    assert [entry.state for entry in read_entries(names)] == before
    # Found in a listing or looked up, it is the same file.
    assert {entry.state for entry in read_entries(bucket)} > set(before)
    for name in names:
        files.pipe(name, files.cat(name))
    assert set(before).isdisjoint(entry.state for entry in read_entries(names))


@pytest.mark.parametrize("name", ["z.png", "b/a.pdf", "b/notes.txt", "t.tar"])
def test_a_file_that_has_changed_is_not_read(collection: Path, bucket: str, files: Any, name: str) -> None:
    (entry, *_) = read_entries(f"{bucket}/{name}")
    files.pipe(f"{bucket}/{name}", files.cat(f"{bucket}/{name}"))
    with pytest.raises(InputError, match=f"{name}: changed while it was read; run again"):
        entry.content.load()


def test_a_file_that_is_gone_is_told(collection: Path, bucket: str, files: Any) -> None:
    (entry,) = read_entries(f"{bucket}/z.png")
    files.rm(f"{bucket}/z.png")
    with pytest.raises(InputError, match=r"z.png: no such file"):
        entry.content.load()


@pytest.mark.parametrize("name", ["gone.png", "gone", "gone/*.png", "*.gif"])
def test_a_source_with_nothing_is_an_error_at_once(collection: Path, bucket: str, name: str) -> None:
    with pytest.raises(InputError, match="no such file|nothing"):
        Sources(f"{bucket}/{name}")


def test_a_large_pdf_is_not_read_into_memory(collection: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pdf, "LARGEST_REMOTE", 100)
    (entry, *_) = read_entries(f"{bucket}/b/a.pdf")
    with pytest.raises(InputError, match=r"a.pdf: over the limit of 100 bytes"):
        entry.content.load()


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("/etc/passwd.png", "an absolute path in a table that is not on this machine"),
        ("ftp://host/a.png", "an address of the protocol ftp"),
        ("github://host/a.png", "an address of the protocol github"),
    ],
)
def test_a_table_that_is_not_on_this_machine_names_no_files_of_it(
    bucket: str, files: Any, image: str, told: str
) -> None:
    files.pipe(f"{bucket}/t.jsonl", f'{{"image": "{image}"}}'.encode())
    (problem,) = read_problems(f"{bucket}/t.jsonl")
    assert told in problem.reason


def test_pictures_of_a_bucket_are_fetched_like_those_of_the_web(bucket: str, files: Any) -> None:
    files.pipe(f"{bucket}/t.jsonl", b'{"image": "a.png"}')
    (problem, _) = Sources(f"{bucket}/t.jsonl", SourceOptions(limits=ImageLimits(remote_images=False)))
    assert isinstance(problem, Unreadable)
    assert "fetching is turned off" in problem.reason
    (entry,) = read_entries(f"{bucket}/t.jsonl")
    with pytest.raises(InputError, match=r"a.png: no such file"):
        entry.content.load()
    files.pipe(f"{bucket}/a.png", RED + bytes(1000))
    (entry, _) = Sources(f"{bucket}/t.jsonl", SourceOptions(limits=ImageLimits(max_bytes=500)))
    assert isinstance(entry, Entry)
    with pytest.raises(InputError, match="over the limit of 500 bytes"):
        entry.content.load()


def test_a_local_table_names_pictures_in_object_stores(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"image": "s3://bucket/a.png"}\n{"image": "memory://bucket/a.png"}')
    entry, problem, _ = read_parts(tmp_path / "t.jsonl")
    assert isinstance(entry, Entry)
    assert entry.image == "s3://bucket/a.png"
    assert isinstance(problem, Unreadable)
    assert "an address of the protocol memory" in problem.reason


@pytest.mark.parametrize(
    ("info", "version"),
    [
        ({"ETag": '"abc"', "LastModified": "x"}, "abc"),
        ({"mtime": 1.5, "created": 2}, "1.5"),
        ({"md5Hash": "m", "updated": "u"}, "m"),
        ({}, ""),
    ],
    ids=str,
)
def test_a_version_is_what_the_system_says_of_the_content(info: dict[str, Any], version: str) -> None:
    file = from_info("s3://bucket/a", {"size": 3, **info})
    assert (file.size, file.version) == (3, version)
    assert from_info("s3://bucket/a", {"size": None, **info}).size is None


def test_errors_of_a_file_system_are_told(collection: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("the token has expired")

    sources = open_sources([bucket, f"{bucket}/z.png"])
    (entry,) = read_entries(f"{bucket}/z.png")
    monkeypatch.setattr(MemoryFileSystem, "ls", refuse)
    with pytest.raises(InputError, match=rf"{bucket}: cannot be read \(the token has expired\)"):
        list(sources)
    monkeypatch.setattr(MemoryFileSystem, "info", refuse)
    with pytest.raises(InputError, match=r"z.png: cannot be read \(the token has expired\)"):
        entry.content.load()


@pytest.mark.parametrize("end", ["", "/"])
def test_an_empty_object_in_the_place_of_a_folder_is_no_file(
    collection: Path, bucket: str, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    list_folder = MemoryFileSystem.ls

    def list_with_itself(files: Any, path: str, detail: bool = True, **options: Any) -> Any:
        itself = {"name": f"{path.rstrip('/')}{end}", "size": 0, "type": "file"}
        return [itself, *list_folder(files, path, detail=detail, **options)]

    expected = read_parts(bucket)
    monkeypatch.setattr(MemoryFileSystem, "ls", list_with_itself)
    sources = open_sources(bucket)
    assert list(sources) == expected
    assert "9 files" in sources.notes[0]


def test_listings_are_not_remembered() -> None:
    files, _ = find_system("memory://bucket")
    assert files.dircache.use_listings_cache is False


# --- the web ---


@pytest.fixture
def site(server: Server) -> Server:
    bodies = {"/a.png": RED, "/t.jsonl": b'{"text": "a", "n": 1}\n{"text": "b"}\n', "/notes.txt": b"some words"}
    for path, body in bodies.items():
        server.routes[path] = lambda handler, body=body: handler.answer(body, ETag='"v1"')
    return server


def test_files_on_the_web_are_sources(site: Server) -> None:
    pytest.importorskip("aiohttp")
    picture, words, first, second = read_entries([site.url(path) for path in ("/a.png", "/notes.txt", "/t.jsonl")])
    assert picture.source == site.url("/a.png")
    assert picture_of(picture) == RED
    assert words.content.load().text == "some words"
    assert [first.text, second.text, first.metadata] == ["a", "b", {"n": 1}]


def test_a_file_system_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "url_to_fs", refuse)
    monkeypatch.setattr(fsspec.core, "url_to_fs", refuse)
    with pytest.raises(InputError, match="s3://bucket/a.png: cannot be opened: Install s3fs to access S3"):
        make_source("s3://bucket/a.png")


def test_streams_of_one_file_have_each_their_place(bucket: str, files: Any) -> None:
    files.pipe(f"{bucket}/a.txt", b"0123456789")
    file = find_file(f"{bucket}/a.txt")
    with file.open() as first, file.open() as second:
        assert first.read(5) == b"01234"
        assert second.read(5) == b"01234"
        assert first.read() == b"56789"
    assert isinstance(first, io.BytesIO)


def test_an_address_that_is_kept_reads_nothing_before_it_is_loaded(bucket: str) -> None:
    picture = AddressPicture.find(f"{bucket}/gone.png", f"{bucket}/t.jsonl", "place", ImageLimits())
    assert (picture.reference, picture.held) == (f"{bucket}/gone.png", 0)


@pytest.mark.parametrize("url", ["https://me:secret@host/a.png", "sftp://me:se@cret@host:22/photos/*.jpg"])
def test_a_password_in_a_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InputError, match="://…@host.*: has a password") as raised:
        open_sources(url)
    assert "cret" not in str(raised.value)


def test_a_password_in_a_cell_is_refused_and_not_kept(tmp_path: Path) -> None:
    table = tmp_path / "t.jsonl"
    rows = [{"image": "s3://u:secret@b/x.png"}, {"image": "hf://u:secret@b/x.png"}, {"text": "a"}]
    table.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    first, second, _, _ = read_parts(table)
    for part in (first, second):
        assert isinstance(part, Unreadable)
        assert "has a password" in part.reason
        assert "secret" not in part.reason
