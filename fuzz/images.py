"""Images: known attacks on their decoders, and pictures of every format that are damaged at random."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

from hypothesis import strategies as st
from PIL import Image, ImageDraw

from fuzz.bounds import Outcome
from fuzz.mutations import mutations
from fuzz.outcomes import embed_or_refuse, tiny
from st_modules import ImageSource, STModulesError

_PNG = b"\x89PNG\r\n\x1a\n"


def check(data: bytes) -> Outcome:
    """Embed an encoded image with a text, which names it by its place in the list."""
    outcome = embed_or_refuse(lambda: tiny().encode(["a", {"image": data}]), 2, ["item 1"])
    return Outcome(outcome.embedded, outcome.words, _mebibytes(data)) if outcome.embedded else outcome


def _mebibytes(data: bytes) -> float:
    """What the pixels of an image that was embedded take: its own, and the same as RGB; Pillow has four bytes each."""
    try:
        width, height = ImageSource(data).size
    except STModulesError:
        return 0.0
    return width * height * 4 / 2**20


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """Return a chunk with its length and its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    size: tuple[int, int] = (8, 8),
    *,
    bits: int = 8,
    colour: int = 2,
    interlace: int = 0,
    extra: bytes = b"",
    idat: bytes | None = None,
) -> bytes:
    """Return a black PNG file; ``extra`` stands before its pixels, which are ``idat`` where it is given."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    header = struct.pack(">IIBBBBB", *size, bits, colour, 0, 0, interlace)
    palette = png_chunk(b"PLTE", bytes(3 * 256)) if colour == 3 else b""
    if idat is None:
        row = bytes(1 + (size[0] * channels * bits + 7) // 8)
        packer = zlib.compressobj(9)
        idat = b"".join([*(packer.compress(row) for _ in range(size[1])), packer.flush()])
        idat = png_chunk(b"IDAT", idat)
    return _PNG + png_chunk(b"IHDR", header) + palette + extra + idat + png_chunk(b"IEND")


def jpeg(size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    """Return a JPEG file."""
    return encode(Image.new("RGB", size, "teal"), "JPEG", **options)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file of a format."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def _square(side: float) -> tuple[int, int]:
    return max(8, int(side)), max(8, int(side))


def _repeat(piece: bytes, count: float) -> bytes:
    return piece * max(2, int(count))


def _png_of_empty_chunks(scale: float) -> bytes:
    return png(extra=_repeat(png_chunk(b"abCd"), 4_000_000 * scale))


def _png_of_empty_idats(scale: float) -> bytes:
    whole = png_chunk(b"IDAT", zlib.compress(bytes(25 * 8)))
    return png(idat=_repeat(png_chunk(b"IDAT"), 4_000_000 * scale) + whole)


def _png_of_texts(scale: float) -> bytes:
    text = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000), 9))
    return png(extra=_repeat(text, 10_000 * scale))


def _png_of_profile(scale: float) -> bytes:
    return png(extra=png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(int(2e9 * min(scale, 0.5))), 9)))


def _png_apng_frames(scale: float) -> bytes:
    control = png_chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    frame = png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 0, 8, 8, 0, 0, 1, 1, 0, 0))
    return png(extra=control + _repeat(frame, 1_000_000 * scale))


def _large(kind: str, mode: str, scale: float, **options: Any) -> bytes:
    return encode(Image.new(mode, _square(10_000 * scale)), kind, **options)


def _large_png(scale: float, **options: Any) -> bytes:
    return png(_square(10_000 * scale), **options)


def jpeg_segment(marker: int, data: bytes) -> bytes:
    """Return a segment of a JPEG file."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(data) + 2) + data


def _jpeg_of_segments(marker: int, beginning: bytes, size: int, count: float, scale: float) -> bytes:
    whole = jpeg()
    return whole[:2] + _repeat(jpeg_segment(marker, beginning + bytes(size)), count * scale) + whole[2:]


def _jpeg_of_scans(side: int, count: float, scale: float) -> bytes:
    whole = jpeg(_square(side * scale**0.5), progressive=True)
    last = whole.rindex(b"\xff\xda")
    return whole[:last] + _repeat(whole[last:-2], count * scale) + whole[-2:]


def _jpeg_of_padding(scale: float) -> bytes:
    whole = jpeg()
    return whole[:2] + _repeat(b"\xff", 60_000_000 * scale) + whole[2:]


def _jpeg_of_exif_entries(scale: float) -> bytes:
    count = 5000
    tiff = b"II*\0\x08\0\0\0" + struct.pack("<H", count) + struct.pack("<HHII", 0x9286, 7, 4_000_000_000, 8) * count
    whole = jpeg()
    return whole[:2] + _repeat(jpeg_segment(0xE1, b"Exif\0\0" + tiff), max(1, 900 * scale)) + whole[2:]


