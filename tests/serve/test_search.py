"""The served index: the answers of ``Index.search``, small pictures and nothing else of files, and plain errors."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import lancedb
import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from typer.testing import CliRunner

from st_modules import ImageLimits, InputError, SentenceTransformer, cli
from st_modules.index import Index, IndexMismatchError
from st_modules.index.model_facts import ModelFacts, fingerprint
from st_modules.serve import ServeLimits, create_app
from tests.helpers.gallery import CAPTIONS, CHANGE, Gallery
from tests.helpers.index_tables import draw_vectors, make_index
from tests.helpers.loopback import Server
from tests.helpers.searchable import HOSTILE, HOSTILE_ID
from tests.helpers.serving import HeldModel, as_uri, data_uri, picture

PICTURE = "/v1/index/picture"


@pytest.fixture(scope="module")
def index(collection: Path, tiny: SentenceTransformer) -> Index:
    return Index.open(collection, tiny)


@pytest.fixture(scope="module")
def searcher(collection: Path, tiny: SentenceTransformer) -> TestClient:
    return TestClient(create_app(tiny, index=collection))


def search(client: TestClient, **body: Any) -> list[dict[str, Any]]:
    answer = client.post("/v1/search", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def serve_rows(path: Path, model: SentenceTransformer, rows: int = 1, **columns: Any) -> FastAPI:
    """Serve an index of rows that a test makes up."""
    facts = ModelFacts("tiny", fingerprint(model), 128)
    make_index(path, draw_vectors(rows, 128), facts=facts, **columns)
    return create_app(model, index=path)


def show(app: FastAPI | TestClient, id: str) -> Any:
    client = app if isinstance(app, TestClient) else TestClient(app)
    return client.get(PICTURE, params={"id": id})


def centre(content: bytes) -> tuple[int, ...]:
    image = Image.open(io.BytesIO(content))
    assert image.format == "JPEG"
    pixel = image.convert("RGB").getpixel((image.width // 2, image.height // 2))
    assert isinstance(pixel, tuple)
    return tuple(round(value / 255) for value in pixel)


# ------------------------------------------------------------------------------------------------ the same answers

SAME: dict[str, tuple[Any, dict[str, Any]]] = {
    "text": (CAPTIONS[2], {}),
    "ten by default": ("a star", {}),
    "fewer": ("a star", {"k": 3}),
    "text in an object": ({"text": CAPTIONS[1]}, {}),
    "text that looks like a path": ({"text": "0.png"}, {}),
    "named instruction": (CAPTIONS[0], {"prompt_name": "t2i"}),
    "own instruction": (CAPTIONS[0], {"instruction": "Find drawings."}),
    "condition": ("a star", {"where": "price > 1 AND colour <> 'blue'"}),
    "exact": ("a star", {"exact": True}),
    "words": ("blue star", {"mode": "text"}),
    "both": ("blue star", {"mode": "hybrid", "where": "price IS NOT NULL"}),
}


@pytest.mark.parametrize(("item", "options"), SAME.values(), ids=SAME)
def test_answers_are_those_of_the_index(searcher: TestClient, index: Index, item: Any, options: dict[str, Any]) -> None:
    hits = index.search(item, **options)
    found = search(searcher, query=item, **options)
    assert [{**each, "image": None, "score": None} for each in found] == [
        {**hit.to_record(), "image": None, "score": None} for hit in hits
    ]
    assert [each["score"] for each in found] == pytest.approx([hit.score for hit in hits], abs=1e-5)


@pytest.mark.parametrize("text", [None, CHANGE])
def test_a_picture_finds_what_the_index_does(
    searcher: TestClient, index: Index, gallery: Gallery, text: str | None
) -> None:
    item = {"image": as_uri(gallery.query.read_bytes()), **({} if text is None else {"text": text})}
    hits = index.search({"image": gallery.query, **({} if text is None else {"text": text})}, 4)
    assert [each["id"] for each in search(searcher, query=item, k=4)] == [hit.id for hit in hits]


def test_scores_are_those_of_every_vector(searcher: TestClient, index: Index, tiny: SentenceTransformer) -> None:
    found = search(searcher, query="a red circle", k=100)
    vectors = np.stack([row["vector"] for row in index.get([each["id"] for each in found])])
    assert len(found) == len(index)
    assert [each["score"] for each in found] == pytest.approx(
        (vectors @ tiny.encode_query("a red circle")).tolist(), abs=1e-5
    )


def test_more_like_an_item(searcher: TestClient, index: Index) -> None:
    hits = index.search_like("caption-1", 5, "id <> 'caption-3'")
    found = search(searcher, like="caption-1", k=5, where="id <> 'caption-3'")
    assert [(each["id"], each["score"]) for each in found] == [(hit.id, hit.score) for hit in hits]


def test_a_hostile_item_comes_as_it_is_and_its_id_finds_the_others(searcher: TestClient) -> None:
    (found,) = search(searcher, query="anything", where=f"id = '{HOSTILE_ID}'")
    assert (found["id"], found["text"], found["metadata"]["colour"]) == (HOSTILE_ID, HOSTILE, HOSTILE)
    assert found["image"] is None
    assert HOSTILE_ID not in [each["id"] for each in search(searcher, like=HOSTILE_ID, k=100)]


def test_vectors_that_were_cut_are_compared_with_as_much_of_the_query(
    tmp_path: Path, tiny: SentenceTransformer
) -> None:
    vectors = tiny.encode_document(list(CAPTIONS), truncate_dim=32)
    make_index(tmp_path / "my.index", vectors, facts=ModelFacts("tiny", fingerprint(tiny), 32, truncate_dim=32))
    (hit,) = Index.open(tmp_path / "my.index", tiny).search(CAPTIONS[2], 1)
    (found,) = search(TestClient(create_app(tiny, index=tmp_path / "my.index")), query=CAPTIONS[2], k=1)
    assert (found["id"], found["score"]) == (hit.id, pytest.approx(hit.score, abs=1e-5))


def test_many_at_a_time_get_their_own_answers(searcher: TestClient, index: Index) -> None:
    queries = [{"query": text, "k": 3, "mode": mode} for text in CAPTIONS for mode in ("vector", "text", "hybrid")]
    with ThreadPoolExecutor(8) as clients:
        found = list(clients.map(lambda body: [each["id"] for each in search(searcher, **body)], queries))
    assert found == [[hit.id for hit in index.search(body["query"], 3, mode=body["mode"])] for body in queries]


def test_rows_that_come_later_are_found(tmp_path: Path, tiny: SentenceTransformer) -> None:
    client = TestClient(serve_rows(tmp_path / "my.index", tiny, 2))
    table = lancedb.connect(str(tmp_path / "my.index")).open_table("items")
    assert client.get("/v1/index").json()["index"]["count"] == 2
    table.delete("id = 'i00000'")
    assert client.get("/v1/index").json()["index"]["count"] == 1
    assert [each["id"] for each in search(client, query="a")] == ["i00001"]


def test_what_is_no_number_is_null(tmp_path: Path, tiny: SentenceTransformer) -> None:
    client = TestClient(serve_rows(tmp_path / "my.index", tiny, 2, price=[float("nan"), 2.0]))
    prices = {each["id"]: each["metadata"]["price"] for each in search(client, query="a")}
    assert prices == {"i00000": None, "i00001": 2.0}


def test_vectors_from_elsewhere_are_checked(index: Index, tiny: SentenceTransformer) -> None:
    vector = tiny.encode_query("a star")
    assert index.search_by_vector(vector, 3) == index.search("a star", 3)
    for wrong in (vector[:5], vector * np.nan, vector * 0):
        with pytest.raises(ValueError, match="128 finite numbers"):
            index.search_by_vector(wrong)
    with pytest.raises(InputError, match="words"):
        index.search_by_vector(vector, text=" ")


# -------------------------------------------------------------------------------------------------- what is served


def test_it_says_what_there_is(searcher: TestClient, tiny: SentenceTransformer) -> None:
    facts = searcher.get("/v1/index").json()
    assert facts["model"] == "tiny"
    assert facts["prompts"] == {name: prompt for name, prompt in tiny.prompts.items() if prompt}
    assert facts["reads_instruction"] is True
    assert facts["index"]["count"] == 13
    assert facts["index"]["has_texts"] is True
    assert facts["index"]["columns"] == [
        {"name": "id", "type": "string"},
        {"name": "source", "type": "string"},
        {"name": "page", "type": "int"},
        {"name": "text", "type": "string"},
        {"name": "image", "type": "string"},
        {"name": "price", "type": "float"},
        {"name": "colour", "type": "string"},
    ]


def test_without_texts_it_says_so(tmp_path: Path, tiny: SentenceTransformer) -> None:
    client = TestClient(serve_rows(tmp_path / "my.index", tiny))
    assert client.get("/v1/index").json()["index"]["has_texts"] is False


def test_without_an_index_it_says_so(client: TestClient) -> None:
    assert client.get("/v1/index").json()["index"] is None
    for answer in (client.post("/v1/search", json={"query": "a"}), show(client, "a")):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        assert "--index" in answer.json()["error"]["message"]


def test_an_index_of_another_model_is_refused(tmp_path: Path, tiny: SentenceTransformer) -> None:
    make_index(tmp_path / "my.index", draw_vectors(3, 128), facts=ModelFacts("gme-2b", "1" * 32, 128))
    with pytest.raises(IndexMismatchError, match="gme-2b"):
        create_app(tiny, index=tmp_path / "my.index")


def test_the_command_takes_the_model_of_the_index(collection: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apps: list[FastAPI] = []
    monkeypatch.setattr("st_modules.serve.process.run", lambda app, *arguments: apps.append(app))
    result = CliRunner().invoke(cli.app, ["serve", "--index", str(collection)])
    assert result.exit_code == 0, result.output
    assert apps[0].state.name == "tiny"
    assert TestClient(apps[0]).get("/v1/index").json()["index"]["count"] == 13


def test_the_command_says_that_there_is_no_index(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli.app, ["serve", "--index", str(tmp_path / "my.index")])
    assert result.exit_code == 1
    assert "no index there" in result.stderr


# --------------------------------------------------------------------------------------------------------- errors

WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing": ({}, "query", "Send query"),
    "tokens": ({"query": 7}, "query", "tokens of another tokenizer"),
    "no item": ({"query": {"words": "a"}}, "query", "unknown keys"),
    "a path": ({"query": {"image": "/etc/passwd"}}, "query", "no http"),
    "no picture": ({"query": {"image": as_uri(b"GIF89a")}}, "query", "query: data URI"),
    "remote": ({"query": {"image": "https://example.org/a.png"}}, "query", "remote"),
    "no condition": ({"query": "a", "where": " "}, "where", "pass a condition"),
    "unknown column": ({"query": "a", "where": "prize > 3"}, "where", "The columns are id, source"),
    "no SQL": ({"query": "a", "where": "price >"}, "where", "price >"),
    "another type": ({"query": "a", "where": "price + colour > page"}, "where", "where="),
    "k is none": ({"query": "a", "k": 0}, "k", "greater"),
    "k is too large": ({"query": "a", "k": 101}, "k", "less"),
    "k of another type": ({"query": "a", "k": "3"}, "k", "integer"),
    "mode": ({"query": "a", "mode": "words"}, "mode", "vector"),
    "prompt": ({"query": "a", "prompt_name": "none"}, "prompt_name", "t2i"),
    "words of a picture": ({"query": {"image": data_uri(picture())}, "mode": "text"}, "query", "words"),
    "words and a picture": ({"query": {"text": "a", "image": data_uri(picture())}, "mode": "text"}, "mode", "hybrid"),
    "no words": ({"query": " ", "mode": "hybrid"}, "query", "words"),
    "too many words": ({"query": "a " * 1001, "mode": "hybrid"}, "query", "2000 characters"),
    "like and query": ({"query": "a", "like": "caption-1"}, "query", "without query"),
    "like and mode": ({"like": "caption-1", "mode": "text"}, "mode", "without mode"),
    "like and exact": ({"like": "caption-1", "exact": True}, "exact", "without exact"),
    "unknown field": ({"query": "a", "filter": "price > 1"}, "filter", "no field"),
}


@pytest.mark.parametrize(("body", "param", "words"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(searcher: TestClient, body: dict[str, Any], param: str, words: str) -> None:
    answer = searcher.post("/v1/search", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == param
    assert words in answer.json()["error"]["message"]


def test_words_read_no_instruction(searcher: TestClient) -> None:
    answer = searcher.post("/v1/search", json={"query": "a", "mode": "text", "instruction": "Find."})
    assert answer.status_code == 400
    assert "no model reads an instruction" in answer.json()["error"]["message"]


def test_an_unknown_id_is_not_found(searcher: TestClient) -> None:
    for answer in (searcher.post("/v1/search", json={"like": "nothing"}), show(searcher, "nothing")):
        assert answer.status_code == 404
        assert "has this id" in answer.json()["error"]["message"]


def test_an_index_that_was_built_anew_is_the_servers_affair(
    tmp_path: Path, tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    client = TestClient(serve_rows(tmp_path / "my.index", tiny))
    lancedb.connect(str(tmp_path / "my.index")).drop_table("items")
    make_index(tmp_path / "my.index", draw_vectors(2), facts=ModelFacts("other", "1" * 32, 16))
    answer = client.post("/v1/search", json={"query": "a"})
    assert answer.status_code == 500
    assert str(tmp_path) not in answer.text
    assert "my.index" in caplog.text


# ---------------------------------------------------------------------------------------------------------- guard

ASKED: dict[str, tuple[str, str, Any]] = {
    "search": ("POST", "/v1/search", {"query": "a"}),
    "index": ("GET", "/v1/index", None),
    "picture": ("GET", f"{PICTURE}?id=caption-0", None),
}


@pytest.mark.parametrize(("method", "path", "body"), ASKED.values(), ids=ASKED)
def test_nothing_is_told_without_the_key(
    collection: Path, tiny: SentenceTransformer, method: str, path: str, body: Any
) -> None:
    client = TestClient(create_app(tiny, index=collection, api_key="sesame"))
    assert client.request(method, path, json=body).status_code == 401
    assert client.request(method, path, json=body, headers={"Authorization": "Bearer sesame"}).status_code in (200, 404)


async def test_searches_count_among_the_requests_that_the_server_takes(
    collection: Path, tiny: SentenceTransformer
) -> None:
    app = create_app(tiny, index=collection, limits=ServeLimits(max_requests=1))
    app.state.service.model = held = HeldModel(tiny)
    held.may_go_on.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", timeout=30) as client:
        first = asyncio.create_task(client.post("/v1/search", json={"query": "a"}))
        await asyncio.to_thread(held.entered.acquire)
        refused = [await client.request(method, path, json=body) for method, path, body in ASKED.values()]
        assert [(each.status_code, each.headers["Retry-After"]) for each in refused] == [(429, "1")] * 3
        held.may_go_on.set()
        assert (await first).status_code == 200


async def test_queries_are_embedded_with_those_of_other_requests(collection: Path, tiny: SentenceTransformer) -> None:
    app = create_app(tiny, index=collection)
    app.state.service.model = held = HeldModel(tiny)
    held.may_go_on.clear()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server", timeout=30) as client:
        first = asyncio.create_task(client.post("/v1/search", json={"query": "first"}))
        await asyncio.to_thread(held.entered.acquire)
        others = [
            asyncio.create_task(client.post("/v1/search", json={"query": "second"})),
            asyncio.create_task(client.post("/v1/embeddings", json={"input": "third"})),
        ]
        while app.state.service.waiting != 2:
            await asyncio.sleep(0)
        held.may_go_on.set()
        assert [each.status_code for each in await asyncio.gather(first, *others)] == [200, 200, 200]
    assert [set(batch) for batch in held.batches] == [{"first"}, {"second", "third"}]


# ------------------------------------------------------------------------------------------------------- pictures


def test_pictures_of_hits_are_where_they_say(searcher: TestClient, gallery: Gallery) -> None:
    (hit,) = search(searcher, query={"image": as_uri(gallery.paths[0].read_bytes())}, k=1)
    answer = searcher.get(hit["image"])
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")
    assert answer.headers["cache-control"].startswith("private")
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB"), float)
    drawn = np.asarray(Image.open(gallery.paths[0]).convert("RGB"), float)
    assert shown.shape == drawn.shape
    assert np.abs(shown - drawn).mean() < 6  # JPEG of a drawing


def test_a_page_of_a_pdf_is_rendered(searcher: TestClient) -> None:
    pages = search(searcher, query="a", where="page IS NOT NULL")
    colours = {each["page"]: centre(searcher.get(each["image"]).content) for each in pages}
    assert colours == {1: (1, 0, 0), 2: (0, 0, 1)}


def test_a_picture_is_made_small(tmp_path: Path, tiny: SentenceTransformer) -> None:
    picture("red", (1400, 700)).save(tmp_path / "large.png")
    answer = show(serve_rows(tmp_path / "my.index", tiny, image=[str(tmp_path / "large.png")]), "i00000")
    assert Image.open(io.BytesIO(answer.content)).size == (512, 256)


def test_the_thumbnail_goes_before_the_picture(tmp_path: Path, tiny: SentenceTransformer) -> None:
    picture("red").save(tmp_path / "a.png")
    small = io.BytesIO()
    picture("blue").save(small, "PNG")
    columns = {"image": [str(tmp_path / "a.png")], "thumbnail": [small.getvalue()]}
    answer = show(serve_rows(tmp_path / "my.index", tiny, **columns), "i00000")
    assert centre(answer.content) == (0, 0, 1)


@pytest.mark.parametrize("name", ["secret.txt", "missing.png", "damaged.png"])
def test_what_is_no_picture_is_not_shown(tmp_path: Path, tiny: SentenceTransformer, name: str) -> None:
    (tmp_path / "secret.txt").write_text("the secret")
    (tmp_path / "damaged.png").write_bytes(b"\x89PNG\r\n\x1a\nthe secret")
    answer = show(serve_rows(tmp_path / "my.index", tiny, image=[str(tmp_path / name)]), "i00000")
    assert answer.status_code == 404
    assert "cannot be read" in answer.json()["error"]["message"]
    assert "the secret" not in answer.text


def test_a_text_has_no_picture(searcher: TestClient) -> None:
    answer = show(searcher, "caption-0")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, "This item has no picture.")


@pytest.mark.parametrize("id", [HOSTILE_ID, "/etc/passwd", "../../etc/passwd", "' OR 1=1 --", "", "\x00", "a" * 4097])
def test_an_id_names_no_file(searcher: TestClient, id: str) -> None:
    assert show(searcher, id).status_code in (400, 404)


def test_rows_that_name_addresses_are_fetched_only_where_the_server_may(
    tmp_path: Path, tiny: SentenceTransformer, server: Server
) -> None:
    app = serve_rows(tmp_path / "my.index", tiny, image=[server.url()])
    assert show(app, "i00000").status_code == 404
    assert server.requests == []
    limits = dataclasses.replace(ImageLimits(), allow_private_hosts=True)
    allowed = create_app(tiny, index=tmp_path / "my.index", allow_remote_images=True, image_limits=limits)
    assert centre(show(allowed, "i00000").content) == (1, 0, 0)


def test_files_outside_the_folder_that_the_server_may_open_are_not_opened(
    tmp_path: Path, tiny: SentenceTransformer
) -> None:
    (tmp_path / "inside").mkdir()
    for name in ("inside/a.png", "b.png"):
        picture().save(tmp_path / name)
    serve_rows(tmp_path / "my.index", tiny, 2, image=[str(tmp_path / "inside/a.png"), str(tmp_path / "b.png")])
    app = create_app(tiny, index=tmp_path / "my.index", image_limits=ImageLimits(local_files=tmp_path / "inside"))
    assert [show(app, each).status_code for each in ("i00000", "i00001")] == [200, 404]


# ------------------------------------------------------------------------------------------------------ conditions

COSTLY = {
    "memory": "length(repeat(id, 900000000)) = 1",
    "numbers": "array_length(range(0, 10000000000)) = 1",
    "quoted name": '"range"(0, 10) IS NULL',
    "name in backticks": "`range` (0, 10) IS NULL",
    "behind a comment": "range/**/(0, 10) IS NULL",
    "another query": "id IN (SELECT id FROM items)",
    "text with escapes": r"id = E'a\' OR range(0, 10) IS NULL OR id = '",
    "long": "page = 1 OR " + " " * 2000 + "page = 2",
    "terms": " OR ".join(["true"] * 200),
    "brackets": "(" * 200 + "true" + ")" * 200,
    "negations": "NOT " * 200 + "true",
    "sums": "page = 1" + "+1" * 200,
    "signs": "page = " + "- " * 200 + "1",
    "wildcards": "text LIKE '" + "%a_" * 600 + "'",
    "casts": "page = 1" + "::int" * 200,
}


def test_half_a_character_is_told_as_such(searcher: TestClient) -> None:
    for mode in ("vector", "text", "hybrid"):
        body = json.dumps({"query": "\ud800", "mode": mode})
        answer = searcher.post("/v1/search", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "query"


@pytest.mark.parametrize("where", COSTLY.values(), ids=COSTLY)
def test_conditions_that_could_cost_anything_are_refused(searcher: TestClient, where: str) -> None:
    answer = searcher.post("/v1/search", json={"like": "caption-0", "where": where})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "where"
    assert answer.json()["error"]["message"].startswith("where: ")


@pytest.mark.parametrize(
    "where",
    [
        "price BETWEEN 1 AND 3 AND NOT (colour = 'blue' OR colour IS NULL)",
        "lower(colour) IN ('red', 'green') AND length(text) > 3",
        "contains(text, 'range(0, 10)') OR starts_with(id, 'caption')",
        "text LIKE '%large%' AND CAST(price AS INT) >= 1",
        "upper(colour) = 'RED' AND abs(price) < 9 AND coalesce(page, 0) = 0",
        "`colour` = 'it''s (not) this' OR price*2 >= -1",
        "id IN (" + ", ".join(f"'caption-{number}'" for number in range(60)) + ")",
    ],
)
def test_usual_conditions_are_read(searcher: TestClient, index: Index, where: str) -> None:
    found = search(searcher, query="a", where=where, k=100)
    assert len(found) == index.count(where) > 0


# ------------------------------------------------------------------------------------------------- the page's files


@pytest.mark.parametrize("path", ["/", "/page/main.js", "/page/page.css", "/page/icon.svg"])
def test_the_page_needs_no_key_and_may_load_nothing_from_elsewhere(tiny: SentenceTransformer, path: str) -> None:
    answer = TestClient(create_app(tiny, api_key="sesame")).get(path)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;")
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("name", ["none.js", "..%2fapp.py", "%2e%2e/app.py", "%2fetc%2fpasswd"])
def test_no_other_file_is_a_file_of_the_page(client: TestClient, name: str) -> None:
    assert client.get(f"/page/{name}").status_code == 404


def test_the_schema_has_what_is_answered(searcher: TestClient) -> None:
    schema = searcher.get("/openapi.json").json()
    assert {"/v1/search", "/v1/index", PICTURE} <= schema["paths"].keys()
    assert "/" not in schema["paths"]
    properties = schema["components"]["schemas"]["SearchHit"]["properties"]
    assert search(searcher, query="a", k=1)[0].keys() == properties.keys()
    assert json.dumps(schema)
