"""Bare strings: which name images, which are texts, and which texts are told of."""

from __future__ import annotations

import base64
import io
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers.base.modality import is_video_url_or_path

from st_modules import ImageError, ImageLimits, SentenceTransformer
from st_modules.inputs import formats
from st_modules.inputs.formats import FORMATS, IMAGE_SUFFIXES
from st_modules.inputs.items import parse_items
from st_modules.train import DataCollator

PICTURE = Image.effect_noise((40, 30), 90).convert("RGB")
SUFFIXES = {
    "JPEG": [".jpg", ".jpeg", ".jpe", ".jfif", ".JPG", ".Jfif"],
    "PNG": [".png", ".apng", ".PNG"],
    "GIF": [".gif"],
    "WEBP": [".webp"],
    "BMP": [".bmp", ".dib", ".DIB"],
    "DIB": [".dib", ".bmp"],
    "TIFF": [".tif", ".tiff", ".TIF"],
    "PPM": [".ppm", ".pgm", ".pbm", ".pnm"],
    "AVIF": [".avif", ".avifs"],
}
FILES = [(name, suffix) for name, suffixes in SUFFIXES.items() for suffix in [*suffixes, "", ".txt", ".old", ". "]]


def write(path: Path, name: str = "PNG") -> Path:
    PICTURE.save(path, name)
    return path


def seen(text: str) -> tuple[str | None, list[tuple[int, int]]]:
    (item,) = parse_items([text])
    return item.text, [image.size for image in item.images]


def told(texts: list[Any], caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        parse_items(texts)
    return [record.getMessage() for record in caplog.records]


def test_every_format_that_is_read_is_tried_here() -> None:
    assert set(SUFFIXES) == set(FORMATS)
    assert {suffix.lower() for suffixes in SUFFIXES.values() for suffix in suffixes} == IMAGE_SUFFIXES


@pytest.mark.parametrize(("name", "suffix"), FILES)
def test_an_existing_image_is_one_under_any_name(name: str, suffix: str, tmp_path: Path) -> None:
    path = write(tmp_path / f"a b{suffix}", name)
    assert seen(str(path)) == (None, [PICTURE.size])
    assert seen(path.as_uri()) == (None, [PICTURE.size])
    assert seen(path.as_uri().replace("file:///", "FILE:/")) == (None, [PICTURE.size])


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_bitmap_without_its_files_header_is_one_in_every_depth(mode: str, tmp_path: Path) -> None:
    PICTURE.convert(mode).save(tmp_path / "a", "DIB")
    assert seen(str(tmp_path / "a")) == (None, [PICTURE.size])


@pytest.mark.parametrize("brand", [b"avif", b"avis", b"mif1", b"msf1"])
def test_a_file_of_a_brand_that_pictures_have_is_no_text(brand: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\0\0\0\x1cftyp" + brand + bytes(99))
    (item,) = parse_items([str(tmp_path / "a")])
    with pytest.raises(ImageError, match="item 0"):
        _ = item.images[0].size


@pytest.mark.parametrize(
    "content",
    [
        b"BMW and others",
        b"P5 is the fifth",
        b"Python",
        b"GIF is a format",
        b"(\0\0\0" + bytes(60),
        b"II is two",
        b"\xff",
    ],
)
def test_a_file_that_begins_nearly_as_an_image_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    assert seen(str(tmp_path / "a")) == (str(tmp_path / "a"), [])


@pytest.mark.skipif(not os.path.isfile("/proc/self/status"), reason="no /proc here")
def test_a_file_that_says_it_is_empty_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "begins_like_image", lambda head: True)
    assert seen("/proc/self/status") == ("/proc/self/status", [])


def test_a_file_that_cannot_be_opened_is_text_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: str, mode: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    text = str(write(tmp_path / "a"))
    monkeypatch.setattr(formats, "open", refuse, raising=False)
    assert seen(text) == (text, [])
    assert len(told([text], caplog)) == 1


def test_a_relative_path_counts_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "a red circle")
    assert seen("a red circle") == ("a red circle", [])
    monkeypatch.chdir(tmp_path)
    assert seen("a red circle") == (None, [PICTURE.size])


@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_a_single_path_is_embedded_as_the_image(method: str, tiny: SentenceTransformer, tmp_path: Path) -> None:
    path = write(tmp_path / "picture.tif", "TIFF")
    expected = getattr(tiny, method)({"image": path})
    assert np.array_equal(getattr(tiny, method)(str(path)), expected)
    assert np.abs(getattr(tiny, method)({"text": str(path)}) - expected).max() > 1e-3


