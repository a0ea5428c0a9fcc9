"""The colours that a decoded image has as RGB."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from st_modules.inputs.image_conversion import flatten_on_white, to_rgb
from st_modules.inputs.images import ImageSource
from tests.helpers.images import PIXELS, encoded, png


def test_rgb_is_not_converted() -> None:
    assert np.array_equal(np.asarray(to_rgb(Image.fromarray(PIXELS))), PIXELS)


def test_alpha_is_dropped_and_not_composited() -> None:
    transparent = np.dstack([PIXELS, np.zeros((6, 9), np.uint8)])
    loaded = ImageSource(encoded(Image.fromarray(transparent))).load()
    assert np.array_equal(np.asarray(to_rgb(loaded)), PIXELS)


def test_grey_with_alpha_keeps_its_grey() -> None:
    grey = Image.fromarray(PIXELS[..., 0])
    loaded = ImageSource(encoded(Image.merge("LA", [grey, Image.new("L", grey.size, 0)]))).load()
    assert np.array_equal(np.asarray(to_rgb(loaded)), np.repeat(PIXELS[..., :1], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    bits = np.array([[True, False, True]])
    loaded = ImageSource(encoded(Image.fromarray(bits))).load()
    assert np.array_equal(np.asarray(to_rgb(loaded))[..., 1], np.array([[255, 0, 255]]))


@pytest.mark.parametrize(("image_format", "transparency"), [("PNG", 1), ("PNG", bytes([255, 0])), ("GIF", 1)])
def test_a_palette_shows_its_colours_where_it_is_transparent(image_format: str, transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    loaded = ImageSource(encoded(image, image_format, transparency=transparency)).load()
    converted = to_rgb(loaded)
    assert [converted.getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (200, 100, 50)]
    assert "transparency" in loaded.info
    assert "transparency" not in converted.info


def test_a_transparent_colour_of_an_rgb_image_does_not_survive() -> None:
    loaded = ImageSource(encoded(Image.fromarray(PIXELS), transparency=(0, 1, 2))).load()
    converted = to_rgb(loaded)
    assert loaded.info["transparency"] == (0, 1, 2)
    assert "transparency" not in converted.info
    assert np.array_equal(np.asarray(converted), PIXELS)


@pytest.mark.parametrize(
    ("inks", "colour"),
    [((0, 0, 0, 0), (255, 255, 255)), ((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))],
)
def test_cmyk_inks_become_light(inks: tuple[int, ...], colour: tuple[int, ...]) -> None:
    data = encoded(Image.new("CMYK", (16, 16), inks), "JPEG", quality=100)
    converted = np.asarray(to_rgb(ImageSource(data).load())).astype(int)
    assert np.abs(converted - colour).max() <= 2


def test_16_bits_a_colour_keep_their_upper_8() -> None:
    rows = b"\x00" + struct.pack(">6H", 0x1234, 0xFF00, 0x00FF, 0x8000, 0x7FFF, 0xFFFF)
    loaded = ImageSource(png(2, 1, rows, bits=16)).load()
    assert [to_rgb(loaded).getpixel((x, 0)) for x in (0, 1)] == [(0x12, 0xFF, 0x00), (0x80, 0x7F, 0xFF)]


def test_rgba_is_put_on_white_by_its_alpha() -> None:
    image = Image.new("RGBA", (3, 1), (0, 100, 200, 255))
    image.putpixel((1, 0), (0, 100, 200, 0))
    image.putpixel((2, 0), (0, 100, 200, 51))
    flat = flatten_on_white(image)
    assert flat.mode == "RGB"
    # A fifth of the colour and four fifths of white.
    assert [flat.getpixel((x, 0)) for x in range(3)] == [(0, 100, 200), (255, 255, 255), (204, 224, 244)]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "CMYK"])
def test_other_modes_are_not_put_on_white(mode: str) -> None:
    image = Image.new("RGBA", (4, 4), (0, 100, 200, 51)).convert(mode)
    assert np.array_equal(np.asarray(flatten_on_white(image)), np.asarray(image.convert("RGB")))


def test_to_rgb_leaves_its_argument_alone() -> None:
    image = Image.new("L", (4, 4))
    image.info["transparency"] = 0
    to_rgb(image)
    assert (image.mode, image.info) == ("L", {"transparency": 0})
