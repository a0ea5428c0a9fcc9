"""Every golden GME case through the public API, against the vectors of the authors' script."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from st_modules import SentenceTransformer

GOLDEN = Path(__file__).parent / "golden" / "gme"
CASES = {case["id"]: case for case in json.loads((GOLDEN / "cases.json").read_text(encoding="utf-8"))["cases"]}
EXPECTED = load_file(GOLDEN / "expected.safetensors")
TOLERANCE = 1e-5


def case_items(case: dict[str, Any]) -> list[dict[str, Any]]:
    return [{key: GOLDEN / value if key == "image" else value for key, value in item.items()} for item in case["items"]]


def encode_case(model: SentenceTransformer, case: dict[str, Any], batch_size: int) -> np.ndarray:
    encode = model.encode if case.get("is_query", True) else model.encode_document
    return encode(case_items(case), prompt=case.get("instruction"), batch_size=batch_size)


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def upstream(request: pytest.FixtureRequest) -> SentenceTransformer:
    return SentenceTransformer(
        "gme-2b", weights=GOLDEN / "checkpoint", device="cpu", model_kwargs={"attn_implementation": request.param}
    )


@pytest.fixture(scope="module")
def reloaded(upstream: SentenceTransformer, tmp_path_factory: pytest.TempPathFactory) -> SentenceTransformer:
    folder = tmp_path_factory.mktemp("saved")
    upstream.save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("case_id", CASES)
@pytest.mark.parametrize("batch_size", [1, 7])
def test_each_case_matches_the_original(upstream: SentenceTransformer, case_id: str, batch_size: int) -> None:
    embeddings = encode_case(upstream, CASES[case_id], batch_size)
    assert np.abs(embeddings - EXPECTED[case_id]).max() <= TOLERANCE


@pytest.mark.parametrize("case_id", CASES)
def test_each_case_matches_the_original_after_save_and_reload(reloaded: SentenceTransformer, case_id: str) -> None:
    embeddings = encode_case(reloaded, CASES[case_id], batch_size=7)
    assert np.abs(embeddings - EXPECTED[case_id]).max() <= TOLERANCE


def _mixed(instruction: str | None) -> tuple[list[dict[str, Any]], np.ndarray]:
    cases = [case for case in CASES.values() if case.get("instruction") == instruction and case.get("is_query", True)]
    items = [item for case in cases for item in case_items(case)]
    expected = np.concatenate([EXPECTED[case["id"]] for case in cases])
    order = np.random.default_rng(0).permutation(len(items))
    return [items[position] for position in order], expected[order]


@pytest.mark.parametrize("instruction", sorted({case.get("instruction") or "" for case in CASES.values()}))
@pytest.mark.parametrize("batch_size", [7, 1000])
def test_everything_mixed_in_one_call_matches_the_original(
    upstream: SentenceTransformer, instruction: str, batch_size: int
) -> None:
    items, expected = _mixed(instruction or None)
    embeddings = upstream.encode(items, prompt=instruction or None, batch_size=batch_size)
    assert np.abs(embeddings - expected).max() <= TOLERANCE


def test_all_cases_of_both_sides_in_one_preprocessed_batch(upstream: SentenceTransformer) -> None:
    items, expected = _mixed(None)
    embeddings = upstream(upstream.preprocess(items))["sentence_embedding"]
    assert np.abs(embeddings.detach().numpy() - expected).max() <= TOLERANCE
