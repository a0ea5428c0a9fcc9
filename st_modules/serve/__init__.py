"""A model behind HTTP APIs that existing clients speak: OpenAI's, vLLM's, Jina's, Cohere's, TEI's, DashScope's.

It needs ``pip install "st-modules[serve]"``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names, require

if TYPE_CHECKING:
    from st_modules.serve.app import create_app
    from st_modules.serve.limits import ServeLimits

__all__ = ["ServeLimits", "create_app"]


def _check(name: str) -> None:
    if name == "create_app":
        require("fastapi", extra="serve")
        require("prometheus_client", extra="serve")


__getattr__, __dir__ = lazy_names(__name__, {"ServeLimits": "limits", "create_app": "app"}, _check)
