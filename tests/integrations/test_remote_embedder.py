"""The model of a server, as its client has it: the vectors of ``encode``, whatever happens on the way, or an error."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import logging
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fastapi import FastAPI
from PIL import Image

from st_modules import (
    ImageError,
    ImageLimits,
    ImageSource,
    InputError,
    MissingExtraError,
    RemoteEmbedder,
    SentenceTransformer,
    ServerError,
)
from st_modules.inputs.image_conversion import flatten_on_white, to_rgb
from st_modules.inputs.items import Item
from st_modules.integrations import remote_bodies, remote_embedder, remote_server
from st_modules.integrations.remote_bodies import Bodies
from st_modules.serve import ServeLimits, create_app
from tests.helpers.gallery import CAPTIONS, CHANGE, Gallery
from tests.helpers.loopback import Server
from tests.helpers.paths import ROOT
from tests.helpers.references import TOLERANCE, load_once
from tests.helpers.remote import Front, answers, hangs_up, listen, stand_before
from tests.helpers.videos import random_frames, write_video

KEY = "a key of the tests"
TEXTS = [{"text": f"{caption}, number {number}"} for number in range(4) for caption in CAPTIONS]


@pytest.fixture(scope="module")
def remote(tiny_url: str) -> RemoteEmbedder:
    return RemoteEmbedder(tiny_url)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_server, "_backoff", lambda state: 0.0)


@pytest.fixture
def front(tiny: SentenceTransformer) -> Iterator[Front]:
    """A server that asks for a key, before which another answers what a test tells it to."""
    with stand_before(create_app(tiny, api_key=KEY)) as front:
        yield front


def connect(front: Front, **arguments: Any) -> RemoteEmbedder:
    return RemoteEmbedder(front.url, **{"api_key": KEY, **arguments})


def same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=TOLERANCE)


def noise(mode: str = "RGB", size: tuple[int, int] = (61, 47)) -> Image.Image:
    """A picture in which every pixel counts, of a mode that Pillow has."""
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 4), dtype=np.uint8)
    picture = Image.fromarray(values, "RGBA")
    if mode == "I;16":
        return Image.fromarray(values[..., 0].astype(np.uint16) * 3)
    if mode == "PA":
        return picture.convert("RGB").convert("P").convert("PA")
    if mode in ("CMYK", "YCbCr", "HSV", "RGBX", "P", "1", "L"):
        return picture.convert("RGB").convert(mode)
    return picture.convert(mode)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[274] = 6
    return encoded(noise(), "JPEG", exif=exif)


MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "I;16"]
FILES: dict[str, Callable[[], bytes]] = {
    "PNG": lambda: encoded(noise(), "PNG"),
    "PNG with a palette": lambda: encoded(noise("P"), "PNG", transparency=7),
    "PNG with alpha": lambda: encoded(noise("RGBA"), "PNG"),
    "PNG of 16 bits": lambda: encoded(noise("I;16"), "PNG"),
    "JPEG": lambda: encoded(noise(), "JPEG"),
    "JPEG that is to be turned": rotated,
    "JPEG of four inks": lambda: encoded(noise("CMYK"), "JPEG"),
    "GIF": lambda: encoded(noise("P"), "GIF"),
    "WebP": lambda: encoded(noise("RGBA"), "WEBP"),
    "BMP": lambda: encoded(noise(), "BMP"),
    "TIFF": lambda: encoded(noise("CMYK"), "TIFF"),
    "PPM": lambda: encoded(noise(), "PPM"),
    "AVIF": lambda: encoded(noise(), "AVIF"),
}


def pictures(folder: Path) -> dict[str, Any]:
    """Pictures of every kind, in files, as bytes, and in memory."""
    for number, name in enumerate(FILES):
        (folder / str(number)).write_bytes(FILES[name]())
    values = np.asarray(noise())
    return {
        **{name: folder / str(number) for number, name in enumerate(FILES)},
        **{f"bytes of {name}": FILES[name]() for name in ("PNG with a palette", "TIFF")},
        **{f"in memory, {mode}": noise(mode) for mode in MODES},
        "in memory, transparent colour": with_info(noise("RGB"), transparency=(1, 2, 3)),
        "in memory, odd metadata": with_info(noise("RGB"), icc_profile=3, dpi="none", exif=[]),
        "array": values,
        "grey array": values[..., 0].copy(),
        "tensor": torch.from_numpy(values.copy()).permute(2, 0, 1),
        "stream": io.BytesIO(FILES["JPEG"]()),
    }


def with_info(picture: Image.Image, **info: Any) -> Image.Image:
    picture.info.update(info)
    return picture


def test_pictures_of_every_kind_have_the_vectors_of_encode(
    remote: RemoteEmbedder, tiny: SentenceTransformer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    items = [{"image": picture} for picture in pictures(tmp_path).values()]
    expected = tiny.encode_document(items)
    told = [record.getMessage() for record in caplog.records]
    caplog.clear()
    same(remote.encode(items, "document", batch_size=7), expected)
    # What becomes of 16 bits is told here too, and not in the server alone.
    assert len(told) == 2
    assert set(told) <= {record.getMessage() for record in caplog.records}


@pytest.mark.parametrize("convert", [to_rgb, flatten_on_white])
def test_the_file_of_a_picture_has_its_pixels(tmp_path: Path, convert: Callable[[Image.Image], Image.Image]) -> None:
    for name, picture in pictures(tmp_path).items():
        source = ImageSource(picture)
        again = convert(ImageSource(source.file_bytes()).load())
        np.testing.assert_array_equal(np.asarray(again), np.asarray(convert(source.load())), err_msg=name)


def test_files_are_sent_byte_for_byte(front: Front, gallery: Gallery) -> None:
    connect(front).embed([{"image": gallery.paths[0], "text": "a"}], "document")
    (item,) = json.loads(front.bodies[0])["input"]
    assert item == {"text": "a", "image": f"data:image/*;base64,{gallery.base64(0)}"}


async def test_images_on_the_web_are_fetched_here_and_sent(
    tiny: SentenceTransformer, tiny_url: str, gallery: Gallery, server: Server
) -> None:
    server.routes["/a.png"] = lambda handler: handler.answer(gallery.paths[0].read_bytes())
    items = [{"image": server.url()}, {"image": [server.url()], "text": "a"}]
    local = {"image": gallery.paths[0]}
    expected = tiny.encode_document([local, {**local, "text": "a"}])
    remote = RemoteEmbedder(tiny_url, allow_private_hosts=True)
    same(remote.encode(items, "document"), expected)
    same(await remote.aencode(items, "document"), expected)
    assert len(server.requests) == 4
    closed: list[dict[str, Any]] = [{"image_limits": ImageLimits(remote_images=False)}, {"remote_images": False}, {}]
    for limits in closed:
        with pytest.raises(ImageError, match="item 0: .*(remote_images=False|not public)"):
            RemoteEmbedder(tiny_url, **limits).embed(items, "document")
    assert len(server.requests) == 4


@pytest.mark.parametrize("side", ["query", "document"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"prompt": CHANGE},
        {"prompt": ""},
        {"prompt_name": "t2i"},
        {"prompt_name": "query"},
        {"truncate_dim": 5},
        {"truncate_dim": 5, "normalize_embeddings": True},
        {"normalize_embeddings": False, "batch_size": 2, "show_progress_bar": None},
    ],
    ids=str,
)
async def test_options_mean_what_they_mean_to_encode(
    remote: RemoteEmbedder, tiny: SentenceTransformer, side: Any, options: dict[str, Any]
) -> None:
    encode = tiny.encode_query if side == "query" else tiny.encode_document
    expected = encode(TEXTS, **options)
    found = remote.encode(TEXTS, side, **options)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    same(found, expected)
    same(await remote.aencode(TEXTS, side, **options), expected)


@pytest.mark.parametrize("options", [{"prompt_name": "sts"}, {"precision": "int8"}, {"device": "cpu"}], ids=str)
def test_options_that_a_server_does_not_have_are_refused_by_name(
    remote: RemoteEmbedder, options: dict[str, Any]
) -> None:
    for refuse in (remote.check_options, lambda each: remote.encode(TEXTS, "query", **each)):
        with pytest.raises(ValueError, match=next(iter(options))):
            refuse(options)


@pytest.mark.parametrize("side", ["query", "document"])
def test_an_item_has_an_instruction_of_its_own(remote: RemoteEmbedder, tiny: SentenceTransformer, side: Any) -> None:
    def ask(text: str, *system: str) -> list[dict[str, str]]:
        return [*({"role": "system", "content": each} for each in system), {"role": "user", "content": text}]

    items = [ask("a"), ask("b", CHANGE), ask("c", CHANGE), ask("d", "Find."), {"text": "e"}, ask("f", "")]
    encode = tiny.encode_query if side == "query" else tiny.encode_document
    same(remote.encode(items, side), encode(items))
    same(remote.encode(items, side, prompt="Find an image."), encode(items, prompt="Find an image."))


async def test_what_is_too_long_is_cut_and_told_once(
    remote: RemoteEmbedder, tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    items = [{"text": "a red circle " * 500}, *TEXTS, {"text": "two green stars " * 500}]
    expected = tiny.encode_document(items)
    (told,) = [record.getMessage() for record in caplog.records]
    caplog.clear()
    same(remote.encode(items, "document", batch_size=3), expected)
    same(await remote.aencode(items, "document", batch_size=3), expected)
    assert [record.getMessage() for record in caplog.records] == [told, told]


def test_what_the_server_says_of_its_model(remote: RemoteEmbedder, tiny: SentenceTransformer) -> None:
    assert (remote.name, remote.dimension, remote.takes_video) == ("tiny", 128, False)
    assert [remote.reads_instruction(side) for side in ("query", "document")] == [True, False]
    with pytest.raises(ValueError, match="no instruction on the document side"):
        remote.check_instruction("document", "Find.")
    assert remote.image_limits == ImageLimits()


# Many items


@pytest.mark.parametrize("batch_size", [1, 7, 20, 100])
async def test_many_items_go_in_several_requests_and_come_back_in_order(
    front: Front, tiny: SentenceTransformer, gallery: Gallery, batch_size: int
) -> None:
    items = [*TEXTS[:10], *({"image": path} for path in gallery.paths), *TEXTS[10:]]
    expected = tiny.encode_document(items)
    remote = connect(front)
    same(remote.encode(items, "document", batch_size=batch_size), expected)
    assert sorted(counts(front)) == sorted(divided(len(items), batch_size))
    front.bodies.clear()
    same(await remote.aencode(items, "document", batch_size=batch_size), expected)
    assert sorted(counts(front)) == sorted(divided(len(items), batch_size))


def counts(front: Front) -> list[int]:
    return [len(json.loads(body)["input"]) for body in front.bodies]


def divided(count: int, size: int) -> list[int]:
    return [min(size, count - start) for start in range(0, count, size)]


def test_no_request_is_over_the_limits_that_the_server_tells(tiny: SentenceTransformer, gallery: Gallery) -> None:
    items = [*({"image": path, "text": "é"} for path in gallery.paths), *TEXTS]
    most = 2 * max(path.stat().st_size for path in gallery.paths) + 1000
    with stand_before(create_app(tiny, limits=ServeLimits(max_items=6, max_body_bytes=most))) as front:
        remote = RemoteEmbedder(front.url)
        same(remote.encode(items, "document", batch_size=100), tiny.encode_document(items))
        assert max(map(len, front.bodies)) <= most
        assert max(counts(front)) == 6
        front.bodies.clear()
        with pytest.raises(InputError, match=rf"item 2: \d+ bytes as it is sent are over the server's limit of {most}"):
            remote.embed([*TEXTS[:2], {"image": noise(size=(200, 200))}, *TEXTS], "document")
        found, (error,) = remote.embed_valid([*TEXTS[:2], {"text": "a" * most}, *TEXTS], "document")
        assert (error.index, [each is None for each in found].index(True)) == (2, 2)


async def test_what_is_too_much_for_the_server_is_sent_in_halves(tiny: SentenceTransformer) -> None:
    long = {"text": "a red circle " * 100}
    with stand_before(create_app(tiny, limits=ServeLimits(max_tokens=150))) as front:
        remote = RemoteEmbedder(front.url)
        same(remote.encode(TEXTS, "document"), tiny.encode_document(TEXTS))
        assert counts(front)[:2] == [20, 10]
        same(await remote.aencode(TEXTS, "document"), tiny.encode_document(TEXTS))
        with pytest.raises(InputError, match=r"item 13: too much for the server: \d+ tokens are over the limit of 150"):
            remote.embed([*TEXTS[:13], long, *TEXTS], "document")
        found, errors = remote.embed_valid([long, *TEXTS, long], "document")
        assert [error.index for error in errors] == [0, 21]
        same([each for each in found if each is not None], tiny.encode_document(TEXTS))


@pytest.mark.parametrize("status", [413, 504])
def test_those_that_follow_what_was_too_much_are_sent_in_smaller_requests(
    front: Front, tiny: SentenceTransformer, status: int
) -> None:
    front.actions.append(answers(status))
    same(connect(front).encode(TEXTS, "document", batch_size=4), tiny.encode_document(TEXTS))
    # Those that are sent already, and one that is prepared.
    assert counts(front).count(4) <= 4


def test_what_is_prepared_ahead_is_little(gallery: Gallery) -> None:
    made: list[int] = []

    class Counted(ImageSource):
        def file_bytes(self) -> bytes:
            made.append(1)
            return super().file_bytes()

    items = [Item(None, (Counted(gallery.paths[0]),), None, index) for index in range(100)]
    held = [weakref.ref(item) for item in items]
    bodies = iter(Bodies(items, lambda instruction: b"[", 10, 10**6))
    del items
    assert [len(next(bodies).items) for _ in range(5)] == [10] * 5
    assert len(made) < 70
    assert sum(item() is not None for item in held) < 70
    assert sum(len(body.items) for body in bodies) == 50


# What goes wrong


def test_an_error_names_the_item_in_the_callers_list_as_encode_does(
    front: Front, tiny: SentenceTransformer, gallery: Gallery, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(gallery.paths[0].read_bytes()[:-40])
    for bad in ({"image": damaged}, {"image": noise("F")}, {"text": "a", "image": [gallery.paths[0], damaged]}):
        items = [*TEXTS[:9], bad, *TEXTS]
        with pytest.raises(InputError) as expected:
            tiny.encode_document(items)
        with pytest.raises(InputError) as found:
            connect(front).embed(items, "document", batch_size=4)
        assert (str(found.value), found.value.place) == (str(expected.value), expected.value.place)
        assert type(found.value) is type(expected.value)


def test_what_only_the_server_refuses_is_in_its_words(tiny: SentenceTransformer, gallery: Gallery) -> None:
    limits = ImageLimits(max_pixels=100)
    with listen(create_app(tiny, image_limits=limits)) as url:
        remote = RemoteEmbedder(url)
        with pytest.raises(InputError, match=r"^item 2: data URI .* over the limit of 100") as found:
            remote.embed([*TEXTS[:2], {"image": gallery.paths[0]}], "document")
        assert found.value.index == 2
        with pytest.raises(InputError, match=r"^item 0, image 1: data URI") as found:
            remote.embed([{"image": [Image.new("RGB", (5, 5)), gallery.paths[0]]}], "document")
        assert found.value.index == 0


@pytest.mark.parametrize("trouble", [answers(429), answers(429, Retry_After="0"), answers(502), answers(503), hangs_up])
async def test_a_request_is_repeated_until_it_is_answered(
    front: Front, tiny: SentenceTransformer, trouble: Callable[[Any], object]
) -> None:
    remote = connect(front, max_retries=3)
    front.actions.extend([trouble] * 3)
    same(remote.encode(TEXTS, "query"), tiny.encode_query(TEXTS))
    assert len(front.bodies) == 4
    front.actions.extend([trouble] * 3)
    same(await remote.aencode(TEXTS, "query"), tiny.encode_query(TEXTS))
    assert len(front.bodies) == 8
    front.actions.extend([trouble] * 8)
    with pytest.raises(ServerError, match=front.url):
        remote.encode(TEXTS, "query")
    with pytest.raises(ServerError, match=front.url):
        await remote.aencode(TEXTS, "query")
    assert len(front.bodies) == 16


def test_an_item_that_takes_too_long_by_itself_is_tried_again(front: Front, tiny: SentenceTransformer) -> None:
    front.actions.extend([answers(504)] * 2)
    same(connect(front).encode(TEXTS[:1], "query"), tiny.encode_query(TEXTS[:1]))
    assert counts(front) == [1, 1, 1]


async def test_a_server_that_hangs_is_waited_for_once(front: Front) -> None:
    done = threading.Event()
    front.actions.extend([lambda handler: done.wait(30)] * 2)
    try:
        remote = connect(front, timeout=2)
        with pytest.raises(ServerError, match=r"not answered within 2 s; raise timeout"):
            remote.encode(TEXTS[:2], "query")
        with pytest.raises(ServerError, match=r"not answered within 2 s"):
            await remote.aencode(TEXTS[:2], "query")
        assert counts(front) == [2, 2]
    finally:
        done.set()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ({}, 0),
        ({"Retry_After": "7"}, 7),
        ({"Retry_After": "100000"}, 60),
        ({"Retry_After": "soon"}, 0),
        ({"Retry_After": "9" * 400}, 0),
    ],
)
def test_the_wait_is_as_long_as_the_server_asks_for_within_bounds(
    front: Front, monkeypatch: pytest.MonkeyPatch, said: dict[str, Any], seconds: float
) -> None:
    waits: list[float] = []
    wait = remote_server._wait
    monkeypatch.setattr(remote_server, "_wait", lambda state: waits.append(wait(state)) or 0.0)
    front.actions.append(answers(429, **said))
    connect(front).encode(TEXTS[:1], "query")
    assert waits == [seconds]


def test_waits_grow(monkeypatch: pytest.MonkeyPatch, front: Front) -> None:
    monkeypatch.undo()
    waits: list[float] = []
    wait = remote_server._wait
    monkeypatch.setattr(remote_server, "_wait", lambda state: waits.append(wait(state)) or 0.0)
    front.actions.extend([hangs_up] * 7)
    connect(front, max_retries=7).encode(TEXTS[:1], "query")
    for number, found in enumerate(waits):
        assert min(0.5 * 2**number, 8) <= found <= min(0.5 * 2**number, 8) + 0.5


@pytest.mark.parametrize("key", ["another key", None])
def test_another_key_and_none_are_refused_where_the_client_is_made(front: Front, key: str | None) -> None:
    with pytest.raises(ServerError, match=rf"{front.url}: .*pass its own as api_key") as caught:
        connect(front, api_key=key)
    assert key is None or key not in str(caught.value)


async def test_no_error_has_the_key(front: Front) -> None:
    remote = connect(front)
    echo = answers(500, json.dumps({"error": {"message": f"Bearer {KEY}"}}).encode())
    front.actions.extend([echo] * 2)
    for error in (
        pytest.raises(ServerError, remote.encode, TEXTS, "query"),
        pytest.raises(ServerError, remote.encode, TEXTS, "query"),
    ):
        assert KEY not in str(error.value)
        assert "Bearer ***" in str(error.value)
    assert KEY not in repr(remote)


def test_redirects_are_not_followed(front: Front, server: Server) -> None:
    remote = connect(front)
    front.actions.append(answers(307, Location=server.url()))
    with pytest.raises(ServerError, match="redirects"):
        remote.encode(TEXTS, "query")
    assert server.requests == []


DATA = {"object": "list", "model": "tiny", "truncated": 0, "fingerprint": "PRINT"}
ZERO = "A" * 684
NONSENSE = {
    "no JSON": b"<html>",
    "another model": json.dumps({**DATA, "model": "gme-2b", "data": []}),
    "other weights": json.dumps({**DATA, "fingerprint": "0" * 32, "data": []}),
    "no number": json.dumps({**DATA, "truncated": float("inf"), "data": []}),
    "no vectors": json.dumps({**DATA, "data": []}),
    "too few": json.dumps({**DATA, "data": [{"index": 0, "embedding": ZERO}]}),
    "one twice": json.dumps({**DATA, "data": [{"index": 0, "embedding": ZERO}] * 2}),
    "too many": json.dumps({**DATA, "data": [{"index": index, "embedding": ZERO} for index in range(3)]}),
    "another dimension": json.dumps({**DATA, "data": [{"index": index, "embedding": "AAAA" * 4} for index in (0, 1)]}),
    "one number": json.dumps({**DATA, "data": [{"index": index, "embedding": "AACAPw=="} for index in (0, 1)]}),
    "floats": json.dumps({**DATA, "data": [{"index": index, "embedding": [0.0] * 128} for index in (0, 1)]}),
    "no numbers": json.dumps({**DATA, "data": [{"index": index, "embedding": "////" * 171} for index in (0, 1)]}),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_an_answer_that_is_none_is_an_error(front: Front, kind: str) -> None:
    body = NONSENSE[kind]
    remote = connect(front)
    body = body if isinstance(body, bytes) else body.replace("PRINT", remote._model.fingerprint).encode()
    front.actions.append(answers(200, body))
    with pytest.raises(ServerError, match=front.url):
        remote.encode(TEXTS[:2], "query")


def test_an_answer_is_read_no_further_than_it_can_be_long(front: Front) -> None:
    front.actions.append(answers(200, b" " * 10**6))
    with pytest.raises(ServerError, match=r"its answer is over \d+ bytes"):
        connect(front).encode(TEXTS[:2], "query")


async def test_an_answer_that_drips_is_waited_for_no_longer_than_any(front: Front) -> None:
    def drip(handler: Any) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:  # until the client has left
            handler.wfile.write(b" ")
            done.wait(0.01)

    done = threading.Event()
    remote = connect(front, timeout=2)
    front.actions.extend([drip] * 2)
    with pytest.raises(ServerError, match=r"not answered within 2 s"):
        remote.encode(TEXTS[:1], "query")
    with pytest.raises(ServerError, match=r"not answered within 2 s"):
        await remote.aencode(TEXTS[:1], "query")


def test_where_no_server_is_the_url_is_named(server: Server, tiny_url: str) -> None:
    with listen(FastAPI()) as gone, pytest.raises(ServerError, match=f"{gone}: no server of st-modules serve"):
        RemoteEmbedder(gone)
    with pytest.raises(ServerError, match=rf"{gone}: the server cannot be reached after 2 tries"):
        RemoteEmbedder(gone, max_retries=1)
    server.routes["/v1/models"] = lambda handler: handler.answer(b'{"data": [{"id": "gpt"}]}')
    with pytest.raises(ServerError, match="no server of st-modules serve is there"):
        RemoteEmbedder(server.url(""))
    server.routes["/v1/models"] = lambda handler: handler.answer(b"not here", 404)
    with pytest.raises(ServerError, match="no server of st-modules serve is there"):
        RemoteEmbedder(server.url("/v1/"))
    with pytest.raises(ServerError, match=f"{tiny_url} has the model 'tiny', and not 'gme-2b'"):
        RemoteEmbedder(tiny_url, "gme-2b")


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_url_is_taken_with_and_without_its_end(tiny_url: str, end: str) -> None:
    assert len(RemoteEmbedder(tiny_url + end).embed(TEXTS[:1], "query")) == 1


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"base_url": "127.0.0.1:8000"}, "pass the server's address"),
        ({"base_url": "ftp://a"}, "pass the server's address"),
        ({"base_url": "http://a:b"}, "pass the server's address"),
        ({"base_url": "http://a/?b"}, "pass the server's address"),
        ({"base_url": "http://user:secret@a"}, "^(?!.*secret).*pass the key as api_key"),
        ({"base_url": None}, "pass the server's address"),
        ({"base_url": "http://a\x00"}, "pass the server's address"),
        ({"base_url": "http://a b"}, "pass the server's address"),
        ({"api_key": ""}, "api_key is empty"),
        ({"api_key": "a\nb"}, "api_key"),
        ({"timeout": 0}, "timeout"),
        ({"max_retries": -1}, "max_retries"),
        ({"weights": "a", "device": "cpu"}, "device, weights: the model is loaded by the server"),
        ({"model": 3}, "model: the model is loaded by the server"),
        ({"image_limits": 3}, "image_limits"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        RemoteEmbedder(**{"base_url": "http://127.0.0.1:9", **arguments})


def test_a_server_with_another_model_than_before_is_noticed(tiny: SentenceTransformer) -> None:
    app = create_app(tiny)
    with stand_before(app) as front:
        remote = RemoteEmbedder(front.url)
        app.state.name = "another"
        with pytest.raises(ServerError, match="has the model 'another' now, and had 'tiny'"):
            remote.embed(TEXTS, "query")


def test_a_server_with_other_weights_of_the_same_name_is_noticed(tiny: SentenceTransformer) -> None:
    app = create_app(tiny)
    with stand_before(app) as front:
        remote = RemoteEmbedder(front.url)
        app.state.service.fingerprint = "0" * 32
        with pytest.raises(ServerError, match="has other weights now, and had 'tiny'"):
            remote.embed(TEXTS, "query")


def test_blanks_around_an_address_and_a_key_do_not_count(tiny: SentenceTransformer) -> None:
    with stand_before(create_app(tiny, api_key=" sesame\n")) as front:
        same(RemoteEmbedder(f" {front.url}/\n", api_key="sesame ").encode(TEXTS, "query"), tiny.encode_query(TEXTS))


# Event loops, threads, processes


async def test_a_query_needs_no_thread(remote: RemoteEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "to_thread", lambda *_: pytest.fail("a thread"))
    monkeypatch.setattr(remote_bodies, "_threads", None)
    monkeypatch.setattr(remote_embedder, "ThreadPoolExecutor", None)
    found = await asyncio.gather(*(remote.aembed([item], "query") for item in TEXTS))
    monkeypatch.undo()
    same([vector for (vector,) in found], remote.encode(TEXTS, "query"))


def test_event_loops_follow_each_other_and_end_as_they_like(remote: RemoteEmbedder) -> None:
    expected = remote.encode(TEXTS, "query")
    for _ in range(2):
        same(asyncio.run(remote.aencode(TEXTS, "query", batch_size=3)), expected)
        loop = asyncio.new_event_loop()
        same(loop.run_until_complete(remote.aencode(TEXTS, "query", batch_size=3)), expected)
        loop.close()
        del loop
    gc.collect()  # connections that were left open would be told
    assert not remote._server._shared


async def test_a_call_that_is_cancelled_leaves_others_alone(remote: RemoteEmbedder) -> None:
    calls = [asyncio.create_task(remote.aencode(TEXTS, "query", batch_size=3)) for _ in range(3)]
    await asyncio.sleep(0)
    calls[1].cancel()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found.pop(1), asyncio.CancelledError)
    expected = remote.encode(TEXTS, "query")
    same(found, [expected, expected])


def test_a_process_that_was_forked_off_has_connections_of_its_own(
    tiny_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = RemoteEmbedder(tiny_url)
    client = remote._server._client
    remote.embed(TEXTS[:1], "query")
    assert remote._server._client is client
    monkeypatch.setattr(remote_server.os, "getpid", lambda: -1)
    remote.embed(TEXTS[:1], "query")
    assert remote._server._client is not client


PROGRAM = """
import sys
from {package} import {name}
embeddings = {name}(base_url={url!r})
assert len(embeddings.{method}("a red circle")) == 128
print(sorted({{"torch", "transformers", "sentence_transformers"}} & set(sys.modules)))
"""


@pytest.mark.parametrize(
    ("package", "name", "method"),
    [("langchain_gme", "GMEEmbeddings", "embed_query"), ("llamaindex_gme", "GMEEmbedding", "get_query_embedding")],
)
def test_the_adapters_import_no_torch(tiny_url: str, package: str, name: str, method: str) -> None:
    program = PROGRAM.format(package=package, name=name, method=method, url=tiny_url)
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (shown.stdout, shown.returncode) == ("[]\n", 0), shown.stderr


@pytest.mark.parametrize("package", ["httpx", "tenacity"])
def test_without_what_the_extra_brings_it_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    import st_modules

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(MissingExtraError, match=rf'This needs {package}: pip install "st-modules\[client\]"'):
        _ = st_modules.RemoteEmbedder


# Videos


def test_videos_are_sent_as_frames_and_as_files(tmp_path: Path) -> None:
    pytest.importorskip("av")
    model = load_once("vlm2vec-v2", "sdpa")
    frames = random_frames(9)
    path = tmp_path / "a.mkv"
    path.write_bytes(write_video(frames))
    pictures = [Image.fromarray(frame) if isinstance(frame, np.ndarray) else frame for frame in frames]
    items: list[Any] = [{"video": path}, {"video": path.read_bytes(), "text": "a"}, {"video": pictures}]
    items += [{"video": np.stack([np.asarray(each) for each in pictures])}, {"video": pictures[:1], "text": "a"}]
    with listen(create_app(model)) as url:
        remote = RemoteEmbedder(url)
        assert remote.takes_video
        same(remote.encode(items, "document"), model.encode_document(items))
        found, errors = remote.embed_valid(
            [items[0], {"video": "missing.mkv"}, {"video": [frames[0], "x.png"]}], "query"
        )
        assert [each is None for each in found] == [False, True, True]
        assert [error.index for error in errors] == [1, 2]


def test_a_model_of_pictures_refuses_videos_here(remote: RemoteEmbedder, tiny: SentenceTransformer) -> None:
    for embed in (tiny.encode_document, lambda items: remote.encode(items, "document")):
        with pytest.raises(InputError, match="item 1: this model takes no video"):
            embed([*TEXTS[:1], {"video": [noise()]}])


def test_what_is_logged_has_no_word_of_requests(remote: RemoteEmbedder, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        remote.embed(TEXTS, "query")
    assert caplog.records == []
