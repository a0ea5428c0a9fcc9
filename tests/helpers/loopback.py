"""A loopback server for tests: it answers images, misbehaves on demand, and remembers what it was asked."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def png() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (7, 5), "red").save(stream, "PNG")
    return stream.getvalue()


class Server(ThreadingHTTPServer):
    """A loopback server whose paths are functions of the request's handler; it remembers every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Callable[[Handler], object]] = {"/a.png": lambda handler: handler.answer(png())}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.closing = threading.Event()

    def url(self, path: str = "/a.png", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.server_port}{path}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients hang up on these servers."""


class Handler(BaseHTTPRequestHandler):
    @property
    def loopback(self) -> Server:
        assert isinstance(self.server, Server)
        return self.server

    def do_GET(self) -> None:
        self.loopback.requests.append((self.path, dict(self.headers.items())))
        self.loopback.routes[self.path](self)

    def answer(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def drip(self, pieces: Iterator[bytes]) -> None:
        """Write a piece every 20 ms until the client has left or the test is over."""
        for piece in pieces:
            self.wfile.write(piece)
            if self.loopback.closing.wait(0.02):
                return

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""
