"""Servers on ports of this process, for clients that know an address alone."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import uvicorn
from fastapi.testclient import TestClient


@contextmanager
def listen(app: Any) -> Iterator[str]:
    """Run an application on a free port until the block ends, and yield its URL."""
    server = _Server(uvicorn.Config(app, log_level="warning", lifespan="on"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        assert server.is_up.wait(30)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.is_up = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.is_up.set()


class Front(ThreadingHTTPServer):
    """A server before an application that answers the first requests otherwise, and remembers all of them."""

    daemon_threads = True

    def __init__(self, app: Any) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.app = TestClient(app)
        self.actions: deque[Callable[[Handler], object]] = deque()
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients hang up, and so does this server."""


@contextmanager
def stand_before(app: Any) -> Iterator[Front]:
    front = Front(app)
    thread = threading.Thread(target=front.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield front
    finally:
        front.shutdown()
        front.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    @property
    def front(self) -> Front:
        assert isinstance(self.server, Front)
        return self.server

    def do_GET(self) -> None:
        self.front.headers.append(dict(self.headers.items()))
        self._forward(self.front.app.get(self.path, headers=self._key()))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.front.bodies.append(body)
        self.front.headers.append(dict(self.headers.items()))
        with contextlib.suppress(IndexError):
            self.front.actions.popleft()(self)
            return
        self._forward(self.front.app.post(self.path, content=body, headers=self._key()))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _key(self) -> dict[str, str]:
        return {name: value for name, value in self.headers.items() if name in ("Authorization", "Content-Type")}

    def _forward(self, response: Any) -> None:
        self.answer(response.status_code, response.content, Content_Type=response.headers["Content-Type"])

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def answers(status: int, body: bytes = b"", **headers: str) -> Callable[[Any], object]:
    return lambda handler: handler.answer(status, body, **headers)


def hangs_up(handler: Any) -> None:
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)
