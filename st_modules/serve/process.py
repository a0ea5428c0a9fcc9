"""The process that answers: uvicorn, which finishes what is under way when it is asked to end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI


def run(app: FastAPI, host: str, port: int, drain: int, report: Callable[[str], None]) -> None:
    """Answer requests until the process is asked to end, and then finish those that are under way.

    Args:
        app: The application.
        host: Address or name to listen on.
        port: Port to listen on; 0 is any that is free.
        drain: Seconds to finish requests in; those that take longer are broken off.
        report: Is given the server's URL once it answers.

    Raises:
        OSError: The address cannot be listened on.
    """
    config = uvicorn.Config(
        app, log_level="warning", timeout_graceful_shutdown=drain, server_header=False, lifespan="on"
    )
    with _listen(host, port) as listener:
        _Server(config, report, f"http://{_name(listener)}").run(sockets=[listener])


def find_port(host: str, port: int) -> tuple[int, str]:
    """Return a port that nobody listens on, and the URL of a server there; for another process, which will.

    Args:
        host: Address or name.
        port: The port; 0 is any that is free.

    Raises:
        OSError: The address cannot be listened on.
    """
    with _listen(host, port) as listener:
        return listener.getsockname()[1], f"http://{_name(listener)}"


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, report: Callable[[str], None], url: str) -> None:
        super().__init__(config)
        self._report = report
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._report(self._url)


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise OSError(error.errno, error.strerror, f"{host}:{port}") from error
    return listener


def _name(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"[{address}]:{port}" if listener.family == socket.AF_INET6 else f"{address}:{port}"
