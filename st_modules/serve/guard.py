"""What stands before every request that embeds: the key, room, the body's size, the time, and whether anybody waits."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeAlias

import pydantic_core
from fastapi import Request
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.types import Message, Receive

from st_modules.serve.limits import ServeLimits
from st_modules.serve.metrics import Metrics
from st_modules.serve.problems import Problem, describe

Handle: TypeAlias = Callable[[Request], Awaitable[Response]]
Render: TypeAlias = Callable[[Problem], Any]
"""From a problem to the body by which an API says so."""

# The header of DashScope's, beside that of everybody.
_OTHER_KEY = "x-dashscope-apikey"
_RETRY_AFTER = "1"


class Guard:
    """Lets requests through.

    Args:
        limits: What a request may cost.
        api_key: What a client has to know; ``None`` lets everybody in.
        metrics: What is told of requests.
    """

    def __init__(self, limits: ServeLimits, api_key: str | None, metrics: Metrics) -> None:
        self.metrics = metrics
        self._limits = limits
        self._api_key = None if api_key is None else api_key.encode()
        self._inside = 0

    def check_key(self, request: Request) -> None:
        """Raise ``Problem`` where a request does not have the key."""
        if self._api_key is None:
            return
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.headers.get(_OTHER_KEY, "")
        # Starlette decodes headers so; what is compared are the bytes that were sent.
        if not hmac.compare_digest(given.encode("latin-1"), self._api_key):
            raise Problem("key", "Send the server's key, as Authorization: Bearer KEY.")

    async def run(self, request: Request, handle: Handle) -> Response:
        """Answer a request that may come in.

        Raises:
            Problem: It may not, it took too long, or nobody waits for the answer any more.
        """
        self.check_key(request)
        with self._enter():
            body = _Body(request.receive, self._limits.max_body_bytes)
            work = asyncio.ensure_future(handle(Request(request.scope, body.receive)))
            gone = asyncio.ensure_future(body.wait_until_gone())
            try:
                await asyncio.wait({work, gone}, timeout=self._limits.timeout, return_when=asyncio.FIRST_COMPLETED)
                if body.problem:  # FastAPI takes whatever is raised while it reads for damaged JSON
                    raise body.problem
                if work.done():
                    return work.result()
                if gone.done():
                    raise Problem("gone", "The client has gone.")
                raise Problem(
                    "timeout", f"Not answered within {self._limits.timeout:g} s; send fewer items, or try again later."
                )
            finally:
                work.cancel()
                gone.cancel()
                await asyncio.gather(work, gone, return_exceptions=True)

    @contextmanager
    def _enter(self) -> Generator[None, None, None]:
        if self._inside >= self._limits.max_requests:
            raise Problem("busy", "The server has as many requests as it takes; try again later.")
        self._inside += 1
        self.metrics.requests_in_flight.inc()
        try:
            yield
        finally:
            self._inside -= 1
            self.metrics.requests_in_flight.dec()


class _Body:
    """A body that is read no further than a limit, and afterwards tells when the client hangs up."""

    def __init__(self, receive: Receive, max_bytes: int) -> None:
        self._receive = receive
        self._max_bytes = max_bytes
        self._read = 0
        self._complete = asyncio.Event()
        self.problem: Problem | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if message["type"] == "http.disconnect":
            self.problem = Problem("gone", "The client has gone.")
            raise self.problem
        if self._read > self._max_bytes:
            self.problem = refuse_body(self._max_bytes)
            raise self.problem
        if not message.get("more_body"):
            self._complete.set()
        return message

    async def wait_until_gone(self) -> None:
        await self._complete.wait()
        await self._receive()  # nothing is left to come but the end


def answer_as(render: Render, items: str, statuses: dict[str, int] | None = None) -> type[APIRoute]:
    """Make the class of the routes of an API.

    Args:
        render: Writes a problem as the API does.
        items: The name of the field that has a request's items.
        statuses: Where the API has another HTTP status for a kind of problem.
    """

    class Route(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Any]:
            handle = super().get_route_handler()

            async def answer(request: Request) -> Response:
                guard: Guard = request.app.state.guard
                start = time.perf_counter()
                try:
                    response = await guard.run(request, handle)
                except Exception as error:
                    problem = describe(error, items)
                    guard.metrics.count_error(problem.kind)
                    status = (statuses or {}).get(problem.kind, problem.status)
                    response = write_problem(render(problem), problem, status)
                guard.metrics.count_request(self.path_format, response.status_code, time.perf_counter() - start)
                return response

            return answer

    return Route


def refuse_body(max_bytes: int) -> Problem:
    """Return what is wrong with a body that has more bytes."""
    return Problem("body", f"The body has more than {max_bytes} bytes; send fewer items, or smaller images.")


def write_problem(content: Any, problem: Problem, status: int | None = None) -> Response:
    """Return a response that says what is wrong.

    Args:
        content: The problem, as an API writes it.
        problem: The problem itself.
        status: The API's HTTP status, where it is not the usual one.
    """
    response = write_json(content, problem.status if status is None else status)
    if problem.status in (429, 503):
        response.headers["Retry-After"] = _RETRY_AFTER
    elif problem.kind == "key":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def write_json(content: Any, status: int = 200) -> Response:
    """Return a response of JSON, which has no NaN; floats are written faster than by the standard library."""
    return Response(pydantic_core.to_json(content, inf_nan_mode="null"), status, media_type="application/json")
