"""What a file's structure says that decoding it costs: hostile files are refused unread, ordinary ones pass."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fuzz.images import png as fuzz_png
from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.structure.av1 import read_sizes
from st_modules.inputs.structure.check import estimate_cost

QUICK = ImageLimits(max_decode_seconds=0.05)


class CountingStream(io.BytesIO):
    """A file that counts the bytes read from it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def save(image_format: str, mode: str = "RGB", size: tuple[int, int] = (60, 40), **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size, 90 if len(mode) == 1 else (10, 200, 30, 255)[: len(mode)]).save(
        stream, image_format, **options
    )
    return stream.getvalue()


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*before: bytes, size: tuple[int, int] = (60, 40), bits: int = 8, after: bytes = b"") -> bytes:
    width, height = size
    pixels = zlib.compress(b"\0" * height * (1 + width * 3 * bits // 8)) if width < 1000 else b""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0))
    return b"".join([b"\x89PNG\r\n\x1a\n", header, *before, chunk(b"IDAT", pixels), after, chunk(b"IEND")])


def segment(marker: int, data: bytes = b"") -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(*segments: bytes, **options: Any) -> bytes:
    data = save("JPEG", **options)
    return data[:2] + b"".join(segments) + data[2:]


def scans(count: int, size: tuple[int, int], *, between: bytes = b"", **options: Any) -> bytes:
    """A progressive JPEG whose last scan is there ``count`` times more; its header says another size than the scans."""
    data = enlarged(save("JPEG", progressive=True, **options), size)
    end, last = data.rindex(b"\xff\xd9"), data.rindex(b"\xff\xda")
    return data[:end] + (between + data[last:end]) * count + data[end:]


def enlarged(data: bytes, size: tuple[int, int]) -> bytes:
    place = max(data.find(b"\xff\xc0\0\x11"), data.find(b"\xff\xc2\0\x11")) + 5
    return data[:place] + struct.pack(">HH", *reversed(size)) + data[place + 4 :]


def gif(extensions: bytes, size: tuple[int, int] = (8, 8)) -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\0;"
    return b"GIF89a" + struct.pack("<HH", 8, 8) + b"\0\0\0" + extensions + frame


def tiff(*changes: tuple[int, int, int, int | bytes]) -> bytes:
    """A grey TIFF of 8x8 pixels with other tags: number, type, count and value."""
    plain = {256: 8, 257: 8, 258: 8, 259: 1, 262: 1, 273: 8, 278: 8, 279: 64}
    tags: dict[int, tuple[int, int, int, int | bytes]] = {tag: (tag, 4, 1, value) for tag, value in plain.items()}
    tags |= {change[0]: change for change in changes}
    entries, values = b"", b""
    for tag, kind, count, value in sorted(tags.values()):
        number = value if isinstance(value, int) else 8 + 64 + 2 + 12 * len(tags) + 4 + len(values)
        values += b"" if isinstance(value, int) else value
        entries += struct.pack("<HHLL", tag, kind, count, number)
    return (
        b"II*\0" + struct.pack("<L", 72) + b"\x50" * 64 + struct.pack("<H", len(tags)) + entries + b"\0\0\0\0" + values
    )


def bmp(runs: bytes, side: int = 100) -> bytes:
    header = struct.pack("<LllHHLLllLL", 40, side, side, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<LHHL", 0, 0, 0, 1078) + header + bytes(range(256)) * 4 + runs


def webp(width: int, height: int) -> bytes:
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    body = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + canvas
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def box(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I4s", len(data) + 8, kind) + data


def avif(*, before: bytes = b"", size: tuple[int, int] | None = None, **tables: bytes) -> bytes:
    """An AVIF of one picture, with what else stands in its boxes, and another size in its properties."""
    data = save("AVIF", size=(600, 400), speed=10)
    place = data.index(b"ispe") + 8
    if size:
        data = data[:place] + struct.pack(">II", *size) + data[place + 8 :]
    for name, table in tables.items():
        place = data.index(name.encode()) - 4
        length = int.from_bytes(data[place : place + 4], "big")
        for holder in (b"meta", b"iprp") if name == "ipco" else (b"meta",):
            start = data.index(holder) - 4
            grown = int.from_bytes(data[start : start + 4], "big") + len(table) - length
            data = data[:start] + struct.pack(">I", grown) + data[start + 4 :]
        data = data[:place] + table + data[place + length :]
    first = int.from_bytes(data[:4], "big")
    return data[:first] + before + data[first:]


# Each is a small file of a kind that takes minutes or gigabytes at a size under max_bytes; a limit as low makes it one.
SLOW: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG: chunks before the pixels": (lambda: png(chunk(b"aaAa") * 5000), "PNG chunks"),
    "PNG: chunks of pixels": (lambda: png(chunk(b"IDAT") * 5000), "PNG chunks"),
    "PNG: chunks after the pixels": (lambda: png(after=chunk(b"aaAa") * 5000), "PNG chunks"),
    "PNG: profiles that inflate": (lambda: png(chunk(b"iCCP", b"a" * 1100) * 20), "compressed texts"),
    "PNG: texts without a name that inflate": (lambda: png(chunk(b"zTXt", b"\0" * 1100) * 20), "compressed texts"),
    "JPEG: segments": (lambda: jpeg(segment(0xE3) * 9000), "JPEG segments"),
    "JPEG: comments": (lambda: jpeg(segment(0xFE, b"a") * 9000), "JPEG segments"),
    "JPEG: padding": (lambda: jpeg(b"\xff" * 50_000), "bytes between JPEG segments"),
    "JPEG: bytes between segments": (lambda: jpeg(segment(0xE3) + b"\0" * 50_000), "bytes between JPEG segments"),
    "JPEG: EXIF in many segments": (lambda: jpeg(segment(0xE1, b"Exif\0\0" + b"a" * 60_000) * 5), "bytes of EXIF"),
    "JPEG: scans": (lambda: scans(4000, (64, 64)), "scans"),
    "JPEG: scans of pixels": (lambda: scans(400, (1000, 1000)), "scans"),
    "JPEG: scans after a marker that has no length": (
        lambda: scans(4000, (64, 64), between=b"\xff\x01"),
        "scans",
    ),
    "GIF: blocks of a comment": (lambda: gif(b"!\xfe" + b"\x01a" * 60_000 + b"\0"), "GIF blocks"),
    "GIF: extensions": (lambda: gif(b"!\xf9\x04\0\0\0\0\0" * 30_000), "GIF blocks"),
    "GIF: blocks that an empty one does not end": (lambda: gif(b"!\xf9\0" + b"\x01," * 60_000 + b"\0"), "GIF blocks"),
    "GIF: blocks of a loop count": (
        lambda: gif(b"!\xff\x0bNETSCAPE2.0\0" + b"\x01," * 60_000 + b"\0"),
        "GIF blocks",
    ),
    "GIF: a frame larger than the screen": (lambda: gif(b"", (3000, 3000)), "pixels"),
    "TIFF: tags": (lambda: tiff(*[(1000 + number, 3, 1, 0) for number in range(2000)]), "TIFF tags"),
    "TIFF: numbers": (lambda: tiff((50000, 3, 60_000, b"\1\0" * 60_000)), "values of TIFF tags"),
    "TIFF: fractions": (lambda: tiff((50000, 5, 20_000, b"\1\0\0\0" * 40_000)), "values of TIFF tags"),
    "TIFF: numbers of EXIF": (
        # Its directory is the value of another tag, at byte 198; what it says to begin at byte 8 is anything.
        lambda: tiff(
            (34665, 4, 1, 198),
            (50000, 7, 150_000, struct.pack("<HHHLL", 1, 50001, 3, 70_000, 8).ljust(150_000, b"\0")),
        ),
        "values of TIFF tags",
    ),
    "TIFF: strips": (lambda: tiff((273, 4, 3000, b"\x08\0\0\0" * 3000)), "strips or tiles"),
    "TIFF: strips that share their bytes": (
        lambda: tiff((259, 4, 1, 8), (273, 4, 100, b"\x08\0\0\0" * 100), (279, 4, 100, b"\0\0\x10\0" * 100)),
        "bytes of strips or tiles",
    ),
    "TIFF: a tile larger than the image": (
        lambda: tiff((259, 4, 1, 8), (322, 4, 1, 4000), (323, 4, 1, 4000), (324, 4, 1, 8), (325, 4, 1, 64)),
        "pixels",
    ),
    "BMP: a file of runs": (lambda: bmp(b"\xff\1" * 50_000), "runs of pixels"),
    "BMP: pixels of runs": (lambda: bmp(b"\0\1", 700), "runs of pixels"),
    "DIB: pixels of runs": (lambda: bmp(b"\0\1", 700)[14:], "runs of pixels"),
    "PPM: values as text": (lambda: b"P3 200 600 255\n" + b"1 " * 360_000, "values written as text"),
    "PPM: comments": (lambda: b"P1 100 100\n" + b"#\n" * 1000 + b"1" * 10_000, "comments"),
    "PPM: other values": (lambda: b"P6 300 300 254\n" + b"1" * 270_000, "values of 0 to 254"),
    "AVIF: boxes": (lambda: avif(before=box(b"free") * 60_000), "AVIF boxes"),
    "AVIF: items": (lambda: avif(iinf=box(b"iinf", bytes(30_000))), "AVIF items"),
    "AVIF: parts of items": (
        lambda: avif(iloc=box(b"iloc", b"\0\0\0\0\0\0\0\2" + b"\0\1\0\0\xff\xff" * 2)),
        "AVIF parts",
    ),
    "AVIF: chunks and runs of a track": (
        lambda: avif(before=box(b"moov", box(b"stco", bytes(30_000)) + box(b"stsc", bytes(90_000)))),
        "AVIF items",
    ),
    "WEBP: a canvas": (lambda: webp(4000, 4000), "pixels"),
}  # fmt: skip


@pytest.mark.parametrize("name", SLOW)
def test_what_takes_too_long_is_refused_by_what_takes_it(name: str) -> None:
    make, what = SLOW[name]
    with pytest.raises(
        ImageError, match=rf"item 3: .* its .*{what}.* would take longer to decode than the limit of 0\.05 s"
    ):
        ImageSource(make(), "item 3", QUICK).load()


BIG: dict[str, tuple[Callable[[], bytes], str]] = {
    "PNG": (lambda: png(size=(20_000, 20_000)), "20000x20000 pixels"),
    "PNG: texts that inflate": (lambda: png(*[chunk(b"iTXt", b"a" * 600)] * 5), "compressed texts"),
    "PNG: a row": (lambda: png(size=(200_000, 1), bits=16), "rows of 200000 pixels"),
    "JPEG: EXIF": (lambda: jpeg(segment(0xE1, b"Exif\0\0" + b"a" * 60_000)), "bytes of EXIF"),
    "JPEG: coefficients of scans": (lambda: scans(0, (500, 400), subsampling=0), "scans"),
    "GIF": (lambda: gif(b"", (640, 480)), "640x480 pixels"),
    "TIFF: a tile": (lambda: tiff((259, 4, 1, 8), (322, 4, 1, 2000), (323, 4, 1, 2000)), "tiles of 2000x2000"),
    "TIFF: numbers": (lambda: tiff((50000, 3, 10_000, b"\1\0" * 10_000)), "values of TIFF tags"),
    "WEBP": (lambda: webp(300, 300), "300x300 pixels of WebP"),
    "AVIF": (lambda: save("AVIF", size=(320, 256), speed=10), "320x256 pixels of AVIF"),
    "AVIF: a picture larger than its properties say": (lambda: avif(size=(8, 8)), "600x400 pixels of AVIF"),
    "AVIF: properties": (lambda: avif(ipco=box(b"ipco", box(b"abcd") * 5000)), "AVIF properties"),
    "PPM: values as text": (lambda: b"P3 400 400 255\n" + b"1 " * 9, "values"),
}  # fmt: skip


@pytest.mark.parametrize("name", BIG)
def test_what_takes_too_much_memory_is_refused_by_what_takes_it(name: str) -> None:
    make, what = BIG[name]
    limits = ImageLimits(max_decode_bytes=2**20, max_pixels=2**30)
    with pytest.raises(ImageError, match=rf"decoding its .*{what}.* would take over 1048576 bytes beside the pixels"):
        _ = ImageSource(make(), limits=limits).size


@pytest.mark.parametrize("head", [b"P6 #" + b"a" * 70_000, b"P6 " + b" " * 70_000, b"P5\n" + b"#\n" * 40_000])
def test_a_header_of_text_that_does_not_end_is_refused(head: bytes) -> None:
    with pytest.raises(ImageError, match="no size within the first 65536 bytes"):
        _ = ImageSource(head + b"\n8 8 255\n" + b"a" * 192).size


def test_endless_digits_are_refused() -> None:
    with pytest.raises(ImageError):
        _ = ImageSource(b"P6 " + b"1" * 100_000).size


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (png(chunk(b"aaAa") * 300_000), "PNG"),
        (jpeg(segment(0xE3) * 500_000), "JPEG"),
        (gif(b"!\xfe" + b"\x01a" * 3_000_000 + b"\0"), "GIF"),
    ],
    ids=["PNG", "JPEG", "GIF"],
)
def test_the_structure_is_not_read_on_once_it_is_over_the_limit(data: bytes, kind: str) -> None:
    stream = CountingStream(data)
    with pytest.raises(ImageError, match="max_decode_seconds"):
        estimate_cost(stream, kind, QUICK, whole=True)
    assert stream.count < len(data) / 10


def test_only_a_header_is_read_for_the_size() -> None:
    data = png(after=chunk(b"aaAa", b"a" * 1000) * 2000)
    assert ImageSource(data, limits=QUICK).size == (60, 40)


@pytest.mark.parametrize(
    "data",
    [
        png(size=(8000, 12_000), bits=16),
        png(chunk(b"iCCP", b"a" * 1100) * 3000),
        png(chunk(b"iTXt", b"a\0\0\0\0\0" + b"a" * 50_000_000 + "\U0001f600".encode())),
        scans(1500, (1900, 2000)),
        jpeg(segment(0xE1, b"Exif\0\0" + b"a" * 65_000) * 300),
        tiff((50000, 3, 5_000_000, b"\1\0" * 5_000_000)),
        bmp(b"\0\1", 6000),
        b"P6 4000 4000 254\n",
        webp(9000, 9000),
    ],
    ids=[
        "PNG of 16 bits",
        "PNG of profiles",
        "PNG of text",
        "scans",
        "EXIF",
        "TIFF tags",
        "BMP of runs",
        "PPM",
        "WEBP",
    ],
)
def test_the_default_limits_refuse_what_is_hostile(data: bytes) -> None:
    with pytest.raises(ImageError, match=r"max_decode_(seconds|bytes)"):
        ImageSource(data).load()


# One each of what cameras, scanners, editors and browsers make, at their usual sizes or more, by its header.
ORDINARY: dict[str, Callable[[], tuple[str, bytes]]] = {
    "a photograph of 100 MP as PNG": lambda: ("PNG", png(size=(10_000, 10_000))),
    "a PNG of 60 MB in chunks of 8 KiB": lambda: ("PNG", png(chunk(b"IDAT", b"a" * 8192) * 1000, size=(6000, 4000))),
    "a PNG with a profile and texts": lambda: (
        "PNG",
        png(chunk(b"iCCP", b"a" * 500_000), chunk(b"tEXt", b"a" * 10**6), *[chunk(b"zTXt", b"a" * 1000)] * 20),
    ),
    "a phone's JPEG": lambda: (
        "JPEG",
        enlarged(
            jpeg(
                segment(0xE1, b"Exif\0\0" + b"a" * 60_000),
                segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"a" * 30_000),
                segment(0xE2, b"MPF\0" + b"a" * 90),
            ),
            (4032, 3024),
        ),
    ),
    "a JPEG with a profile of 5 MB": lambda: ("JPEG", jpeg(segment(0xE2, b"ICC_PROFILE\0" + b"a" * 65_000) * 80)),
    "a progressive JPEG of 24 MP and 20 scans": lambda: ("JPEG", scans(10, (6000, 4000))),
    "an animation": lambda: ("GIF", save("GIF", "P", save_all=True, append_images=[Image.new("P", (60, 40))] * 9)),
    "a GIF with XMP": lambda: ("GIF", gif(b"!\xff\x0bXMP DataXMP" + (b"\xff" + b"a" * 255) * 3000 + b"\0")),
    "a scan of one row a strip": lambda: (
        "TIFF",
        tiff(
            (256, 4, 1, 7000), (257, 4, 1, 10_000), (278, 4, 1, 1), (259, 4, 1, 5),
            (273, 4, 10_000, b"\x08\0\0\0" * 10_000), (279, 4, 10_000, b"\0\1\0\0" * 10_000),
        ),
    ),
    "a TIFF with an editor's layers": lambda: ("TIFF", tiff((37724, 7, 5_000_000, b"a" * 5_000_000))),
    "a map of 100 MP in tiles": lambda: (
        "TIFF",
        tiff(
            (256, 4, 1, 10_000), (257, 4, 1, 10_000), (259, 4, 1, 8), (322, 4, 1, 256), (323, 4, 1, 256),
            (324, 4, 1600, b"\x08\0\0\0" * 1600), (325, 4, 1600, b"\0\1\0\0" * 1600), (33550, 12, 3, b"a" * 24),
        ),
    ),
    "a screenshot of 33 MP as WebP": lambda: ("WEBP", webp(7680, 4320)),
    "a photograph of 12 MP as WebP": lambda: ("WEBP", webp(4000, 3000)),
    "an AVIF with a profile and alpha": lambda: (
        "AVIF",
        save("AVIF", "RGBA", (3000, 2000), speed=10, icc_profile=b"a" * 500_000),
    ),
    "an animation as AVIF": lambda: (
        "AVIF",
        save("AVIF", speed=10, save_all=True, append_images=[Image.new("RGB", (60, 40), "red")] * 9),
    ),
    "a bitmap of 20 MP": lambda: ("PPM", b"P6 5000 4000 255\n"),
}  # fmt: skip


