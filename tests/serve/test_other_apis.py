"""Cohere's, TEI's, DashScope's and OpenSearch's APIs."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from st_modules import SentenceTransformer
from st_modules.serve import create_app
from tests.helpers.serving import DASHSCOPE, OPENSEARCH, data_uri, picture

RED, BLUE = picture("red"), picture("blue")
RED_URI, BLUE_URI = data_uri(RED), data_uri(BLUE)
FUSED = {"text": "make it blue", "image": RED}
TEXT_PART = {"type": "text", "text": "make it blue"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": RED_URI}}
LONG = "a red circle " * 500


def post(client: TestClient, path: str, body: object) -> Any:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def assert_close(found: object, expected: np.ndarray) -> None:
    np.testing.assert_allclose(np.array(found), expected, atol=1e-5)


def count_tokens(model: SentenceTransformer, items: list[Any]) -> int:
    return int(model.preprocess(items)["attention_mask"].sum())


# --------------------------------------------------------------------------------------------------- Cohere


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ({"texts": ["a", "b"]}, [{"text": "a"}, {"text": "b"}]),
        ({"images": [RED_URI, BLUE_URI]}, [{"image": RED}, {"image": BLUE}]),
        (
            {"inputs": [{"content": [TEXT_PART, IMAGE_PART]}, {"content": [TEXT_PART]}]},
            [FUSED, {"text": FUSED["text"]}],
        ),
        ({"texts": [LONG]}, [{"text": LONG}]),
    ],
    ids=["texts", "images", "inputs", "a long text"],
)
def test_cohere(client: TestClient, tiny: SentenceTransformer, body: dict[str, Any], items: list[Any]) -> None:
    answer = post(client, "/v2/embed", {"model": "embed-v4.0", "input_type": "classification", **body})
    assert_close(answer["embeddings"]["float"], tiny.encode(items))
    assert (answer["response_type"], answer["texts"]) == ("embeddings_by_type", body.get("texts"))
    assert answer["meta"]["billed_units"]["input_tokens"] == count_tokens(tiny, items)


@pytest.mark.parametrize(
    ("input_type", "side"), [("search_query", "query"), ("search_document", "document"), ("clustering", None)]
)
def test_cohere_names_the_sides(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tiny: SentenceTransformer, input_type: str, side: object
) -> None:
    sides: list[Any] = []
    plan = tiny.plan
    monkeypatch.setattr(
        tiny, "plan", lambda items, **options: (sides.append(options["side"]), plan(items, **options))[1]
    )
    post(client, "/v2/embed", {"input_type": input_type, "texts": ["a"]})
    assert sides == [side]


def test_cohere_has_several_types_at_once(client: TestClient, tiny: SentenceTransformer) -> None:
    types = ["float", "base64", "ubinary", "binary"]
    body = {"input_type": "search_query", "texts": ["a"], "embedding_types": types}
    answer = post(client, "/v2/embed", body)["embeddings"]
    assert list(answer) == types
    assert np.frombuffer(base64.b64decode(answer["base64"][0]), "<f4").tolist() == answer["float"][0]
    assert np.unpackbits(np.array(answer["ubinary"], np.uint8)).tolist() == (tiny.encode("a") > 0).tolist()


def test_cohere_cuts_items_at_max_tokens(client: TestClient, tiny: SentenceTransformer) -> None:
    body = {"input_type": "clustering", "texts": [LONG], "max_tokens": 60}
    (planned,) = tiny.plan([{"text": LONG}], max_length=60)
    assert post(client, "/v2/embed", body)["meta"]["billed_units"]["input_tokens"] == 60
    assert_close(post(client, "/v2/embed", body)["embeddings"]["float"], tiny.encode_planned([planned]))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"texts": ["a"]}, "input_type"),
        ({"input_type": "search_query"}, "one of texts, images and inputs"),
        ({"input_type": "search_query", "texts": ["a"], "images": [RED_URI]}, "one of texts, images and inputs"),
        ({"input_type": "search_query", "texts": ["a"], "embedding_types": ["int8"]}, "as nothing else"),
        ({"input_type": "search_query", "texts": ["a"], "truncate": "START"}, "at their end alone"),
        ({"input_type": "search_query", "texts": ["a", LONG], "truncate": "NONE"}, "item 1: longer than 512"),
        ({"input_type": "search_query", "texts": [3]}, "texts.0"),
        ({"input_type": "search_query", "inputs": [{"content": [TEXT_PART]}, {"text": "a"}]}, "inputs[1]"),
        ({"input_type": "search_query", "inputs": [{"content": [{"type": "audio", "audio": "a"}]}]}, "item 0"),
        ({"input_type": "search_query", "images": [RED_URI, "a.png"]}, "item 1: an image that is no http(s) URL"),
    ],
)
def test_cohere_refuses(client: TestClient, body: dict[str, Any], words: str) -> None:
    response = client.post("/v2/embed", json=body)
    assert response.status_code == 400
    assert response.json().keys() == {"id", "message"}
    assert words in response.json()["message"]


# ------------------------------------------------------------------------------------------------------ TEI


@pytest.mark.parametrize(
    ("body", "items"),
    [
        ({"inputs": "a"}, [{"text": "a"}]),
        ({"inputs": ["a", "b"], "normalize": True, "truncation_direction": "Right"}, [{"text": "a"}, {"text": "b"}]),
        ({"inputs": [{"text": "make it blue", "image": RED_URI}]}, [FUSED]),
        ({"inputs": [LONG], "truncate": True}, [{"text": LONG}]),
    ],
    ids=["one", "several", "fused", "cut"],
)
def test_tei(client: TestClient, tiny: SentenceTransformer, body: dict[str, Any], items: list[Any]) -> None:
    assert_close(post(client, "/embed", body), tiny.encode(items))


def test_tei_names_an_instruction(client: TestClient, tiny: SentenceTransformer) -> None:
    found = post(client, "/embed", {"inputs": "a", "prompt_name": "t2i"})
    assert_close(found, tiny.encode(["a"], prompt_name="t2i"))


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 422, "inputs: field required"),
        ({"inputs": ["a", LONG]}, 422, "item 1: longer than 512 tokens"),
        ({"inputs": "a", "normalize": False}, 422, "length 1"),
        ({"inputs": "a", "truncation_direction": "Left"}, 422, "at their end alone"),
        ({"inputs": "a", "prompt_name": "sts"}, 422, "no instruction of this name"),
        ({"inputs": [[1, 2]]}, 422, "tokens of another tokenizer"),
        ({"inputs": ["a"] * 2049}, 413, "2049 items are over the limit"),
    ],
)
def test_tei_refuses(client: TestClient, body: dict[str, Any], status: int, words: str) -> None:
    response = client.post("/embed", json=body)
    assert (response.status_code, response.json()["error_type"]) == (status, "Validation")
    assert words in response.json()["error"]


# ------------------------------------------------------------------------------------------------ DashScope


@pytest.mark.parametrize(
    ("contents", "items", "types"),
    [
        ([{"text": "a"}, {"image": RED_URI}], [{"text": "a"}, {"image": RED}], ["text", "image"]),
        ([{"multi_images": [RED_URI, BLUE_URI]}], [{"image": [RED, BLUE]}], ["multi_images"]),
        ([{"text": "make it blue", "image": RED_URI}], [FUSED], ["vl"]),
        ([{"text": LONG}], [{"text": LONG}], ["text"]),
        ([{"factor": 1, "text": "a"}], [{"text": "a"}], ["text"]),
    ],
    ids=["each by itself", "several images", "both in one", "a long text", "a factor"],
)
def test_dashscope(
    client: TestClient, tiny: SentenceTransformer, contents: list[Any], items: list[Any], types: list[str]
) -> None:
    answer = post(client, DASHSCOPE, {"model": "qwen3-vl-embedding", "input": {"contents": contents}})
    found = answer["output"]["embeddings"]
    assert_close([each["embedding"] for each in found], tiny.encode(items))
    assert [(each["index"], each["type"]) for each in found] == list(enumerate(types))
    assert answer["usage"]["total_tokens"] == count_tokens(tiny, items)
    assert answer["request_id"]


def test_dashscope_counts_the_tokens_of_images(client: TestClient, tiny: SentenceTransformer) -> None:
    usage = post(client, DASHSCOPE, {"input": {"contents": [{"image": RED_URI}, {"text": "a"}]}})["usage"]
    image_tokens = int(tiny[0].image_tokens(tiny.parse([RED])[0].images[0]))  # type: ignore[operator]
    assert (usage["image_tokens"], usage["image_count"]) == (image_tokens, 1)
    assert usage["input_tokens"] == count_tokens(tiny, [RED, {"text": "a"}]) - image_tokens


def test_dashscope_fuses_all_contents(client: TestClient, tiny: SentenceTransformer) -> None:
    contents = [{"text": "make it"}, {"image": RED_URI}, {"text": "blue"}, {"multi_images": BLUE_URI}]
    body = {"input": {"contents": contents}, "parameters": {"enable_fusion": True}}
    (found,) = post(client, DASHSCOPE, body)["output"]["embeddings"]
    assert_close([found["embedding"]], tiny.encode([{"text": "make it\nblue", "image": [RED, BLUE]}]))
    assert (found["index"], found["type"]) == (0, "vl")


@pytest.mark.parametrize("name", ["instruct", "instruction"])
def test_dashscope_instructs(client: TestClient, tiny: SentenceTransformer, name: str) -> None:
    body = {"input": {"contents": [{"text": "a"}]}, "parameters": {name: "Find it.", "output_type": "dense"}}
    (found,) = post(client, DASHSCOPE, body)["output"]["embeddings"]
    assert_close(found["embedding"], tiny.encode("a", prompt="Find it."))


def test_dashscope_has_fewer_dimensions(tiny: SentenceTransformer) -> None:
    body = {"input": {"contents": [{"text": "a"}]}, "parameters": {"dimension": 32}}
    (found,) = post(TestClient(create_app(tiny, least_dimension=32)), DASHSCOPE, body)["output"]["embeddings"]
    assert_close(found["embedding"], tiny.encode("a", truncate_dim=32, normalize_embeddings=True))


@pytest.mark.parametrize(
    ("contents", "parameters", "words"),
    [
        ([], {}, "nothing to embed"),
        ([], {"enable_fusion": True}, "nothing to embed"),
        ([{"text": "a"}, {}], {}, "item 1: it has neither text nor image"),
        ([{"text": "a"}, {"text": 3}], {}, "item 1: a text of type int"),
        ([{"text": []}], {}, "item 0: a text of type list"),
        ([{"text": False}], {}, "item 0: a text of type bool"),
        ([{"audio": "a"}], {}, "unknown keys ['audio']"),
        ([{"image": "/etc/passwd"}], {}, "no http(s) URL and no data URI"),
        ([{"multi_images": [RED_URI, "file:///a"]}], {}, "no http(s) URL and no data URI"),
        ([{"video": "https://example.org/a.mp4"}], {}, "takes no video"),
        ([{"video": [RED_URI]}, {"video": [RED_URI]}], {"enable_fusion": True}, "2 videos"),
        ([{"text": LONG}], {"auto_truncation": False}, "longer than 512 tokens"),
        ([{"text": "a"}], {"fps": 0.5}, "parameters.fps"),
        ([{"text": "a"}], {"instruct": "a", "instruction": "b"}, "one of them"),
        ([{"text": "a"}], {"dimension": 64}, "not trained for shorter ones"),
    ],
)
def test_dashscope_refuses(client: TestClient, contents: list[Any], parameters: dict[str, Any], words: str) -> None:
    response = client.post(DASHSCOPE, json={"input": {"contents": contents}, "parameters": parameters})
    assert (response.status_code, response.json()["code"]) == (400, "InvalidParameter")
    assert words in response.json()["message"]


# ----------------------------------------------------------------------------------------------- OpenSearch


def test_opensearch(client: TestClient, tiny: SentenceTransformer) -> None:
    items = [{"text": "a"}, {"image": RED}, FUSED]
    body = {"input": [{"text": "a"}, {"image": RED_URI}, {"text": "make it blue", "image": RED_URI}]}
    answer = post(client, OPENSEARCH, body)
    assert_close([each["embedding"] for each in answer["result"]["embeddings"]], tiny.encode(items))
    assert [each["index"] for each in answer["result"]["embeddings"]] == [0, 1, 2]
    assert answer["usage"] == {"image": 2, "token_count": count_tokens(tiny, items)}
    assert answer["request_id"]
    assert answer["latency"] > 0


@pytest.mark.parametrize(
    ("body", "words"),
    [({"input": "a"}, "input: input should be a valid list"), ({"input": [{"text": "a", "image": "b"}]}, "item 0")],
)
def test_opensearch_refuses(client: TestClient, body: dict[str, Any], words: str) -> None:
    response = client.post(OPENSEARCH, json=body)
    assert (response.status_code, response.json()["code"]) == (400, "InvalidParameter")
    assert words in response.json()["message"]
