"""Batches under a budget, equal items once, images read beside the model, and memory that runs out."""

from __future__ import annotations

import dataclasses
import io
import itertools
import logging
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from st_modules import EncodeOptions, ImageError, SentenceTransformer
from st_modules.encode import engine
from st_modules.inputs.images import ImageSource
from tests.helpers.inputs import OFF, PICTURES, texts
from tests.helpers.references import TOLERANCE, reference


@pytest.fixture
def batches(gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The batches of rows that are prepared, as they come."""
    found: list[list[Any]] = []
    collate: Any = gme[0].collate

    def spy(rows: Any, *args: Any) -> Any:
        found.append(list(rows))
        return collate(rows, *args)

    monkeypatch.setattr(gme[0], "collate", spy)
    return found


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize("budget", [1, 100, 300])
def test_batches_keep_to_both_bounds(gme: SentenceTransformer, batches: list[list[Any]], budget: int) -> None:
    gme.max_batch_tokens = budget
    gme.encode([*texts(60), *PICTURES], batch_size=7)
    assert sum(map(len, batches)) == 60 + len(PICTURES)
    assert all(len(batch) <= 7 for batch in batches)
    assert all(len(batch) == 1 or sum(len(row.ids) for row in batch) <= budget for batch in batches)


def test_the_budget_is_an_argument_of_the_constructor() -> None:
    assert reference("gme-2b").load("gme-2b", max_batch_tokens=77).max_batch_tokens == 77


@pytest.mark.parametrize("value", [0, -1, 2.5, "many"])
def test_a_budget_that_holds_no_token_is_refused(gme: SentenceTransformer, value: Any) -> None:
    with pytest.raises(ValueError, match="max_batch_tokens"):
        gme.max_batch_tokens = value


def test_the_default_budget_follows_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gibibyte = 2**30
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 3 * gibibyte)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 * gibibyte)
    budgets = []
    for free in (1, 6, 60):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free * gibibyte, 80 * gibibyte))
        budgets.append(engine.default_max_tokens(torch.device("cuda")))
    assert budgets == [3 * 1024, 8 * 1024, 16 * 1024]
    assert engine.default_max_tokens(torch.device("cpu")) == 2048


def test_equal_items_are_embedded_once(gme: SentenceTransformer, batches: list[list[Any]], tmp_path: Path) -> None:
    copy = tmp_path / "copy.png"
    copy.write_bytes(PICTURES[0].read_bytes())
    picture = Image.open(PICTURES[1])
    inputs: list[Any] = [
        "a cat",
        PICTURES[0],
        {"text": "a cat", "image": PICTURES[0]},
        {"text": "a cat"},
        copy,
        {"text": "a cat", "image": copy.read_bytes()},
        picture,
        picture.copy(),
    ]
    found = gme.encode(inputs)
    assert sum(map(len, batches)) == 4
    assert np.array_equal(found[[0, 1, 2, 6]], found[[3, 4, 5, 7]])
    gme.encode_options = OFF
    assert np.abs(found - gme.encode(inputs)).max() <= TOLERANCE


def unequal_pairs() -> dict[str, tuple[Any, Any]]:
    gradient = Image.linear_gradient("L").resize((64, 64))
    swapped = gradient.convert("P")
    swapped.putpalette([255 - value // 3 for value in range(768)])
    changed = gradient.copy()
    changed.putpixel((3, 3), 255)
    return {
        "one_pixel": (gradient, changed),
        "one_pixel_encoded": (encoded(gradient, "BMP"), encoded(changed, "BMP")),
        "palette": (gradient.convert("P"), swapped),
        "mode": (gradient, gradient.convert("P")),
        "array": (np.zeros((64, 64), np.uint8), np.eye(64, dtype=np.uint8)),
    }


@pytest.mark.parametrize("name", unequal_pairs())
def test_images_that_only_look_alike_are_embedded_apart(
    gme: SentenceTransformer, batches: list[list[Any]], name: str
) -> None:
    gme.encode(list(unequal_pairs()[name]))
    assert sum(map(len, batches)) == 2


def test_images_without_a_like_are_not_compared(gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[ImageSource] = []
    monkeypatch.setattr(ImageSource, "digest", compared.append)
    gme.encode([*PICTURES, *texts(3)])
    assert compared == []


@pytest.fixture
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are read one batch ahead, as they are beside an accelerator."""
    monkeypatch.setattr(engine, "reads_ahead", lambda device: True)


@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_images_are_read_ahead_beside_an_accelerator(device: str) -> None:
    assert engine.reads_ahead(torch.device(device)) == (device != "cpu")


@pytest.mark.usefixtures("ahead")
def test_embeddings_are_the_same_when_images_are_read_ahead(gme: SentenceTransformer) -> None:
    inputs = [*PICTURES, *texts(9), *({"text": "a cat", "image": picture} for picture in PICTURES)]
    expected = np.stack([gme.encode(each) for each in inputs])
    assert np.abs(gme.encode(inputs, batch_size=2) - expected).max() <= TOLERANCE


@pytest.mark.usefixtures("ahead")
def test_the_next_batchs_images_are_read_while_the_model_runs(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, passes = itertools.count(), itertools.count()
    begun = [threading.Event() for _ in PICTURES]
    met: list[bool] = []
    backbone: Any = gme[0]
    byte_features, forward = backbone.byte_features, backbone.forward

    def read(image: Any) -> Any:
        begun[next(reads)].set()
        return byte_features(image)

    def run(features: Any, **kwargs: Any) -> Any:
        following = min(next(passes) + 1, len(begun) - 1)
        met.append(begun[following].wait(timeout=20))
        return forward(features, **kwargs)

    monkeypatch.setattr(gme[0], "byte_features", read)
    monkeypatch.setattr(gme[0], "forward", run)
    gme.encode(PICTURES, batch_size=1)
    assert met == [True] * len(PICTURES)


@pytest.fixture
def alive(gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many batches' features there are when one more is prepared, that one counted."""
    present: set[int] = set()
    found: list[int] = []
    numbers = itertools.count()
    collate: Any = gme[0].collate

    class Tracked(dict[str, Any]):
        def __init__(self, features: dict[str, Any]) -> None:
            super().__init__(features)
            self.number = next(numbers)

        def __del__(self) -> None:
            present.discard(self.number)

    def spy(*args: Any) -> Any:
        found.append(len(present) + 1)
        features = Tracked(collate(*args))
        present.add(features.number)
        return features

    monkeypatch.setattr(gme[0], "collate", spy)
    return found


@pytest.mark.usefixtures("ahead")
def test_the_pixels_of_two_batches_are_alive_at_most_when_read_ahead(
    gme: SentenceTransformer, alive: list[int]
) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), deduplication=False)
    gme.encode(PICTURES * 4, batch_size=1)
    assert max(alive) == 2


def test_the_pixels_of_one_batch_are_alive_at_most(gme: SentenceTransformer, alive: list[int]) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), deduplication=False)
    gme.encode(PICTURES * 4, batch_size=1)
    assert max(alive) == 1


