"""``/v1/embeddings``: OpenAI's form, and those of vLLM, Jina and infinity."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from st_modules import SentenceTransformer
from st_modules.serve import create_app
from tests.helpers.serving import data_uri, picture

RED, BLUE = picture("red"), picture("blue")
RED_URI, BLUE_URI = data_uri(RED), data_uri(BLUE)
FUSED = {"text": "make it blue", "image": RED}
CHANGE = "Find an image that shows the given image with the given change."


def embed(client: TestClient, **body: Any) -> dict[str, Any]:
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def vectors(answer: dict[str, Any]) -> np.ndarray:
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    return np.array([each["embedding"] for each in answer["data"]])


def user(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


TEXT_PART = {"type": "text", "text": "make it blue"}
IMAGE_PART = {"type": "image_url", "image_url": {"url": RED_URI}}
BODIES = {
    "a string": ({"input": "a red circle"}, [{"text": "a red circle"}]),
    "an empty string": ({"input": ""}, [{"text": ""}]),
    "strings": ({"input": ["a", "b", "a"]}, [{"text": "a"}, {"text": "b"}, {"text": "a"}]),
    "a URL, which is a text": ({"input": "https://example.org/a.png"}, [{"text": "https://example.org/a.png"}]),
    "a data URI, which is a text": ({"input": "data:image/png;base64,AA"}, [{"text": "data:image/png;base64,AA"}]),
    "a path, which is a text": ({"input": ["/etc/passwd"]}, [{"text": "/etc/passwd"}]),
    "Jina's text": ({"input": [{"text": "a"}]}, [{"text": "a"}]),
    "Jina's image": ({"input": [{"image": RED_URI}, "b"]}, [{"image": RED}, {"text": "b"}]),
    "an image in bare base64": ({"input": {"image": RED_URI.partition(",")[2]}}, [{"image": RED}]),
    "both together": ({"input": [{"text": "make it blue", "image": RED_URI}]}, [FUSED]),
    "two images": ({"input": [{"image": [RED_URI, BLUE_URI]}]}, [{"image": [RED, BLUE]}]),
    "infinity's images": ({"input": [RED_URI, BLUE_URI], "modality": "image"}, [{"image": RED}, {"image": BLUE}]),
    "infinity's image": ({"input": RED_URI, "modality": "image"}, [{"image": RED}]),
    "infinity's texts": ({"input": [RED_URI], "modality": "text", "truncate": True}, [{"text": RED_URI}]),
    "vLLM's messages": ({"messages": [user(IMAGE_PART, TEXT_PART)]}, [FUSED]),
    "vLLM's messages of one string": ({"messages": [{"role": "user", "content": "a"}]}, [{"text": "a"}]),
    "vLLM's messages with an empty answer": (
        {
            "messages": [user(TEXT_PART), {"role": "assistant", "content": [{"type": "text", "text": ""}]}],
            "continue_final_message": True,
            "add_special_tokens": True,
        },
        [{"text": "make it blue"}],
    ),
}


@pytest.mark.parametrize(("body", "items"), BODIES.values(), ids=BODIES)
def test_a_body_gives_the_vectors_of_encode(
    client: TestClient, tiny: SentenceTransformer, body: dict[str, Any], items: list[Any]
) -> None:
    np.testing.assert_allclose(vectors(embed(client, **body)), tiny.encode(items), atol=1e-5)


def test_a_system_message_is_the_instruction(client: TestClient, tiny: SentenceTransformer) -> None:
    messages = [{"role": "system", "content": CHANGE}, user(IMAGE_PART, TEXT_PART)]
    expected = tiny.encode([FUSED], prompt=CHANGE)
    np.testing.assert_allclose(vectors(embed(client, messages=messages)), expected, atol=1e-5)
    assert np.abs(expected - tiny.encode([FUSED])).max() > 1e-2


@pytest.mark.parametrize(
    "own",
    [{"instruction": CHANGE}, {"prompt_name": "it2i"}, {"prompt_name": "it2i", "side": "query"}],
    ids=str,
)
def test_an_instruction_by_text_or_by_name(client: TestClient, tiny: SentenceTransformer, own: dict[str, str]) -> None:
    found = vectors(embed(client, input={"text": "make it blue", "image": RED_URI}, **own))
    np.testing.assert_allclose(found, tiny.encode_query([FUSED], prompt=CHANGE), atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "side"),
    [
        ({}, None),
        ({"side": "query"}, "query"),
        ({"side": "document"}, "document"),
        ({"task": "retrieval.query"}, "query"),
        ({"task": "retrieval.passage"}, "document"),
        ({"task": "text-matching"}, None),
        ({"prompt_name": "query"}, "query"),
        ({"prompt_name": "passage"}, "document"),
    ],
    ids=str,
)
def test_the_side_of_a_search(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, tiny: SentenceTransformer, fields: dict[str, str], side: object
) -> None:
    sides: list[Any] = []
    plan = tiny.plan
    monkeypatch.setattr(
        tiny, "plan", lambda items, **options: (sides.append(options["side"]), plan(items, **options))[1]
    )
    embed(client, input="a", **fields)
    assert sides == [side]


@pytest.mark.parametrize("field", ["encoding_format", "embedding_type"])
def test_base64_is_that_of_little_endian_floats(client: TestClient, field: str) -> None:
    answer = embed(client, input=["a", "b"], **{field: "base64"})
    decoded = [np.frombuffer(base64.b64decode(each["embedding"]), "<f4") for each in answer["data"]]
    np.testing.assert_array_equal(decoded, vectors(embed(client, input=["a", "b"])).astype("f4"))


def test_bits_say_which_components_are_positive(client: TestClient, tiny: SentenceTransformer) -> None:
    unsigned, signed = (vectors(embed(client, input="a", embedding_type=kind)) for kind in ("ubinary", "binary"))
    positive = tiny.encode(["a"]) > 0
    assert np.unpackbits(unsigned.astype(np.uint8), axis=1).astype(bool).tolist() == positive.tolist()
    assert (unsigned - 128).tolist() == signed.tolist()


def test_usage_counts_every_token_that_the_model_reads(client: TestClient, tiny: SentenceTransformer) -> None:
    features = tiny.preprocess([{"text": "a red circle"}, FUSED])
    tokens = int(features["attention_mask"].sum())
    answer = embed(client, input=["a red circle", {"text": "make it blue", "image": RED_URI}])
    assert answer["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
    assert answer["model"] == "tiny"


def test_fewer_dimensions_of_a_model_that_was_trained_for_them(tiny: SentenceTransformer) -> None:
    client = TestClient(create_app(tiny, least_dimension=16))
    expected = tiny.encode(["a", "b"], truncate_dim=16, normalize_embeddings=True)
    np.testing.assert_allclose(vectors(embed(client, input=["a", "b"], dimensions=16)), expected, atol=1e-5)
    assert client.post("/v1/embeddings", json={"input": "a", "dimensions": 15}).status_code == 400


def test_the_whole_embedding_by_its_number_of_dimensions(client: TestClient, tiny: SentenceTransformer) -> None:
    np.testing.assert_allclose(vectors(embed(client, input="a", dimensions=128)), tiny.encode(["a"]), atol=1e-5)


def test_too_long_a_text_is_cut_where_that_is_asked_for(client: TestClient, tiny: SentenceTransformer) -> None:
    text = "a red circle " * 500
    for field in ({"truncate": True}, {"truncate_prompt_tokens": -1}):
        np.testing.assert_allclose(vectors(embed(client, input=text, **field)), tiny.encode([text]), atol=1e-5)


def test_how_many_texts_were_cut_is_told(client: TestClient) -> None:
    text = "a red circle " * 500
    assert embed(client, input=[text, "a", text], truncate=True)["truncated"] == 2
    assert embed(client, input=["a"], truncate=True)["truncated"] == 0


REFUSED = {
    "nothing": ({}, "input", "Send input or messages"),
    "both": ({"input": "a", "messages": [user(TEXT_PART)]}, "input", "Send input or messages"),
    "no items": ({"input": []}, None, "nothing to embed"),
    "tokens": ({"input": [1, 2, 3]}, "input[0]", "check_embedding_ctx_length=False"),
    "lists of tokens": ({"input": ["a", [1, 2]]}, "input[1]", "check_embedding_ctx_length=False"),
    "a number": ({"input": 1.5}, "input[0]", "of type float"),
    "an item of nothing": ({"input": ["a", {}]}, "input[1]", "neither text nor image"),
    "an unknown key": ({"input": {"text": "a", "picture": "b"}}, "input[0]", "unknown keys ['picture']"),
    "an unknown field": ({"input": "a", "dimension": 3}, "dimension", "no field that this API has"),
    "a field of another type": ({"input": "a", "dimensions": "3"}, "dimensions", "valid integer"),
    "a number that is a flag": ({"input": "a", "dimensions": True}, "dimensions", "valid integer"),
    "fewer dimensions": ({"input": "a", "dimensions": 64}, "dimensions", "not trained for shorter ones"),
    "more dimensions": ({"input": "a", "dimensions": 129}, "dimensions", "128 dimensions"),
    "no dimensions": ({"input": "a", "dimensions": 0}, "dimensions", "128 dimensions"),
    "too long a text": ({"input": ["a", "a red circle " * 500]}, "input[1]", "longer than 512 tokens"),
    "an image that is a text": ({"input": ["a", {"image": "a cat"}]}, "input[1]", "no http(s) URL and no data URI"),
    "an image that is none": ({"input": {"image": "data:image/png;base64,AAAA"}}, "input[0]", "not an image"),
    "a video": ({"input": {"video": "data:video/mp4;base64,AAAA"}}, "input[0]", "takes no video"),
    "an answer to a question": (
        {"messages": [user(TEXT_PART), {"role": "assistant", "content": "yes"}]},
        "input[0]",
        "one user message",
    ),
    "audio": ({"input": "a", "modality": "audio"}, "modality", "no audio"),
    "late chunking": ({"input": "a", "late_chunking": True}, "late_chunking", "one vector"),
    "several vectors": ({"input": "a", "return_multivector": True}, "return_multivector", "one vector"),
    "unnormalised": ({"input": "a", "normalized": False}, "normalized", "length 1"),
    "so many tokens": ({"input": "a", "truncate_prompt_tokens": 10}, "truncate_prompt_tokens", "-1"),
    "an unknown side": ({"input": "a", "side": "queries"}, "side", "'query' or 'document'"),
    "an unknown instruction": ({"input": "a", "prompt_name": "sts"}, "prompt_name", "It has: i2t, it2i, t2i, t2t"),
    "a side by name on the other": (
        {"input": "a", "prompt_name": "query", "side": "document"},
        "prompt_name",
        "no instr",
    ),
    "two instructions": ({"input": "a", "prompt_name": "t2i", "instruction": "b"}, "prompt_name", "one of them"),
    "an instruction that is not read": ({"input": "a", "instruction": "b", "side": "document"}, None, "document side"),
    "an instruction that no tokenizer reads": ({"input": "a", "instruction": "\ud800"}, "input", "lone surrogate"),
}


@pytest.mark.parametrize(("body", "param", "words"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_refused_by_its_field(
    client: TestClient, body: dict[str, Any], param: str | None, words: str
) -> None:
    # Not by json=, which refuses lone surrogates itself.
    response = client.post("/v1/embeddings", content=json.dumps(body), headers={"Content-Type": "application/json"})
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]


def test_the_models_are_one_with_what_it_takes(client: TestClient) -> None:
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"], model["dimension"], model["max_length"]) == ("tiny", "model", 128, 512)
    assert model["prompts"]["it2i"] == CHANGE
    assert model["instruction_sides"] == ["query"]
    assert (model["max_items"], model["max_body_bytes"]) == (2048, 32 * 2**20)


def test_an_unknown_path_and_another_method_are_said_as_openai_does(client: TestClient) -> None:
    for response, status in ((client.get("/v1/nothing"), 404), (client.get("/v1/embeddings"), 405)):
        assert response.status_code == status
        assert response.json()["error"]["type"] == "invalid_request_error"
