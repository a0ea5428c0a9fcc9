"""Reading images: the forms a caller may pass, the pixels that come out, and what is refused."""

import base64
import io
import os
import pickle
import random
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from st_modules.errors import ImageError
from st_modules.inputs.images import FORMATS, ImageSource, flatten_on_white, to_rgb
from st_modules.inputs.limits import ImageLimits

PIXELS = np.arange(6 * 9 * 3, dtype=np.uint8).reshape(6, 9, 3)  # 9 wide, 6 high
LOSSLESS = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}, "AVIF": {"quality": 95}}


def encoded(image: Image.Image, image_format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (64, 48)) -> Image.Image:
    width, height = size
    ramp = np.add.outer(np.arange(height) * 5, np.arange(width) * 3)
    return Image.fromarray(np.stack([ramp, ramp + 80, ramp * 2], axis=-1).astype(np.uint8)).convert(mode)


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    checksum = zlib.crc32(kind + data) if checksum is None else checksum
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png(width: int, height: int, rows: bytes, *before: bytes, bits: int = 8, colour: int = 2) -> bytes:
    """A PNG by hand: raw rows (each after its filter byte), and the chunks that come before them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def as_path(data: bytes, folder: Path) -> Path:
    path = folder / "a picture.png"
    path.write_bytes(data)
    return path


FORMS = {
    "path": as_path,
    "path string": lambda data, folder: str(as_path(data, folder)),
    "file URL": lambda data, folder: as_path(data, folder).as_uri(),
    "file URL of localhost": lambda data, folder: "file://localhost" + quote(str(as_path(data, folder))),
    "data URI": lambda data, folder: "data:image/png;base64," + base64.b64encode(data).decode(),
    "data URI with line breaks": lambda data, folder: "data:image/png;base64," + base64.encodebytes(data).decode(),
    "data URI without padding": lambda data, folder: "data:;base64," + base64.b64encode(data).decode().rstrip("="),
    "data URI escaped": lambda data, folder: "data:image/png;base64," + quote(base64.b64encode(data).decode(), safe=""),
    "data URI without base64": lambda data, folder: "DATA:image/png," + quote(data),
    "bytes": lambda data, folder: data,
    "bytearray": lambda data, folder: bytearray(data),
    "BytesIO": lambda data, folder: io.BytesIO(data),
    "PIL": lambda data, folder: Image.fromarray(PIXELS),
    "PIL not decoded yet": lambda data, folder: Image.open(io.BytesIO(data)),
    "array": lambda data, folder: PIXELS,
    "array with strides": lambda data, folder: np.ascontiguousarray(PIXELS[::-1])[::-1],
    "tensor": lambda data, folder: torch.from_numpy(PIXELS).permute(2, 0, 1),
}


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


@pytest.mark.parametrize("value", [None, 3, 2.5, object(), io.StringIO("x"), ["a.png"], np.uint8(3)])
def test_what_cannot_be_an_image_is_refused_at_once(value: object) -> None:
    with pytest.raises(ImageError, match=f"item 2: object of type {type(value).__name__}: not an image; pass a path"):
        ImageSource(value, "item 2")


def test_an_empty_string_is_not_the_current_folder() -> None:
    with pytest.raises(ImageError, match="empty string names no image"):
        ImageSource("")


# Pixels


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_reads_as_pillow_reads_it(image_format: str) -> None:
    data = encoded(picture(), image_format, **LOSSLESS.get(image_format, {}))
    loaded = ImageSource(data).load()
    assert np.array_equal(np.asarray(to_rgb(loaded)), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1)])
def test_extreme_shapes_are_read(size: tuple[int, int]) -> None:
    source = ImageSource(encoded(picture(size=size)))
    assert (source.size, source.load().size) == (size, size)


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


@pytest.mark.parametrize("attribute", ["size", "load"])
@pytest.mark.parametrize(("mode", "image_format"), [("I", "TIFF"), ("F", "TIFF"), ("LAB", "TIFF")])
def test_modes_that_convert_wrongly_are_refused_by_name(mode: str, image_format: str, attribute: str) -> None:
    data = encoded(Image.new(mode, (4, 4)), image_format)
    with pytest.raises(ImageError, match=f"mode '{mode}' does not convert to RGB faithfully; scale its values"):
        ImageSource(data).size if attribute == "size" else ImageSource(data).load()


@pytest.mark.parametrize("mode", ["I", "F", "La", "LAB"])
def test_a_callers_image_of_such_a_mode_is_refused(mode: str) -> None:
    with pytest.raises(ImageError, match=f"mode '{mode}'"):
        ImageSource(Image.new(mode, (4, 4))).load()


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


# Damage


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


# Limits


def test_the_pixel_limit_is_the_last_that_passes() -> None:
    data = encoded(picture(size=(10, 10)))
    assert ImageSource(data, limits=ImageLimits(max_pixels=100)).load().size == (10, 10)
    with pytest.raises(ImageError, match="10x10 pixels are over the limit of 99; shrink the image or raise max_pixels"):
        ImageSource(data, limits=ImageLimits(max_pixels=99)).load()


@pytest.mark.parametrize("value", [Image.new("RGB", (10, 10)), np.zeros((10, 10, 3), np.uint8)], ids=["PIL", "array"])
def test_the_pixel_limit_holds_for_images_in_memory(value: object) -> None:
    with pytest.raises(ImageError, match="over the limit of 99"):
        ImageSource(value, limits=ImageLimits(max_pixels=99)).load()


MEASURE = """
import resource, sys
from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
assert ImageSource("small.png").load().size == (8, 8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for attribute in (lambda source: source.size, lambda source: source.load()):
    try:
        attribute(ImageSource("huge.png"))
    except ImageError as error:
        print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="resource is not on Windows")
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
    assert int(grown) < (2**20 if sys.platform != "darwin" else 2**30) / 256  # 4 MiB; macOS counts bytes, not KiB


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


