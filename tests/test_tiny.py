"""The model that ships with the package retrieves drawings that it was not trained on."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from st_modules import SentenceTransformer, get_model
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene, has_unseen_pair, is_held_out, neighbours, random_scenes
from st_modules.demo.wording import caption, edit

QUERIES = 300
Items = list[dict[str, Any]]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer("tiny", device="cpu")


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return random_scenes(seed=41, n=QUERIES, held_out=True)


@pytest.fixture(scope="module")
def pictures(model: SentenceTransformer, scenes: list[Scene]) -> np.ndarray:
    return model.encode_document([{"image": draw(scene, seed=1)} for scene in scenes])


@pytest.fixture(scope="module")
def captions(model: SentenceTransformer, scenes: list[Scene]) -> np.ndarray:
    return model.encode_document([{"text": caption(scene)} for scene in scenes])


def recall(queries: np.ndarray, gallery: np.ndarray) -> float:
    return float(((queries @ gallery.T).argmax(axis=1) == np.arange(len(queries))).mean())


def test_the_queries_are_held_out_and_many_join_attributes_never_seen_together(scenes: list[Scene]) -> None:
    assert len(set(scenes)) == QUERIES
    assert [scene for scene in scenes if not is_held_out(scene)] == []
    assert sum(has_unseen_pair(scene) for scene in scenes) >= QUERIES // 3


def test_text_finds_its_picture(model: SentenceTransformer, scenes: list[Scene], pictures: np.ndarray) -> None:
    texts = [caption(scene) for scene in scenes]
    assert recall(model.encode_query(texts, prompt_name="t2i"), pictures) >= 0.90
    assert recall(model.encode(texts), pictures) >= 0.90


def test_a_picture_finds_its_text(model: SentenceTransformer, scenes: list[Scene], captions: np.ndarray) -> None:
    queries: Items = [{"image": draw(scene, seed=2)} for scene in scenes]
    assert recall(model.encode_query(queries, prompt_name="i2t"), captions) >= 0.90


def test_a_picture_with_a_change_finds_the_changed_picture(
    model: SentenceTransformer, scenes: list[Scene], pictures: np.ndarray
) -> None:
    chooser = random.Random(3)
    sources = [chooser.choice(neighbours(scene)) for scene in scenes]
    images: Items = [{"image": draw(source, seed=4)} for source in sources]
    changes: Items = [{"text": edit(source, scene)} for source, scene in zip(sources, scenes, strict=True)]
    distractors = model.encode_document([{"image": draw(source, seed=5)} for source in set(sources) - set(scenes)])
    gallery = np.concatenate([pictures, distractors])
    fused, image_only, text_only = (
        recall(model.encode_query(queries, prompt_name="it2i"), gallery)
        for queries in ([image | change for image, change in zip(images, changes, strict=True)], images, changes)
    )
    assert fused >= 0.80
    assert fused >= max(image_only, text_only) + 0.3


@pytest.mark.parametrize(("prompt_name", "wanted"), [("t2i", "picture"), ("t2t", "text")])
def test_the_instruction_decides_what_kind_of_item_the_same_text_finds(
    model: SentenceTransformer,
    scenes: list[Scene],
    pictures: np.ndarray,
    captions: np.ndarray,
    prompt_name: str,
    wanted: str,
) -> None:
    texts = [caption(scene) for scene in scenes]
    both = [pictures, captions] if wanted == "picture" else [captions, pictures]
    assert recall(model.encode_query(texts, prompt_name=prompt_name), np.concatenate(both)) >= 0.85


def test_the_weights_are_small_and_float16_on_disk() -> None:
    folder = get_model("tiny").path
    assert folder is not None
    assert sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) <= 4 * 1024 * 1024


def test_it_loads_and_embeds_without_network_and_without_a_warning() -> None:
    code = (
        "import socket\n"
        "def refused(*args, **kwargs): raise AssertionError('network')\n"
        "socket.getaddrinfo = socket.socket.connect = refused\n"
        "from st_modules import SentenceTransformer\n"
        "assert SentenceTransformer('tiny').encode('a red circle').shape == (128,)\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": "", "HF_HUB_OFFLINE": "0"},
    )
    assert run.returncode == 0, run.stderr
    assert [line for line in run.stderr.splitlines() if line.strip() and "Loading weights" not in line] == []