@pytest.mark.parametrize("kind", [1, 3, 5])
def test_a_thumbnail_of_another_image_is_refused(kind: int) -> None:
    source = ImageSource(tiff((254, 4, 1, kind)), "photo.nef")
    for ask in (lambda: source.size, source.load):
        with pytest.raises(ImageError, match="photo.nef: .*a thumbnail of 8x8 pixels.*Convert it"):
            ask()


@pytest.mark.parametrize("kind", [0, 2])
def test_a_page_is_no_thumbnail(kind: int) -> None:
    assert ImageSource(tiff((254, 4, 1, kind))).load().size == (8, 8)


def test_the_bytes_of_a_tag_count_as_memory() -> None:
    small, large = (
        estimate_cost(io.BytesIO(tiff((40_000, 7, size, bytes(size)))), "TIFF", ImageLimits(), whole=True).memory
        for size in (10, 5_000_010)
    )
    assert large - small >= 5_000_000


def runs_of_pixels(side: int) -> bytes:
    """The header of an RLE8 bitmap."""
    return b"BM" + bytes(12) + struct.pack("<IiiHHI", 40, side, side, 1, 8, 1) + bytes(20)


def webp_canvas(side: int) -> bytes:
    """The header of a WebP's canvas."""
    edge = (side - 1).to_bytes(3, "little")
    return b"RIFF" + bytes(4) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes(4) + edge + edge


