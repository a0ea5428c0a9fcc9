"""What is found, as a chat model is told of it."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from PIL import Image

from langchain_gme import to_content_blocks
from st_modules import ImageError, ImageLimits, InputError
from tests.helpers.gallery import Gallery

URL = "https://example.com/picture.png"


def block(path: Path) -> dict[str, str]:
    return {"type": "image", "base64": base64.b64encode(path.read_bytes()).decode(), "mime_type": "image/png"}


def text(words: str) -> dict[str, str]:
    return {"type": "text", "text": words}


def test_each_document_is_its_text_and_its_images_in_order(gallery: Gallery) -> None:
    first, second, third, *_ = gallery.paths
    documents = [
        Document("a page", metadata={"image": str(first), "page": 7}),
        Document("", metadata={"image_path": second}),
        Document("words alone", metadata={"source": str(third)}),
        Document("two", metadata={"image": json.dumps([third.as_uri(), URL])}),
        Document("", metadata={"image_url": {"url": URL}}),
        Document(""),
    ]
    on_the_web = {"type": "image", "url": URL}
    expected = [
        text("a page"),
        block(first),
        block(second),
        text("words alone"),
        text("two"),
        block(third),
        on_the_web,
        on_the_web,
    ]
    assert to_content_blocks(documents) == expected
    assert HumanMessage([text("What?"), *to_content_blocks(documents)]).content_blocks == [text("What?"), *expected]
    assert to_content_blocks([]) == []


def test_data_uris_and_images_in_memory_become_base64(gallery: Gallery) -> None:
    path = gallery.query
    for value in (path.read_bytes(), f"data:image/x;base64,{block(path)['base64']}", {"path": str(path)}):
        assert to_content_blocks([Document("", metadata={"image": value})]) == [block(path)]
    pixels = np.asarray(Image.open(path).convert("RGB"))
    for image in (Image.open(path), pixels):
        (found,) = to_content_blocks([Document("", metadata={"image": image})])
        assert found["mime_type"] == "image/png"
        shown = Image.open(io.BytesIO(base64.b64decode(found["base64"]))).convert("RGB")
        np.testing.assert_array_equal(np.asarray(shown), pixels)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [("jpg", "image/jpeg"), ("gif", "image/gif"), ("webp", "image/webp"), ("tif", "image/png"), ("bmp", "image/png")],
)
def test_the_media_type_is_that_of_the_bytes(gallery: Gallery, tmp_path: Path, suffix: str, kind: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.open(gallery.query).convert("RGB").save(path)
    misnamed = path.rename(tmp_path / "picture.png")
    (found,) = to_content_blocks([Document("", metadata={"image": str(misnamed)})])
    assert found["mime_type"] == kind
    assert (base64.b64decode(found["base64"]) == misnamed.read_bytes()) == (kind != "image/png")


@pytest.mark.parametrize(
    ("image", "limits", "problem"),
    [
        ("none.png", None, r"documents\[1\]: none\.png: no such file"),
        (["{good}", "none.png"], None, r"documents\[1\], image 1: none\.png: no such file"),
        ("{damaged}", None, r"documents\[1\]: .*damaged\.png: damaged or not readable"),
        ("{good}", ImageLimits(max_bytes=10), r"documents\[1\]: .*bytes are over the limit of 10"),
        ("{good}", ImageLimits(max_pixels=10), r"documents\[1\]: .*pixels are over the limit of 10"),
        ("/dev/zero", None, r"documents\[1\]: /dev/zero: not a regular file"),
        ("gs://bucket/a.png", None, r"documents\[1\]: gs://bucket/a\.png: gs:// is not fetched"),
        (3, None, r"documents\[1\]: .*not an image"),
    ],
)
def test_an_image_that_cannot_be_read_names_its_document(
    gallery: Gallery, tmp_path: Path, image: Any, limits: ImageLimits | None, problem: str
) -> None:
    (tmp_path / "damaged.png").write_bytes(gallery.query.read_bytes()[:200])
    names = {"{good}": str(gallery.query), "{damaged}": str(tmp_path / "damaged.png")}
    filled = [names.get(each, each) for each in image] if isinstance(image, list) else names.get(image, image)
    with pytest.raises(ImageError, match=problem) as caught:
        to_content_blocks([Document("a"), Document("b", metadata={"image": filled})], limits)
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("documents", "problem"),
    [
        (["a"], r"documents\[0\]: of type str; pass a Document"),
        (Document("a"), r"documents: of type Document; pass a list, for a single one as \[document\]"),
        ([Document("a", metadata={"image": {"colour": "red"}})], r"documents\[0\]: unknown keys"),
    ],
)
def test_what_is_no_document_is_refused(documents: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        to_content_blocks(documents)
