"""Videos as VLM2Vec-V2 embeds them; that they equal the authors' numbers is in test_every_model.py."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)

from st_modules import CheckpointError, EncodeOptions, InputError, SentenceTransformer, VideoError
from st_modules.backbones.qwen2_vl import Qwen2VL
from st_modules.backbones.qwen2_vl_sizes import vlm2vec_v2_resize
from st_modules.backbones.sampling import select_frames
from st_modules.errors import ArgumentError
from tests.helpers.references import TOLERANCE, load_once, reference
from tests.helpers.training_rows import gradients
from tests.helpers.videos import random_frames, write_video

NAME = "vlm2vec-v2"
SOURCE = reference(NAME)
PICTURES = SOURCE.weights.parent / "images"
RANDOM = np.random.default_rng(3)


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return load_once(NAME, "sdpa")


def frames(count: int, width: int = 60, height: int = 40) -> list[Image.Image]:
    """Pictures of few colours, each another."""
    blocks = RANDOM.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    return [Image.fromarray(block).resize((width, height), Image.Resampling.NEAREST) for block in blocks]


def close(left: Any, right: Any) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= TOLERANCE)


# ------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("count", [1, 2, 7, 8, 16])
@pytest.mark.parametrize("total", [1, 2, 7, 8, 9, 63, 64, 65, 100, 127, 128, 1000, 123_457])
def test_the_frames_are_those_of_the_authors_two_steps(total: int, count: int) -> None:
    saved = list(range(total)) if total <= 64 else [math.floor(i * total / 64) for i in range(64)]
    taken = np.linspace(0, len(saved) - 1, count, dtype=int) if len(saved) > count else range(len(saved))
    assert select_frames(total, count) == [saved[place] for place in taken]


@pytest.mark.parametrize("total", [9, 20, 70])
def test_a_long_clip_is_embedded_as_its_frames_that_are_taken(model: SentenceTransformer, total: int) -> None:
    clip = frames(total)
    taken = [clip[number] for number in select_frames(total, 8)]
    assert len(taken) == 8
    assert close(model.encode({"video": clip}), model.encode({"video": taken}))


def test_the_number_of_frames_is_an_option_that_is_saved(model: SentenceTransformer, tmp_path: Path) -> None:
    clip = frames(9)
    few = SOURCE.load(NAME, num_frames=3)
    assert close(few.encode({"video": clip}), model.encode({"video": [clip[0], clip[4], clip[8]]}))
    few.save_pretrained(str(tmp_path), create_model_card=False)
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert close(again.encode({"video": clip}), few.encode({"video": clip}))


def test_a_model_without_videos_has_no_number_of_frames() -> None:
    with pytest.raises(ArgumentError, match="num_frames: this model takes no video"):
        SentenceTransformer("tiny", num_frames=8)


@pytest.mark.parametrize("container", ["matroska", "mov", "avi"])
def test_a_file_is_embedded_as_its_frames(model: SentenceTransformer, container: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    clip = random_frames(70)
    path = tmp_path / "clip.mp4"
    path.write_bytes(write_video(clip, container))
    expected = model.encode({"video": clip})
    assert close(expected, model.encode({"video": [clip[number] for number in select_frames(70, 8)]}))
    items = [
        {"video": path},
        str(path),
        {"video": path.read_bytes()},
        {"video": np.stack(clip)},
        {"video": path, "text": "a"},
    ]
    found = model.encode(items)
    assert [close(vector, expected) for vector in found] == [True, True, True, True, False]


def test_a_file_that_cannot_be_read_is_named(model: SentenceTransformer, tmp_path: Path) -> None:
    pytest.importorskip("av")
    with pytest.raises(VideoError, match=r"^item 1: .*absent\.mp4: no such file"):
        model.encode(["a", {"video": tmp_path / "absent.mp4"}])


def test_the_order_of_frames_counts(model: SentenceTransformer) -> None:
    clip = frames(4)
    assert not close(model.encode({"video": clip}), model.encode({"video": clip[::-1]}))


def test_frames_of_another_size_are_refused_by_item_and_number(model: SentenceTransformer) -> None:
    clip = [*frames(2), *frames(1, 61), *frames(1)]
    with pytest.raises(InputError, match="^item 1: frame 2 is of 61x40 pixels, and frame 0 of 60x40"):
        model.encode(["a", {"video": clip}])


def test_the_size_of_a_frame_that_is_not_taken_is_no_matter(model: SentenceTransformer) -> None:
    clip = frames(9)
    taken = select_frames(9, 8)
    left_out = next(number for number in range(9) if number not in taken)
    clip[left_out] = frames(1, 99)[0]
    assert close(model.encode({"video": clip}), model.encode({"video": [clip[number] for number in taken]}))


def test_a_frame_that_cannot_be_read_is_named(model: SentenceTransformer, tmp_path: Path) -> None:
    clip = [*frames(2), tmp_path / "absent.png"]
    with pytest.raises(InputError, match=r"^item 1, frame 2: .*absent\.png: no such file"):
        model.encode(["a", {"video": clip}])


# -------------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (40, 60, (56, 84)),
        (112, 168, (112, 168)),
        (17, 20, (56, 56)),
        (27, 280, (280, 280)),  # a side under 28: a square
        (28, 280, (28, 280)),
        (28, 5600, (28, 5600)),  # 200 times as long
        (28, 5601, (980, 980)),  # more: a square, within the bound
        (3000, 14, (980, 980)),
        (41, 8200, (28, 8204)),  # rounding makes it more than 200
        (4000, 3000, (1148, 840)),
    ],
)
def test_sizes_follow_the_authors_rule(height: int, width: int, expected: tuple[int, int]) -> None:
    assert vlm2vec_v2_resize(height, width, 28, 3136, 1003520) == expected


@pytest.mark.parametrize(("size", "final"), [((30, 6030), 980), ((6030, 30), 980)])
def test_an_elongated_picture_becomes_a_square(model: SentenceTransformer, size: tuple[int, int], final: int) -> None:
    picture = Image.fromarray(RANDOM.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    squared = picture.resize((final, final), Image.Resampling.BICUBIC)
    backbone: Any = model[0]
    plain, expected = ([*backbone.pixel_features(item.images[0]).values()] for item in model.parse([picture, squared]))
    assert [torch.equal(left, right) for left, right in zip(plain, expected, strict=True)] == [True, True]
    assert backbone.image_tokens(model.parse([picture])[0].images[0]) == (final // 28) ** 2


def test_the_authors_bounds_take_the_place_of_the_checkpoints(model: SentenceTransformer) -> None:
    settings = json.loads((SOURCE.base_weights or SOURCE.weights).joinpath("preprocessor_config.json").read_text())
    assert settings["max_pixels"] > 1003520
    backbone: Any = model[0]
    large = model.parse([Image.new("RGB", (3000, 2000))])[0].images[0]
    assert 1000 < backbone.image_tokens(large) <= 1280


@pytest.mark.parametrize("count", [1, 2, 3, 8, 30])
def test_token_counts_are_those_of_the_features(model: SentenceTransformer, count: int) -> None:
    clip = {"video": frames(count, 150, 97)}
    features = model.preprocess([clip])
    backbone: Any = model[0]
    (video,) = backbone.plan(model.parse([clip]))[0].visuals
    tokens = int((features["input_ids"] == backbone.model.config.video_token_id).sum())
    assert backbone.video_tokens(video) == tokens == int(features["video_grid_thw"][0].prod()) // 4


def test_a_video_over_the_limit_is_refused_by_position() -> None:
    short = SOURCE.load(NAME, max_length=20)
    with pytest.raises(InputError, match=r"^item 1: its 24 video tokens .*max_length=20.*smaller or fewer frames"):
        short.encode(["a", {"video": frames(4, 168, 56)}])


# ------------------------------------------------------------------------------------------------- whole batches

ITEMS: list[Any] = [
    "a cat and a dog",
    {"video": frames(3, 90, 60)},
    {"image": PICTURES / "square.png", "text": "what is it?"},
    {"video": frames(8), "text": "what is shown?"},
    {"text": "<|video_pad|> <|image_pad|>"},
    {"video": [PICTURES / "one_0.png"]},
    PICTURES / "small.png",
    {"video": frames(2, 28, 56)},
]


@pytest.mark.parametrize("option", [field.name for field in dataclasses.fields(EncodeOptions)])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_every_shortcut_gives_the_same(model: SentenceTransformer, option: str, attention: str) -> None:
    expected = np.stack([model.encode(item, prompt="Find it:") for item in ITEMS])
    other = SOURCE.load(NAME, attention)
    other.encode_options = EncodeOptions(**{option: False})
    assert close(other.encode(ITEMS, prompt="Find it:"), expected)


def test_equal_videos_are_embedded_once(model: SentenceTransformer, tmp_path: Path) -> None:
    clip = frames(3)
    for number, frame in enumerate(clip):
        frame.save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.iterdir())
    backbone, rows = SOURCE.load(NAME), []
    backbone[0].register_forward_pre_hook(lambda module, args: rows.append(len(args[0]["input_ids"])))
    items = [{"video": clip}, {"video": list(clip)}, {"video": paths}, {"video": clip[::-1]}, {"video": paths}]
    vectors = backbone.encode(items)
    assert sum(rows) == 3
    assert close(vectors, np.stack([model.encode(item) for item in items]))


@pytest.mark.parametrize("rows", [1, 2])
def test_a_training_batch_with_videos_split_by_rows_has_the_gradients_of_the_whole(rows: int) -> None:
    model = SOURCE.load(NAME).eval()
    columns = [
        [{"video": frames(3)}, "a cat", {"video": frames(2, 90, 60), "text": "a"}],
        [PICTURES / "small.png", {"video": frames(1)}, "two dogs"],
    ]

    def find_gradients(loss: torch.nn.Module) -> dict[str, torch.Tensor]:
        return gradients(model, loss, [model.preprocess(column) for column in columns])

    expected = find_gradients(MultipleNegativesRankingLoss(model))
    found = find_gradients(CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 1e-3
    assert max((found[name] - expected[name]).abs().max() for name in expected) <= 1e-4 * largest


# ------------------------------------------------------------------------------------------------- other models


TAKERS = "qwen3-vl-embedding-2b, qwen3-vl-embedding-8b and vlm2vec-v2"


@pytest.mark.parametrize("name", ["gme-2b", "vlm2vec-qwen2vl-2b", "bge-vl-base", "bge-vl-mllm-s1", "bge-visualized-m3"])
def test_a_model_without_videos_refuses_one_before_anything_is_read(name: str) -> None:
    other = load_once(name, "sdpa")
    with pytest.raises(InputError, match=f"^item 3: this model takes no video; {TAKERS} do"):
        other.encode(["a", Path("absent.png"), "b", {"video": ["absent.png"], "text": "a"}])
    assert "video" not in other.modalities


def test_the_modalities_are_named(model: SentenceTransformer) -> None:
    assert {"video", ("text", "video")} <= set(model.modalities)


def test_a_video_beside_an_image_is_refused(model: SentenceTransformer) -> None:
    with pytest.raises(InputError, match="^item 1: a video and an image, and this model takes one of them"):
        model.encode(["a", {"video": frames(1), "image": frames(1)[0]}])


def test_a_checkpoint_with_another_video_token_is_refused(tmp_path: Path) -> None:
    base = shutil.copytree(SOURCE.base_weights or SOURCE.weights, tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "video_token_id": 3}))
    with pytest.raises(CheckpointError, match="names token 3 as the video token"):
        SentenceTransformer(NAME, weights=SOURCE.weights, base_weights=base, device="cpu")


def test_the_backbone_is_qwen2_vl(model: SentenceTransformer) -> None:
    assert isinstance(model[0], Qwen2VL)
