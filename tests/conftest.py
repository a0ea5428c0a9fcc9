"""Settings that must stand before the first import of a Hugging Face package, and fixtures of several files."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import threading
from collections.abc import Iterator

import pytest
from gallery import Gallery, draw_gallery
from loopback import Server

from st_modules import SentenceTransformer


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


@pytest.fixture(scope="session")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return draw_gallery(tmp_path_factory.mktemp("gallery"))


@pytest.fixture(scope="session")
def tiny() -> SentenceTransformer:
    """The model that ships with the package, to compare with; no test changes it."""
    return SentenceTransformer("tiny", device="cpu")
