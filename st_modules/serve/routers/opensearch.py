"""Multimodal embeddings of Alibaba Cloud OpenSearch, which has GME as ``ops-gme-qwen2-vl-2b-instruct``."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from st_modules.serve.fields import OwnFields
from st_modules.serve.guard import answer_as, write_json
from st_modules.serve.items import ITEM_SCHEMA, list_items
from st_modules.serve.problems import Problem
from st_modules.serve.service import Service
from st_modules.serve.vectors import write_vectors

_CODES = {"key": "InvalidApiKey", "busy": "Throttling", "timeout": "Timeout", "internal": "InternalServerError"}


class OpenSearchRequest(OwnFields):
    """OpenSearch's request."""

    input: Annotated[list[Any], WithJsonSchema({"type": "array", "items": ITEM_SCHEMA})]
    dimension: int | None = Field(None, description="The first so many components. A field of st-modules.")
    truncate: bool = Field(True, description="Whether the end of too long a text is cut. A field of st-modules.")

    model_config = {"json_schema_extra": {"examples": [{"input": [{"text": "a red circle"}]}]}}


class OpenSearchEmbedding(BaseModel):
    """One vector."""

    index: int
    embedding: list[float]


class OpenSearchResult(BaseModel):
    """The vectors."""

    embeddings: list[OpenSearchEmbedding]


class OpenSearchResponse(BaseModel):
    """OpenSearch's answer."""

    request_id: str
    latency: float
    usage: dict[str, int]
    result: OpenSearchResult


class OpenSearchError(BaseModel):
    """OpenSearch's errors."""

    request_id: str
    latency: float
    code: str
    message: str


def render_problem(problem: Problem) -> Any:
    """Write a problem as OpenSearch does."""
    code = _CODES.get(problem.kind, "InvalidParameter")
    return {"request_id": str(uuid.uuid4()), "latency": 0.0, "code": code, "message": problem.message}


router = APIRouter(route_class=answer_as(render_problem, "input"), tags=["OpenSearch"])


@router.post(
    "/v3/openapi/workspaces/{workspace}/multi-modal-embedding/{service_id}",
    response_model=OpenSearchResponse,
    responses={status: {"model": OpenSearchError} for status in (400, 401, 413, 422, 429, 504)},
)
async def embed(workspace: str, service_id: str, body: OpenSearchRequest, request: Request) -> Response:
    """Embed texts, images, and both together; any workspace and any service are this one."""
    start = time.perf_counter()
    service: Service = request.app.state.service
    found = await service.embed(list_items(body.input), body.choose(dimensions=body.dimension, truncate=body.truncate))
    vectors = write_vectors(found.vectors, "float")
    return write_json(
        {
            "request_id": str(uuid.uuid4()),
            "latency": round(1000 * (time.perf_counter() - start), 3),
            "usage": {"image": found.images, "token_count": found.tokens},
            "result": {"embeddings": [{"index": index, "embedding": each} for index, each in enumerate(vectors)]},
        }
    )
