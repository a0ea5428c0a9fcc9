"""The page with the answers of a search: pictures, names of those that cannot be read, and hostile texts."""

from __future__ import annotations

import base64
import io
import os
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from st_modules import ImageLimits
from st_modules.index.hits import Hit
from st_modules.index.page import render
from st_modules.inputs.data_uris import decode_data_uri
from tests.helpers.files import write_pdf
from tests.helpers.loopback import Server

HOSTILE = "</p><script>alert('x')</script>\"'&<img src=x onerror=alert(1)>\x1b[31m\u202e\ud800"


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text that it shows."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.shown: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.shown.append(data)

    @property
    def pictures(self) -> list[Image.Image]:
        sources = [attributes["src"] or "" for tag, attributes in self.elements if tag == "img"]
        return [Image.open(io.BytesIO(decode_data_uri(source, 10**6))) for source in sources]


def show(*hits: Hit, picture: object = None, limits: ImageLimits | None = None) -> Page:
    return Page(render("a question", picture, ["5 items"], hits, limits or ImageLimits(remote_images=False)))


def paint(path: Path, colour: str, size: tuple[int, int] = (30, 20)) -> str:
    Image.new("RGB", size, colour).save(path)
    return str(path)


def centre(picture: Image.Image) -> tuple[int, ...]:
    pixel = picture.convert("RGB").getpixel((picture.width // 2, picture.height // 2))
    assert isinstance(pixel, tuple)
    return tuple(round(value / 255) for value in pixel)


def test_pictures_are_those_of_the_answers_in_their_order(tmp_path: Path) -> None:
    pdf = str(write_pdf(tmp_path / "a.pdf", ["lime", "blue"]))
    large = paint(tmp_path / "large.png", "white", (3000, 1500))
    small = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(small, "PNG")
    page = show(
        Hit("a", 0.9, pdf, page=2),
        Hit("b", 0.8, large, image=large),
        Hit("c", 0.7, "shard.tar", image="shard.tar#1.png", thumbnail=small.getvalue()),
        Hit("d", 0.6, "texts.jsonl", text="no picture"),
        picture=paint(tmp_path / "query.png", "yellow"),
    )
    assert [centre(picture) for picture in page.pictures] == [(1, 1, 0), (0, 0, 1), (1, 1, 1), (1, 0, 0)]
    assert page.pictures[2].size == (480, 240)
    assert [text for text in page.shown if text.startswith("0.")] == ["0.9000", "0.8000", "0.7000", "0.6000"]


@pytest.mark.parametrize(
    "hit",
    [
        Hit("a", 1.0, "gone.png", image="gone.png"),
        Hit("a", 1.0, "gone.pdf", page=3),
        Hit("a", 1.0, "s3://bucket/gone.png", image="s3://bucket/gone.png"),
        Hit("a", 1.0, "http://example.com/gone.png", image="http://example.com/gone.png"),
        Hit("a", 1.0, "shard.tar", image="gone.png", thumbnail=b"no picture"),
    ],
    ids=lambda hit: hit.source,
)
def test_picture_that_cannot_be_read_shows_its_name(hit: Hit) -> None:
    page = show(hit)
    assert page.pictures == []
    assert ("figure", {"class": "missing"}) in page.elements
    assert any("gone" in text and text not in (hit.source, hit.id) for text in page.shown)


@pytest.mark.parametrize("number", [0, 3])
def test_page_that_a_pdf_does_not_have_is_told(tmp_path: Path, number: int) -> None:
    pdf = str(write_pdf(tmp_path / "a.pdf", ["lime", "blue"]))
    assert "a PDF of 2 pages" in "".join(show(Hit("a", 1.0, pdf, page=number)).shown)


def test_damaged_pdf_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7 nothing")
    assert "not a PDF with pages that can be read" in "".join(
        show(Hit("a", 1.0, str(tmp_path / "a.pdf"), page=1)).shown
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such files here")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pdf")
    assert "not a regular file" in "".join(show(Hit("a", 1.0, str(tmp_path / "a.pdf"), page=1)).shown)


def test_hostile_texts_are_shown_and_change_nothing() -> None:
    plain = Hit("a", 1.0, "b", text="c", image="d", metadata={"e": "f"})
    hostile = Hit(HOSTILE, 1.0, HOSTILE, text=HOSTILE, image=HOSTILE, metadata={HOSTILE: HOSTILE})
    limits = ImageLimits(local_files=False, remote_images=False)
    page = Page(render(HOSTILE, None, [HOSTILE], [hostile], limits))
    elements = Page(render("q", None, ["n"], [plain], limits)).elements
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in elements]
    assert [sorted(attributes) for _, attributes in page.elements] == [sorted(attributes) for _, attributes in elements]
    shown = HOSTILE.replace("\x1b", r"\x1b").replace("\u202e", r"\u202e").replace("\ud800", r"\ud800")
    assert page.shown.count(shown) >= 5
    "".join(page.shown).encode()


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    picture = paint(tmp_path / "a.png", "red")
    page = show(Hit("a", 1.0, picture, image=picture), Hit("b", 1.0, "http://example.com/b.png", text="http://c.com"))
    links = [value for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")]
    assert len(links) == 1
    assert (links[0] or "").startswith("data:image/jpeg;base64,")
    assert base64.b64decode((links[0] or "").partition(",")[2])
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.elements}


def test_pictures_on_the_web_are_fetched_within_the_limits(server: Server) -> None:
    url = server.url("/a.png")
    shown = show(Hit("a", 1.0, url, image=url), limits=ImageLimits(allow_private_hosts=True))
    assert len(shown.pictures) == 1
    assert show(Hit("a", 1.0, url, image=url), limits=ImageLimits()).pictures == []


def test_long_texts_are_cut() -> None:
    page = show(Hit("a", 1.0, "b", text="word " * 5000, metadata={"c": "d" * 5000}))
    assert max(map(len, page.shown[3:])) <= 4000
    assert any(text.endswith("…") for text in page.shown)


def test_no_answers_are_told() -> None:
    assert "Nothing was found." in show().shown
