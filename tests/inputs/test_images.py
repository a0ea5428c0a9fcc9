"""A reference to an image: when it is read, and what it hands on."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from tests.helpers.images import FORMS, as_path, encoded, picture


@pytest.mark.parametrize("image_format", ["PNG", "TIFF"])
def test_16_bits_of_gray_become_what_pillow_makes_of_them_and_that_is_logged(
    image_format: str, caplog: pytest.LogCaptureFixture
) -> None:
    gray = np.array([[0, 7, 255, 256, 65535]], dtype=np.uint16)
    source = ImageSource(encoded(Image.fromarray(gray), image_format), "item 3")
    assert np.asarray(to_rgb(source.load()))[0, :, 0].tolist() == [0, 7, 255, 255, 255]
    assert [record.getMessage()[:7] for record in caplog.records] == ["item 3:"]
    assert "8 bits" in caplog.text


def test_16_bits_of_gray_that_lose_nothing_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert to_rgb(ImageSource(Image.new("I;16", (4, 4), 255)).load()).getpixel((0, 0)) == (255, 255, 255)
    assert not caplog.records


def test_a_file_that_changes_size_between_header_and_pixels_is_refused(tmp_path: Path) -> None:
    path = as_path(encoded(picture(size=(8, 8))), tmp_path)
    source = ImageSource(path)
    assert source.size == (8, 8)
    path.write_bytes(encoded(picture(size=(9, 8))))
    with pytest.raises(ImageError, match=r"changed from \(8, 8\) to \(9, 8\)"):
        source.load()


def test_nothing_is_read_before_it_is_asked_for(tmp_path: Path) -> None:
    source = ImageSource(tmp_path / "later.png")
    (tmp_path / "later.png").write_bytes(encoded(picture()))
    assert source.size == (64, 48)


def test_importing_loads_no_model_library() -> None:
    heavy = {"torch", "transformers", "sentence_transformers", "numpy", "requests"}
    code = f"import sys, st_modules.inputs.items; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "GIF", "WEBP"])
@pytest.mark.parametrize("form", ["path", "file URL", "data URI", "bytes", "BytesIO"])
def test_an_image_of_a_common_format_is_handed_on_byte_for_byte(image_format: str, form: str, tmp_path: Path) -> None:
    data = encoded(picture(), image_format)
    assert ImageSource(FORMS[form](data, tmp_path)).encoded() == (data, f"image/{image_format.lower()}")


@pytest.mark.parametrize(
    ("image_format", "mode"),
    [("BMP", "RGB"), ("TIFF", "RGB"), ("TIFF", "CMYK"), ("PPM", "L"), ("AVIF", "RGB"), ("TIFF", "1"), ("DIB", "P")],
)
def test_an_image_of_another_format_is_handed_on_as_a_png_of_the_same_picture(image_format: str, mode: str) -> None:
    source = ImageSource(encoded(picture(mode), image_format))
    data, kind = source.encoded()
    assert kind == "image/png"
    assert data.startswith(b"\x89PNG")
    handed_on = to_rgb(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(np.asarray(handed_on), np.asarray(to_rgb(source.load())))


def test_16_bits_of_gray_are_handed_on_whole() -> None:
    deep = Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000)
    data, _ = ImageSource(encoded(deep, "TIFF")).encoded()
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(deep))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "HSV"])
def test_an_image_in_memory_is_handed_on_as_a_png(mode: str) -> None:
    image = picture(mode)
    data, kind = ImageSource(image).encoded()
    assert kind == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), np.asarray(to_rgb(image)))


def test_what_is_damaged_or_over_a_limit_is_not_handed_on(tmp_path: Path) -> None:
    data = encoded(picture())
    for source, limits, problem in (
        (as_path(data[:-40], tmp_path), ImageLimits(), r"a picture\.png: damaged or not readable"),
        (data, ImageLimits(max_bytes=len(data) - 1), "bytes are over the limit"),
        (data, ImageLimits(max_pixels=100), "64x48 pixels are over the limit"),
        (tmp_path / "none.png", ImageLimits(), r"none\.png: no such file"),
    ):
        with pytest.raises(ImageError, match=problem):
            ImageSource(source, limits=limits).encoded()
