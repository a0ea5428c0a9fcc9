"""A batch of columns comes back as it was, with a vector and an error a row, whatever library holds it."""

from __future__ import annotations

import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from PIL import Image

from st_modules import BatchEmbedder, CheckpointError, ImageLimits, SentenceTransformer, Side, UnknownModelError
from st_modules.errors import ArgumentError
from st_modules.integrations.embedder import Embedder
from tests.helpers.paths import GOLDEN, ROOT
from tests.helpers.references import TOLERANCE, reference

PICTURE = GOLDEN / "gme" / "images" / "square.png"
TEXTS = ["a red circle", None, "make it blue", None]
IMAGES = [None, str(PICTURE), str(PICTURE), None]
NOTHING = "it has neither text nor image; leave it out or give it one"


@pytest.fixture(scope="module")
def embed() -> BatchEmbedder:
    return BatchEmbedder("tiny", device="cpu")


@pytest.fixture(scope="module")
def expected(tiny: SentenceTransformer) -> np.ndarray:
    return tiny.encode_document(
        [{"text": text, "image": image} for text, image in zip(TEXTS[:3], IMAGES[:3], strict=True)]
    )


def check(vectors: Any, errors: Any, expected: np.ndarray) -> None:
    found = np.stack([*vectors])
    np.testing.assert_allclose(found[:3], expected, atol=TOLERANCE)
    assert np.isnan(found[3]).all()
    assert [None if error != error else error for error in errors] == [None, None, None, NOTHING]


BATCHES: dict[str, Callable[[list[Any]], Any]] = {
    "lists": list,
    "numpy": lambda values: np.array(values, dtype=object),
    "arrow": pa.array,
    "arrow, chunked": lambda values: pa.chunked_array([values[:2], values[2:]], pa.string()),
    "pandas": pd.Series,
    "polars": pl.Series,
}


@pytest.mark.parametrize("kind", BATCHES)
def test_a_dictionary_may_have_columns_of_any_kind(kind: str, embed: BatchEmbedder, expected: np.ndarray) -> None:
    batch = {"id": [4, 3, 2, 1], "text": BATCHES[kind](TEXTS), "image": BATCHES[kind](IMAGES)}
    found = embed(batch)
    assert list(found) == ["id", "text", "image", "vector", "error"]
    assert all(found[name] is batch[name] for name in batch)
    assert (found["vector"].dtype, found["vector"].shape) == (np.float32, (4, 128))
    check(found["vector"], found["error"], expected)


@pytest.mark.parametrize("batched", [False, True])
def test_a_table_of_arrow_stays_one(batched: bool, embed: BatchEmbedder, expected: np.ndarray) -> None:
    table = pa.table({"id": [4, 3, 2, 1], "text": TEXTS, "image": IMAGES})
    found = embed(table.to_batches()[0] if batched else table)
    assert isinstance(found, pa.RecordBatch if batched else pa.Table)
    assert found.schema.field("vector").type == pa.list_(pa.float32(), 128)
    assert found.schema.field("error").type == pa.string()
    assert found.select(["id", "text", "image"]).to_pylist() == table.to_pylist()
    check(found["vector"].to_pylist(), found["error"].to_pylist(), expected)
    again = embed(found)
    assert again.schema == found.schema


def test_a_data_frame_of_pandas_stays_one(embed: BatchEmbedder, expected: np.ndarray) -> None:
    frame = pd.DataFrame({"text": TEXTS, "image": IMAGES}, index=[7, 8, 9, 10])
    found = embed(frame)
    assert list(found.columns) == ["text", "image", "vector", "error"]
    assert list(found.index) == list(frame.index)
    check(found["vector"], found["error"], expected)


def picture() -> Image.Image:
    return Image.open(PICTURE).convert("RGB")


IMAGE_KINDS: dict[str, Callable[[], Any]] = {
    "path": lambda: str(PICTURE),
    "file URL": PICTURE.as_uri,
    "bytes": PICTURE.read_bytes,
    "bytes and path": lambda: {"bytes": PICTURE.read_bytes(), "path": None},
    "path and no bytes": lambda: {"bytes": None, "path": str(PICTURE)},
    "PIL": picture,
    "array": lambda: np.asarray(picture()),
    "several": lambda: [str(PICTURE)],
}


