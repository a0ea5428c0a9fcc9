"""What workers of a cluster hold in the place of a model: they import it, and it imports no torch, which takes long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from st_modules.errors import UnknownModelError


class Holding:
    """What embeds everything at once, as the same vector."""

    @property
    def embedder(self) -> Holding:
        return self

    def encode_valid(self, items: Sequence[Any], side: str, **options: Any) -> tuple[np.ndarray, list[Any]]:
        return np.ones((len(items), 1), dtype=np.float32), []


class Refusing:
    """What cannot load its model."""

    @property
    def embedder(self) -> Any:
        raise UnknownModelError("Unknown model 'gme-2'.")


class Dying:
    """What takes its process with it whenever a model is asked for."""

    @property
    def embedder(self) -> Any:
        os._exit(1)