def levels(side: int) -> bytes:
    return b"P6\n%d %d\n254\n" % (side, side)


@pytest.mark.parametrize(
    ("kind", "build", "megapixels"),
    [
        ("PNG", lambda side: fuzz_png((side, side), bits=16, colour=6, idat=b""), 55),
        ("PNG", lambda side: fuzz_png((side, side), bits=16, colour=2, idat=b""), 73),
        ("WEBP", webp_canvas, 33),
        ("BMP", runs_of_pixels, 19),
        ("PPM", levels, 2.5),
    ],
    ids=["PNG, RGBA16", "PNG, RGB16", "WebP", "BMP of run lengths", "PPM of 254 levels"],
)
def test_the_sizes_that_the_documentation_names_are_about_the_largest(
    kind: str, build: Callable[[int], bytes], megapixels: float
) -> None:
    smaller, larger = (build(int((share * megapixels * 1e6) ** 0.5)) for share in (0.95, 1.06))
    estimate_cost(io.BytesIO(smaller), kind, ImageLimits(), whole=True)
    with pytest.raises(ImageError, match="pixels|values"):
        estimate_cost(io.BytesIO(larger), kind, ImageLimits(), whole=True)


@pytest.mark.parametrize("name", ORDINARY)
def test_what_is_ordinary_is_within_the_default_limits(name: str) -> None:
    kind, data = ORDINARY[name]()
    cost = estimate_cost(io.BytesIO(data), kind, ImageLimits(), whole=True)
    assert 0 < cost.seconds < 3


