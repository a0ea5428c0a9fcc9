"""What stands before Ray Serve's HTTP proxy, in the proxy's process, which has no model.

Ray's proxy takes a body into memory before it knows who will have it, obeys headers of its own that anybody can send,
and answers in a form of its own where no replica does.
"""

from __future__ import annotations

import os

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_modules.serve.envelope import render_problem
from st_modules.serve.guard import refuse_body, write_problem
from st_modules.serve.problems import Problem

MAX_BODY_BYTES = "ST_MODULES_MAX_BODY_BYTES"
"""The variable that has the largest body in the proxy's environment."""

# What the application reads. By others Ray's proxy can be told to wait for ever, or for nobody.
_HEADERS = frozenset({b"authorization", b"content-length", b"content-type", b"host", b"x-dashscope-apikey"})


def list_middlewares() -> list[Middleware]:
    """Return what Ray Serve puts before its proxy, which calls this by its name."""
    return [Middleware(Gate, max_body_bytes=int(os.environ[MAX_BODY_BYTES]))]


class Gate:
    """Lets requests through to Ray's proxy.

    Args:
        app: The proxy.
        max_body_bytes: Largest body of a request.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the proxy answer a request, as far as its body may go, and answer where it does not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(receive, send, self._max_body_bytes)
        headers = [header for header in scope["headers"] if header[0] in _HEADERS]
        await self._app({**scope, "headers": headers}, exchange.receive, exchange.send)
        if not exchange.answered:
            problem = exchange.problem or _describe(None)
            await write_problem(render_problem(problem), problem)(scope, receive, send)


class _Exchange:
    """A request's body, read no further than a limit, and its answer, passed on where it is the application's."""

    def __init__(self, receive: Receive, send: Send, max_body_bytes: int) -> None:
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._read = 0
        self.answered = False
        self.problem: Problem | None = None

    async def receive(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        if self._read > self._max_body_bytes:
            self.problem = refuse_body(self._max_body_bytes)
            return {"type": "http.disconnect"}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self.problem:
            if _is_of_ray(message):
                self.problem = _describe(message["status"])
            else:
                self.answered = True
        if self.answered:
            await self._send(message)


def _is_of_ray(start: Message) -> bool:
    """Whether an answer is the proxy's: the application's errors are JSON."""
    return start["status"] >= 400 and dict(start["headers"]).get(b"content-type", b"").startswith(b"text/plain")


def _describe(status: int | None) -> Problem:
    """Say what an answer of Ray's means; none is that of a replica which is no more."""
    match status:
        case 408:
            return Problem("timeout", "Not answered in time; send fewer items, or try again later.")
        case 429:
            return Problem("busy", "The server has as many requests as it takes; try again later.")
        case None:
            return Problem("internal", "What had the request was lost; send it again.", status=503)
        case _:
            return Problem("internal", "The server is starting, or ending; try again later.", status=503)
