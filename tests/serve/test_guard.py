"""The key, the limits, the queue, clients that go away, and what is told of all that."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import sentence_transformers
from fastapi import FastAPI
from fastapi.testclient import TestClient

from st_modules import SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.serve import ServeLimits, create_app
from tests.helpers.serving import DASHSCOPE, OPENSEARCH, HeldModel

BODIES: dict[str, Any] = {
    "/v1/embeddings": {"input": "a"},
    "/v2/embed": {"input_type": "search_query", "texts": ["a"]},
    "/embed": {"inputs": "a"},
    DASHSCOPE: {"input": {"contents": [{"text": "a"}]}},
    OPENSEARCH: {"input": [{"text": "a"}]},
}
EVERY_API = pytest.mark.parametrize("path", BODIES)


def connect(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", timeout=30)


def message_of(response: Any) -> str:
    found = response.json()
    return (
        found["error"]["message"] if isinstance(found.get("error"), dict) else found.get("error", found.get("message"))
    )


def counted(client: TestClient, *names: str) -> list[float]:
    lines = dict(line.rsplit(" ", 1) for line in client.get("/metrics").text.splitlines() if not line.startswith("#"))
    return [float(lines[name]) for name in names]


# ---------------------------------------------------------------------------------------------------- keys


@EVERY_API
@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer sesame!"}, {"Authorization": "Bearer"}, {"Authorization": "Basic sésame"}],
    ids=["none", "another", "half", "another scheme"],
)
def test_without_the_key_nothing_is_embedded(tiny: SentenceTransformer, path: str, headers: dict[str, str]) -> None:
    sent: Any = {name: value.encode() for name, value in headers.items()}
    response = TestClient(create_app(tiny, api_key="sésame")).post(path, json=BODIES[path], headers=sent)
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer KEY" in message_of(response)


@EVERY_API
@pytest.mark.parametrize("header", [("Authorization", "Bearer sésame"), ("X-DashScope-ApiKey", "sésame")])
def test_with_the_key_it_is(tiny: SentenceTransformer, path: str, header: tuple[str, str]) -> None:
    headers: Any = {header[0]: header[1].encode()}
    assert TestClient(create_app(tiny, api_key="sésame")).post(path, json=BODIES[path], headers=headers).is_success


def test_health_readiness_and_metrics_need_no_key_and_the_list_of_models_does(tiny: SentenceTransformer) -> None:
    client = TestClient(create_app(tiny, api_key="sesame"))
    assert [client.get(path).status_code for path in ("/health", "/ready", "/metrics")] == [200, 200, 200]
    assert client.get("/v1/models").status_code == 401
    assert client.get("/v1/models", headers={"Authorization": "Bearer sesame"}).is_success


def test_load_balancers_may_ask_by_head(tiny: SentenceTransformer) -> None:
    client = TestClient(create_app(tiny, api_key="sesame"))
    assert [client.head(path).status_code for path in ("/health", "/ready")] == [200, 200]
    assert client.post("/v1/embeddings/", json={"input": "a"}, follow_redirects=False).status_code == 404


@pytest.mark.parametrize("key", ["", "  "])
def test_an_empty_key_is_no_key(tiny: SentenceTransformer, key: str) -> None:
    with pytest.raises(ArgumentError, match="api_key is empty"):
        create_app(tiny, api_key=key)


def test_a_model_of_another_class_is_not_served(tiny: SentenceTransformer) -> None:
    plain = sentence_transformers.SentenceTransformer(modules=list(tiny))
    with pytest.raises(ValueError, match="models of the catalog"):
        create_app(plain)  # type: ignore[arg-type]


def test_other_sites_are_not_told_that_they_may_read(client: TestClient) -> None:
    response = client.post("/v1/embeddings", json={"input": "a"}, headers={"Origin": "https://example.org"})
    assert "access-control-allow-origin" not in response.headers


# -------------------------------------------------------------------------------------------------- limits


@EVERY_API
@pytest.mark.parametrize("chunked", [False, True])
def test_too_large_a_body_is_not_read_to_its_end(tiny: SentenceTransformer, path: str, chunked: bool) -> None:
    read = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1000
            yield b" " * 1000

    async def ask() -> httpx.Response:
        async with connect(create_app(tiny, limits=ServeLimits(max_body_bytes=10_000))) as client:
            headers = {"Content-Type": "application/json", **({} if chunked else {"Content-Length": "1000000"})}
            return await client.post(path, content=pieces(), headers=headers)

    response = asyncio.run(ask())
    assert response.status_code == 413
    assert "10000 bytes" in message_of(response)
    assert read <= 12_000


@EVERY_API
def test_a_body_as_large_as_the_limit_is_read(tiny: SentenceTransformer, path: str) -> None:
    content = httpx.Request("POST", "http://server", json=BODIES[path]).content
    client = TestClient(create_app(tiny, limits=ServeLimits(max_body_bytes=len(content))))
    assert client.post(path, content=content, headers={"Content-Type": "application/json"}).is_success


def test_limits_on_items_and_tokens(tiny: SentenceTransformer) -> None:
    client = TestClient(create_app(tiny, limits=ServeLimits(max_items=3, max_tokens=50)))
    answers = [client.post("/v1/embeddings", json={"input": ["a"] * count}) for count in (2, 3, 4)]
    assert [answer.status_code for answer in answers] == [200, 422, 422]
    assert "over the limit of 50" in message_of(answers[1])
    assert "1 to 3 items" in message_of(answers[2])


@pytest.mark.parametrize("wrong", [{"max_items": 0}, {"timeout": 0}, {"max_body_bytes": 1.5}, {"max_requests": True}])
def test_a_limit_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        ServeLimits(**wrong)


@EVERY_API
async def test_what_takes_too_long_is_answered_so_and_gives_its_place_back(
    tiny: SentenceTransformer, path: str
) -> None:
    app = create_app(tiny, limits=ServeLimits(timeout=0.05, max_requests=1))
    app.state.service.model = held = HeldModel(tiny)
    held.may_go_on.clear()
    async with connect(app) as client:
        response = await client.post(path, json=BODIES[path])
        assert response.status_code == 504
        assert "Not answered within 0.05 s" in message_of(response)
        again = await client.post(path, json=BODIES[path])
        assert again.status_code == 504  # and not 429
    held.may_go_on.set()


# --------------------------------------------------------------------------------------------------- queue


@EVERY_API
async def test_a_full_server_sends_requests_away_until_there_is_room(tiny: SentenceTransformer, path: str) -> None:
    app = create_app(tiny, limits=ServeLimits(max_requests=2))
    app.state.service.model = held = HeldModel(tiny)
    held.may_go_on.clear()
    async with connect(app) as client:
        inside = [asyncio.create_task(client.post(path, json=BODIES[path])) for _ in range(2)]
        await asyncio.to_thread(held.entered.acquire)
        refused = await client.post(path, json=BODIES[path])
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
        assert "try again later" in message_of(refused)
        assert (await client.get("/health")).is_success
        held.may_go_on.set()
        assert [response.status_code for response in await asyncio.gather(*inside)] == [200, 200]
        assert (await client.post(path, json=BODIES[path])).is_success


class Client:
    """A client by hand, which can hang up."""

    def __init__(self, body: bytes) -> None:
        self.messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
        self.hung_up = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def ask(self, app: FastAPI) -> None:
        headers = [(b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": headers, "query_string": b""}
        await app({**scope, "root_path": "", "app": app}, self.receive, self.send)

    async def receive(self) -> dict[str, Any]:
        if self.messages:
            return self.messages.pop()
        await self.hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def test_a_client_that_goes_away_frees_its_place_and_is_not_embedded(tiny: SentenceTransformer) -> None:
    app = create_app(tiny, limits=ServeLimits(max_requests=2))
    app.state.service.model = held = HeldModel(tiny)
    held.may_go_on.clear()
    async with connect(app) as client:
        first = asyncio.create_task(client.post("/v1/embeddings", json={"input": "first"}))
        await asyncio.to_thread(held.entered.acquire)
        leaver = Client(b'{"input": "leaver"}')
        asking = asyncio.create_task(leaver.ask(app))
        while app.state.service.waiting != 1:
            await asyncio.sleep(0)
        leaver.hung_up.set()
        await asking
        assert leaver.sent[0]["status"] == 499
        assert app.state.service.waiting == 0
        last = asyncio.create_task(client.post("/v1/embeddings", json={"input": "last"}))
        while app.state.service.waiting != 1:
            await asyncio.sleep(0)
        held.may_go_on.set()
        assert [response.status_code for response in await asyncio.gather(first, last)] == [200, 200]
    assert held.batches == [["first"], ["last"]]


async def test_a_client_that_goes_away_before_its_body_ends_frees_its_place(tiny: SentenceTransformer) -> None:
    app = create_app(tiny, limits=ServeLimits(max_requests=1))
    leaver = Client(b'{"input": "lea')
    leaver.messages[0]["more_body"] = True
    leaver.hung_up.set()
    await leaver.ask(app)
    assert leaver.sent[0]["status"] == 499
    assert counted(TestClient(app), 'st_modules_errors_total{kind="gone"}', "st_modules_requests_in_flight") == [1, 0]


# ------------------------------------------------------------------------------------------------- reports


async def test_metrics_count_requests_batches_tokens_and_errors(tiny: SentenceTransformer) -> None:
    client = TestClient(create_app(tiny))
    tokens = client.post("/v1/embeddings", json={"input": ["a", "b"]}).json()["usage"]["total_tokens"]
    client.post("/v1/embeddings", json={"input": []})
    client.post("/embed", content=b"{")
    path = 'path="/v1/embeddings"'
    assert counted(
        client,
        f'st_modules_requests_total{{{path},status="200"}}',
        f'st_modules_requests_total{{{path},status="400"}}',
        f"st_modules_request_seconds_count{{{path}}}",
        'st_modules_errors_total{kind="input"}',
        "st_modules_tokens_total",
        "st_modules_items_total",
        "st_modules_batch_items_sum",
        "st_modules_batch_tokens_sum",
        "st_modules_queue_calls",
        "st_modules_requests_in_flight",
    ) == [1, 1, 2, 2, tokens, 2, 2, tokens, 0, 0]


@EVERY_API
def test_an_error_of_the_model_is_the_servers_and_readiness_says_so(
    app: FastAPI, held: HeldModel, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(app)
    held.failure = RuntimeError("a secret of the device")
    response = client.post(path, json=BODIES[path])
    assert response.status_code == (424 if path == "/embed" else 500)
    assert "secret" not in response.text
    assert "a secret of the device" in caplog.text
    assert client.get("/ready").status_code == 503
    held.failure = None
    assert client.post(path, json=BODIES[path]).is_success
    assert client.get("/ready").is_success


def test_the_document_of_the_api_has_examples_and_the_fields_of_ours(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    requests = {name: schema for name, schema in document["components"]["schemas"].items() if "Request" in name}
    assert len(requests) == len(BODIES)
    assert all(schema["examples"] for schema in requests.values())
    own = [name for name, schema in document["components"]["schemas"].items() if "side" in schema["properties"]]
    assert len(own) == len(BODIES)
