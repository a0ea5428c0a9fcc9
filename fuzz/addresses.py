"""URLs against a loopback server that answers whatever bytes it is told to."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import chain, repeat
from typing import Any
from urllib.parse import quote

from hypothesis import strategies as st

from fuzz.bounds import Outcome
from fuzz.images import png
from fuzz.outcomes import embed_or_refuse, tiny


@dataclass
class Answer:
    """What the server answers.

    Attributes:
        pieces: What it sends, one after the other.
        repeat: How often it sends the last piece.
        pause: Seconds between two pieces.
        url: What is asked for; ``{port}`` is the server's.
    """

    pieces: list[bytes]
    repeat: int = 1
    pause: float = 0.0
    url: str = "http://127.0.0.1:{port}/a.png"
    closing: threading.Event = field(default_factory=threading.Event)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    answer: Answer = Answer([])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients hang up on these servers."""


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        answer = self.server.answer  # type: ignore[attr-defined]
        while line := self.rfile.readline(65537):
            if not line.strip():
                break
        for piece in chain(answer.pieces[:-1], *(repeat(piece, answer.repeat) for piece in answer.pieces[-1:])):
            self.wfile.write(piece)
            if answer.pause and answer.closing.wait(answer.pause):
                return


@cache
def _server() -> _Server:
    server = _Server(("127.0.0.1", 0), _Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    return server


def check(answer: Answer) -> Outcome:
    """Embed what a server answers."""
    server = _server()
    server.answer = answer
    url = answer.url.replace("{port}", str(server.server_address[1]))
    try:
        return embed_or_refuse(lambda: tiny().encode(["a", {"image": url}]), 2, ["item 1"])
    finally:
        answer.closing.set()


def _head(*lines: str, status: str = "200 OK") -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode()


def _redirect(where: str) -> Answer:
    return Answer([_head(f"Location: {where}", "Content-Length: 0", status="302 Found")])


def _endless(scale: float, *pieces: bytes, pause: float = 0.0, count: float = 1e6) -> Answer:
    return Answer(list(pieces), repeat=max(2, int(count * scale)), pause=pause)


_OK = _head("Content-Type: image/png")
_CHUNKED = _head("Transfer-Encoding: chunked")

ATTACKS: Mapping[str, Callable[[float], object]] = {
    "a body without end": lambda scale: _endless(scale, _OK, bytes(65536)),
    "a body that drips": lambda scale: _endless(scale, _OK, b"a", pause=0.2),
    "headers without end": lambda scale: _endless(scale, b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"),
    "a header without end": lambda scale: _endless(scale, b"HTTP/1.1 200 OK\r\nA: ", b"b" * 65536),
    "headers that drip": lambda scale: _endless(scale, b"HTTP/1.1 200 OK\r\n", b"A: b\r\n", pause=0.2),
    "a status line without end": lambda scale: _endless(scale, b"HTTP/1.1 200 ", b"b" * 65536),
    "chunks without end": lambda scale: _endless(scale, _CHUNKED, b"10000\r\n" + bytes(65536) + b"\r\n"),
    "chunks of one byte": lambda scale: _endless(scale, _CHUNKED, b"1\r\na\r\n", count=1e8),
    "a chunk's extension without end": lambda scale: _endless(scale, _CHUNKED + b"1;", b"a" * 65536),
    "trailers without end": lambda scale: _endless(scale, _CHUNKED + b"0\r\n", b"A: b\r\n"),
    "interim answers without end": lambda scale: _endless(scale, b"HTTP/1.1 100 Continue\r\n\r\n"),
    "a length of 10**30": lambda scale: Answer([_head(f"Content-Length: {10**30}"), bytes(100)]),
    "a negative length": lambda scale: Answer([_head("Content-Length: -1"), png()]),
    "two lengths": lambda scale: Answer([_head("Content-Length: 5", f"Content-Length: {len(png())}"), png()]),
    "a body shorter than its length": lambda scale: Answer([_head("Content-Length: 5000"), png()]),
    "an encoding that is not asked for": lambda scale: Answer([_head("Content-Encoding: gzip"), png()]),
    "an answer without headers": lambda scale: Answer([png()]),
    "nothing": lambda scale: Answer([]),
    "a redirect to a file": lambda scale: _redirect("file:///etc/hostname"),
    "a redirect to data": lambda scale: _redirect("data:image/png;base64,AAAA"),
    "a redirect to itself": lambda scale: _redirect("/a.png"),
    "a redirect of 60 kB": lambda scale: _redirect("/" + "a" * 60_000),
    "a redirect with a password": lambda scale: _redirect("http://user:secret@127.0.0.1:1/"),
    "a redirect to no port": lambda scale: _redirect("http://127.0.0.1:99999999/"),
    "a redirect to nowhere": lambda scale: _redirect("http://[::1"),
    "a host of 40 MB": lambda scale: Answer([], url="http://" + "a" * max(70, int(4e7 * scale)) + "/a.png"),
    "a path of 40 MB": lambda scale: Answer([], url="http://127.0.0.1:{port}/" + "a" * max(70, int(4e7 * scale))),
    "a path with a line break": lambda scale: Answer([], url="http://127.0.0.1:{port}/a\r\nX: y"),
}
"""Answers by what they are."""


def strategy() -> st.SearchStrategy[Answer]:
    """Return answers whose status, headers and body may be right or anything else."""
    status = st.sampled_from(["200 OK", "301 A", "302 A", "307 A", "404 A", "500 A", "204 A", "100 A", "999", "-1", ""])
    names = st.sampled_from(
        ["Content-Length", "Content-Type", "Content-Encoding", "Transfer-Encoding", "Location", "Connection", "A", ""]
    )
    values = st.sampled_from(
        ["0", "5", "-1", "1e3", "999999999999", "chunked", "gzip", "close", "/a.png", "//", "http://0/", "file:///", ""]
    ) | st.text(max_size=20).map(quote)
    lines = st.lists(st.builds("{}: {}".format, names, values), max_size=5)
    heads = st.builds(lambda status, lines: _head(*lines, status=status), status, lines) | st.binary(max_size=80)
    bodies = st.just(png()) | st.binary(max_size=200) | st.just(b"5\r\nabcde\r\n0\r\n\r\n")
    return st.builds(lambda head, body: Answer([head, body]), heads, bodies)
