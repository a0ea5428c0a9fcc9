"""A batch's way to the device. No GPU is at hand: what torch does of it is stood in for."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from st_modules import SentenceTransformer
from st_modules.encode import engine
from st_modules.encode.transfer import move, pin
from tests.helpers.inputs import PICTURES, texts

CUDA = torch.device("cuda:1")


@pytest.fixture
def locked(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Tensors in memory that is locked for the right device."""
    current: list[torch.device] = []
    tensors: list[torch.Tensor] = []

    @contextmanager
    def use(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def lock(tensor: torch.Tensor) -> torch.Tensor:
        assert current == [CUDA]
        tensors.append(tensor.clone())
        return tensors[-1]

    monkeypatch.setattr(torch.cuda, "device", use)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lock)
    return tensors


def make_features() -> dict[str, Any]:
    return {"pixels": torch.arange(6, dtype=torch.uint8), "packing": object(), "ids": torch.ones(2, 3)}


def test_tensors_are_locked_for_the_device_that_reads_them(locked: list[torch.Tensor]) -> None:
    features = make_features()
    before = dict(features)
    pin(features, CUDA)
    assert features["pixels"] is locked[0]
    assert features["ids"] is locked[1]
    assert features["packing"] is before["packing"]
    assert all(torch.equal(features[name], before[name]) for name in ("pixels", "ids"))


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_nothing_is_locked_for_another_device(locked: list[torch.Tensor], device: str) -> None:
    features = make_features()
    before = dict(features)
    pin(features, torch.device(device))
    assert all(features[name] is value for name, value in before.items())
    assert locked == []


@pytest.mark.usefixtures("locked")
@pytest.mark.parametrize("error", [torch.OutOfMemoryError("none left"), RuntimeError("none left")])
def test_where_nothing_can_be_locked_the_batch_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def refuse(tensor: torch.Tensor) -> torch.Tensor:
        raise error

    monkeypatch.setattr(torch.Tensor, "pin_memory", refuse)
    features = make_features()
    before = dict(features)
    with caplog.at_level(logging.INFO, "st_modules"):
        pin(features, CUDA)
    assert all(features[name] is value for name, value in before.items())
    assert "pageable memory: none left" in caplog.text


def test_tensors_are_moved_and_nothing_else_is() -> None:
    features = make_features()
    packing = features["packing"]
    move(features, torch.device("meta"))
    assert [features[name].device.type for name in ("pixels", "ids")] == ["meta", "meta"]
    assert features["packing"] is packing


@pytest.mark.parametrize(("device", "waits"), [("cuda", False), ("mps", True), ("cpu", True)])
def test_only_cuda_is_not_waited_for(monkeypatch: pytest.MonkeyPatch, device: str, waits: bool) -> None:
    asked: list[tuple[str, bool]] = []

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool) -> torch.Tensor:
        asked.append((device.type, not non_blocking))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    move(make_features(), torch.device(device))
    assert asked == [(device, waits)] * 2


@pytest.mark.parametrize("ahead", [True, False])
def test_batches_that_are_read_ahead_are_locked_beside_the_model(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    pinned: list[tuple[bool, str]] = []

    def spy(features: dict[str, Any], device: torch.device) -> None:
        pinned.append((threading.current_thread() is threading.main_thread(), device.type))

    monkeypatch.setattr(engine, "pin", spy)
    monkeypatch.setattr(engine, "reads_ahead", lambda device: ahead)
    gme.encode(PICTURES, batch_size=1)
    assert pinned == ([(False, "cpu")] * len(PICTURES) if ahead else [])
    gme.encode(texts(3))
    assert len(pinned) == (len(PICTURES) if ahead else 0)
