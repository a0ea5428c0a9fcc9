"""PIL images, arrays and tensors: what is read of them, and that they stay as they are."""

from __future__ import annotations

import io
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs import images_in_memory
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from tests.helpers.images import PIXELS, as_path, encoded, picture


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (PIXELS[..., 0], PIXELS[..., 0]),
        (np.dstack([PIXELS, PIXELS[..., :1]]), np.dstack([PIXELS, PIXELS[..., :1]])),
        (PIXELS[:3, :3], PIXELS[:3, :3]),
        (torch.from_numpy(PIXELS[None, ..., 0]), PIXELS[..., 0]),
        (torch.from_numpy(PIXELS[:3, :3]), PIXELS[:3, :3].transpose(1, 2, 0)),
        (torch.from_numpy(np.resize(PIXELS, (4, 5, 6))), np.resize(PIXELS, (4, 5, 6)).transpose(1, 2, 0)),
    ],
    ids=["grey array", "array with alpha", "3x3 array", "grey tensor", "3x3 tensor", "tensor with alpha"],
)
def test_arrays_are_channels_last_and_tensors_channels_first(value: object, expected: np.ndarray) -> None:
    assert np.array_equal(np.asarray(ImageSource(value).load()), expected)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (PIXELS / 255, "float64; scale them to 0..255 and convert to uint8"),
        (PIXELS > 3, "bool; scale"),
        (PIXELS.astype(np.int64), "int64; scale"),
        (torch.rand(3, 4, 4), "torch.float32; scale"),
        (PIXELS.transpose(2, 0, 1), "(3, 6, 9); transpose it to (H, W, 3)"),
        (PIXELS[..., :2], "(6, 9, 2); transpose"),
        (PIXELS[None], "(1, 6, 9, 3); transpose"),
        (PIXELS[None], "several images are passed as list(images)"),
        (PIXELS[0, 0], "(3,); transpose"),
        (PIXELS[:0], "no pixels in shape (0, 9, 3)"),
        (torch.from_numpy(PIXELS), "(6, 9, 3); permute it to (C, H, W)"),
        (torch.from_numpy(PIXELS[..., 0]), "(6, 9); permute"),
        (Image.new("RGB", (0, 4)), "0x4 pixels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_arrays_are_refused_with_what_to_do(value: object, remedy: str) -> None:
    with pytest.raises(ImageError) as caught:
        ImageSource(value, "item 7").load()
    assert str(caught.value).startswith("item 7: ")
    assert remedy in str(caught.value)


@pytest.mark.parametrize("value", [Image.new("RGB", (10, 10)), np.zeros((10, 10, 3), np.uint8)], ids=["PIL", "array"])
def test_the_pixel_limit_holds_for_images_in_memory(value: object) -> None:
    with pytest.raises(ImageError, match="over the limit of 99"):
        ImageSource(value, limits=ImageLimits(max_pixels=99)).load()


@pytest.mark.parametrize("mode", ["I", "F", "La", "LAB"])
def test_a_callers_image_of_such_a_mode_is_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"mode '{mode}'"):
        ImageSource(Image.new(mode, (4, 4))).load()


def test_a_callers_image_is_copied() -> None:
    image = Image.new("RGB", (4, 4), "red")
    ImageSource(image).load().putpixel((0, 0), (0, 0, 0))
    assert image.getpixel((0, 0)) == (255, 0, 0)


def test_a_callers_image_keeps_its_transparency_and_frame() -> None:
    frames = [Image.new("P", (4, 4), index) for index in (0, 1, 2)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image = Image.open(io.BytesIO(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=3)))
    image.seek(1)
    assert to_rgb(ImageSource(image).load()).getpixel((2, 2)) == (0, 255, 0)
    assert image.tell() == 1
    image.seek(2)
    assert image.convert("RGB").getpixel((2, 2)) == (0, 0, 255)


def test_an_array_is_not_written_to() -> None:
    array = PIXELS[..., 0].copy()
    ImageSource(array).load().putpixel((0, 0), 99)
    assert np.array_equal(array, PIXELS[..., 0])


def test_a_callers_image_with_truncated_data_is_refused() -> None:
    image = Image.open(io.BytesIO(encoded(picture())[:-40]))
    with pytest.raises(ImageError, match="item 0: object of type PngImageFile: damaged"):
        ImageSource(image, "item 0").load()


def test_a_picture_of_a_format_that_only_the_caller_reads_counts_its_pixels() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (30, 20)).save(stream, "TGA")
    assert ImageSource(Image.open(stream)).memory == ImageSource(Image.new("RGB", (30, 20))).memory > 30 * 20 * 4


@pytest.mark.parametrize("image_format", ["PNG", "BMP", "TIFF"])
def test_threads_that_read_one_image_that_is_not_decoded_yet_read_it_in_turn(image_format: str) -> None:
    class Stream(io.BytesIO):
        """Lets other threads go on where it is read, and notes whether one of them reads it too."""

        readers = 0
        most = 0

        def read(self, size: int | None = -1, /) -> bytes:
            self.readers += 1
            self.most = max(self.most, self.readers)
            begun.wait(0.001)
            data = super().read(size)
            self.readers -= 1
            return data

    begun = threading.Event()  # never set
    pixels = np.random.default_rng(0).integers(0, 256, (60, 70), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), image_format)
    stream = Stream(data)
    image = Image.open(stream)
    with ThreadPoolExecutor(6) as pool:
        images = list(pool.map(lambda _: ImageSource(image).load(), range(6)))
    assert stream.most == 1
    for loaded in images:
        np.testing.assert_array_equal(np.asarray(loaded.convert("L")), pixels)


def test_a_callers_closed_image_is_refused(tmp_path: Path) -> None:
    with Image.open(as_path(encoded(picture()), tmp_path)) as image:
        pass
    with pytest.raises(ImageError, match="damaged or not readable"):
        ImageSource(image).load()


def test_an_image_opened_by_the_caller_is_examined_before_it_is_decoded() -> None:
    stream = io.BytesIO(encoded(Image.new("RGB", (60, 60), (1, 2, 3))))
    opened = Image.open(stream)
    place = stream.tell()
    with pytest.raises(ImageError, match="max_decode_seconds"):
        ImageSource(opened, limits=ImageLimits(max_decode_seconds=5e-5)).load()
    assert stream.tell() == place
    assert np.asarray(ImageSource(opened).load()).shape == (60, 60, 3)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_the_digest_of_an_image_in_memory_is_one_of_all_its_pixels(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.fromarray(np.arange(37 * 23 * 3, dtype=np.uint8).reshape(37, 23, 3)).convert(mode)
    whole = ImageSource(image).digest()
    monkeypatch.setattr(images_in_memory, "_HASHED_BYTES", 500)
    assert ImageSource(image).digest() == whole
