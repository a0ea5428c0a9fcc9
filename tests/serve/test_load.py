"""Many requests at once: each its own vector, equal ones once, a bad one alone, a long one in parts."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from st_modules import SentenceTransformer
from st_modules.serve import ServeLimits, create_app
from tests.helpers.serving import DASHSCOPE, OPENSEARCH, HeldModel, as_uri, data_uri, picture

COLOURS = ("red", "green", "blue", "white", "black")
PICTURES = {colour: picture(colour) for colour in COLOURS}
URIS = {colour: data_uri(image) for colour, image in PICTURES.items()}


def connect(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", timeout=60)


def make_request(number: int) -> tuple[str, Any, Any, str | None]:
    """A path, its body, the item that it means, and the instruction."""
    text, colour = f"picture {number % 50}", COLOURS[number % 5]
    fused = {"text": text, "image": URIS[colour]}
    match number % 6:
        case 0:
            return "/v1/embeddings", {"input": text}, {"text": text}, None
        case 1:
            return "/v1/embeddings", {"input": fused}, {"text": text, "image": PICTURES[colour]}, None
        case 2:
            body = {"input_type": "search_query", "texts": [text], "instruction": f"Find {colour}."}
            return "/v2/embed", body, {"text": text}, f"Find {colour}."
        case 3:
            return "/embed", {"inputs": {"image": URIS[colour]}}, {"image": PICTURES[colour]}, None
        case 4:
            return DASHSCOPE, {"input": {"contents": [{"text": text}]}}, {"text": text}, None
        case _:
            return OPENSEARCH, {"input": [fused]}, {"text": text, "image": PICTURES[colour]}, None


def take_vector(answer: Any) -> list[float]:
    """The first list of numbers, wherever the API has it."""
    if isinstance(answer, list):
        return answer if answer and isinstance(answer[0], float) else take_vector(answer[0])
    for key in ("data", "embeddings", "output", "result", "embedding", "float"):
        if key in answer:
            return take_vector(answer[key])
    raise AssertionError(answer)


async def test_200_mixed_requests_at_once_get_a_vector_each_of_their_own(
    app: FastAPI, tiny: SentenceTransformer
) -> None:
    requests = [make_request(number) for number in range(200)]
    async with connect(app) as client:
        answers = await asyncio.gather(*(client.post(path, json=body) for path, body, _, _ in requests))
    assert {answer.status_code for answer in answers} == {200}
    for answer, (_, _, item, instruction) in zip(answers, requests, strict=True):
        expected = tiny.encode_query([item], prompt=instruction)[0]
        np.testing.assert_allclose(take_vector(answer.json()), expected, atol=1e-5)


async def hold_first(client: httpx.AsyncClient, held: HeldModel) -> asyncio.Task[httpx.Response]:
    """A request that keeps the model busy until it may go on."""
    held.may_go_on.clear()
    first = asyncio.create_task(client.post("/v1/embeddings", json={"input": "first"}))
    await asyncio.to_thread(held.entered.acquire)
    return first


async def wait_for(app: FastAPI, count: int) -> None:
    while app.state.service.waiting != count:
        await asyncio.sleep(0)


async def test_equal_requests_share_their_work(app: FastAPI, held: HeldModel, tiny: SentenceTransformer) -> None:
    rows: list[int] = []
    async with connect(app) as client:
        first = await hold_first(client, held)
        body = {"input": {"text": "a", "image": URIS["red"]}}
        others = [asyncio.create_task(client.post("/v1/embeddings", json=body)) for _ in range(4)]
        await wait_for(app, 4)
        hook = tiny[0].register_forward_pre_hook(lambda _, features: rows.append(len(features[0]["input_ids"])))
        held.may_go_on.set()
        answers = [answer.json()["data"] for answer in await asyncio.gather(*others)]
        hook.remove()
        assert (await first).is_success
    assert held.batches == [["first"], ["a"] * 4]
    assert rows[-1] == 1
    assert answers == [answers[0]] * 4


async def test_requests_of_both_sides_and_of_other_instructions_run_together(app: FastAPI, held: HeldModel) -> None:
    bodies = [
        {"input": "a", "side": "query"},
        {"input": "b", "side": "document"},
        {"input": "c", "instruction": "Find."},
    ]
    async with connect(app) as client:
        first = await hold_first(client, held)
        others = [asyncio.create_task(client.post("/v1/embeddings", json=body)) for body in bodies]
        await wait_for(app, 3)
        held.may_go_on.set()
        assert {answer.status_code for answer in await asyncio.gather(first, *others)} == {200}
    assert [sorted(map(str, batch)) for batch in held.batches] == [["first"], ["a", "b", "c"]]


async def test_a_picture_that_fails_while_it_is_decoded_fails_its_own_request_by_its_place(
    app: FastAPI, held: HeldModel, tiny: SentenceTransformer
) -> None:
    stream = io.BytesIO()
    picture("red", (100, 100)).save(stream, "JPEG")
    damaged = as_uri(stream.getvalue()[:-200]).replace("image/png", "image/jpeg")
    async with connect(app) as client:
        first = await hold_first(client, held)
        good = [asyncio.create_task(client.post("/v1/embeddings", json={"input": f"text {n}"})) for n in range(5)]
        bad = asyncio.create_task(client.post("/v1/embeddings", json={"input": ["a", "b", {"image": damaged}]}))
        more = [asyncio.create_task(client.post("/v1/embeddings", json={"input": f"text {n}"})) for n in range(5)]
        await wait_for(app, 11)
        held.may_go_on.set()
        answers = await asyncio.gather(first, *good, *more)
        refused = await bad
    assert {answer.status_code for answer in answers} == {200}
    np.testing.assert_allclose(take_vector(answers[1].json()), tiny.encode("text 0"), atol=1e-5)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input[2]")


async def test_a_long_request_is_embedded_in_parts_and_others_come_between(
    tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "max_batch_tokens", 50)
    app = create_app(tiny)
    app.state.service.model = held = HeldModel(tiny)
    texts = [f"text {number}" for number in range(12)]
    async with connect(app) as client:
        held.may_go_on.clear()
        long = asyncio.create_task(client.post("/v1/embeddings", json={"input": texts}))
        await asyncio.to_thread(held.entered.acquire)
        short = asyncio.create_task(client.post("/v1/embeddings", json={"input": "short"}))
        await wait_for(app, 1)
        held.may_go_on.set()
        answer, _ = await asyncio.gather(long, short)
    found = [each["embedding"] for each in answer.json()["data"]]
    np.testing.assert_allclose(found, tiny.encode(texts), atol=1e-5)
    order = [text for batch in held.batches for text in batch]
    assert len(held.batches) > 2
    assert order.index("short") < order.index("text 11")


async def test_requests_over_a_batch_wait_for_the_next(
    tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny, "max_batch_tokens", 50)
    app = create_app(tiny, limits=ServeLimits(max_requests=20))
    app.state.service.model = held = HeldModel(tiny)
    async with connect(app) as client:
        first = await hold_first(client, held)
        others = [asyncio.create_task(client.post("/v1/embeddings", json={"input": f"text {n}"})) for n in range(9)]
        await wait_for(app, 9)
        held.may_go_on.set()
        await asyncio.gather(first, *others)
    tokens = [sum(each.row.length for each in tiny.plan([{"text": text} for text in batch])) for batch in held.batches]
    assert max(tokens) <= 100
    assert len(tokens) < 10