def _gif_of_extensions(label: int, scale: float) -> bytes:
    whole = encode(Image.new("P", (8, 8)), "GIF")
    where = whole.index(b"!") if b"!" in whole else whole.index(b",")
    return whole[:where] + _repeat(bytes([0x21, label, 1, 65, 0]), 12_000_000 * scale) + whole[where:]


def _gif_of_subblocks(scale: float) -> bytes:
    whole = encode(Image.new("P", (8, 8)), "GIF")
    where = whole.index(b"!") if b"!" in whole else whole.index(b",")
    return whole[:where] + b"\x21\xfe" + _repeat(b"\x01A", 30_000_000 * scale) + b"\0" + whole[where:]


def tiff(entries: Sequence[tuple[int, int, int, int]], tail: bytes = b"", *, big: bool = False) -> bytes:
    """Return a TIFF file of entries (tag, type, count, value) and what follows them."""
    if big:
        rows = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
        return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(entries)) + rows + bytes(8) + tail
    rows = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + bytes(4) + tail


def _tiff_header(width: int, height: int) -> list[tuple[int, int, int, int]]:
    return [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]


def _tiff_of_values(tag: int, scale: float) -> bytes:
    count = max(2, int(15_000_000 * scale))
    header = [*_tiff_header(8, 8), (tag, 4, count, 512)]
    whole = tiff([*sorted(header), (278, 3, 1, 8), (279, 4, 1, 64)]) if tag < 278 else tiff(sorted(header))
    return whole.ljust(512, b"\0") + bytes(4 * count)


def _tiff_of_strips(scale: float) -> bytes:
    count = max(2, int(7_000_000 * scale))
    entries = [*_tiff_header(8, count), (273, 4, count, 512), (278, 3, 1, 1), (279, 4, count, 512 + 4 * count)]
    return tiff(entries).ljust(512, b"\0") + bytes(8 * count)


def _tiff_of_entries(scale: float) -> bytes:
    entry = (0x9286, 7, 0xFFFFFFFF, 8)
    return tiff([*_tiff_header(8, 8), (273, 4, 1, 8), (278, 3, 1, 8), (279, 4, 1, 64), *([entry] * 60_000)])[
        : max(300, int(720_000 * scale))
    ]


def _tiff_that_overlaps(scale: float) -> bytes:
    """Sixty thousand tags whose values are all the same megabytes of the file."""
    size = max(1000, int(50_000_000 * scale))
    entry = [(40_000 + number % 20_000, 1, size, 1024) for number in range(20_000)]
    whole = tiff([*_tiff_header(8, 8), (273, 4, 1, 8), (278, 3, 1, 8), (279, 4, 1, 64), *entry])
    return whole + bytes(size)


def _bmp_rle(bits: int, scale: float) -> bytes:
    side = max(8, int(9_000 * scale**0.5))
    body = b"\x01\x00" * (side * side // 2)
    head = struct.pack("<IiiHHIIiiII", 40, side, side, 1, bits, {8: 1, 4: 2}[bits], len(body), 0, 0, 256, 0)
    offset = 14 + 40 + 1024
    return b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset) + head + bytes(1024) + body


def _ppm(beginning: bytes, scale: float, *, end: bytes = b"", piece: bytes = b"1 ", count: float = 1e7) -> bytes:
    return beginning + _repeat(piece, count * scale) + end


def _ppm_plain(scale: float) -> bytes:
    side = max(8, int(2_200 * scale**0.5))
    return b"P3\n%d %d\n255\n" % (side, side) + b"1 " * (side * side * 3)


def _ppm_of_levels(scale: float) -> bytes:
    side = max(8, int(4_500 * scale**0.5))
    return b"P6\n%d %d\n254\n" % (side, side) + bytes(side * side * 3)


def _webp_of_chunks(scale: float) -> bytes:
    whole = encode(Image.new("RGB", (8, 8)), "WEBP")
    return whole[:12] + _repeat(b"abcd\0\0\0\0", 7_000_000 * scale) + whole[12:]


