"""The forms in which a caller may pass an image, and those that are refused."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from tests.helpers.images import FORMS, PIXELS, encoded, picture


@pytest.fixture(params=FORMS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> object:
    return FORMS[request.param](encoded(Image.fromarray(PIXELS)), tmp_path)


def test_every_form_gives_the_same_pixels(source: object) -> None:
    assert np.array_equal(np.asarray(ImageSource(source).load()), PIXELS)


def test_every_form_has_its_size_as_width_and_height(source: object) -> None:
    assert ImageSource(source).size == (9, 6)


def test_every_form_can_be_pickled(source: object) -> None:
    copy = pickle.loads(pickle.dumps(ImageSource(source, "item 4")))
    assert (copy.place, np.array_equal(np.asarray(copy.load()), PIXELS)) == ("item 4", True)


@pytest.mark.parametrize("value", [None, 3, 2.5, object(), io.StringIO("x"), ["a.png"], np.uint8(3)])
def test_what_cannot_be_an_image_is_refused_at_once(value: object) -> None:
    with pytest.raises(ImageError, match=f"item 2: object of type {type(value).__name__}: not an image; pass a path"):
        ImageSource(value, "item 2")


def test_an_empty_string_is_not_the_current_folder() -> None:
    with pytest.raises(ImageError, match="empty string names no image"):
        ImageSource("")


def test_an_encoded_image_over_the_byte_limit_is_refused() -> None:
    data = encoded(picture())
    assert ImageSource(data, limits=ImageLimits(max_bytes=len(data))).load().size == (64, 48)
    with pytest.raises(ImageError, match=f"{len(data)} bytes are over the limit of {len(data) - 1};.*raise max_bytes"):
        ImageSource(data, limits=ImageLimits(max_bytes=len(data) - 1)).load()


@pytest.mark.parametrize("form", ["data URI", "data URI without base64"])
def test_the_byte_limit_holds_for_data_uris(form: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="over the limit of 50; "):
        ImageSource(FORMS[form](encoded(picture()), tmp_path), limits=ImageLimits(max_bytes=50)).load()


def test_a_file_over_the_byte_limit_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(ImageLimits().max_bytes + 1)
    monkeypatch.setattr(Path, "open", lambda *_: pytest.fail("opened"))
    with pytest.raises(ImageError, match="over the limit"):
        ImageSource(path).load()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs here")
def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="not a regular file"):
        ImageSource(tmp_path / "pipe.png").load()


@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("missing.png", "missing.png: no such file; check the path"),
        ("~/missing.png", "~ is not expanded"),
        ("/", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("nul\0character.png", "damaged or not readable"),
        ("x" * 5000, "string of 5000 characters: base64 or another text"),
        ("file://elsewhere/a.png", "a file URL of another host; write file:///path"),
        ("file:///missing.png", "no such file"),
        ("ftp://example.org/a.png", "ftp:// is not fetched"),
        ("data:image/png;base64", "a data URI without a comma"),
        ("data:image/png;base64,a$b", "base64 is damaged"),
        ("data:image/png;base64,", "zero bytes"),
    ],
)
def test_an_unusable_address_is_named_with_its_problem(path: str, problem: str) -> None:
    with pytest.raises(ImageError, match=problem) as caught:
        ImageSource(path, "item 1, image 2").load()
    assert str(caught.value).startswith("item 1, image 2: ")
    assert len(str(caught.value)) < 500


def test_a_stream_keeps_its_place_and_stays_open() -> None:
    stream = io.BytesIO(encoded(picture()))
    stream.seek(17)
    source = ImageSource(stream)
    assert source.size == source.load().size == (64, 48)
    assert (stream.closed, stream.tell()) == (False, 17)
