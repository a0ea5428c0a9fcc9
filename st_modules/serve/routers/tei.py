"""``POST /embed`` of Text Embeddings Inference."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from st_modules.serve.fields import OwnFields
from st_modules.serve.guard import answer_as, write_json
from st_modules.serve.items import ITEMS_SCHEMA, list_items
from st_modules.serve.problems import Problem
from st_modules.serve.service import Service
from st_modules.serve.vectors import write_vectors

_TYPES = {"busy": "Overloaded", "timeout": "Backend", "internal": "Backend", "gone": "Backend"}
_STATUSES = {"input": 422, "limit": 413, "internal": 424}


class TEIRequest(OwnFields):
    """TEI's request."""

    inputs: Annotated[Any, WithJsonSchema(ITEMS_SCHEMA)]
    normalize: bool | None = Field(None, description="Always true here.")
    truncate: bool | None = Field(None, description="Whether the end of too long a text is cut; else it is an error.")
    truncation_direction: Literal["Right", "Left", "right", "left"] | None = Field(
        None, description="Right alone here."
    )
    dimensions: int | None = Field(None, description="The first so many components, of length 1 again.")

    model_config = {
        "json_schema_extra": {"examples": [{"inputs": "a red circle"}, {"inputs": ["a", "b"], "side": "query"}]}
    }


class TEIError(BaseModel):
    """TEI's errors."""

    error: str
    error_type: str


def render_problem(problem: Problem) -> Any:
    """Write a problem as TEI does."""
    return {"error": problem.message, "error_type": _TYPES.get(problem.kind, "Validation")}


router = APIRouter(route_class=answer_as(render_problem, "inputs", _STATUSES), tags=["TEI"])


@router.post(
    "/embed",
    response_model=list[list[float]],
    responses={status: {"model": TEIError} for status in (401, 413, 422, 424, 429, 504)},
)
async def embed(body: TEIRequest, request: Request) -> Response:
    """Embed one input or a list of them; the answer is a list of vectors."""
    if body.normalize is False:
        raise Problem("input", "The model's embeddings are of length 1; leave it out.", "normalize")
    if (body.truncation_direction or "right").lower() != "right":
        raise Problem("input", "Texts are cut at their end alone.", "truncation_direction")
    service: Service = request.app.state.service
    choice = body.choose(dimensions=body.dimensions, truncate=bool(body.truncate))
    found = await service.embed(list_items(body.inputs), choice)
    return write_json(write_vectors(found.vectors, "float"))
