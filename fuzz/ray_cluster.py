"""A cluster of several Ray nodes on this machine, small and silent."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psutil

STORE_BYTES = 100 * 2**20

SETTINGS = {
    # Nothing is told to anybody, and nothing written into the home folder.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    # Ray would have its workers wait for whatever else runs on this machine.
    "RAY_worker_niceness": "0",
    # A proxy that starts slowly here, beside other work, is not to be killed for it.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60",
    # Ray would kill workers for what other processes take of the memory.
    "RAY_memory_monitor_refresh_ms": "0",
}
"""What Ray reads from the environment; every cluster that this process starts, or a process of its own, has it."""

os.environ.update(SETTINGS)


@contextmanager
def run_cluster(nodes: int, connect: bool = True) -> Generator[Any, None, None]:
    """Run a cluster.

    Args:
        nodes: How many nodes, of one core each, beside the first one.
        connect: Whether this process is connected to it, on the first node.
    """
    import ray
    from ray.cluster_utils import Cluster

    size: dict[str, Any] = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    cluster = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    try:
        for _ in range(nodes):
            cluster.add_node(**size)
        if connect:
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


def kill_worker(moments: random.Random) -> bool:
    """Kill the process of one of the workers that hold a model, as a lack of memory does; whether there was one."""
    found = [process for process in psutil.Process().children(recursive=True) if _holds_model(process)]
    if found:
        moments.choice(found).kill()
    return bool(found)


def _holds_model(process: psutil.Process) -> bool:
    try:
        return "".join(process.cmdline()).startswith("ray::_Worker")
    except psutil.Error:  # it has ended meanwhile
        return False