@pytest.mark.parametrize("kind", IMAGE_KINDS)
def test_images_of_any_kind(kind: str, embed: BatchEmbedder, tiny: SentenceTransformer) -> None:
    found = embed({"image": [None, IMAGE_KINDS[kind]()]})
    np.testing.assert_allclose(found["vector"][1], tiny.encode_document({"image": PICTURE}), atol=TOLERANCE)
    assert list(found["error"]) == [NOTHING, None]


def test_pictures_of_one_size_as_one_array(embed: BatchEmbedder, tiny: SentenceTransformer) -> None:
    found = embed({"image": np.stack([np.asarray(picture())] * 2)})
    np.testing.assert_allclose(found["vector"], [tiny.encode_document({"image": PICTURE})] * 2, atol=TOLERANCE)


def test_arrows_structs_of_encoded_images(embed: BatchEmbedder, tiny: SentenceTransformer) -> None:
    found = embed(pa.table({"image": [{"bytes": PICTURE.read_bytes(), "path": "a.png"}]}))
    np.testing.assert_allclose(found["vector"].to_pylist()[0], tiny.encode_document({"image": PICTURE}), atol=TOLERANCE)


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT])
def test_what_stands_for_nothing_is_nothing(missing: Any, embed: BatchEmbedder) -> None:
    found = embed({"text": ["a", missing], "image": [missing, missing]})
    assert list(found["error"]) == [None, NOTHING]


BAD_ROWS = {
    "missing": ({"image": "missing.png"}, "missing.png: no such file"),
    "no image": ({"image": b"<html>"}, "not a raster image"),
    "no text": ({"text": 3}, "of type int"),
    "surrogate": ({"text": "\ud83d"}, "lone surrogate"),
    "second image": ({"image": [str(PICTURE), "missing.png"]}, "image 1: missing.png: no such file"),
}


@pytest.mark.parametrize("kind", BAD_ROWS)
def test_a_bad_row_costs_no_other(kind: str, embed: BatchEmbedder, tiny: SentenceTransformer) -> None:
    bad, problem = BAD_ROWS[kind]
    rows = [{"text": "a"}, bad, {"text": "b"}]
    found = embed({name: [row.get(name) for row in rows] for name in ("text", "image")})
    np.testing.assert_allclose(
        found["vector"][[0, 2]], tiny.encode_document([{"text": "a"}, {"text": "b"}]), atol=TOLERANCE
    )
    assert np.isnan(found["vector"][1]).all()
    assert [error is None for error in found["error"]] == [True, False, True]
    assert problem in found["error"][1]


@pytest.mark.parametrize("rows", [[], [None, None]])
def test_a_batch_without_an_embedding_has_the_columns_of_others(rows: list[None], embed: BatchEmbedder) -> None:
    assert embed({"text": rows})["vector"].shape == (len(rows), 128)
    table = pa.table({"text": pa.array(rows, pa.string())})
    assert embed(table).schema == embed(pa.table({"text": ["a"]})).schema


def test_columns_may_have_any_names(tiny: SentenceTransformer) -> None:
    embed = BatchEmbedder(tiny, text="caption", image=None, vector="v", error="e")
    found = embed({"caption": ["a"], "image": ["not looked at"]})
    assert list(found) == ["caption", "image", "v", "e"]
    np.testing.assert_allclose(found["v"], tiny.encode_document([{"text": "a"}]), atol=TOLERANCE)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"text": "txt"}, r"text='txt': the batch has no such column, but \['caption'\]"),
        ({}, r"no column of texts or images; pass text= or image=, of \['caption'\]"),
        ({"text": None, "image": None}, "no column of texts or images"),
    ],
)
def test_columns_that_are_not_there_are_named(options: dict[str, Any], problem: str, tiny: SentenceTransformer) -> None:
    with pytest.raises(ArgumentError, match=problem):
        BatchEmbedder(tiny, **options)({"caption": ["a"]})


def test_columns_of_unequal_length_are_refused(embed: BatchEmbedder) -> None:
    with pytest.raises(ArgumentError, match="not as many rows"):
        embed({"text": ["a", "b"], "image": [None]})