ATTACKS: Mapping[str, Callable[[float], object]] = {
    "PNG of 4 million empty chunks": _png_of_empty_chunks,
    "PNG of 4 million empty IDAT chunks": _png_of_empty_idats,
    "PNG of 10,000 texts that inflate to a megabyte": _png_of_texts,
    "PNG with a profile that inflates to a gigabyte": _png_of_profile,
    "PNG of a million frame controls": _png_apng_frames,
    "PNG of 100 megapixels": partial(_large_png, colour=2),
    "PNG of 100 megapixels, 16 bit RGBA": partial(_large_png, bits=16, colour=6),
    "PNG of 100 megapixels, palette": partial(_large_png, colour=3),
    "PNG of 100 megapixels, interlaced": partial(_large_png, colour=2, interlace=1, idat=png_chunk(b"IDAT")),
    "JPEG of 900 Exif segments": partial(_jpeg_of_segments, 0xE1, b"Exif\0\0", 65_000, 900),
    "JPEG of 15 million empty segments": partial(_jpeg_of_segments, 0xFE, b"", 0, 1.5e7),
    "JPEG of 900 profiles": partial(_jpeg_of_segments, 0xE2, b"ICC_PROFILE\0\1\1", 65_000, 900),
    "JPEG of 900 XMP segments": partial(_jpeg_of_segments, 0xE1, b"http://ns.adobe.com/xap/1.0/\0", 65_000, 900),
    "JPEG of 900 Photoshop segments": partial(
        _jpeg_of_segments, 0xED, b"Photoshop 3.0\x008BIM\x04\x04\0\0\0\0\xff\xff", 65_000, 900
    ),
    "JPEG of an MPF index": partial(_jpeg_of_segments, 0xE2, b"MPF\0II*\0\x08\0\0\0\xff\xff", 60_000, 900),
    "JPEG of Exif entries of 4 GB": _jpeg_of_exif_entries,
    "JPEG, progressive, of 400 scans": partial(_jpeg_of_scans, 6_000, 400),
    "JPEG, progressive, of 100,000 scans": partial(_jpeg_of_scans, 1_000, 100_000),
    "JPEG of 60 MB of padding": _jpeg_of_padding,
    "JPEG of 100 megapixels": partial(_large, "JPEG", "RGB"),
    "JPEG of 100 megapixels, progressive": partial(_large, "JPEG", "RGB", progressive=True),
    "GIF of 12 million comments": partial(_gif_of_extensions, 0xFE),
    "GIF of 12 million application blocks": partial(_gif_of_extensions, 0xFF),
    "GIF of 12 million graphic controls": partial(_gif_of_extensions, 0xF9),
    "GIF of a comment of 30 million blocks": _gif_of_subblocks,
    "GIF of 100 megapixels": partial(_large, "GIF", "P"),
    "TIFF of 15 million offsets": partial(_tiff_of_values, 273),
    "TIFF of a tag of 15 million numbers": partial(_tiff_of_values, 40_000),
    "TIFF of 7 million strips": _tiff_of_strips,
    "TIFF of 60,000 tags of 4 GB": _tiff_of_entries,
    "TIFF of 20,000 tags that share 50 MB": _tiff_that_overlaps,
    "TIFF of 100 megapixels": partial(_large, "TIFF", "RGB", compression="tiff_adobe_deflate"),
    "TIFF of 100 megapixels, LZW": partial(_large, "TIFF", "RGB", compression="tiff_lzw"),
    "BMP of 81 megapixels, 8 bit RLE": partial(_bmp_rle, 8),
    "BMP of 81 megapixels, 4 bit RLE": partial(_bmp_rle, 4),
    "PPM, plain, of 30 MB": _ppm_plain,
    "PPM of 255 levels and 60 MB": _ppm_of_levels,
    "PPM with a comment of 60 MB": partial(_ppm, b"P6\n#", piece=b"a", count=6e7, end=b"\n8 8\n255\n"),
    "PPM of 20 million comments": partial(_ppm, b"P6\n", piece=b"#a\n", count=2e7, end=b"8 8\n255\n"),
    "PPM with a width of 60 million digits": partial(_ppm, b"P6\n", piece=b"1", count=6e7, end=b" 8\n255\n"),
    "PPM of 60 MB of spaces": partial(_ppm, b"P6\n", piece=b" ", count=6e7, end=b"8 8\n255\n"),
    "PBM, plain, of 60 MB of comments": partial(_ppm, b"P1\n900 900\n", piece=b"#a\n1", count=1.5e7),
    "WEBP of 100 megapixels": partial(_large, "WEBP", "RGB", quality=1, method=0),
    "WEBP of 100 megapixels, lossless": partial(_large, "WEBP", "RGBA", lossless=True, quality=0, method=0),
    "WEBP of 7 million empty chunks": _webp_of_chunks,
    "AVIF of 100 megapixels": partial(_large, "AVIF", "RGB", speed=10, quality=1),
}
"""Files by what they are; each is built in the size that its name says, or scaled down."""


def _encode_anew(image: Image.Image, kind: str, append_images: Sequence[Image.Image] = (), **options: Any) -> bytes:
    """Encode copies: a picture remembers how it was written last, which the next writer trips over."""
    others = [each.rotate(90 * number) for number, each in enumerate(append_images, 1)]
    return encode(image.copy(), kind, **options, **({"append_images": others} if others else {}))


