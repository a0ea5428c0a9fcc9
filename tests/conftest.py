"""Settings that must stand before the first import of a Hugging Face package, and fixtures of several files."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import threading
from collections.abc import Iterator

import pytest
from loopback import Server


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()