SAVED: dict[str, tuple[str, dict[str, Any]]] = {
    "PNG": ("PNG", {}),
    "JPEG": ("JPEG", {}),
    "progressive JPEG": ("JPEG", {"progressive": True}),
    "GIF": ("GIF", {}),
    "lossy WebP": ("WEBP", {"method": 0}),
    "lossless WebP": ("WEBP", {"lossless": True, "method": 0}),
    "AVIF": ("AVIF", {"speed": 10}),
    "BMP": ("BMP", {}),
    "DIB": ("DIB", {}),
    "TIFF": ("TIFF", {}),
    "big TIFF": ("TIFF", {"big_tiff": True}),
    "compressed TIFF": ("TIFF", {"compression": "tiff_lzw"}),
    "PPM": ("PPM", {}),
}


@pytest.mark.parametrize("name", SAVED)
def test_the_size_that_pillow_reads_counts(name: str) -> None:
    image_format, options = SAVED[name]
    data = save(image_format, size=(70, 41), **options)
    assert ImageSource(data, limits=ImageLimits(max_pixels=70 * 41)).size == (70, 41)
    with pytest.raises(ImageError, match="70x41 pixels are over the limit of 2869"):
        estimate_cost(io.BytesIO(data), image_format, ImageLimits(max_pixels=70 * 41 - 1), whole=False)


