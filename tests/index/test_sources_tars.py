"""WebDataset archives: samples by the key of their members."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from webdataset.tariterators import group_by_keys, tar_file_expander
from webdataset.writer import TarWriter

from st_modules import ImageLimits, InputError
from st_modules.index.entries import Entry, Finished, Unreadable
from st_modules.index.sources import SourceOptions, Sources, tars
from tests.helpers.sources import (
    BLUE,
    RED,
    open_sources,
    picture_of,
    read_entries,
    read_parts,
    read_problems,
    touch,
    write_tar,
)

MEMBERS = [
    *(("a/cat.jpg", RED), ("a/cat.json", b'{"caption": "from json", "n": 3, "id": "c1"}'), ("a/cat.txt", b"a cat")),
    *(("a/dog.cls", b"12\n"), ("a/dog.png", BLUE)),
    *(("b/dog.json", b'{"text": "a dog"}'), ("b/dog.cls", b"dog")),
]
MODES = [("shard.tar", "w"), ("shard.tar.gz", "w:gz"), ("shard.tgz", "w:gz")]


@pytest.fixture(params=MODES, ids=[name for name, _ in MODES])
def path(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    name, mode = request.param
    write_tar(tmp_path / name, MEMBERS, mode)
    return tmp_path / name


def rewrite(path: Path, members: list[tuple[str, bytes]]) -> Path:
    write_tar(path, members, "w" if path.suffix == ".tar" else "w:gz")
    return path


def test_members_of_one_key_are_a_sample(path: Path) -> None:
    cat, dog, other = read_entries(path)
    assert [entry.place for entry in (cat, dog, other)] == [f"{path}#{key}" for key in ("a/cat", "a/dog", "b/dog")]
    assert [entry.text for entry in (cat, dog, other)] == ["a cat", None, "a dog"]
    assert [entry.image for entry in (cat, dog, other)] == [f"{path}#a/cat.jpg", f"{path}#a/dog.png", None]
    assert [entry.id for entry in (cat, dog, other)] == ["c1", None, None]
    assert [entry.metadata for entry in (cat, dog, other)] == [
        {"key": "a/cat", "caption": "from json", "n": 3},
        {"key": "a/dog", "cls": 12},
        {"key": "b/dog", "cls": "dog"},
    ]
    assert (picture_of(cat), picture_of(dog)) == (RED, BLUE)
    assert {entry.source for entry in (cat, dog, other)} == {str(path)}
    assert read_parts(path)[-1] == Finished(str(path))


def test_samples_are_those_that_webdataset_reads(tmp_path: Path) -> None:
    path = tmp_path / "shard.tar"
    with TarWriter(str(path)) as writer:
        for number in range(20):
            writer.write({"__key__": f"part.1/{number:04}", "png": RED, "txt": f"text {number}", "json": {"n": number}})
    with path.open("rb") as stream:
        samples = list(group_by_keys(tar_file_expander([{"url": "shard.tar", "stream": stream}])))
    expected = [(sample["__key__"], sample["txt"].decode(), sample["png"]) for sample in samples]
    entries = read_entries(path)
    assert [(entry.metadata["key"], entry.text, picture_of(entry)) for entry in entries] == expected
    assert [entry.metadata["n"] for entry in entries] == list(range(20))


@pytest.mark.parametrize(
    ("columns", "text", "image"),
    [
        ({"text": "caption"}, "from json", "#a/cat.jpg"),
        ({"text": "txt", "image": "jpg"}, "a cat", "#a/cat.jpg"),
        ({"image": ""}, "a cat", None),
        ({"text": "", "id": "key"}, None, "#a/cat.jpg"),
    ],
    ids=str,
)
def test_columns_are_named(path: Path, columns: dict[str, Any], text: str | None, image: str | None) -> None:
    cat = next(part for part in open_sources(path, **columns) if isinstance(part, Entry))
    assert (cat.text, cat.image) == (text, image and f"{path}{image}")
    assert cat.id == ("a/cat" if "id" in columns else "c1")


def test_a_column_that_no_sample_has_is_an_error_at_once(path: Path) -> None:
    with pytest.raises(InputError, match=r'no "titel" in its first 3 samples; there are "key"'):
        open_sources(path, text="titel")


def test_several_pictures_are_one_item(path: Path) -> None:
    (entry,) = read_entries(rewrite(path, [("a.left.png", RED), ("a.right.png", BLUE)]))
    assert len(entry.content.load().item["image"]) == 2


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ([("x.json", b"{")], "not valid JSON"),
        ([("x.json", b"[]")], "not a JSON object"),
        ([("x.txt", b"\xff")], "not UTF-8 text"),
        ([("x.png", RED), ("x.png", RED)], "two members of one name"),
        ([("x.cls", b"1")], 'neither a "text" nor an "image" field'),
        ([(f"x.{number}.cls", b"1") for number in range(200)], "more than 100 members of one key"),
    ],
    ids=["JSON", "list", "text", "twice", "nothing", "many"],
)
def test_a_bad_sample_is_told_and_the_others_are_read(path: Path, members: list[tuple[str, bytes]], told: str) -> None:
    first, problem, last, end = read_parts(rewrite(path, [("a.txt", b"a"), *members, ("z.txt", b"z")]))
    assert isinstance(problem, Unreadable)
    assert problem.place == f"{path}#x"
    assert told in problem.reason
    assert [part.text for part in (first, last) if isinstance(part, Entry)] == ["a", "z"]
    assert end == Finished(str(path))


def test_members_that_are_no_samples_are_left_out_and_told(path: Path) -> None:
    sources = open_sources(rewrite(path, [("README", b"1"), ("a/.hidden", b"1"), *MEMBERS, ("b/dog.npy", b"1")]))
    assert len([part for part in sources if isinstance(part, Entry)]) == 3
    assert sources.notes == [
        f"{path}: left out members whose names are no sample's: KEY.jpg, KEY.txt … (so in 1 more)",
        f"{path}: left out members that end in .npy",
    ]


def test_names_that_lead_elsewhere_are_names(path: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(BLUE)
    (up, absolute) = read_entries(rewrite(path, [("../secret.png", RED), ("/etc/passwd.txt", b"text")]))
    assert (picture_of(up), up.image) == (RED, f"{path}#../secret.png")
    assert absolute.text == "text"


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_and_devices_are_not_followed(tmp_path: Path, kind: bytes) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo("a.txt")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    (problem,) = read_problems(tmp_path / "a.tar")
    assert "no plain file" in problem.reason


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XGLTYPE])
def test_a_header_without_end_is_refused_before_it_is_read(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as stream:
        stream.write(header("x", 2**31, kind))
        stream.truncate(2**31 + 2048)
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="a header of 2147483648 bytes"):
            Sources(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.png", "a.txt", "a.json"])
def test_a_large_member_is_told_and_not_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.tar"
    with path.open("wb") as stream:
        stream.write(header(name, 2**31))
        stream.seek(512 + 2**31)
        stream.write(header("b.txt", 1) + b"b".ljust(512, b"\0") + bytes(1024))
    tracemalloc.start()
    try:
        large, small, _ = Sources(path)
        if isinstance(large, Entry):  # a picture is read when it is loaded
            with pytest.raises(InputError, match="2147483648 bytes are over the limit"):
                large.content.load()
        else:
            assert isinstance(large, Unreadable)
            assert "2147483648 bytes of one sample are over the limit" in large.reason
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert isinstance(small, Entry)
    assert small.text == "b"


def test_a_bomb_is_not_read_into_memory(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    size = 65 * 1024 * 1024
    with gzip.open(path, "wb", compresslevel=1) as stream:
        stream.write(header("a.png", size))
        for _ in range(size // 2**20):
            stream.write(bytes(2**20))
        stream.write(header("b.txt", 1) + b"b".ljust(512, b"\0") + bytes(1024))
    tracemalloc.start()
    try:
        problem, entry, _ = Sources(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024
    finally:
        tracemalloc.stop()
    assert isinstance(problem, Unreadable)
    assert isinstance(entry, Entry)


def test_pictures_of_a_compressed_sample_are_within_the_limit_together(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tgz", [("a.1.png", RED), ("a.2.png", RED), ("b.png", RED)], "w:gz")
    problem, entry, _ = Sources(tmp_path / "a.tgz", SourceOptions(limits=ImageLimits(max_bytes=len(RED) + 10)))
    assert isinstance(problem, Unreadable)
    assert "over the limit of" in problem.reason
    assert isinstance(entry, Entry)


def test_members_without_number_are_not_kept(path: Path) -> None:
    rewrite(path, [(f"{number}.txt", b"a text") for number in range(2000)])
    sources = open_sources(path)
    tracemalloc.start()
    try:
        assert sum(isinstance(part, Entry) for part in sources) == 2000
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("cut", [1, 512, 1024, 3000, 20_000])
def test_an_archive_that_was_cut_off_is_not_finished(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "a.tar"
    buffer = io.BytesIO()
    write_tar(buffer, [(f"{number:03}.txt", b"text" * 100) for number in range(50)])
    content = buffer.getvalue()
    end = len(content.rstrip(b"\0"))
    path.write_bytes(content[: end - cut if cut > 1 else end])
    parts = read_parts(path)
    assert not any(isinstance(part, Finished) for part in parts)
    assert isinstance(parts[-1], Unreadable)
    assert (parts[-1].source, parts[-1].place) == (str(path), str(path))


def test_a_compressed_archive_that_was_cut_off_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    write_tar(path, [(f"{number:03}.png", RED) for number in range(500)], "w:gz")
    path.write_bytes(path.read_bytes()[:-100])
    parts = read_parts(path)
    assert not any(isinstance(part, Finished) for part in parts)
    assert isinstance(parts[-1], Unreadable)
    assert "cannot be read as an archive" in parts[-1].reason


@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tgz", "w:gz")])
def test_an_archive_that_was_cut_off_within_a_text_keeps_what_was_before(tmp_path: Path, name: str, mode: str) -> None:
    words = np.random.default_rng(0).bytes(150 * 1500).hex().encode()
    buffer = io.BytesIO()
    write_tar(buffer, [(f"{n:03}.txt", words[n * 3000 : (n + 1) * 3000]) for n in range(150)], mode)
    content = buffer.getvalue()
    (tmp_path / name).write_bytes(content[: int(len(content) * 0.9)])
    *parts, last = read_parts(tmp_path / name)
    assert sum(isinstance(part, Entry) for part in parts) > 120
    assert isinstance(last, Unreadable)
    assert (last.source, last.place) == (str(tmp_path / name),) * 2
    assert not any(isinstance(part, Finished) for part in parts)


def test_an_archive_that_is_damaged_within_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    write_tar(path, [(f"{number:03}.txt", b"text") for number in range(50)])
    content = bytearray(path.read_bytes())
    content[20 * 1024 : 20 * 1024 + 512] = b"x" * 512
    path.write_bytes(content)
    *entries, problem = read_parts(path)
    assert len(entries) == 19  # of the twentieth it is not known whether it is complete
    assert isinstance(problem, Unreadable)
    assert "damaged, or cut off" in problem.reason


@pytest.mark.parametrize("content", [b"", b"not an archive" * 100, b"\x1f\x8b", bytes(1024)])
def test_what_is_no_archive_is_an_error_at_once(tmp_path: Path, content: bytes) -> None:
    for name in ("a.tar", "a.tar.gz"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=name):
            Sources(tmp_path / name)


def test_a_picture_of_an_archive_that_has_changed_is_not_read(path: Path) -> None:
    if path.suffix != ".tar":
        pytest.skip("what is compressed is read as it comes")
    (cat, *_) = read_entries(path)
    before = cat.state
    touch(path, 1)
    with pytest.raises(InputError, match="changed while it was read; run again"):
        cat.content.load()
    assert read_entries(path)[0].state != before


def test_headers_that_say_things_of_all_members_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tars, "_MOST_GLOBAL_HEADERS", 10)
    with tarfile.open(tmp_path / "a.tar", "w", pax_headers={f"k{number}": "v" for number in range(20)}) as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    with pytest.raises(InputError, match="headers without end"):
        Sources(tmp_path / "a.tar")


def test_a_text_alone_needs_no_picture(path: Path) -> None:
    items: list[dict[str, Any]] = [
        dict(entry.content.load().item) for entry in read_entries(rewrite(path, [("a.txt", b"a")]))
    ]
    assert items == [{"text": "a"}]
