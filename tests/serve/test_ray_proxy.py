"""What stands before Ray's proxy, without Ray: a body has an end, headers are few, and answers have one form."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from st_modules.serve.ray_proxy import MAX_BODY_BYTES, Gate, list_middlewares


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
    transport = httpx.ASGITransport(Gate(proxy, max_body_bytes=1000))
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

    transport = httpx.ASGITransport(Gate(answer_gone, max_body_bytes=1000))
    async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
        answer = await client.post("/v1/embeddings", content=pour())
    assert answer.status_code == 413


async def test_an_answer_of_the_application_is_passed_on_as_it_is() -> None:
    answer = await post(Proxy(JSONResponse({"error": "of an API"}, 503, {"Retry-After": "7"})))
    assert (answer.status_code, answer.json(), answer.headers["Retry-After"]) == (503, {"error": "of an API"}, "7")


async def test_an_answer_before_the_body_is_read_is_passed_on() -> None:
    async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
        await JSONResponse("no key", 401)(scope, receive, send)

    transport = httpx.ASGITransport(Gate(refuse, max_body_bytes=1000))
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
    await Gate(take, max_body_bytes=1)({"type": "websocket"}, nothing, nothing)
    assert seen == [{"type": "websocket"}]


def test_its_limit_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MAX_BODY_BYTES, "7")
    (gate,) = list_middlewares()
    assert gate.cls is Gate
    assert json.dumps(gate.kwargs) == '{"max_body_bytes": 7}'
