"""What strangers send: never a file, never an address that is not public, never an error of the server's."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from st_modules import ImageLimits, SentenceTransformer
from st_modules.serve import ServeLimits, create_app
from tests.helpers.loopback import Server
from tests.helpers.serving import DASHSCOPE, OPENSEARCH, as_uri, data_uri, picture

JSON = {"Content-Type": "application/json"}
PATHS = ("/v1/embeddings", "/v2/embed", "/embed", DASHSCOPE, OPENSEARCH)
EVERY_API = pytest.mark.parametrize("path", PATHS)


def bodies_of_image(image: Any) -> dict[str, Any]:
    """Every way to name an image."""
    part = {"type": "image_url", "image_url": {"url": image}}
    return {
        "Jina": ("/v1/embeddings", {"input": [{"image": image}]}),
        "infinity": ("/v1/embeddings", {"input": image, "modality": "image"}),
        "vLLM, by URL": ("/v1/embeddings", {"messages": [{"role": "user", "content": [part]}]}),
        "vLLM, flat": (
            "/v1/embeddings",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]},
        ),
        "a part": ("/v1/embeddings", {"messages": [{"role": "user", "content": [{"type": "image", "image": image}]}]}),
        "a path": ("/v1/embeddings", {"messages": [{"role": "user", "content": [{"type": "image", "path": image}]}]}),
        "a frame": (
            "/v1/embeddings",
            {"messages": [{"role": "user", "content": [{"type": "video", "video": [image]}]}]},
        ),
        "undecoded": (
            "/v1/embeddings",
            {"messages": [{"role": "user", "content": [{"type": "image", "image": {"bytes": None, "path": image}}]}]},
        ),
        "Cohere's images": ("/v2/embed", {"input_type": "image", "images": [image]}),
        "Cohere's inputs": ("/v2/embed", {"input_type": "image", "inputs": [{"content": [part]}]}),
        "TEI": ("/embed", {"inputs": {"image": image}}),
        "DashScope": (DASHSCOPE, {"input": {"contents": [{"image": image}]}}),
        "several of DashScope": (DASHSCOPE, {"input": {"contents": [{"multi_images": [image]}]}}),
        "OpenSearch": (OPENSEARCH, {"input": [{"image": image}]}),
    }


WAYS = pytest.mark.parametrize("way", bodies_of_image(""))


@WAYS
def test_a_file_is_not_opened_whichever_way_it_is_named(client: TestClient, tmp_path: Path, way: str) -> None:
    path = tmp_path / "a.png"
    picture().save(path)
    for there, nowhere in ((str(path), str(tmp_path / "b.png")), (path.as_uri(), (tmp_path / "b.png").as_uri())):
        answers = [
            client.post(target, json=body) for target, body in (bodies_of_image(each)[way] for each in (there, nowhere))
        ]
        assert [answer.status_code // 100 for answer in answers] == [4, 4]
        messages = [without_ids(answer) for answer in answers]
        assert messages[0] == messages[1].replace("b.png", "a.png")


def without_ids(answer: Any) -> str:
    return json.dumps({key: value for key, value in answer.json().items() if key not in ("id", "request_id")})


@WAYS
@pytest.mark.parametrize("allowed", [False, True], ids=["turned off", "allowed"])
def test_an_address_that_is_not_public_is_not_asked(
    tiny: SentenceTransformer, server: Server, way: str, allowed: bool
) -> None:
    client = TestClient(create_app(tiny, allow_remote_images=allowed))
    path, body = bodies_of_image(server.url())[way]
    assert client.post(path, json=body).status_code // 100 == 4
    assert server.requests == []


def allow_all(tiny: SentenceTransformer, **limits: Any) -> TestClient:
    """A client of a server that fetches from everywhere, which its operator alone can say."""
    image_limits = ImageLimits(allow_private_hosts=True)
    return TestClient(
        create_app(tiny, allow_remote_images=True, image_limits=image_limits, limits=ServeLimits(**limits))
    )


def test_an_image_is_fetched_once_where_that_is_allowed(tiny: SentenceTransformer, server: Server) -> None:
    answer = allow_all(tiny).post("/v1/embeddings", json={"input": [{"image": server.url()}]})
    expected = tiny.encode([Image.new("RGB", (7, 5), "red")])
    np.testing.assert_allclose([answer.json()["data"][0]["embedding"]], expected, atol=1e-5)
    assert [path for path, _ in server.requests] == ["/a.png"]


@WAYS
def test_no_address_is_asked_where_fetching_was_not_turned_on(
    tiny: SentenceTransformer, server: Server, way: str
) -> None:
    client = TestClient(create_app(tiny, image_limits=ImageLimits(allow_private_hosts=True)))
    path, body = bodies_of_image(server.url())[way]
    assert client.post(path, json=body).status_code // 100 == 4
    assert server.requests == []


def test_images_that_are_fetched_count_as_the_body_does(tiny: SentenceTransformer, server: Server) -> None:
    client = allow_all(tiny, max_body_bytes=250)
    images = [{"image": server.url()}] * 4
    assert client.post("/v1/embeddings", json={"input": images[:1]}).is_success
    refused = client.post("/v1/embeddings", json={"input": images})
    assert refused.status_code == 422
    assert "250 bytes in all" in refused.text


def test_an_image_that_cannot_be_fetched_is_named_by_its_place(tiny: SentenceTransformer, server: Server) -> None:
    server.routes["/gone"] = lambda handler: handler.answer(b"", status=404)
    answer = allow_all(tiny).post("/v1/embeddings", json={"input": ["a", {"image": server.url("/gone")}]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input[1]")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb() -> str:
    """A PNG of 100 gigapixels in a few hundred kilobytes."""
    header = struct.pack(">IIBBBBB", 330_000, 330_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000))
    return as_uri(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def animation() -> str:
    stream = io.BytesIO()
    picture().save(stream, "GIF", save_all=True, append_images=[picture("blue")] * 20)
    return as_uri(stream.getvalue())


@EVERY_API
@pytest.mark.parametrize(
    "image",
    [bomb(), "data:", "data:,", "data:image/png;base64," + "A" * 100_000, "data:image/png," + "%00" * 1000, "http://"]
    + [
        "http://[::1",
        "https://",
        "http://\ud800",
        "data:image/svg+xml,<svg/>",
        "HTTP://127.0.0.1/",
        "http:///etc/passwd",
    ],
    ids=lambda uri: ascii(uri)[:30],
)
def test_a_hostile_image_is_the_clients_fault(client: TestClient, path: str, image: str) -> None:
    for target, body in bodies_of_image(image).values():
        if target == path:
            answer = client.post(path, content=json.dumps(body), headers=JSON)
            assert answer.status_code // 100 == 4, answer.text
            assert len(answer.text) < 3000


@EVERY_API
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b'"a"',
        b"{",
        b"{}" * 2,
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"input":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"input": NaN, "inputs": NaN}',
        b'{"input": 1e999, "inputs": [-Infinity]}',
        b'{"input": ' + b"9" * 5000 + b', "inputs": ' + b"9" * 4000 + b"}",
        b'{"input": "a", "inputs": "a", "dimensions": ' + b"9" * 4000 + b"}",
        b'{"input": {"contents": [{"text": 1e400}]}, "parameters": {"dimension": -99999999999999999999}}',
        b'{"input": ["\\ud800"], "inputs": ["\\ud800"], "texts": ["\\ud800"], "input_type": "image"}',
        b'{"\\ud800": 1, "\\u0000": 2}',
        b'{"input_type": "\\ud800\\u0000\\u001b[31m"}',
        b"\xff\xfe{\x00}\x00",
        b"\x80",
        b'{"input": "a", "input": "b", "inputs": ["a"], "instruction": "' + b"x" * 1_000_000 + b'"}',
    ],
    ids=lambda content: ascii(content)[:40],
)
def test_a_hostile_body_is_the_clients_fault(client: TestClient, path: str, content: bytes) -> None:
    for headers in (JSON, {}, {"Content-Type": "application/json; charset=utf-7"}, {"Content-Type": "text/plain"}):
        answer = client.post(path, content=content, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.json()
        assert len(answer.content) < 3000


STRINGS = st.one_of(
    st.text(st.characters(), max_size=20),
    st.sampled_from(
        [
            "query",
            "float",
            "base64",
            "image",
            "text",
            "user",
            "system",
            "image_url",
            "search_query",
            "NONE",
            "t2i",
            "END",
        ]
        + [data_uri(picture()), animation(), "https://127.0.0.1/a.png", "file:///etc/passwd", "/etc/passwd"]
    ),
)
KEYS = st.sampled_from(
    ["input", "inputs", "messages", "texts", "images", "contents", "parameters", "role", "content", "type", "text"]
    + ["image", "video", "image_url", "url", "path", "multi_images", "dimensions", "side", "instruction", "input_type"]
    + ["encoding_format", "embedding_types", "truncate", "enable_fusion", "modality", "prompt_name", "max_tokens"]
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), STRINGS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)
OTHERS = st.dictionaries(KEYS, VALUES, max_size=2)
ITEMS = st.lists(
    st.dictionaries(st.sampled_from(["text", "image", "video", "multi_images"]), VALUES, max_size=2), max_size=3
)
NESTED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "/v1/embeddings": lambda value: {"input": value},
    "/v2/embed": lambda value: {"input_type": "search_query", "inputs": [{"content": value}]},
    "/embed": lambda value: {"inputs": value},
    DASHSCOPE: lambda value: {"input": {"contents": value}},
    OPENSEARCH: lambda value: {"input": value},
}


@EVERY_API
@settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(value=VALUES | ITEMS, others=OTHERS)
def test_no_body_brings_about_an_error_of_the_servers(
    client: TestClient, path: str, value: Any, others: dict[str, Any]
) -> None:
    content = json.dumps({**NESTED[path](value), **others})
    answer = client.post(path, content=content, headers=JSON)
    assert answer.status_code < 500, answer.text
    assert answer.json()
