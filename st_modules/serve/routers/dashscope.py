"""DashScope's multimodal embeddings (Alibaba Cloud Model Studio)."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from st_modules.errors import InputError, Place, shorten
from st_modules.serve.fields import Body, OwnFields
from st_modules.serve.guard import answer_as, write_json
from st_modules.serve.items import read_source, read_sources
from st_modules.serve.problems import Problem
from st_modules.serve.service import Service
from st_modules.serve.vectors import write_vectors

_CODES = {
    "key": "InvalidApiKey",
    "busy": "Throttling.RateQuota",
    "timeout": "RequestTimeOut",
    "internal": "InternalError",
}
_KEYS = ("text", "image", "video", "multi_images", "factor")


class DashScopeInput(Body):
    """The contents."""

    contents: list[dict[str, Any]] = Field(
        description="Each with `text`, `image`, `video` or `multi_images`; one with several of them is one vector."
    )


class DashScopeParameters(OwnFields):
    """How they are embedded."""

    dimension: int | None = Field(None, description="The first so many components, of length 1 again.")
    enable_fusion: bool = Field(False, description="Whether all contents become one vector.")
    instruct: str | None = Field(None, description="The instruction.")
    output_type: Literal["dense"] | None = None
    auto_truncation: bool = Field(True, description="Whether the end of too long a text is cut; else it is an error.")


class DashScopeRequest(Body):
    """DashScope's request."""

    input: DashScopeInput
    model: str | None = Field(None, description="Any; there is one model.")
    parameters: DashScopeParameters = Field(default_factory=lambda: DashScopeParameters.model_validate({}))

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"model": "multimodal-embedding-v1", "input": {"contents": [{"text": "a red circle"}]}},
                {"input": {"contents": [{"text": "a"}, {"text": "b"}]}, "parameters": {"enable_fusion": True}},
            ]
        }
    }


class DashScopeEmbedding(BaseModel):
    """One vector."""

    index: int
    embedding: list[float]
    type: str


class DashScopeOutput(BaseModel):
    """The vectors."""

    embeddings: list[DashScopeEmbedding]


class DashScopeResponse(BaseModel):
    """DashScope's answer."""

    output: DashScopeOutput
    usage: dict[str, int]
    request_id: str


class DashScopeError(BaseModel):
    """DashScope's errors."""

    code: str
    message: str
    request_id: str


def render_problem(problem: Problem) -> Any:
    """Write a problem as DashScope does."""
    code = _CODES.get(problem.kind, "InvalidParameter")
    return {"code": code, "message": problem.message, "request_id": str(uuid.uuid4())}


router = APIRouter(route_class=answer_as(render_problem, "input.contents"), tags=["DashScope"])


@router.post(
    "/api/v1/services/embeddings/multimodal-embedding/multimodal-embedding",
    response_model=DashScopeResponse,
    responses={status: {"model": DashScopeError} for status in (400, 401, 413, 422, 429, 504)},
)
async def embed(body: DashScopeRequest, request: Request) -> Response:
    """Embed texts, images, videos and several images, each by itself or all as one."""
    service: Service = request.app.state.service
    wanted = body.parameters
    if wanted.instruct is not None and wanted.instruction is not None:
        raise Problem("input", "instruct and instruction say the same; send one of them.", "parameters.instruct")
    contents = _fuse(body.input.contents) if wanted.enable_fusion else [[each] for each in body.input.contents]
    items = [_read_parts(parts, Place(index)) for index, parts in enumerate(contents)]
    choice = wanted.choose(
        instruction=wanted.instruction if wanted.instruct is None else wanted.instruct,
        dimensions=wanted.dimension,
        truncate=wanted.auto_truncation,
    )
    found = await service.embed(items, choice)
    vectors = write_vectors(found.vectors, "float")
    types = [_name_type(parts) for parts in contents]
    return write_json(
        {
            "output": {
                "embeddings": [
                    {"index": index, "embedding": vector, "type": kind}
                    for index, (vector, kind) in enumerate(zip(vectors, types, strict=True))
                ]
            },
            "usage": {
                "input_tokens": found.tokens - found.visual_tokens,
                "image_tokens": found.visual_tokens,
                "image_count": found.images,
                "total_tokens": found.tokens,
            },
            "request_id": str(uuid.uuid4()),
        }
    )


def _fuse(contents: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [contents] if contents else []


def _read_parts(parts: list[dict[str, Any]], place: Place) -> dict[str, Any]:
    """Return what becomes one vector as an item; several texts are joined by a newline."""
    texts: list[str] = []
    images: list[str] = []
    videos: list[Any] = []
    for part in parts:
        if unknown := part.keys() - set(_KEYS):
            raise InputError(f"unknown keys {shorten(sorted(unknown))}; known are {sorted(_KEYS)}", place)
        if (text := part.get("text")) is not None:
            if not isinstance(text, str):
                raise InputError(f"a text of type {type(text).__name__}; send a string", place)
            texts.append(text)
        if (image := part.get("image")) is not None:
            images.append(read_source(image, "image", place))
        if (several := part.get("multi_images")) is not None:
            found = read_sources(several, "image", place)
            images += found if isinstance(found, list) else [found]
        if (video := part.get("video")) is not None:
            videos.append(read_sources(video, "video", place))
    if len(videos) > 1:
        raise InputError(f"{len(videos)} videos, and an item has one. Embed each by itself.", place)
    return {"text": "\n".join(texts) if texts else None, "image": images, "video": videos[0] if videos else None}


def _name_type(parts: list[dict[str, Any]]) -> str:
    kinds = [key for part in parts for key in _KEYS[:-1] if part.get(key) is not None]
    return kinds[0] if len(kinds) == 1 else "vl"