def test_an_encoded_image_over_the_byte_limit_is_refused() -> None:
    data = encoded(picture())
    assert ImageSource(data, limits=ImageLimits(max_bytes=len(data))).load().size == (64, 48)
    with pytest.raises(ImageError, match=f"{len(data)} bytes are over the limit of {len(data) - 1};.*raise max_bytes"):
        ImageSource(data, limits=ImageLimits(max_bytes=len(data) - 1)).load()


@pytest.mark.parametrize("form", ["data URI", "data URI without base64"])
def test_the_byte_limit_holds_for_data_uris(form: str, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="over the limit of 50; "):
        ImageSource(FORMS[form](encoded(picture()), tmp_path), limits=ImageLimits(max_bytes=50)).load()


# Paths


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


def test_a_file_without_permission_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*_: object) -> None:  # file modes do not bind the superuser
        raise PermissionError

    path = as_path(encoded(picture()), tmp_path)
    monkeypatch.setattr(Path, "open", deny)
    with pytest.raises(ImageError, match="no permission"):
        ImageSource(path).load()


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


# The caller's objects


def test_a_stream_keeps_its_place_and_stays_open() -> None:
    stream = io.BytesIO(encoded(picture()))
    stream.seek(17)
    source = ImageSource(stream)
    assert source.size == source.load().size == (64, 48)
    assert (stream.closed, stream.tell()) == (False, 17)


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


def test_to_rgb_leaves_its_argument_alone() -> None:
    image = Image.new("L", (4, 4))
    image.info["transparency"] = 0
    to_rgb(image)
    assert (image.mode, image.info) == ("L", {"transparency": 0})


def test_an_array_is_not_written_to() -> None:
    array = PIXELS[..., 0].copy()
    ImageSource(array).load().putpixel((0, 0), 99)
    assert np.array_equal(array, PIXELS[..., 0])


def test_a_callers_image_with_truncated_data_is_refused() -> None:
    image = Image.open(io.BytesIO(encoded(picture())[:-40]))
    with pytest.raises(ImageError, match="item 0: object of type PngImageFile: damaged"):
        ImageSource(image, "item 0").load()


@pytest.mark.parametrize("source", ["a\x1b[31m\n.png", "http://127.0.0.1/\r\nb.png", "data:image/png,\x1b"])
def test_control_characters_of_a_name_are_written_out_in_errors(source: str) -> None:
    with pytest.raises(ImageError) as error:
        _ = ImageSource(source).size
    assert str(error.value).isprintable()


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


# Messages and imports


def test_an_image_error_can_be_pickled() -> None:
    with pytest.raises(ImageError) as caught:
        ImageSource(b"", "item 3").load()
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_a_long_data_uri_is_abbreviated() -> None:
    uri = "data:image/png;base64," + "A" * 100_000
    with pytest.raises(ImageError) as caught:
        ImageSource(uri).load()
    assert "data URI data:image/png;base64,AAAA" in str(caught.value)
    assert len(str(caught.value)) < 300


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
