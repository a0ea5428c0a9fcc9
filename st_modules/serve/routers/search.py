"""``/v1/search`` and ``/v1/index`` of our own: what the served index has that is nearest to a query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field, WithJsonSchema
from starlette.responses import Response

from st_modules.errors import InputError, Place
from st_modules.index.hits import Hit
from st_modules.index.index import Index
from st_modules.inputs.items import check_text
from st_modules.serve.collection import Collection
from st_modules.serve.conditions import check_condition
from st_modules.serve.envelope import render_problem
from st_modules.serve.fields import Body
from st_modules.serve.guard import answer_as, write_json
from st_modules.serve.items import ITEM_SCHEMA, read_item
from st_modules.serve.problems import Problem
from st_modules.serve.routers.openai import OpenAIError
from st_modules.serve.service import Choice, Service

_MOST_HITS = 100
_LONGEST_ID = 4096
# Each word is looked up by itself.
_LONGEST_WORDS = 2000
_PICTURE = "/v1/index/picture"


class SearchQuery(Body):
    """A query, or an item of the index in its place."""

    query: Annotated[Any, WithJsonSchema(ITEM_SCHEMA)] = None
    like: str | None = Field(
        None, max_length=_LONGEST_ID, description="The id of an item of the index: more like that one."
    )
    k: int = Field(10, ge=1, le=_MOST_HITS, description="How many hits.")
    where: str | None = Field(
        None, description="A condition in SQL on the columns that `/v1/index` lists, as `page < 3`."
    )
    mode: Literal["vector", "text", "hybrid"] = Field(
        "vector", description="By the vector; by the words of the query's text, without the model; or by both."
    )
    exact: bool = Field(False, description="Compare with every vector, also where there is a vector index.")
    instruction: str | None = Field(None, description="What the model is told about the task, where it reads that.")
    prompt_name: str | None = Field(None, description="Name of one of the model's own instructions.")

    model_config = {
        "json_schema_extra": {
            "examples": [
                {"query": "two small green stars", "k": 3},
                {"query": {"text": "a red circle"}, "where": "page IS NULL", "exact": True},
            ]
        }
    }


class SearchHit(BaseModel):
    """An item of the index."""

    id: str
    score: float = Field(description="Higher is better: the cosine similarity, or of words what LanceDB computes.")
    source: str = Field(description="The file that it was read from.")
    page: int | None = Field(description="Page of a PDF, from 1.")
    text: str | None
    image: str | None = Field(description="The path on this server where its picture is.")
    metadata: dict[str, Any]


class SearchAnswer(BaseModel):
    """The hits, best first."""

    data: list[SearchHit]


class Column(BaseModel):
    """What a condition may name."""

    name: str
    type: Literal["string", "int", "float", "bool"]


class IndexFacts(BaseModel):
    """What there is to be searched."""

    count: int
    columns: list[Column]
    has_texts: bool = Field(description="Whether there are texts, to be searched by words.")


class ServedFacts(BaseModel):
    """What a client that searches has to know."""

    model: str
    prompts: dict[str, str] = Field(description="The model's own instructions for queries, by name.")
    reads_instruction: bool = Field(description="Whether the model is told anything about a query.")
    max_items: int = Field(description="Most items of a request.")
    max_body_bytes: int = Field(description="Largest body of a request.")
    max_image_bytes: int = Field(description="Largest image, encoded.")
    index: IndexFacts | None = Field(description="`null` where none is served.")


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIError} for status in (400, 401, 404, 413, 422, 429, 504)
}
router = APIRouter(route_class=answer_as(render_problem, "query"), tags=["Search"], responses=_ERRORS)


@router.post("/v1/search", response_model=SearchAnswer)
async def search(body: SearchQuery, request: Request) -> Response:
    """Find what the index has that is nearest to a text, an image, both together, or one of its own items."""
    collection = _find_collection(request)
    if body.where is not None:
        check_condition(body.where)
    if body.like is not None:
        _check_alone(body)
        return await collection.ask(partial(_search_like, body))
    if body.mode == "text":
        item = _read_query(body)
        return await collection.ask(partial(_search_words, body, item["text"]))
    vector = await _embed(request.app.state.service, body)
    text = _read_query(body)["text"] if body.mode == "hybrid" else None
    return await collection.ask(partial(_search_vector, body, vector[: collection.dimension], text))


@router.get("/v1/index", response_model=ServedFacts)
async def describe(request: Request) -> Response:
    """Say what is served: the model, its instructions for queries, and the columns of the index."""
    service: Service = request.app.state.service
    collection: Collection | None = request.app.state.collection
    reads = service.backbone.reads_instruction("query")
    facts = {
        "model": request.app.state.name,
        "prompts": {name: prompt for name, prompt in service.model.prompts.items() if prompt} if reads else {},
        "reads_instruction": reads,
        "max_items": service.limits.max_items,
        "max_body_bytes": service.limits.max_body_bytes,
        "max_image_bytes": service.image_limits.max_bytes,
        "index": None if collection is None else await collection.ask(_describe),
    }
    return write_json(facts)


@router.get(
    _PICTURE,
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def show_picture(
    request: Request,
    id: Annotated[str, Query(max_length=_LONGEST_ID, description="The id of an item of the index.")],
) -> Response:
    """Show the picture of an item, or the page of a PDF, as a JPEG of at most 512 pixels."""
    picture = await _find_collection(request).paint(id)
    headers = {"Cache-Control": "private, max-age=300", "Vary": "Authorization", "X-Content-Type-Options": "nosniff"}
    return Response(picture, media_type="image/jpeg", headers=headers)


def _find_collection(request: Request) -> Collection:
    collection: Collection | None = request.app.state.collection
    if collection is None:
        raise Problem("unknown", "This server has no index: start it with --index to search one.")
    return collection


def _check_alone(body: SearchQuery) -> None:
    for name in ("query", "instruction", "prompt_name"):
        if getattr(body, name) is not None:
            raise Problem("input", f"like takes the vector of an item of the index, without {name}.", name)
    if body.mode != "vector" or body.exact:
        name = "exact" if body.mode == "vector" else "mode"
        raise Problem("input", f"like takes the vector of an item of the index, without {name}.", name)


def _read_query(body: SearchQuery) -> dict[str, Any]:
    """Return the query as an item, which has words where the mode looks for them."""
    if body.query is None:
        raise Problem("input", "Send query, or the id of an item as like.", "query")
    item = read_item(body.query, Place(0, name="query"))
    text = item["text"]
    if isinstance(text, str):
        _check_unicode(text)
    if body.mode != "vector" and not (isinstance(text, str) and text.strip()):
        raise Problem("input", f"mode {body.mode!r} looks for the words of a text, and the query has none.", "query")
    if body.mode != "vector" and len(text) > _LONGEST_WORDS:
        raise Problem(
            "input", f"mode {body.mode!r} looks for words in at most {_LONGEST_WORDS} characters; send fewer.", "query"
        )
    if body.mode == "text" and item.keys() != {"text"}:
        raise Problem("input", "mode 'text' looks for words alone, and the query has more; send 'hybrid'.", "mode")
    return item


def _check_unicode(text: str) -> None:
    try:
        check_text(text, "query")
    except InputError as error:
        raise Problem("input", str(error), "query") from error


async def _embed(service: Service, body: SearchQuery) -> Any:
    choice = Choice(side="query", instruction=body.instruction, prompt_name=body.prompt_name)
    try:
        found = await service.embed([_read_query(body)], choice)
    except InputError as error:
        raise Problem("input", str(error.rename("query")), "query") from error
    return found.vectors[0]


def _search_vector(body: SearchQuery, vector: Any, text: str | None, index: Index) -> Response:
    return _write(index.search_by_vector(vector, body.k, where=body.where, text=text, exact=body.exact))


def _search_words(body: SearchQuery, text: str, index: Index) -> Response:
    prompts: dict[str, Any] = {"instruction": body.instruction, "prompt_name": body.prompt_name}
    return _write(index.search({"text": text}, body.k, where=body.where, mode="text", **prompts))


def _search_like(body: SearchQuery, index: Index) -> Response:
    assert body.like is not None
    return _write(index.search_like(body.like, body.k, body.where))


def _write(hits: Sequence[Hit]) -> Response:
    return write_json({"data": [{**hit.to_record(), "image": _name_picture(hit)} for hit in hits]})


def _name_picture(hit: Hit) -> str | None:
    has_picture = hit.thumbnail is not None or hit.image is not None or hit.page is not None
    return f"{_PICTURE}?id={quote(hit.id, safe='')}" if has_picture else None


def _describe(index: Index) -> dict[str, Any]:
    columns = [{"name": name, "type": kind} for name, kind in index.column_types.items()]
    return {"count": len(index), "columns": columns, "has_texts": index.count("text IS NOT NULL") > 0}