def test_sides_and_prompts_are_the_models_own(tiny: SentenceTransformer) -> None:
    batch = {"text": ["a red circle"]}
    sides: dict[Side, Any] = {"query": tiny.encode_query, "document": tiny.encode_document}
    for side, encode in sides.items():
        found = BatchEmbedder(tiny, side=side, prompt_name="t2i")(batch)
        np.testing.assert_allclose(found["vector"], encode(batch["text"], prompt_name="t2i"), atol=TOLERANCE)
    found = BatchEmbedder(tiny, side="query", prompt="Find the opposite.")(batch)
    np.testing.assert_allclose(
        found["vector"], tiny.encode_query(batch["text"], prompt="Find the opposite."), atol=TOLERANCE
    )


def test_vectors_may_be_shorter_and_of_half_the_size(tiny: SentenceTransformer) -> None:
    found = BatchEmbedder(tiny, truncate_dim=16, dtype="float16")({"text": ["a", None]})["vector"]
    assert (found.dtype, found.shape) == (np.float16, (2, 16))
    np.testing.assert_allclose(found[0], tiny.encode_document(["a"], truncate_dim=16)[0], atol=1e-3)
    assert BatchEmbedder(tiny, truncate_dim=16)({"text": []})["vector"].shape == (0, 16)


@pytest.mark.parametrize("wrong", [{"side": "both"}, {"dtype": "int8"}, {"prompt": "a", "prompt_name": "t2i"}])
def test_arguments_that_mean_nothing_are_refused_before_a_model_is_loaded(wrong: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        BatchEmbedder("tiny", **wrong)


def test_a_model_that_cannot_be_loaded_raises_at_the_first_call() -> None:
    embed = BatchEmbedder("gme-2")
    with pytest.raises(UnknownModelError, match="Did you mean 'gme-2b'"):
        embed({"text": ["a"]})


def test_an_instruction_that_would_change_nothing_raises_at_the_first_call() -> None:
    gme = reference("gme-2b")
    embed = BatchEmbedder("gme-2b", weights=gme.weights, device="cpu", prompt="Find a picture.")
    with pytest.raises(ValueError, match="no instruction on the document side"):
        embed({"text": ["a"]})


def test_threads_that_call_at_once_load_one_model(monkeypatch: pytest.MonkeyPatch) -> None:
    loads: list[str] = []
    load = Embedder.load
    monkeypatch.setattr(Embedder, "load", lambda name, **options: loads.append(name) or load(name, **options))
    embed = BatchEmbedder("tiny", device="cpu")
    with ThreadPoolExecutor(4) as pool:
        found = [*pool.map(lambda number: embed({"text": [f"{number}"]})["vector"], range(8))]
    assert (loads, len(found)) == (["tiny"], 8)


def test_options_of_loading_reach_the_model() -> None:
    embed = BatchEmbedder("tiny", device="cpu", image_limits=ImageLimits(local_files=False))
    (error,) = embed({"image": [str(PICTURE)]})["error"]
    assert "opening files is turned off" in error


def test_it_is_pickled_without_its_model(embed: BatchEmbedder) -> None:
    embed({"text": ["a"]})
    again = pickle.loads(pickle.dumps(embed))
    assert len(pickle.dumps(embed)) < 2000
    np.testing.assert_array_equal(again({"text": ["a"]})["vector"], embed({"text": ["a"]})["vector"])


def test_paths_hold_in_another_folder(
    tiny: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.save_pretrained(str(tmp_path / "saved"))
    monkeypatch.chdir(tmp_path)
    made = [BatchEmbedder("./saved", device="cpu"), BatchEmbedder("gme-2b", weights="nowhere")]
    monkeypatch.chdir("/")
    np.testing.assert_allclose(made[0]({"text": ["a"]})["vector"], tiny.encode_document(["a"]), atol=TOLERANCE)
    with pytest.raises(CheckpointError, match=re.escape(str(tmp_path / "nowhere"))):
        made[1]({"text": ["a"]})


def test_one_of_a_loaded_model_is_not_pickled(tiny: SentenceTransformer) -> None:
    with pytest.raises(TypeError, match="A loaded model is not pickled; pass its name"):
        pickle.dumps(BatchEmbedder(tiny))


def test_making_one_loads_nothing(tmp_path: Path) -> None:
    program = "from st_modules import BatchEmbedder; print(BatchEmbedder('no such model')._embedder)"
    assert (
        subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, cwd=ROOT).stdout == b"None\n"
    )