def test_no_more_pictures_are_decoded_at_once_than_there_are_readers(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(engine, "_MOST_READERS", 2)
    lock, alive, most = threading.Lock(), [0], [0]
    byte_features: Any = gme[0].byte_features

    def read(image: Any) -> Any:
        with lock:
            alive[0] += 1
            most[0] = max(most[0], alive[0])
        features = byte_features(image)
        with lock:
            alive[0] -= 1
        return features

    monkeypatch.setattr(gme[0], "byte_features", read)
    gme.encode([Image.new("RGB", (56 + 28 * number, 56)) for number in range(30)])
    assert 1 <= most[0] <= 2


@pytest.mark.parametrize("reads_ahead", [False, True])
def test_an_unreadable_image_of_a_later_batch_is_named(
    gme: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads_ahead: bool
) -> None:
    monkeypatch.setattr(engine, "reads_ahead", lambda device: reads_ahead)
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(PICTURES[0].read_bytes()[:-200])
    with pytest.raises(ImageError, match=r"item 5: .*damaged\.png"):
        gme.encode([*PICTURES, damaged], batch_size=1)


class ScarceMemory:
    """Runs out of memory on batches of more than some tokens, as a CUDA device does."""

    def __init__(self, model: SentenceTransformer, tokens: int) -> None:
        self.forward = model[0].forward
        self.tokens = tokens
        self.sizes: list[int] = []

    def __call__(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        self.sizes.append(int(features["attention_mask"].sum()))
        assert len(self.sizes) < 200, "the same batch is retried without end"
        if self.sizes[-1] > self.tokens:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return self.forward(features, **kwargs)


@pytest.mark.parametrize("scarce", [100, 400])
def test_a_batch_for_which_memory_runs_out_is_retried_in_halves(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scarce: int
) -> None:
    inputs = [*texts(40), *PICTURES]
    expected = gme.encode(inputs)
    memory = ScarceMemory(gme, scarce)
    monkeypatch.setattr(gme[0], "forward", memory)
    with caplog.at_level(logging.WARNING):
        assert np.abs(gme.encode(inputs) - expected).max() <= TOLERANCE
    failed = [size for size in memory.sizes if size > scarce]
    pairs = list(zip(failed, failed[1:], strict=False))
    assert [(size, following) for size, following in pairs if following > size // 2] == []
    assert len([record for record in caplog.records if "Out of memory" in record.message]) == 1


def test_a_batch_for_which_memory_ran_out_is_let_go_of_before_it_is_retried(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch, alive: list[int]
) -> None:
    gme.encode_options = dataclasses.replace(EncodeOptions(), parallel_reading=False)
    monkeypatch.setattr(gme[0], "forward", ScarceMemory(gme, 100))
    gme.encode([*texts(20), *PICTURES])
    assert max(alive) == 1


def test_memory_that_is_too_small_for_one_item_is_an_error(
    gme: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gme[0], "forward", ScarceMemory(gme, 3))
    with pytest.raises(torch.OutOfMemoryError):
        gme.encode(texts(8))
