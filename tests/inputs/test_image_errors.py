"""What errors say of an image."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import pytest
from PIL import Image, ImageFile

from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
from tests.helpers.images import as_path, encoded, picture


@pytest.mark.parametrize("kind", [MemoryError, SyntaxError, struct.error, OSError, RecursionError, UserWarning])
def test_whatever_a_decoder_raises_becomes_an_image_error(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(image: Image.Image) -> None:
        raise kind

    data = encoded(picture())
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(ImageError, match="item 5: ") as caught:
        ImageSource(data, "item 5").load()
    assert isinstance(caught.value.__cause__, kind)


def test_pillows_own_limit_is_named_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(), "WEBP")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # the WebP reader raises by itself beyond twice as many
    with pytest.raises(ImageError, match="over Pillow's own limit of pixels; shrink the image"):
        ImageSource(data).load()


def test_the_representation_shows_no_data() -> None:
    assert repr(ImageSource(b"12345")) == "ImageSource(5 bytes)"


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:  # file modes do not bind the superuser
        raise PermissionError

    path = as_path(encoded(picture()), tmp_path)
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ImageError, match="no permission"):
        ImageSource(path).load()


@pytest.mark.parametrize("source", ["a\x1b[31m\n.png", "http://127.0.0.1/\r\nb.png", "data:image/png,\x1b"])
def test_control_characters_of_a_name_are_written_out_in_errors(source: str) -> None:
    with pytest.raises(ImageError) as error:
        _ = ImageSource(source).size
    assert str(error.value).isprintable()


def test_a_long_data_uri_is_abbreviated() -> None:
    uri = "data:image/png;base64," + "A" * 100_000
    with pytest.raises(ImageError) as caught:
        ImageSource(uri).load()
    assert "data URI data:image/png;base64,AAAA" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_an_image_error_can_be_pickled() -> None:
    with pytest.raises(ImageError) as caught:
        ImageSource(b"", "item 3").load()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
