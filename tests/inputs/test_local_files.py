"""Which files are opened: none, or those in one folder, whichever way a path comes in."""

from __future__ import annotations

import dataclasses
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from st_modules import ImageError, ImageLimits, ImageSource, SentenceTransformer
from st_modules.inputs import local_files
from st_modules.inputs.items import parse_items, parse_valid

CLOSED = ImageLimits(local_files=False)
TURNED_OFF = "opening files is turned off"
OUTSIDE = "not within the folder that files may be opened in"

WAYS: dict[str, Callable[[str], Any]] = {
    "bare string": lambda path: path,
    "bare file URL": lambda path: f"file://{path}",
    "bare file URL of one slash": lambda path: f"FILE:{path}",
    "path": Path,
    "image string": lambda path: {"image": path},
    "image path": lambda path: {"image": Path(path)},
    "image file URL": lambda path: {"image": f"file://{path}"},
    "image file URL of this host": lambda path: {"image": f"File://localhost{path}"},
    "images": lambda path: {"text": "two", "image": [path]},
    "not decoded": lambda path: {"bytes": None, "path": path},
    "image not decoded": lambda path: {"image": {"bytes": None, "path": path}},
    "message, image": lambda path: message({"type": "image", "image": path}),
    "message, path": lambda path: message({"type": "image", "path": path}),
    "message, url": lambda path: message({"type": "image", "url": f"file://{path}"}),
    "message, image not decoded": lambda path: message({"type": "image", "image": {"bytes": None, "path": path}}),
    "message, image_url": lambda path: message({"type": "image_url", "image_url": {"url": f"file://{path}"}}),
    "messages": lambda path: [
        {"role": "system", "content": "Find it."},
        message({"type": "image_url", "image_url": path}),
    ],
    "image source": lambda path: {"image": ImageSource(path, limits=CLOSED)},
}

OPEN_WAYS = sorted(WAYS.keys() - {"image source"})


def message(part: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": "Look."}, part]}


def png(width: int = 3) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, 1)).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with pictures that are told apart by their width, links, and a picture beside it."""
    folder = tmp_path / "root"
    (folder / "sub" / "deep").mkdir(parents=True)
    (tmp_path / "root-of-others").mkdir()
    for width, name in enumerate(["a.png", "sub/b.png", "sub/deep/c.png", "../outside.png", "../root-of-others/d.png"]):
        (folder / name).write_bytes(png(width + 1))
    for name, target in {
        "link.png": "sub/b.png",
        "deep": "sub/deep",
        "out.png": "../outside.png",
        "nothing.png": "../nothing.png",
        "up": "..",
        "round.png": "round.png",
    }.items():
        (folder / name).symlink_to(target)
    (tmp_path / "alias").symlink_to(folder)
    return folder


def width_of(value: Any, limits: ImageLimits) -> int:
    (item,) = parse_items([value], limits)
    return item.images[0].size[0]


def refusal_of(value: Any, limits: ImageLimits) -> str:
    with pytest.raises(ImageError, match="item 0") as error:
        width_of(value, limits)
    return str(error.value)


@pytest.mark.parametrize("way", WAYS)
def test_no_file_is_opened_where_none_may_be(way: str, root: Path) -> None:
    assert TURNED_OFF in refusal_of(WAYS[way](str(root / "a.png")), CLOSED)
    _, errors = parse_valid([WAYS[way](str(root / "a.png"))], CLOSED)
    assert errors == []  # nothing is opened yet


@pytest.mark.parametrize("way", OPEN_WAYS)
def test_files_in_the_folder_are_opened_and_no_others(way: str, root: Path) -> None:
    limits = ImageLimits(local_files=root)
    assert width_of(WAYS[way](str(root / "sub" / "b.png")), limits) == 2
    assert OUTSIDE in refusal_of(WAYS[way](str(root.parent / "outside.png")), limits)


def record_looks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths that the disk is asked about from now on."""
    asked: list[str] = []

    def record(call: Any) -> Any:
        def ask(path: Any, *args: Any, **options: Any) -> Any:
            asked.append(str(path))
            return call(path, *args, **options)

        return ask

    for module, name in ((os, "stat"), (os, "lstat"), (os, "open"), (os, "readlink"), (io, "open")):
        monkeypatch.setattr(module, name, record(getattr(module, name)))
    return asked


