"""A Ray cluster to work in: the one that this process is in, one that it is told of, or one that is started for it."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

from st_modules.errors import ArgumentError

logger = logging.getLogger(__name__)


@contextmanager
def connect(ray: Any, address: str | None) -> Generator[bool, None, None]:
    """Connect to a cluster, or start one, where this process is in none yet; and leave it again.

    Args:
        ray: The module.
        address: The cluster, as ``ray.init`` takes it; ``None`` is the one that this process is connected to, that of
            ``RAY_ADDRESS``, or one that is started on this machine and ended again.

    Yields:
        Whether it may grow, which one that is started here does not.

    Raises:
        ArgumentError: This process is connected to another one.
    """
    if ray.is_initialized():
        present = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", present):
            raise ArgumentError(f"address={address!r}: this process is connected to the cluster at {present}.")
        yield True
        return
    # Without an address, Ray would take whatever cluster was last started on this machine.
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    # A cluster that is started here tells nobody of itself, unless its owner says so.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    with _keep_sigterm():
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    try:
        yield address != "local"
    finally:
        ray.shutdown()


def check_room(ray: Any, wanted: Mapping[str, float], what: str, *, may_grow: bool) -> None:
    """Refuse what a cluster has no room for, or tell that it waits until the cluster has grown.

    Args:
        ray: The module; this process is connected to the cluster.
        wanted: How much of each resource is needed, as ``{"GPU": 2}``.
        what: What needs it, in words.
        may_grow: Whether the cluster may have more of it later.

    Raises:
        ArgumentError: It has less, and does not grow.
    """
    there = ray.cluster_resources()
    for name, needed in wanted.items():
        if needed > (found := there.get(name, 0)):
            problem = f"{what} need {needed:g} {name}s, and the cluster has {found:g}."
            if not may_grow:
                raise ArgumentError(f"{problem} Ask for fewer, or for less for each.")
            logger.warning("%s The others wait until it has more.", problem)


@contextmanager
def _keep_sigterm() -> Generator[None, None, None]:
    """Have SIGTERM do what it did before: Ray's connecting makes it end the process with the signal's number."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if before is not None and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)
