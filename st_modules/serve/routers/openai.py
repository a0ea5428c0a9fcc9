"""``POST /v1/embeddings`` of OpenAI, with the fields of vLLM, Jina and infinity, and ``GET /v1/models``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from st_modules.errors import Place
from st_modules.prompts.templates import Side
from st_modules.serve.envelope import render_problem
from st_modules.serve.fields import OwnFields
from st_modules.serve.guard import answer_as, write_json
from st_modules.serve.items import ITEMS_SCHEMA, list_items, read_source
from st_modules.serve.problems import Problem
from st_modules.serve.service import Choice, Service
from st_modules.serve.vectors import VECTOR_SCHEMA, write_vectors

_IMAGE = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAABwAAAAcAQMAAABIw03XAAAAA1BMVEX/AAAZ4gk3AAAADElEQVR42mNgGDwAAACMAAG8DKgnAAAAAElFTkSuQmCC"
)
# Jina's tasks that are a side of a search; its others are neither.
_TASKS: Mapping[str, Any] = {"retrieval.query": "query", "retrieval.passage": "document"}


class OpenAIRequest(OwnFields):
    """OpenAI's request, or vLLM's with ``messages`` in the place of ``input``."""

    input: Annotated[Any, WithJsonSchema({"anyOf": [*ITEMS_SCHEMA["anyOf"], {"type": "null"}]})] = None
    messages: list[dict[str, Any]] | None = Field(
        None, description="vLLM's form: one user message, after at most one system message; one vector."
    )
    model: str | None = Field(None, description="Any; there is one model.")
    dimensions: int | None = Field(None, description="The first so many components, of length 1 again.")
    encoding_format: Literal["float", "base64"] | None = None
    embedding_type: Literal["float", "base64", "binary", "ubinary"] | None = Field(None, description="Jina's name.")
    task: str | None = Field(None, description="Jina's: `retrieval.query` and `retrieval.passage` are the two sides.")
    modality: Literal["text", "image", "audio"] | None = Field(
        None, description="infinity's: `image` says that the strings of `input` are URLs and data URIs of images."
    )
    truncate: bool | None = Field(None, description="Whether the end of too long a text is cut; else it is an error.")
    truncate_prompt_tokens: int | None = Field(None, description="vLLM's: -1 cuts the end of too long a text.")
    normalized: bool | None = Field(None, description="Jina's: always true here.")
    late_chunking: bool | None = Field(None, description="Jina's: not here.")
    return_multivector: bool | None = Field(None, description="Jina's: not here.")
    user: str | None = Field(None, description="Not read.")
    add_generation_prompt: bool | None = Field(None, description="vLLM's; not read: each model has its own layout.")
    continue_final_message: bool | None = Field(None, description="vLLM's; not read, likewise.")
    add_special_tokens: bool | None = Field(None, description="vLLM's; not read, likewise.")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"model": "gme-2b", "input": ["a red circle", {"text": "make it blue", "image": _IMAGE}]},
                {"input": "two small green stars", "side": "query", "prompt_name": "query"},
                {
                    "messages": [
                        {
                            "role": "user",
                            "content": [
                                {"type": "image_url", "image_url": {"url": _IMAGE}},
                                {"type": "text", "text": "What is shown in this image?"},
                            ],
                        }
                    ]
                },
            ]
        }
    }


class Embedding(BaseModel):
    """One vector."""

    object: Literal["embedding"]
    index: int
    embedding: Annotated[Any, WithJsonSchema(VECTOR_SCHEMA)]


class Usage(BaseModel):
    """What a request cost."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """OpenAI's answer."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    truncated: int = Field(description="How many items lost the end of their text. A field of st-modules.")
    fingerprint: str = Field(description="Of the model's weights and settings. A field of st-modules.")


class ErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """OpenAI's envelope of errors."""

    error: ErrorDetail


router = APIRouter(route_class=answer_as(render_problem, "input"), tags=["OpenAI"])


@router.post(
    "/v1/embeddings",
    response_model=EmbeddingList,
    responses={status: {"model": OpenAIError} for status in (400, 401, 413, 422, 429, 504)},
)
async def create_embeddings(body: OpenAIRequest, request: Request) -> Response:
    """Embed texts, images, and both together: OpenAI's embeddings, with the fields of vLLM, Jina and infinity."""
    service: Service = request.app.state.service
    found = await service.embed(_list_values(body), _choose(body))
    vectors = write_vectors(found.vectors, body.embedding_type or body.encoding_format or "float")
    return write_json(
        {
            "object": "list",
            "data": [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(vectors)],
            "model": request.app.state.name,
            "usage": {"prompt_tokens": found.tokens, "total_tokens": found.tokens},
            "truncated": found.truncated,
            "fingerprint": service.fingerprint,
        }
    )


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """Say which model there is, and what it takes."""
    service: Service = request.app.state.service
    model = {
        "id": request.app.state.name,
        "object": "model",
        "created": request.app.state.created,
        "owned_by": "st-modules",
        "dimension": service.dimension,
        "least_dimension": service.least_dimension,
        "fingerprint": service.fingerprint,
        "max_length": service.backbone.max_length,
        "takes_video": service.backbone.takes_video,
        "prompts": {name: prompt for name, prompt in service.model.prompts.items() if prompt},
        "instruction_sides": [side for side in get_args(Side) if service.backbone.reads_instruction(side)],
        "max_items": service.limits.max_items,
        "max_body_bytes": service.limits.max_body_bytes,
    }
    return {"object": "list", "data": [model]}


def _list_values(body: OpenAIRequest) -> list[Any]:
    if (body.input is None) == (body.messages is None):
        raise Problem("input", "Send input or messages, one of the two.", "input")
    if body.messages is not None:
        # Clients of vLLM send an empty answer, to which its layout puts the last token.
        messages = body.messages
        if len(messages) > 1 and messages[-1].get("role") == "assistant" and _is_empty(messages[-1].get("content")):
            messages = messages[:-1]
        return [messages]
    if body.modality == "audio":
        raise Problem("input", "The model embeds no audio.", "modality")
    if body.modality == "image":
        values = body.input if isinstance(body.input, list) else [body.input]
        return [{"image": read_source(value, "image", Place(index))} for index, value in enumerate(values)]
    return list_items(body.input)


def _is_empty(content: object) -> bool:
    return not content or content == [{"type": "text", "text": ""}]


def _choose(body: OpenAIRequest) -> Choice:
    for name in ("late_chunking", "return_multivector"):
        if getattr(body, name):
            raise Problem("input", "The model has one vector for an item; leave it out.", name)
    if body.normalized is False:
        raise Problem("input", "The model's embeddings are of length 1; leave it out.", "normalized")
    if body.truncate_prompt_tokens not in (None, -1):
        raise Problem(
            "input", "-1 cuts what is too long for the model; send that or nothing.", "truncate_prompt_tokens"
        )
    side = body.side or _TASKS.get(body.task or "")
    truncate = bool(body.truncate) or body.truncate_prompt_tokens == -1
    return body.choose(side=side, dimensions=body.dimensions, truncate=truncate)
