"""The server on many machines: Ray Serve runs the application in replicas, each of which holds a model."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI

from st_modules._imports import import_extra
from st_modules.arguments import check_integer
from st_modules.errors import ArgumentError, STModulesError
from st_modules.integrations.ray_cluster import check_room, connect
from st_modules.serve.limits import ServeLimits
from st_modules.serve.process import find_port
from st_modules.serve.ray_proxy import MAX_BODY_BYTES, MAX_REQUESTS, list_middlewares

_NAME = "st-modules"
# Where Ray's proxy reads what is to stand before it.
_PROXY_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
_GATE = f"{list_middlewares.__module__}.{list_middlewares.__name__}"
# How long Ray waits for a proxy that starts before it kills it: 5 s by itself, which a busy machine takes to import.
_PROXY_PATIENCE = "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S"
_PROXY_START_SECONDS = "60"
# How often a replica that cannot load its model is started anew before the server gives up.
_STARTS = 3
# Ray's own waiting for an application's end.
_DELETE_SECONDS = 60


@dataclass(frozen=True)
class RayServeOptions:
    """Where the replicas are.

    Args:
        address: The cluster, as ``ray.init`` takes it; ``None`` is the one that this process is connected to, that of
            ``RAY_ADDRESS``, or one that is started on this machine and ended again.
        replicas: How many there are, each a process with a model of its own.
        gpus_per_replica: GPUs that each of them is given; a part of one where several share it.
        cpus_per_replica: Cores that each of them is given, on which it also computes.

    Raises:
        ArgumentError: A number is none, or negative.
    """

    address: str | None = None
    replicas: int = 1
    gpus_per_replica: float = 0
    cpus_per_replica: float = 1

    def __post_init__(self) -> None:
        check_integer("replicas", self.replicas)
        for name in ("gpus_per_replica", "cpus_per_replica"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise ArgumentError(f"{name}={value!r}: pass a number that is not negative.")


def run_replicas(
    make_app: Callable[[], FastAPI],
    cluster: RayServeOptions,
    limits: ServeLimits,
    host: str,
    port: int,
    drain: int,
    report: Callable[[str], None],
) -> None:
    """Answer requests by replicas until the process is asked to end, and then finish those that are under way.

    Args:
        make_app: Makes the application in a replica; can be pickled.
        cluster: Where the replicas are.
        limits: What a request may cost, in the application too.
        host: Address that the HTTP proxies of Ray Serve listen on, on each machine that has a replica.
        port: Port that they listen on; on a cluster that is started here, 0 is any that is free.
        drain: Seconds to finish requests in; those that take longer are broken off.
        report: Is given the server's URL once it answers.

    Raises:
        ArgumentError: The cluster has no room, or serves already.
        STModulesError: The replicas do not start.
        OSError: The address cannot be listened on.
    """
    with run_app(make_app, cluster, limits, host, port, drain) as url:
        report(url)
        threading.Event().wait()


@contextmanager
def run_app(
    make_app: Callable[[], FastAPI], cluster: RayServeOptions, limits: ServeLimits, host: str, port: int, drain: int
) -> Generator[str, None, None]:
    """Have replicas answer requests as long as the context lasts; see :func:`run_replicas`.

    Yields:
        The server's URL.
    """
    ray, serve = import_extra("ray", "ray-serve"), import_extra("ray.serve", "ray-serve")
    with connect(ray, cluster.address) as is_shared:
        wanted = {
            "GPU": cluster.replicas * cluster.gpus_per_replica,
            "CPU": cluster.replicas * cluster.cpus_per_replica,
        }
        check_room(ray, wanted, f"{cluster.replicas} replicas", may_grow=is_shared)
        # Its proxies have the port and the limits that they were started with.
        if serve.status().proxies:
            raise ArgumentError("Ray Serve runs on this cluster already: end it (serve shutdown), or name another one.")
        if is_shared and not port:
            raise ArgumentError("port=0: name the port that the machines of the cluster listen on.")
        port, url = (port, f"http://{host}:{port}") if is_shared else find_port(host, port)
        try:
            _start(serve, make_app, cluster, limits, host, port, drain)
            yield url
        finally:
            _end(serve, drain, is_shared=is_shared)


def _start(
    serve: Any,
    make_app: Callable[[], FastAPI],
    cluster: RayServeOptions,
    limits: ServeLimits,
    host: str,
    port: int,
    drain: int,
) -> None:
    from st_modules.serve.ray_replica import Replica

    quiet = {"log_level": "WARNING", "enable_access_log": False}
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    gate = {
        _PROXY_CALLBACK: _GATE,
        MAX_BODY_BYTES: str(limits.max_body_bytes),
        # What all replicas take, and what may wait.
        MAX_REQUESTS: str((cluster.replicas + 1) * limits.max_requests),
        _PROXY_PATIENCE: os.environ.get(_PROXY_PATIENCE, _PROXY_START_SECONDS),
    }
    serve.start(
        http_options={"host": host, "port": port, "request_timeout_s": limits.timeout},
        # The controller starts the proxies, which have its environment.
        controller_options={"runtime_env": {"env_vars": gate}},
        logging_config=quiet,
    )
    replicas: Any = serve.deployment(
        name="replica",
        num_replicas=cluster.replicas,
        ray_actor_options={"num_cpus": cluster.cpus_per_replica, "num_gpus": cluster.gpus_per_replica},
        max_ongoing_requests=limits.max_requests,
        # As many wait in a proxy as a replica takes.
        max_queued_requests=limits.max_requests,
        backpressure_config={"status_code": 429},
        graceful_shutdown_timeout_s=drain,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=_STARTS,
        logging_config=quiet,
    )(Replica)
    try:
        serve.run(replicas.bind(make_app), name=_NAME)
    except RuntimeError as error:
        raise STModulesError(f"The replicas do not start. {_find_cause(serve) or error}") from error


def _end(serve: Any, drain: int, *, is_shared: bool) -> None:
    """Let the replicas finish what is under way, and end Ray Serve where the cluster goes on without it."""
    for _ in range(1 + drain // _DELETE_SECONDS):
        try:
            serve.delete(_NAME)
            break
        except TimeoutError:
            continue
    if is_shared:
        serve.shutdown()


def _find_cause(serve: Any) -> str:
    """Return what a replica raised that did not start; Ray tells it in the last line of a traceback."""
    application = serve.status().applications.get(_NAME)
    told = [each.message for each in application.deployments.values()] if application else []
    return "".join(told).strip().rpartition("\n")[2]
