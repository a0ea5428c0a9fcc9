"""``POST /v2/embed`` of Cohere."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from st_modules.errors import Place
from st_modules.prompts.templates import Side
from st_modules.serve.fields import OwnFields
from st_modules.serve.guard import answer_as, write_json
from st_modules.serve.items import read_source
from st_modules.serve.problems import Problem
from st_modules.serve.service import Choice, Service
from st_modules.serve.vectors import VECTOR_SCHEMA, write_vectors

_SIDES: Mapping[str, Side] = {"search_query": "query", "search_document": "document"}


class CohereRequest(OwnFields):
    """Cohere's request, version 2."""

    input_type: Literal["search_query", "search_document", "classification", "clustering", "image"] = Field(
        description="`search_query` and `search_document` are the two sides of a search; the others are neither."
    )
    texts: list[str] | None = None
    images: list[str] | None = Field(None, description="Data URIs; http(s) URLs where the server allows them.")
    inputs: list[dict[str, Any]] | None = Field(
        None, description="Each with `content`, a list of parts: texts and images that become one vector."
    )
    model: str | None = Field(None, description="Any; there is one model.")
    embedding_types: list[Literal["float", "base64", "binary", "ubinary", "int8", "uint8"]] | None = Field(
        None, description="`int8` and `uint8` are not here: they need bounds that no request has."
    )
    output_dimension: int | None = Field(None, description="The first so many components, of length 1 again.")
    truncate: Literal["NONE", "START", "END"] = Field("END", description="`START` is not here.")
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(None, description="Most tokens of an item.")
    priority: int | None = Field(None, description="Not read.")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"input_type": "search_query", "texts": ["two small green stars"], "embedding_types": ["float"]},
                {"input_type": "search_document", "inputs": [{"content": [{"type": "text", "text": "a red circle"}]}]},
            ]
        }
    }


class CohereResponse(BaseModel):
    """Cohere's answer."""

    id: str
    embeddings: dict[str, list[Annotated[Any, WithJsonSchema(VECTOR_SCHEMA)]]]
    texts: list[str] | None
    meta: dict[str, Any]
    response_type: Literal["embeddings_by_type"]


class CohereError(BaseModel):
    """Cohere's errors."""

    id: str
    message: str


def render_problem(problem: Problem) -> Any:
    """Write a problem as Cohere does."""
    return {"id": str(uuid.uuid4()), "message": problem.message}


router = APIRouter(route_class=answer_as(render_problem, "inputs"), tags=["Cohere"])


@router.post(
    "/v2/embed",
    response_model=CohereResponse,
    responses={status: {"model": CohereError} for status in (400, 401, 413, 422, 429, 504)},
)
async def embed(body: CohereRequest, request: Request) -> Response:
    """Embed texts, images, or inputs of several parts."""
    service: Service = request.app.state.service
    found = await service.embed(_list_values(body), _choose(body))
    tokens = {"input_tokens": found.tokens, "image_tokens": found.visual_tokens, "images": found.images}
    return write_json(
        {
            "id": str(uuid.uuid4()),
            "embeddings": {kind: write_vectors(found.vectors, kind) for kind in body.embedding_types or ["float"]},
            "texts": body.texts,
            "meta": {"api_version": {"version": "2"}, "billed_units": tokens},
            "response_type": "embeddings_by_type",
        }
    )


def _list_values(body: CohereRequest) -> list[Any]:
    given = [name for name in ("texts", "images", "inputs") if getattr(body, name) is not None]
    if len(given) != 1:
        raise Problem("input", "Send one of texts, images and inputs.", given[-1] if given else "texts")
    if body.texts is not None:
        return [{"text": text} for text in body.texts]
    if body.images is not None:
        return [{"image": read_source(image, "image", Place(index))} for index, image in enumerate(body.images)]
    return [_as_message(each, index) for index, each in enumerate(body.inputs or [])]


def _as_message(value: dict[str, Any], index: int) -> dict[str, Any]:
    if value.keys() != {"content"}:
        raise Problem("input", f"inputs[{index}]: send an object with content, a list of parts.", f"inputs[{index}]")
    return {"role": "user", "content": value["content"]}


def _choose(body: CohereRequest) -> Choice:
    if body.truncate == "START":
        raise Problem("input", "Texts are cut at their end alone; send END or NONE.", "truncate")
    side = body.side or _SIDES.get(body.input_type)
    return body.choose(
        side=side, dimensions=body.output_dimension, truncate=body.truncate == "END", max_length=body.max_tokens
    )
