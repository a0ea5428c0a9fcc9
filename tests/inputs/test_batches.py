"""What holds several inputs: what has an order works as the list of it, and the rest is told what to pass."""

from __future__ import annotations

import io
from collections import UserDict, UserList, deque
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageColumn
from PIL import Image

from st_modules import ImageError, InputError, SentenceTransformer

TEXTS = ["a red circle", "two green stars", "a blue square"]
NUMBERED = dict(enumerate(TEXTS))


class Rows(torch.utils.data.Dataset[str]):
    def __len__(self) -> int:
        return len(TEXTS)

    def __getitem__(self, index: int) -> str:
        return TEXTS[index]


class Stream(torch.utils.data.IterableDataset[str]):
    def __iter__(self) -> Iterator[str]:
        return iter(TEXTS)


BATCHES: dict[str, Any] = {
    "tuple": lambda: tuple(TEXTS),
    "generator": lambda: (text for text in TEXTS),
    "iterator": lambda: iter(TEXTS),
    "map": lambda: map(str, TEXTS),
    "values of a dict": lambda: NUMBERED.values(),
    "keys of a dict": lambda: dict.fromkeys(TEXTS).keys(),
    "deque": lambda: deque(TEXTS),
    "UserList": lambda: UserList(TEXTS),
    "array of strings": lambda: np.array(TEXTS),
    "array of objects": lambda: np.array(TEXTS, dtype=object),
    "series": lambda: pd.Series(TEXTS, index=[5, 3, 1]),
    "series of strings": lambda: pd.Series(TEXTS, dtype="string"),
    "categories": lambda: pd.Series(TEXTS, dtype="category"),
    "index": lambda: pd.Index(TEXTS),
    "series of polars": lambda: pl.Series(TEXTS),
    "column": lambda: Dataset.from_dict({"text": TEXTS})["text"],
    "streamed column": lambda: Dataset.from_dict({"text": TEXTS}).to_iterable_dataset()["text"],
    "dataset": lambda: Dataset.from_dict({"text": TEXTS}),
    "streamed dataset": lambda: Dataset.from_dict({"text": TEXTS}).to_iterable_dataset(),
    "stream of torch": Stream,
    "rows of a frame": lambda: pd.DataFrame({"text": TEXTS}).to_dict("records"),
}

if hasattr(np.dtypes, "StringDType"):  # of NumPy 2
    BATCHES["array of NumPy's strings"] = lambda: np.array(TEXTS, dtype=np.dtypes.StringDType())


@pytest.fixture(scope="module")
def expected(tiny: SentenceTransformer) -> np.ndarray:
    return np.stack([tiny.encode(text) for text in TEXTS])


@pytest.mark.parametrize("kind", BATCHES)
@pytest.mark.parametrize("method", ["encode", "encode_query", "encode_document"])
def test_what_has_an_order_is_embedded_as_its_list(
    kind: str, method: str, tiny: SentenceTransformer, expected: np.ndarray
) -> None:
    assert np.abs(getattr(tiny, method)(BATCHES[kind]()) - expected).max() <= 1e-5


@pytest.mark.parametrize("kind", BATCHES)
def test_items_and_features_are_made_of_it_too(kind: str, tiny: SentenceTransformer) -> None:
    assert [item.text for item in tiny.parse(BATCHES[kind]())] == TEXTS
    found, listed = tiny.preprocess(BATCHES[kind]()), tiny.preprocess(TEXTS)
    assert torch.equal(found["input_ids"], listed["input_ids"])