@pytest.mark.parametrize("way", OPEN_WAYS)
@pytest.mark.parametrize("is_closed", [True, False])
def test_a_path_that_is_refused_is_not_looked_for(
    way: str, is_closed: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = CLOSED if is_closed else ImageLimits(local_files=root)
    there, gone = root.parent / "outside.png", root.parent / "gone9999.png"
    values = [WAYS[way](str(path)) for path in (there, gone)]
    asked = record_looks(monkeypatch)
    first, second = (refusal_of(value, limits) for value in values)
    assert first.replace(there.name, gone.name) == second
    assert [path for path in asked if there.name in path or gone.name in path] == []


@pytest.mark.parametrize(
    "path",
    [
        "../outside.png",
        "../root-of-others/d.png",
        "sub/../../outside.png",
        "deep/../../../outside.png",
        "out.png",
        "nothing.png",
        "up/outside.png",
        "up/gone.png",
        "up/root-of-others/../outside.png",
        "../../../../../../../../../../../../etc/passwd",
        "/etc/passwd",
        "/etc/no-such-file",
        "/dev/zero",
        "/proc/self/cwd/a.png",
    ],
)
def test_no_path_leads_out_of_the_folder(path: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    limits = ImageLimits(local_files=root)
    assert not limits.may_open(path)
    for way in (Path(path), {"image": f"file://{root}/{path}" if path[0] != "/" else f"file://{path}"}):
        assert OUTSIDE in refusal_of(way, limits)


@pytest.mark.parametrize(
    ("path", "width"),
    [
        ("a.png", 1),
        ("sub/b.png", 2),
        ("link.png", 2),
        ("deep/c.png", 3),
        ("sub/../a.png", 1),
        ("deep/../b.png", 2),  # the folder that the link leads to is in sub
        ("../root/a.png", 1),
        ("./sub//./b.png", 2),
        ("up/root/a.png", 1),
    ],
)
def test_a_path_that_stays_in_the_folder_is_opened(
    path: str, width: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    assert width_of(Path(path), ImageLimits()) == width
    for folder in (root, ".", f"{root}/", root / "sub" / "..", root.parent / "alias"):
        limits = ImageLimits(local_files=folder)
        assert width_of(Path(path), limits) == width
        assert width_of(root / path, limits) == width


@pytest.mark.parametrize("path", ["a/" * 3000 + "../" * 3000 + "a.png", "a/" * 5_000_000])
def test_what_is_longer_than_a_path_is_none(path: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    assert not ImageLimits(local_files=root).may_open(path)
    for limits in (ImageLimits(), CLOSED, ImageLimits(local_files=root)):
        with pytest.raises(ImageError, match=f"string of {len(path)} characters: base64 or another text, and no path"):
            ImageSource(path, limits=limits)


def test_a_folder_behind_a_link_is_known_by_both_names(root: Path) -> None:
    limits = ImageLimits(local_files=root.parent / "alias")
    assert width_of(root / "a.png", limits) == width_of(root.parent / "alias" / "a.png", limits) == 1


@pytest.mark.parametrize("path", ["../outside.txt", "sub/../../outside.txt", "../../outside.txt", "/outside.txt"])
@pytest.mark.parametrize("is_closed", [True, False])
def test_whether_a_text_is_the_path_of_a_file_outside_is_not_asked(
    path: str, is_closed: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "outside.txt").write_text("no image")
    monkeypatch.chdir(root)
    asked = record_looks(monkeypatch)
    for text in (path, f"file://{root}/{path}", f" {path}\n"):
        (item,) = parse_items([text], CLOSED if is_closed else ImageLimits(local_files=root))
        assert (item.text, item.images) == (text, ())
    # " .." is what a folder in this one may be called.
    assert [
        looked for looked in asked if "outside" in looked and not Path(os.path.abspath(looked)).is_relative_to(root)
    ] == []


def test_what_is_wrong_in_the_folder_is_told(root: Path) -> None:
    limits = ImageLimits(local_files=root)
    assert "no such file" in refusal_of(root / "gone.png", limits)
    assert "not a regular file" in refusal_of(root / "sub", limits)
    assert "round.png" in refusal_of(root / "round.png", limits)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_in_the_folder_is_not_waited_for(root: Path) -> None:
    os.mkfifo(root / "pipe.png")
    assert "not a regular file" in refusal_of(root / "pipe.png", ImageLimits(local_files=root))


def swap(root: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str) -> list[int]:
    """Have something in the folder become a link, after the path was checked and before it is opened."""
    opened: list[int] = []
    call = os.open

    def open_swapped(path: str, flags: int) -> int:
        (root / name).rename(root / "kept")
        (root / name).symlink_to(target)
        opened.append(call(path, flags))
        return opened[-1]

    monkeypatch.setattr(local_files.os, "open", open_swapped)
    return opened


@pytest.mark.parametrize("has_proc", [True, False])
def test_a_folder_that_is_swapped_for_a_link_leads_nowhere(
    has_proc: bool, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.parent / "root-of-others" / "b.png").write_bytes(png())
    opened = swap(root, monkeypatch, "sub", "../root-of-others")
    if not has_proc:
        monkeypatch.setattr(local_files.os, "readlink", lambda path: hide(path))
    assert OUTSIDE in refusal_of(root / "sub" / "b.png", ImageLimits(local_files=root))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def hide(path: Any, call: Any = os.readlink) -> str:
    if str(path).startswith("/proc/"):
        raise FileNotFoundError(path)
    return call(path)


def test_a_file_that_is_swapped_for_a_link_leads_nowhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(root, monkeypatch, "a.png", "../outside.png")
    refusal_of(root / "a.png", ImageLimits(local_files=root))


def test_without_proc_files_in_the_folder_are_opened(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files.os, "readlink", hide)
    assert width_of(root / "link.png", ImageLimits(local_files=root)) == 2


def test_a_file_that_is_moved_out_after_the_check_is_refused_without_proc(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = os.open

    def open_moved(path: str, flags: int) -> int:
        descriptor = call(path, flags)
        (root / "a.png").rename(root.parent / "moved.png")
        (root / "a.png").write_bytes(png())
        return descriptor

    monkeypatch.setattr(local_files.os, "readlink", hide)
    monkeypatch.setattr(local_files.os, "open", open_moved)
    assert OUTSIDE in refusal_of(root / "a.png", ImageLimits(local_files=root))


@pytest.mark.parametrize("text", ["a red circle", "see the picture.png", "file:///etc/hostname", "https://a.example/b"])
def test_an_ordinary_text_is_one(text: str, root: Path) -> None:
    for limits in (CLOSED, ImageLimits(local_files=root)):
        (item,) = parse_items([text], limits)
        assert (item.text, item.images) == (text, ())


def test_a_text_that_is_said_to_be_one_is_not_refused(root: Path) -> None:
    (item,) = parse_items([{"text": str(root / "a.png")}], CLOSED)
    assert item.text == str(root / "a.png")


def test_images_that_are_no_files_are_read(root: Path) -> None:
    encoded = (root / "a.png").read_bytes()
    for value in (encoded, Image.new("RGB", (1, 1)), {"bytes": encoded, "path": str(root / "a.png")}):
        assert width_of(value, CLOSED) == 1


def test_base64_is_told_from_a_path_without_a_look_at_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "Ab1" * 30
    (root.parent / name).write_bytes(png())
    monkeypatch.chdir(root.parent)
    assert width_of(Path(name), ImageLimits()) == 3
    for limits in (CLOSED, ImageLimits(local_files=root)):
        with pytest.raises(ImageError, match="string of 90 characters: base64 or another text"):
            ImageSource(name, limits=limits)


def test_the_folder_stays_where_it_was(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    limits = ImageLimits(local_files="sub")
    monkeypatch.chdir(root.parent)
    for same in (limits, pickle.loads(pickle.dumps(limits)), dataclasses.replace(limits, max_redirects=0)):
        assert width_of(root / "sub" / "b.png", same) == 2
        assert OUTSIDE in refusal_of(root / "a.png", same)
    assert {limits, ImageLimits(local_files=root / "sub")} == {limits}


def test_a_source_that_is_sent_elsewhere_keeps_its_limits(root: Path) -> None:
    source = pickle.loads(pickle.dumps(ImageSource(root / "a.png", limits=CLOSED)))
    for read in (source.load, source.digest, source.identify, source.encoded, lambda: source.outline):
        with pytest.raises(ImageError, match=TURNED_OFF):
            read()


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document", "preprocess"])
def test_a_model_opens_what_it_may(method: str, root: Path) -> None:
    closed = SentenceTransformer("tiny", image_limits=CLOSED)
    for value in ({"image": root / "a.png"}, str(root / "a.png")):
        with pytest.raises(ImageError, match=f"item 1: .*{TURNED_OFF}"):
            getattr(closed, method)(["a text", value])