@cache
def _seeds() -> list[bytes]:
    """Small pictures of every format and of the ways in which each is written."""
    picture = Image.new("RGB", (24, 17), "white")
    ImageDraw.Draw(picture).ellipse((3, 3, 20, 14), fill="red")
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a" * 50
    animated = {"save_all": True, "append_images": [picture]}
    written: list[tuple[Image.Image, str, dict[str, Any]]] = [
        *((picture.convert(mode), "PNG", {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        (picture, "PNG", {"exif": exif, "icc_profile": b"a" * 200, **animated}),
        *((picture.convert(mode), "JPEG", {"exif": exif}) for mode in ("L", "RGB", "CMYK")),
        (picture, "JPEG", {"progressive": True, "icc_profile": b"a" * 200, "comment": b"b" * 20}),
        (picture, "MPO", animated),
        *((picture.convert(mode), "GIF", {"comment": b"b" * 20}) for mode in ("L", "P", "RGB")),
        (picture, "GIF", animated),
        (picture, "WEBP", {"exif": exif}),
        (picture, "WEBP", {"lossless": True, **animated}),
        *((picture.convert(mode), "BMP", {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
        (picture, "DIB", {}),
        *((picture.convert(mode), "TIFF", {"compression": None}) for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16")),
        *(
            (picture, "TIFF", {"compression": compression})
            for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
        ),
        (picture.convert("1"), "TIFF", {"compression": "group4"}),
        (picture, "TIFF", {"big_tiff": True, **animated}),
        *((picture.convert(mode), "PPM", {}) for mode in ("1", "L", "RGB", "I;16")),
        (picture, "AVIF", {"exif": exif}),
    ]
    return [
        *(_encode_anew(image, kind, **options) for image, kind, options in written),
        b"P3\n# a comment\n2 2\n255\n" + b"1 2 3 " * 4,
        b"P1\n3 2\n1 0 1 0 1 0\n",
        _bmp_rle(8, 1e-6),
        _bmp_rle(4, 1e-6),
        png((9, 7), colour=6, bits=16),
        png((9, 7), colour=0, bits=2),
    ]


def _with_checksums(data: bytes) -> bytes:
    """Make the checksums of a PNG's chunks right again, so that what is in them is read."""
    if not data.startswith(_PNG):
        return data
    pieces, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        length = min(int.from_bytes(data[at : at + 4], "big"), len(data) - at - 12)
        body = data[at + 4 : at + 8 + length]
        pieces.append(data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body)))
        at += 12 + length
    return b"".join([*pieces, data[at:]])


def _tiffs() -> st.SearchStrategy[bytes]:
    number = st.sampled_from([0, 1, 2, 8, 255, 65535, 2**31 - 1, 2**32 - 1]) | st.integers(0, 600)
    tag = st.sampled_from([254, 256, 257, 258, 259, 262, 270, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 324])
    entry = st.tuples(tag | st.integers(0, 65535), st.integers(0, 20), number, number)
    return st.builds(tiff, st.lists(entry, max_size=40), st.binary(max_size=300), big=st.booleans())


def _pngs() -> st.SearchStrategy[bytes]:
    kind = st.sampled_from([b"tEXt", b"zTXt", b"iTXt", b"iCCP", b"tRNS", b"PLTE", b"acTL", b"fcTL", b"eXIf", b"pHYs"])
    body = st.binary(max_size=60) | st.binary(max_size=60).map(lambda data: b"a\0\0" + zlib.compress(data))
    chunks = st.lists(st.builds(png_chunk, kind, body), max_size=12).map(b"".join)
    colours = st.sampled_from([(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 8), (4, 8), (6, 16)])
    size = st.tuples(st.integers(0, 70), st.integers(0, 70))
    return st.builds(
        lambda size, kind, interlace, extra: png(size, colour=kind[0], bits=kind[1], interlace=interlace, extra=extra),
        *(size, colours, st.integers(0, 2), chunks),
    )


def _jpegs() -> st.SearchStrategy[bytes]:
    beginning = st.sampled_from([b"", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0II*\0\x08\0\0\0", b"Adobe\0", b"JFIF\0"])
    segment = st.builds(
        lambda marker, beginning, data: jpeg_segment(marker, beginning + data),
        *(st.integers(0xC0, 0xFE), beginning, st.binary(max_size=80)),
    )
    whole = st.sampled_from([jpeg(), jpeg(progressive=True)])
    return st.builds(
        lambda file, extra: file[:2] + extra + file[2:], whole, st.lists(segment, max_size=8).map(b"".join)
    )


def strategy() -> st.SearchStrategy[bytes]:
    """Return files that are damaged pictures, and structures that no program writes."""
    damaged = st.sampled_from(_seeds()).flatmap(mutations)
    return damaged | damaged.map(_with_checksums) | _tiffs() | _pngs() | _jpegs()
