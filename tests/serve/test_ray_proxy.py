"""What stands before Ray's proxy, without Ray: bodies have an end, requests a number, and answers one form."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_modules.serve.ray_proxy import MAX_BODY_BYTES, MAX_REQUESTS, Gate, list_middlewares


class Proxy:
    """Takes whatever a body has, as Ray's does, and answers once that is all here and the client has not gone."""

    def __init__(self, answer: ASGIApp | None) -> None:
        self.answer = answer
        self.headers: dict[bytes, bytes] = {}
        self.read = 0
        self.saw_the_client_go = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.headers = dict(scope["headers"])
        while not self.saw_the_client_go:
            message = await receive()
            self.saw_the_client_go = message["type"] == "http.disconnect"
            self.read += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        if self.answer and not self.saw_the_client_go:
            await self.answer(scope, receive, send)


async def post(proxy: Proxy, content: Any = b"{}", headers: Any = None) -> httpx.Response:
    transport = httpx.ASGITransport(Gate(proxy, max_body_bytes=1000, max_requests=2))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        return await client.post("/v1/embeddings", content=content, headers=headers)


async def pour() -> AsyncIterator[bytes]:
    for _ in range(1000):
        yield b" " * 100


async def test_a_body_is_read_no_further_than_the_limit() -> None:
    proxy = Proxy(JSONResponse("never"))
    answer = await post(proxy, pour())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert proxy.saw_the_client_go
    assert proxy.read == 1000


async def test_an_answer_that_comes_after_the_body_was_refused_is_not_passed_on() -> None:
    async def answer_gone(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        await JSONResponse("gone", 499)(scope, receive, send)

    transport = httpx.ASGITransport(Gate(answer_gone, max_body_bytes=1000, max_requests=2))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.post("/v1/embeddings", content=pour())
    assert answer.status_code == 413


async def test_an_answer_of_the_application_is_passed_on_as_it_is() -> None:
    answer = await post(Proxy(JSONResponse({"error": "of an API"}, 503, {"Retry-After": "7"})))
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (503, {"error": "of an API"}, "7")


async def test_an_answer_before_the_body_is_read_is_passed_on() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse("no key", 401)(scope, receive, send)

    transport = httpx.ASGITransport(Gate(refuse, max_body_bytes=1000, max_requests=2))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        assert (await client.post("/v1/embeddings", content=pour())).status_code == 401


@pytest.mark.parametrize(
    ("of_ray", "status", "kind", "retry_after"),
    [
        (404, 503, "server_error", "1"),
        (408, 504, "timeout", None),
        (429, 429, "rate_limit_error", "1"),
        (503, 503, "server_error", "1"),
        (None, 503, "server_error", "1"),
    ],
    ids=["no application", "too late", "too many", "no replica", "a replica that is no more"],
)
async def test_answers_of_rays_proxy_become_errors_that_clients_know(
    of_ray: int | None, status: int, kind: str, retry_after: str | None
) -> None:
    told = None if of_ray is None else PlainTextResponse("Traceback: /home/me/secret.py", of_ray)
    answer = await post(Proxy(told))
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert answer.headers.get("Retry-After") == retry_after
    assert "secret" not in answer.text


class HeldProxy:
    """Answers at its own paths, and elsewhere once it may."""

    def __init__(self) -> None:
        self.has = asyncio.Semaphore(0)
        self.may_answer = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.has.release()
        if not scope["path"].startswith("/-/"):
            await self.may_answer.wait()
        if scope["path"] == "/lost":
            raise RuntimeError("lost")
        await JSONResponse("a")(scope, receive, send)


@pytest.fixture
def held() -> HeldProxy:
    return HeldProxy()


@pytest.fixture
async def client(held: HeldProxy) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(Gate(held, max_body_bytes=1000, max_requests=2), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        yield client


@pytest.mark.parametrize("path", ["/v1/embeddings", "/lost"])
async def test_one_request_too_many_is_refused_until_another_is_done(
    held: HeldProxy, client: httpx.AsyncClient, path: str
) -> None:
    taken = [asyncio.create_task(client.post(path)) for _ in range(2)]
    for _ in taken:
        await held.has.acquire()
    refused = await client.post("/v1/embeddings")
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    held.may_answer.set()
    await asyncio.gather(*taken)
    assert (await client.post("/v1/embeddings")).status_code == 200


async def test_a_client_that_does_not_read_its_answer_keeps_nobody_out(held: HeldProxy) -> None:
    begun, may_read = asyncio.Event(), asyncio.Event()

    async def stall(message: Message) -> None:
        begun.set()
        await may_read.wait()

    gate = Gate(held, max_body_bytes=1000, max_requests=1)
    held.may_answer.set()
    nothing: Any = None
    stalled = asyncio.create_task(gate({"type": "http", "path": "/v1/embeddings", "headers": []}, nothing, stall))
    await begun.wait()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://server") as client:
        assert (await client.post("/v1/embeddings")).status_code == 200
    may_read.set()
    await stalled


@pytest.mark.parametrize("path", ["/-/healthz", "/-/routes"])
async def test_what_the_proxy_answers_itself_is_asked_however_many_requests_there_are(
    held: HeldProxy, client: httpx.AsyncClient, path: str
) -> None:
    taken = [asyncio.create_task(client.post("/v1/embeddings")) for _ in range(2)]
    for _ in taken:
        await held.has.acquire()
    assert (await client.get(path)).status_code == 200
    assert (await client.get("/-/another")).status_code == 429
    held.may_answer.set()
    assert {answer.status_code for answer in await asyncio.gather(*taken)} == {200}


async def test_of_the_headers_the_proxy_sees_those_that_the_application_reads() -> None:
    proxy = Proxy(JSONResponse("a"))
    told = {"Authorization": "Bearer a", "X-Request-Timeout-Seconds": "0", "X-Request-Disconnect-Disabled": "?1"}
    await post(proxy, headers=told)
    assert set(proxy.headers) == {b"authorization", b"content-length", b"host"}


async def test_other_than_http_is_passed_on() -> None:
    seen: list[Any] = []

    async def take(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope)

    nothing: Callable[..., Any] = lambda *arguments: None  # noqa: E731
    await Gate(take, max_body_bytes=1, max_requests=1)({"type": "websocket"}, nothing, nothing)
    assert seen == [{"type": "websocket"}]


def test_its_limits_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BODY_BYTES, "7")
    monkeypatch.setenv(MAX_REQUESTS, "3")
    (gate,) = list_middlewares()
    assert gate.cls is Gate
    assert json.dumps(gate.kwargs) == '{"max_body_bytes": 7, "max_requests": 3}'
