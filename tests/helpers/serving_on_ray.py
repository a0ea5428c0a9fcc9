"""A server on Ray whose models can be held up from another process, by a lock on a file."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from fastapi import FastAPI

from st_modules.serve import ServeLimits
from st_modules.serve.loading import load_app
from tests.helpers.serving import KEY

LIMITS = ServeLimits(max_body_bytes=2**20, max_requests=4, timeout=60)


@contextmanager
def hold_up(lock: Path) -> Iterator[None]:
    """Have no replica embed anything within the block."""
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class _HeldModel:
    def __init__(self, model: Any, lock: Path) -> None:
        self._model = model
        self._lock = lock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_planned(self, planned: Sequence[Any], batch_size: int) -> np.ndarray:
        with self._lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)
        return self._model.encode_planned(planned, batch_size)


def load_held(lock: Path) -> FastAPI:
    """What a replica does: load "tiny" behind the lock."""
    options: Any = dict.fromkeys(("device", "weights", "base_weights", "max_batch_tokens"))
    app = load_app("tiny", **options, name="tiny", api_key=KEY, limits=LIMITS)
    app.state.service.model = _HeldModel(app.state.service.model, lock)
    return app


def list_processes(name: str) -> list[psutil.Process]:
    """The processes below this one whose names begin so, as those of Ray's actors do."""
    return [each for each in psutil.Process().children(recursive=True) if _read_name(each).startswith(name)]


def _read_name(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline())
    except psutil.Error:  # it has ended meanwhile
        return ""
