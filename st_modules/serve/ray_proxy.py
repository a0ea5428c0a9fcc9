"""What stands before Ray Serve's HTTP proxy, in the proxy's process, which has no model.

Ray's proxy takes a body into memory before it knows who will have it, lets more requests wait than it is told, obeys
headers of its own that anybody can send, and answers in a form of its own where no replica does.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from st_modules.serve.envelope import render_problem
from st_modules.serve.guard import refuse_body, write_problem
from st_modules.serve.problems import Problem

MAX_BODY_BYTES = "ST_MODULES_MAX_BODY_BYTES"
"""The variable that has the largest body in the proxy's environment."""
MAX_REQUESTS = "ST_MODULES_MAX_REQUESTS"
"""The variable that has the most requests there."""

# What the application reads. By others Ray's proxy can be told to wait for ever, or for nobody.
_HEADERS = frozenset({b"authorization", b"content-length", b"content-type", b"host", b"x-dashscope-apikey"})
# What Ray's proxy answers itself, however much it has to do.
_OWN_PATHS = frozenset({"/-/healthz", "/-/routes"})


def list_middlewares() -> list[Middleware]:
    """Return what Ray Serve puts before its proxy, which calls this by its name."""
    max_body_bytes, max_requests = (int(os.environ[name]) for name in (MAX_BODY_BYTES, MAX_REQUESTS))
    return [Middleware(Gate, max_body_bytes=max_body_bytes, max_requests=max_requests)]


class Gate:
    """Lets requests through to Ray's proxy.

    Args:
        app: The proxy.
        max_body_bytes: Largest body of a request.
        max_requests: Most requests at a time, those that wait and those that replicas have. Ray looks at how many wait
            when one comes, and not again when a replica to which it was sent turned out to be full.
    """

    def __init__(self, app: ASGIApp, max_body_bytes: int, max_requests: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._max_requests = max_requests
        self._unanswered: set[_Exchange] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the proxy answer a request where there is room, as far as its body may go; answer where it does not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if len(self._unanswered) >= self._max_requests and scope["path"] not in _OWN_PATHS:
            await _refuse(_describe(429), scope, receive, send)
            return
        # A client that is slow to read its answer keeps nobody out.
        exchange = _Exchange(receive, send, self._max_body_bytes, self._unanswered.discard)
        headers = [header for header in scope["headers"] if header[0] in _HEADERS]
        self._unanswered.add(exchange)
        try:
            await self._app({**scope, "headers": headers}, exchange.receive, exchange.send)
        finally:
            self._unanswered.discard(exchange)
        if not exchange.answered:
            await _refuse(exchange.problem or _describe(None), scope, receive, send)


class _Exchange:
    """A request's body, read no further than a limit, and its answer, passed on where it is the application's."""

    def __init__(
        self, receive: Receive, send: Send, max_body_bytes: int, on_answer: Callable[[_Exchange], None]
    ) -> None:
        self._receive = receive
        self._send = send
        self._on_answer = on_answer
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
                self._on_answer(self)
        if self.answered:
            await self._send(message)


async def _refuse(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    await write_problem(render_problem(problem), problem)(scope, receive, send)


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
