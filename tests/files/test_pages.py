"""PDFs, by page."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from st_modules import InputError
from st_modules.errors import MissingExtraError
from st_modules.files import pages
from tests.helpers.files import Read, write_pdf

FORM = b"""%PDF-1.7
1 0 obj<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[4 0 R]>>>>endobj
2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 40 20]/Annots[4 0 R]>>endobj
4 0 obj<</Type/Annot/Subtype/Widget/FT/Tx/T(a)/Rect[0 0 40 20]/F 4/P 3 0 R/AP<</N 5 0 R>>>>endobj
5 0 obj<</Type/XObject/Subtype/Form/BBox[0 0 40 20]/Length 23>>stream
1 0 0 rg 0 0 40 20 re f
endstream endobj
trailer<</Root 1 0 R>>"""
"""A page that is all a red form field."""


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


def test_every_page_is_an_image_of_144_dpi_with_a_place_that_finds_it(tmp_path: Path, read: Read) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["red", "blue", "red"], (36, 72))
    records = read(path).records
    assert [record.place for record in records] == [record.id for record in records]
    assert [record.id for record in records] == [f"{path}, page {number}" for number in (1, 2, 3)]
    assert [record.image for record in records] == [f"{path}#page={number}" for number in (1, 2, 3)]
    assert [record.text for record in records] == [None] * 3
    colours = [pixels(record.item["image"]) for record in records]
    assert [array.shape for array in colours] == [(144, 72, 3)] * 3
    assert [array[72, 36].tolist() for array in colours] == [[255, 0, 0], [0, 0, 255], [255, 0, 0]]


def test_form_fields_are_on_the_page(tmp_path: Path, read: Read) -> None:
    (tmp_path / "form.pdf").write_bytes(FORM)
    (record,) = read(tmp_path / "form.pdf").records
    assert pixels(record.item["image"])[20, 40].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(900, 400), (3000, 3000)])
def test_a_large_page_is_rendered_within_the_limit_of_pixels(
    tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(pages, "ImageLimits", type("Limits", (), {"max_pixels": 10_000}))
    (record,) = read(write_pdf(tmp_path / "a.pdf", ["red"], size)).records
    height, width, _ = pixels(record.item["image"]).shape
    assert 9_000 < width * height <= 10_000
    assert width / height == pytest.approx(size[0] / size[1], rel=0.02)


def test_a_page_of_a_line_is_told(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ImageLimits", type("Limits", (), {"max_pixels": 10_000}))
    with pytest.raises(InputError, match=r"a.pdf, page 1: 14400x0.01 points are too elongated"):
        read(write_pdf(tmp_path / "a.pdf", ["red"], (14400, 0.01)))


def test_the_number_of_pages_is_bounded(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_PAGES", 2)
    with pytest.raises(InputError, match=r"a.pdf: a PDF of 3 pages; between 1 and 2 are read"):
        read(write_pdf(tmp_path / "a.pdf", ["red"] * 3))


@pytest.mark.parametrize(
    "content",
    [b"%PDF-1.7\n", b"<html>", b"%PDF-1.7\n" + bytes(100), FORM.replace(b"[3 0 R]/Count 1", b"[]/Count 0")],
    ids=["empty", "HTML", "damaged", "no pages"],
)
def test_a_pdf_without_readable_pages_is_told(tmp_path: Path, read: Read, content: bytes) -> None:
    (tmp_path / "a.pdf").write_bytes(content)
    with pytest.raises(InputError, match=r"a.pdf: (not a PDF with pages that can be read|a PDF of 0 pages)"):
        read(tmp_path / "a.pdf")


def test_pages_that_cannot_be_rendered_are_told(tmp_path: Path, read: Read) -> None:
    broken = FORM.replace(b"/Kids[3 0 R]/Count 1", b"/Kids[3 0 R 9 0 R]/Count 2")
    (tmp_path / "a.pdf").write_bytes(broken)
    with pytest.raises(InputError, match=r"a.pdf, page 2: damaged or not readable"):
        read(tmp_path / "a.pdf")


def test_a_password_is_told(tmp_path: Path, read: Read) -> None:
    encryption = b"<</Filter/Standard/V 1/R 2/P -4/O<%s>/U<%s>>>" % (b"00" * 32, b"11" * 32)
    (tmp_path / "a.pdf").write_bytes(FORM.replace(b"/Root 1 0 R", b"/Root 1 0 R/ID[<00><00>]/Encrypt " + encryption))
    with pytest.raises(InputError, match=r"a.pdf: needs a password"):
        read(tmp_path / "a.pdf")


def test_without_pypdfium2_it_says_what_to_install(tmp_path: Path, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pdf(tmp_path / "a.pdf", ["red"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "st-modules\[pdf\]"'):
        read(path)
