"""The application: one model behind every API."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

import st_modules
from st_modules.errors import ArgumentError
from st_modules.index.index import Index
from st_modules.inputs.limits import ImageLimits
from st_modules.model import SentenceTransformer
from st_modules.serve.collection import Collection
from st_modules.serve.envelope import render_problem
from st_modules.serve.guard import Guard, write_json
from st_modules.serve.limits import ServeLimits
from st_modules.serve.problems import Problem
from st_modules.serve.routers import cohere, dashscope, openai, opensearch, page, search, status, tei
from st_modules.serve.service import Service

_DESCRIPTION = """Texts, images, and both together as vectors of one space, behind the APIs of others.

An item is a string, which is always a text, or `{"text": ..., "image": ...}` with either or both, one vector each.
Images are data URIs, or http(s) URLs where the server allows them. Every API takes `side`, `instruction` and
`prompt_name` beside its own fields. `/v1/search` finds what an index has that is nearest to an item."""


def create_app(
    model: SentenceTransformer,
    *,
    index: str | os.PathLike[str] | None = None,
    name: str | None = None,
    api_key: str | None = None,
    allow_remote_images: bool = False,
    image_limits: ImageLimits | None = None,
    limits: ServeLimits | None = None,
    least_dimension: int | None = None,
    batch_delay: float = 0.005,
) -> FastAPI:
    """Make an application that embeds by a model, and searches an index of its vectors.

    Requests never open a file that they name. Load the model with ``keep_prefixes=True``, which says that nobody
    changes its weights.

    Args:
        model: The model.
        index: An index to be searched, as :meth:`st_modules.index.Index.open` takes it.
        name: What the application calls it; by default as the catalog or its folder does.
        api_key: What clients have to send, as ``Authorization: Bearer KEY``; ``None`` lets everybody in.
        allow_remote_images: Whether images are fetched from the public addresses that requests name.
        image_limits: What an image may cost; by default as the model has it. Its ``remote_images`` does not count,
            and its ``local_files`` only for the pictures that the rows of the index name.
        limits: What a request may cost, and how many there may be.
        least_dimension: Fewest dimensions that a request may ask for, where the model was trained for shorter
            embeddings than its own; by default what the catalog knows.
        batch_delay: Seconds that a request waits for others which are being read, to be embedded with them.

    Raises:
        ArgumentError: The key is empty, or a number is none.
        IndexMismatchError: The index is of another model.
        InputError: There is no index, or a damaged one, or one of a later version.
        MissingExtraError: There is an index, and LanceDB is not installed.
        ValueError: The model is not one of this package's.
    """
    if api_key is not None and not api_key.strip():
        raise ArgumentError("api_key is empty: pass a key, or None to let everybody in.")
    api_key = api_key if api_key is None else api_key.strip()  # as a client's is: a file of it may end with a line
    limits = limits or ServeLimits()
    service = Service(model, limits, image_limits, allow_remote_images, least_dimension, batch_delay)

    collection = None
    if index is not None:
        picture_limits = image_limits or service.backbone.image_limits
        collection = Collection(
            Index.open(index, model), dataclasses.replace(picture_limits, remote_images=allow_remote_images)
        )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
        yield
        service.close()
        if collection is not None:
            collection.close()

    app = FastAPI(
        title="st-modules",
        version=st_modules.__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        redirect_slashes=False,
    )
    app.state.service = service
    app.state.collection = collection
    app.state.guard = Guard(limits, api_key, service.metrics)
    app.state.name = name or (model.spec.name if model.spec else Path(service.backbone.model.name_or_path).name)
    app.state.created = int(time.time())
    for each in (openai, cohere, tei, dashscope, opensearch, search, status, page):
        app.include_router(each.router)
    app.add_exception_handler(HTTPException, _answer_other)
    app.add_exception_handler(Problem, _answer_problem)
    return app


async def _answer_other(request: Request, error: Exception) -> Response:
    """Answer what no route takes: an unknown path, or another method than a path has."""
    assert isinstance(error, HTTPException)
    problem = Problem("path", f"{request.method} {request.url.path}: {error.detail}.", status=error.status_code)
    response = await _answer_problem(request, problem)
    response.headers.update(error.headers or {})
    return response


async def _answer_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return write_json(render_problem(error), error.status)
