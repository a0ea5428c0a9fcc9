"""Servers for tests: in this process with a model that can be held up, and as a process of their own."""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from PIL import Image

from st_modules import SentenceTransformer

KEY = "a key of the tests"
DASHSCOPE = "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding"
OPENSEARCH = "/v3/openapi/workspaces/default/multi-modal-embedding/ops-gme-qwen2-vl-2b-instruct"


def picture(colour: str = "red", size: tuple[int, int] = (56, 56)) -> Image.Image:
    return Image.new("RGB", size, colour)


def data_uri(image: Image.Image) -> str:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return as_uri(stream.getvalue())


def as_uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


class HeldModel:
    """A model that remembers what is embedded together, and can be held up."""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model
        self.batches: list[list[str | None]] = []
        self.entered = threading.Semaphore(0)
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.failure: BaseException | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_planned(self, planned: Sequence[Any], batch_size: int) -> np.ndarray:
        self.batches.append([each.item.text for each in planned])
        self.entered.release()
        assert self.may_go_on.wait(30)
        if self.failure:
            raise self.failure
        return self._model.encode_planned(planned, batch_size)


@dataclass(frozen=True)
class Running:
    """A server that runs."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def serve(code: str = "from st_modules.cli import app; app()", **environment: str) -> Iterator[Running]:
    """Run ``st-modules serve`` with "tiny" on a free port, until the block ends."""
    command = [sys.executable, "-c", code, "serve", "--model", "tiny", "--port", "0"]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**os.environ, **environment}, **pipes) as process:
        try:
            assert process.stdout
            found = re.search(r"on (http://[^;]+);", process.stdout.readline())
            assert found, process.communicate()[1]
            yield Running(found.group(1), process)
        finally:
            process.kill()


@contextmanager
def answer(app: FastAPI) -> Iterator[str]:
    """Answer requests to an application in a thread; the URL."""
    started = threading.Event()

    class Server(uvicorn.Server):
        async def startup(self, sockets: object = None) -> None:
            await super().startup()
            started.set()

    server = Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    assert started.wait(60)
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(60)
