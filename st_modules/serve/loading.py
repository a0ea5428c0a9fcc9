"""From the options of a command to an application: what a process does that holds a model of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastapi import FastAPI

from st_modules.model import SentenceTransformer
from st_modules.serve.app import create_app


def load_app(
    model_name: str,
    *,
    device: str | None,
    weights: Path | None,
    base_weights: Path | None,
    max_batch_tokens: int | None,
    **options: Any,
) -> FastAPI:
    """Load a model, and make the application that embeds by it.

    Args:
        model_name: As ``SentenceTransformer`` takes it.
        device: Likewise.
        weights: Likewise.
        base_weights: Likewise.
        max_batch_tokens: Most tokens in a batch.
        options: What :func:`create_app` takes beside the model.

    Raises:
        STModulesError: The model cannot be loaded.
        ValueError: The model, or an option, is not one that is served.
    """
    model = SentenceTransformer(
        model_name,
        device=device,
        weights=weights,
        base_weights=base_weights,
        max_batch_tokens=max_batch_tokens,
        keep_prefixes=True,
    )
    return create_app(model, **options)