def test_a_path_in_a_training_batch_is_the_image(tiny: SentenceTransformer, tmp_path: Path) -> None:
    path = write(tmp_path / "picture.tif", "TIFF")
    batch = DataCollator(tiny.preprocess)([{"anchor": str(path), "positive": f"file:{path}"}])
    for column, side in (("anchor", "query"), ("positive", "document")):
        expected = tiny.preprocess([{"image": path}], task=side)
        assert torch.equal(batch[f"{column}_pixel_values"], expected["pixel_values"])


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"\0\0\0\x18ftypheic"])
@pytest.mark.parametrize("name", ["a.png", "a.heic", "a.svg"])
def test_a_picture_that_cannot_be_read_is_no_text(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (item,) = parse_items([str(tmp_path / name)])
    with pytest.raises(ImageError, match="item 0"):
        _ = item.images[0].size


@pytest.mark.parametrize(
    "url", ["https://a.example/x.avif", "http://a.example/x.TIF?size=3", "HTTPS://a.example/x.jpe"]
)
def test_an_address_that_ends_as_an_image_does_is_one(url: str) -> None:
    (item,) = parse_items([url])
    assert (item.text, len(item.images)) == (None, 1)


@pytest.mark.parametrize(
    "text",
    [
        "https://a.example/page",
        "https://a.example/?image=a.png",
        "https://a.example",
        "ftp://a/b.png x",
        "https://a.example/a.png\nhttps://a.example/b.png",
        "https://a.example/a.png\tand b.png",
        "https://[a.png",
    ],
)
def test_another_address_is_text(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert seen(text) == (text, [])
    assert told([text], caplog) == []


@pytest.mark.parametrize(
    "text",
    [
        "photo.png",
        "pictures/photo.JPEG",
        "~/my photo.png",
        "./a.tif",
        "C:\\pictures\\a b.jpg",
        "file:///no/a.webp",
        "file:/no/a.webp",
        "file://[no/a.webp",
        "s3://bucket/a.png",
        "photo.png\n",
        "  photo.png",
        "a.heic",
    ],
)
def test_what_looks_like_an_image_and_names_none_is_told(text: str, caplog: pytest.LogCaptureFixture) -> None:
    (message,) = told([text], caplog)
    assert repr(text) in message
    assert seen(text) == (text, [])


def test_it_is_told_once_a_call(tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture) -> None:
    texts = ["a text", "photo.png", {"text": "other.png"}, "another.jpg", "third.gif"]
    with caplog.at_level(logging.WARNING):
        tiny.encode(texts)
    (message,) = [record.getMessage() for record in caplog.records if "looks like" in record.getMessage()]
    assert "'photo.png' (and 2 more)" in message


def test_a_file_that_is_no_image_is_text_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "report.pdf"
    path.write_bytes(b"%PDF-1.7")
    assert seen(str(path)) == (str(path), [])
    (message,) = told([str(path)], caplog)
    assert "a file that is no image" in message


@pytest.mark.parametrize("around", ["{}\n", " {}", "\t{}\r\n"])
def test_a_path_with_spaces_around_it_is_told(around: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = around.format(write(tmp_path / "a"))
    assert seen(text) == (text, [])
    (message,) = told([text], caplog)
    assert "spaces around it" in message


def test_a_data_uri_is_one_in_any_case_and_told_where_spaces_hide_it(caplog: pytest.LogCaptureFixture) -> None:
    uri = f"DATA:Image/PNG;base64,{encoded('PNG')}"
    assert seen(uri) == (None, [PICTURE.size])
    assert seen(f" {uri}") == (f" {uri}", [])
    (message,) = told([f" {uri}"], caplog)
    assert "data URI" in message
    assert len(message) < 400


@pytest.mark.parametrize("name", FORMATS)
def test_a_bare_string_of_base64_is_text_and_told_without_it(name: str, caplog: pytest.LogCaptureFixture) -> None:
    text = encoded(name)
    assert seen(text) == (text, [])
    (message,) = told([text], caplog)
    assert "data:image/png;base64," in message
    assert text[:24] not in message


@pytest.mark.parametrize(
    "text",
    [
        "a red circle",
        "",
        " ",
        "see the picture.png",
        "it ends.\nphoto.png",
        "x" * 2000 + ".png",
        "3.5",
        "e.g.",
        ".png x",
    ],
)
def test_an_ordinary_text_is_not_told(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert told([text], caplog) == []
    assert seen(text) == (text, [])


def test_what_is_told_is_short_and_has_no_control_characters(caplog: pytest.LogCaptureFixture) -> None:
    (message,) = told(["\x1b[31m" + "a" * 900 + ".png"], caplog)
    assert "\x1b" not in message
    assert len(message) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
@pytest.mark.parametrize("name", ["pipe", "pipe.png"])
def test_nothing_but_a_regular_file_is_opened(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    for path in (tmp_path / name, tmp_path / "folder.png"):
        assert seen(str(path)) == (str(path), [])
    assert seen("/dev/zero") == ("/dev/zero", [])


def encoded(name: str) -> str:
    stream = io.BytesIO()
    PICTURE.save(stream, name)
    return base64.b64encode(stream.getvalue()).decode()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: {"image": text},
        lambda text: {"image": [text]},
        lambda text: {"image": Path(text)},
        lambda text: {"role": "user", "content": [{"type": "image", "image": text}]},
        lambda text: {"role": "user", "content": [{"type": "image", "path": text}]},
        lambda text: {"role": "user", "content": [{"type": "image_url", "image_url": {"url": text}}]},
        lambda text: {"image": "\n".join(text[start : start + 76] for start in range(0, len(text), 76))},
        lambda text: {"image": text.encode()},
        lambda text: text.encode(),
    ],
)
def test_base64_alone_is_told_what_it_lacks_and_not_printed(name: str, wrap: Any) -> None:
    text = encoded(name)
    with pytest.raises(ImageError, match=r"item 1.*data:image/png;base64") as error:
        _ = parse_items(["a text", wrap(text)])[1].images[0].size
    assert text[:24] not in str(error.value)


@pytest.mark.parametrize("content", [bytes(range(0, 250, 3)), b"\x89PN" + bytes(range(150))], ids=["any", "damaged"])
def test_base64_of_what_is_no_image_is_not_printed_either(content: bytes) -> None:
    text = base64.b64encode(content).decode()
    with pytest.raises(ImageError, match="data:image/png;base64") as error:
        parse_items([{"image": text}])
    assert text[:24] not in str(error.value)


@pytest.mark.parametrize(
    "path",
    ["/data/Pictures/2024/summer/at/the/sea/in/the/first/week/of/july/number/12/whole", "Pictures2024/a.b" + "c" * 60],
)
def test_a_long_path_that_names_nothing_is_named(path: str) -> None:
    with pytest.raises(ImageError, match=f"{path}: no such file"):
        _ = parse_items([{"image": path}])[0].images[0].size


@pytest.mark.parametrize("content", ["a red circle", "naïve " * 50, "data:image/png;base64,AAAA", "\n- a list"])
def test_texts_as_bytes_are_told_how_a_text_is_passed(content: str) -> None:
    for value in (content.encode(), {"image": content.encode()}):
        with pytest.raises(ImageError, match="begins as a text does: pass a text, or a data URI, as str"):
            _ = parse_items([value])[0].images[0].size


def test_a_path_that_could_be_base64_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = encoded("PNG")[:40]
    write(tmp_path / name)
    (item,) = parse_items([{"image": name}])
    assert item.images[0].size == PICTURE.size


def test_a_text_that_is_no_path_is_not_printed() -> None:
    with pytest.raises(ImageError, match="string of 300 characters") as error:
        parse_items([{"image": "secret" * 50}])
    assert "secret" not in str(error.value)


def test_ordinary_texts_cost_no_more_than_a_look_at_the_disk() -> None:
    texts = [f"a text about the number {number}, as long as texts are" * 3 for number in range(20_000)]
    looks: list[str] = []
    stat = os.stat

    def count(path: Any, **options: Any) -> os.stat_result:
        looks.append(path)
        return stat(path, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", count)
        assert len(parse_items(texts)) == len(texts)
    assert len(looks) <= 2 * len(texts)


# Videos, for a model that takes them


@pytest.mark.parametrize("name", ["a.mp4", "A.MKV", "b.avi"])
def test_the_path_of_a_video_is_one_for_a_model_that_takes_videos(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"x")
    kinds = [(item.text, item.video is not None) for item in parse_items([name, f"no {name}"], takes_video=True)]
    assert kinds == [(None, True), (f"no {name}", False)]
    assert is_video_url_or_path(name)
    (alone,) = parse_items([name])
    assert (alone.text, alone.video) == (name, None)
    assert parse_items([name], ImageLimits(local_files=False), takes_video=True)[0].text == name


@pytest.mark.parametrize(
    ("text", "is_video"),
    [
        ("https://example.org/a.mp4", True),
        ("HTTPS://example.org/a.MOV?x=1", True),
        ("https://example.org/a.mp4 is a film", False),
        ("https://www.youtube.com/watch?v=1", False),
        ("https://example.org/", False),
        ("http://[a.mp4", False),
        ("a.mp4", False),
        ("a" * 5000 + ".mp4", False),
    ],
)
def test_the_address_of_a_video_is_one_for_a_model_that_takes_videos(text: str, is_video: bool) -> None:
    (item,) = parse_items([text], takes_video=True)
    assert (item.video is not None) == is_video
    assert (item.text == text) != is_video
    assert parse_items([text])[0].text == text
