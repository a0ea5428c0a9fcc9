"""What a replica of Ray Serve is: the application, in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI
from ray import serve

from st_modules.errors import STModulesError

if TYPE_CHECKING:  # what deploys replicas does without torch
    from st_modules.serve.service import Service


@serve.ingress()
class Replica:
    """Answers requests; Ray Serve ends it and starts another where it is not well.

    Args:
        make_app: Makes the application, with its model.
    """

    def __init__(self, make_app: Callable[[], FastAPI]) -> None:
        self._app = make_app()
        self._service: Service = self._app.state.service
        self._service.metrics.labels = {"replica": serve.get_replica_context().replica_id.unique_id}

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app

    def check_health(self) -> None:
        """Raise where the last batch failed for no fault of its items, as a device does that is in a bad way."""
        if not self._service.is_well:
            raise STModulesError("The last batch failed for no fault of its items.")
