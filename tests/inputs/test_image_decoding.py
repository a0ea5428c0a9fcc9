"""The pixels that come out of a file, and which files are refused."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st_modules.errors import ImageError
from st_modules.inputs.formats import FORMATS
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from tests.helpers.images import PIXELS, chunk, encoded, picture, png

LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}, "AVIF": {"quality": 95}}


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_reads_as_pillow_reads_it(image_format: str) -> None:
    data = encoded(picture(), image_format, **LOSSLESS.get(image_format, {}))
    loaded = ImageSource(data).load()
    assert np.array_equal(np.asarray(to_rgb(loaded)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes_are_read(size: tuple[int, int]) -> None:
    source = ImageSource(encoded(picture(size=size)))
    assert (source.size, source.load().size) == (size, size)


@pytest.mark.parametrize("attribute", ["size", "load"])
@pytest.mark.parametrize(("mode", "image_format"), [("I", "TIFF"), ("F", "TIFF"), ("LAB", "TIFF")])
def test_modes_that_convert_wrongly_are_refused_by_name(mode: str, image_format: str, attribute: str) -> None:
    data = encoded(Image.new(mode, (4, 4)), image_format)
    with pytest.raises(ImageError, match=f"mode '{mode}' does not convert to RGB faithfully; scale its values"):
        ImageSource(data).size if attribute == "size" else ImageSource(data).load()


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_an_animation_shows_its_first_frame(image_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if image_format == "WEBP" else {}
    data = encoded(frames[0], image_format, save_all=True, append_images=frames[1:], **options)
    assert to_rgb(ImageSource(data).load()).getpixel((3, 3)) == (255, 0, 0)


def rotated_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees to show
    return exif


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_not_applied(image_format: str) -> None:
    source = ImageSource(encoded(picture(), image_format, exif=rotated_exif()))
    assert (source.size, source.load().size) == ((64, 48), (64, 48))


def test_a_tiff_has_one_size_before_and_after_pillow_turns_it() -> None:
    source = ImageSource(encoded(picture(), "TIFF", exif=rotated_exif()))
    assert source.size == source.load().size == (48, 64)


@pytest.mark.parametrize("image_format", FORMATS)
@pytest.mark.parametrize("kept", [0.03, 0.5, 0.97])
def test_a_truncated_image_is_refused(image_format: str, kept: float) -> None:
    data = encoded(picture(), image_format)
    with pytest.raises(ImageError, match="item 0"):
        ImageSource(data[: int(len(data) * kept)], "item 0").load()


def damage(whole: bytes, chance: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(chance.choice([1, 4])):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


def find_reading_problem(data: bytes) -> str | None:
    """What is wrong with how damaged data is read: either it is an image, or the error says of what."""
    source = ImageSource(data, limits=ImageLimits(max_pixels=10**6))
    try:
        found = to_rgb(source.load()).size
    except ImageError as error:
        return None if str(error).startswith("image: ") else repr(error)
    except Exception as error:
        return repr(error)
    return None if found == source.size else f"{found} pixels instead of {source.size}"


@pytest.mark.parametrize("image_format", FORMATS)
def test_damage_raises_nothing_but_image_errors(image_format: str) -> None:
    whole, chance = encoded(picture(size=(24, 20)), image_format), random.Random(7)
    problems = {data: find_reading_problem(data) for data in (damage(whole, chance) for _ in range(150))}
    assert {data: problem for data, problem in problems.items() if problem} == {}


def test_png_pixels_that_fail_their_checksum_are_refused() -> None:
    rows = zlib.compress(b"\x00" + bytes(range(9)))
    whole = png(3, 1, b"\x00" + bytes(9))
    good = whole[: whole.index(b"IDAT") - 4]
    damaged = good + chunk(b"IDAT", rows, checksum=0) + chunk(b"IEND", b"")
    assert Image.open(io.BytesIO(damaged)).getpixel((1, 0)) == (3, 4, 5)  # Pillow alone shows them
    with pytest.raises(ImageError, match="save or download it again"):
        ImageSource(damaged).load()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "zero bytes"),
        (b"\n <!DOCTYPE html><html>", "HTML, XML or SVG text"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "HTML, XML or SVG text"),
        (b"P", "not an image that can be read"),
        (b"just some text, no image at all", "not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image that can be read"),
        (encoded(Image.new("RGB", (16, 16)), "ICO"), "convert it to one of JPEG, PNG"),
        (encoded(Image.new("RGB", (16, 16)), "TGA"), "convert it to one of JPEG, PNG"),
        (encoded(Image.new("RGB", (16, 16)), "EPS"), "convert it to one of JPEG, PNG"),
    ],
    ids=["empty", "html", "svg", "one letter", "text", "postscript", "ico", "tga", "eps"],
)
def test_what_is_no_raster_image_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(ImageError, match=problem):
        ImageSource(data).load()


def test_the_content_counts_and_not_the_extension(tmp_path: Path) -> None:
    path = tmp_path / "picture.jpg"
    path.write_bytes(encoded(Image.fromarray(PIXELS), "PNG"))
    assert np.array_equal(np.asarray(ImageSource(path).load()), PIXELS)


def test_the_pixel_limit_is_the_last_that_passes() -> None:
    data = encoded(picture(size=(10, 10)))
    assert ImageSource(data, limits=ImageLimits(max_pixels=100)).load().size == (10, 10)
    with pytest.raises(ImageError, match="10x10 pixels are over the limit of 99; shrink the image or raise max_pixels"):
        ImageSource(data, limits=ImageLimits(max_pixels=99)).load()


MEASURE = """
from pathlib import Path
from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
assert ImageSource("small.png").load().size == (8, 8)
def read_peak():  # getrusage begins with that of the process that started this one
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1])
before = read_peak()
for attribute in (lambda source: source.size, lambda source: source.load()):
    try:
        attribute(ImageSource("huge.png"))
    except ImageError as error:
        print(error)
print(read_peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell the most memory")
def test_a_huge_png_is_refused_from_its_header_at_no_cost(tmp_path: Path) -> None:
    (tmp_path / "small.png").write_bytes(encoded(picture(size=(8, 8))))
    (tmp_path / "huge.png").write_bytes(png(50_000, 50_000, bytes(10**6)))
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", MEASURE],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    first, second, grown = run.stdout.splitlines()
    assert first == second
    assert "50000x50000 pixels are over the limit" in first
    assert int(grown) < 4096  # KiB


def test_pillows_own_limit_gives_way_to_ours_without_a_warning() -> None:
    source = ImageSource(png(9_500, 10_000, b"", bits=1, colour=0))
    assert source.size[0] * source.size[1] > (Image.MAX_IMAGE_PIXELS or 0)


@pytest.mark.parametrize(
    "kind_and_data",
    [
        (b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(20 * 2**20), 9)),
        (b"iCCP", b"profile\x00\x00" + zlib.compress(bytes(20 * 2**20), 9)),
    ],
    ids=["text", "colour profile"],
)
def test_a_png_chunk_that_unpacks_to_20_mib_is_not_unpacked(kind_and_data: tuple[bytes, bytes]) -> None:
    data = png(3, 1, b"\x00" + bytes(9), chunk(*kind_and_data))
    with pytest.raises(ImageError, match="Decompressed data too large"):
        ImageSource(data).load()
