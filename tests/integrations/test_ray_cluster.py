"""A process in no cluster starts one or connects to one, and leaves it; without Ray, which tests of others start."""

from __future__ import annotations

import os
import signal
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from st_modules.errors import ArgumentError
from st_modules.integrations.ray_cluster import check_room, connect


class Ray:
    """What is called of Ray."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))
        self.told.append(options["address"])

    def shutdown(self) -> None:
        self.told.append("shutdown")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED", raising=False)


@pytest.mark.parametrize(
    ("address", "variable", "expected", "may_grow"),
    [
        (None, None, "local", False),
        ("auto", None, "auto", True),
        (None, "10.0.0.1:6379", "10.0.0.1:6379", True),
        ("10.0.0.2:6379", "10.0.0.1:6379", "10.0.0.2:6379", True),
    ],
)
def test_a_cluster_is_the_one_that_is_told_or_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch, address: str | None, variable: str | None, expected: str, may_grow: bool
) -> None:
    if variable:
        monkeypatch.setenv("RAY_ADDRESS", variable)
    ray = Ray()
    with connect(ray, address) as found:
        assert (found, ray.told) == (may_grow, [expected])
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    assert ray.told == [expected, "shutdown"]


def test_sigterm_does_what_it_did_before() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with connect(Ray(), None):
        assert signal.getsignal(signal.SIGTERM) == before


def test_what_has_no_room_is_refused_with_what_there_is() -> None:
    there: Any = SimpleNamespace(cluster_resources=lambda: {"CPU": 2.0})
    check_room(there, {"GPU": 0, "CPU": 2}, "2 replicas", may_grow=False)
    with pytest.raises(ArgumentError, match=r"^2 replicas need 0\.5 GPUs, and the cluster has 0\. Ask for fewer"):
        check_room(there, {"GPU": 0.5, "CPU": 2}, "2 replicas", may_grow=False)