REFUSED: dict[str, tuple[Any, str]] = {
    "set": (lambda: set(TEXTS), "no order.*a list"),
    "frozenset": (lambda: frozenset(TEXTS), "no order.*a list"),
    "frame": (lambda: pd.DataFrame({"text": TEXTS}), r"list\(frame\['text'\]\)"),
    "frame of polars": (lambda: pl.DataFrame({"text": TEXTS}), r"columns.*to_dicts\(\)"),
    "table of arrow": (lambda: pa.table({"text": TEXTS}), "to_pylist"),
    "column of arrow": (lambda: pa.chunked_array([TEXTS]), "to_pylist"),
    "dataset of torch": (Rows, "a list"),
    "loader of torch": (lambda: torch.utils.data.DataLoader(Rows()), "a list"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("method", ["encode", "preprocess", "parse"])
def test_what_has_no_order_or_no_one_column_is_told_what_to_pass(
    kind: str, method: str, tiny: SentenceTransformer
) -> None:
    make, advice = REFUSED[kind]
    with pytest.raises(InputError, match=advice):
        getattr(tiny, method)(make())


SINGLE: dict[str, Any] = {
    "text": "abc",
    "bytes": b"abc",
    "row": {"text": "a"},
    "path": Path("a.png"),
    "image": Image.new("RGB", (30, 30)),
    "array": np.zeros((30, 30, 3), np.uint8),
    "arrays": np.zeros((2, 30, 30, 3), np.uint8),
    "tensor": torch.zeros(3, 30, 30, dtype=torch.uint8),
    "file": io.StringIO("abc\ndef"),
    "nothing": None,
    "number": 3,
}


@pytest.mark.parametrize("kind", SINGLE)
@pytest.mark.parametrize("method", ["preprocess", "parse"])
def test_a_single_input_in_the_place_of_a_list_is_not_taken_apart(
    kind: str, method: str, tiny: SentenceTransformer
) -> None:
    with pytest.raises(InputError, match=rf"of type {type(SINGLE[kind]).__name__}: pass a list.*\[input\]"):
        getattr(tiny, method)(SINGLE[kind])


@pytest.mark.parametrize("wrap", [MappingProxyType, UserDict])
def test_a_row_may_be_any_mapping(wrap: Any, tiny: SentenceTransformer) -> None:
    for row in ({"text": TEXTS[0]}, {"role": "user", "content": TEXTS[0]}):
        assert np.array_equal(tiny.encode(wrap(row)), tiny.encode(row))


def test_a_dataset_is_embedded_row_by_row(tiny: SentenceTransformer, expected: np.ndarray) -> None:
    found = Dataset.from_dict({"text": TEXTS}).map(lambda row: {"vector": tiny.encode(row)})
    assert np.abs(np.array(found["vector"]) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("images", "advice"),
    [
        (np.zeros((2, 30, 30, 3), np.uint8), r"\(2, 30, 30, 3\).*several images are passed as list\(images\)"),
        (
            torch.zeros(2, 3, 30, 30, dtype=torch.uint8),
            r"\(2, 3, 30, 30\).*several images are passed as list\(images\)",
        ),
        (np.array("a red circle"), r"an array of strings or objects.*tolist\(\)"),
        (np.array([b"a", b"b"]), "item 0: 1 bytes.*pass a text, or a data URI, as str"),
    ],
)
def test_an_array_of_several_or_of_strings_is_told_what_to_pass(
    images: Any, advice: str, tiny: SentenceTransformer
) -> None:
    with pytest.raises(ImageError, match=advice):
        tiny.encode(images)


@pytest.mark.parametrize("missing", [None, float("nan"), np.nan, pd.NA, pd.NaT, 3, np.float32(2), True, object()])
def test_a_missing_value_among_texts_is_named_and_called_no_image(missing: Any, tiny: SentenceTransformer) -> None:
    for inputs in ([*TEXTS, missing], pd.Series([*TEXTS, missing], dtype=object)):
        with pytest.raises(InputError, match="item 3") as error:
            tiny.encode(inputs)
        assert "not an image" not in str(error.value)
        assert not isinstance(error.value, ImageError)


@pytest.mark.parametrize("missing", [float("nan"), np.float32("nan"), pd.NA, pd.NaT], ids=repr)
@pytest.mark.parametrize("key", ["text", "image"])
def test_a_missing_part_of_a_row_is_named(missing: Any, key: str, tiny: SentenceTransformer) -> None:
    rows = [{"text": "a"}, {"text": "a", "image": None, key: missing}]
    with pytest.raises(InputError, match=f'^item 1, "{key}": .*{missing}.*None') as error:
        tiny.encode(rows)
    assert "not an image" not in str(error.value)


def test_the_advice_for_a_missing_part_helps(tiny: SentenceTransformer, picture: Path) -> None:
    frame = pd.DataFrame({"text": [TEXTS[0], np.nan], "image": [np.nan, str(picture)]}, dtype=object)
    with pytest.raises(InputError, match="missing value") as error:
        tiny.encode(frame.to_dict("records"))
    assert "frame.astype(object).where(frame.notna(), None)" in str(error.value)
    rows: Any = frame.astype(object).where(frame.notna(), None).to_dict("records")
    assert np.abs(tiny.encode(rows) - np.stack([tiny.encode(TEXTS[0]), tiny.encode(picture)])).max() <= 1e-5


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "a.png"
    Image.effect_noise((40, 30), 90).convert("RGB").save(path)
    return path


def test_pictures_of_a_dataset_are_embedded_decoded_or_not(tiny: SentenceTransformer, picture: Path) -> None:
    rows = {"image": [str(picture), str(picture)], "text": ["a red circle", None]}
    decoded = Dataset.from_dict(rows, features=Features({"image": ImageColumn(), "text": Value("string")}))
    kept = decoded.cast_column("image", ImageColumn(decode=False))
    expected = np.stack([tiny.encode({"image": picture, "text": TEXTS[0]}), tiny.encode({"image": picture})])
    for dataset in (decoded, kept):
        assert np.abs(tiny.encode(dataset) - expected).max() <= 1e-5
        assert np.abs(tiny.encode(dataset["image"]) - expected[1]).max() <= 1e-5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda image: image,
        lambda image: {"image": image},
        lambda image: {"image": [image]},
        lambda image: {"role": "user", "content": [{"type": "image", "image": image}]},
    ],
)
def test_an_image_that_is_not_decoded_is_its_bytes_or_else_its_path(
    wrap: Any, tiny: SentenceTransformer, picture: Path
) -> None:
    expected = tiny.encode({"image": picture})
    content = picture.read_bytes()
    for image in (
        {"bytes": content, "path": None},
        {"bytes": content, "path": "elsewhere.png"},
        {"bytes": None, "path": str(picture)},
        {"bytes": content},
        {"path": str(picture)},
    ):
        assert np.array_equal(np.atleast_2d(tiny.encode([wrap(image)]))[0], expected)
    with pytest.raises(InputError, match="item 0.*neither bytes nor a path"):
        tiny.encode([wrap({"bytes": None, "path": None})])


def test_columns_that_cannot_be_embedded_are_named(tiny: SentenceTransformer) -> None:
    with pytest.raises(InputError, match=r"item 0: unknown keys \['label'\]"):
        tiny.encode(Dataset.from_dict({"text": TEXTS, "label": [1, 2, 3]}))


@pytest.mark.parametrize(
    "single", [io.BytesIO, memoryview, np.zeros((30, 30, 3), np.uint8), torch.zeros(3, 30, 30, dtype=torch.uint8)]
)
def test_a_single_image_stays_one(single: Any, tiny: SentenceTransformer, picture: Path) -> None:
    single = single(picture.read_bytes()) if callable(single) else single
    assert tiny.encode(single).shape == (tiny.get_embedding_dimension(),)


def test_an_open_file_is_told_what_to_pass(tiny: SentenceTransformer, picture: Path) -> None:
    with picture.open("rb") as stream, pytest.raises(InputError, match="BufferedReader"):
        tiny.encode(stream)
