"""Settings that must stand before the first import of a Hugging Face package, and fixtures of several files."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import threading
from collections.abc import Iterator

import pytest
from gallery import Gallery, draw_gallery
from llama_index.core.instrumentation import get_dispatcher
from loopback import Server
from recorder import Recorder

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


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What LlamaIndex's instrumentation tells during a test."""
    handler, dispatcher = Recorder(events=[]), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)
