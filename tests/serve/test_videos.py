"""Videos, by a model that takes them."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from st_modules.serve import create_app
from tests.helpers.references import load_once
from tests.helpers.serving import DASHSCOPE, data_uri, picture

FRAMES = [picture(colour) for colour in ("red", "green", "blue")]
URIS = [data_uri(frame) for frame in FRAMES]


def test_a_video_of_frames_is_one_vector() -> None:
    model = load_once("vlm2vec-v2", "sdpa")
    expected = model.encode([{"video": FRAMES}, {"video": FRAMES, "text": "a"}])
    with TestClient(create_app(model)) as client:
        body: Any = {"input": {"contents": [{"video": URIS}, {"video": URIS, "text": "a"}]}}
        answer = client.post(DASHSCOPE, json=body)
        found = answer.json()["output"]["embeddings"]
        np.testing.assert_allclose([each["embedding"] for each in found], expected, atol=1e-5)
        assert [each["type"] for each in found] == ["video", "vl"]
        other = client.post("/v1/embeddings", json={"input": [{"video": URIS}]})
        np.testing.assert_allclose(other.json()["data"][0]["embedding"], expected[0], atol=1e-5)


def test_a_file_of_a_video_without_what_reads_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else find(name))
    client = TestClient(create_app(load_once("vlm2vec-v2", "sdpa")))
    file = "data:video/mp4;base64,AAAAGGZ0eXBtcDQyAAAAAG1wNDJpc29t"
    answer = client.post("/v1/embeddings", json={"input": [{"video": file}]})
    assert answer.status_code == 400
    assert "st-modules[video]" in answer.text