@pytest.mark.parametrize("size", [(1, 1), (70, 41), (512, 300)])
@pytest.mark.parametrize("options", [{}, {"save_all": True}], ids=["picture", "track"])
def test_the_size_of_av1_is_in_its_data(size: tuple[int, int], options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", size, "red")] if options else []
    data = save("AVIF", size=size, speed=10, append_images=frames, **options)
    begins = data.index(b"mdat") + 4
    assert size in list(read_sizes(data[begins:]))


@pytest.mark.parametrize("name", SAVED)
def test_a_file_that_is_cut_off_anywhere_has_a_cost(name: str) -> None:
    image_format, options = SAVED[name]
    data = save(image_format, size=(9, 7), **options)
    for end, whole in itertools.product(range(len(data)), [False, True]):
        assert estimate_cost(io.BytesIO(data[:end]), image_format, ImageLimits(), whole=whole).seconds < 3


@pytest.mark.parametrize("name", SAVED)
def test_a_file_with_wrong_bytes_has_a_cost_or_is_refused(name: str) -> None:
    image_format, options = SAVED[name]
    data = np.frombuffer(save(image_format, size=(9, 7), **options), np.uint8)
    random = np.random.default_rng(0)
    for _ in range(100):
        wrong = data.copy()
        wrong[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
        try:
            estimate_cost(io.BytesIO(wrong.tobytes()), image_format, ImageLimits(), whole=True)
        except ImageError:
            continue
