"""Videos as Qwen3-VL-Embedding embeds them; that they equal the authors' numbers is in test_every_model.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
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

from st_modules import EncodeOptions, InputError, SentenceTransformer, VideoError, VideoSource
from st_modules.backbones.qwen3_vl import resize_like_torch
from st_modules.backbones.sampling import select_each_second, spread
from tests.helpers.references import TOLERANCE, load_once, reference
from tests.helpers.stock_qwen3_vl import Stock
from tests.helpers.training_rows import gradients
from tests.helpers.videos import random_frames, write_video

NAME = "qwen3-vl-embedding-2b"
RANDOM = np.random.default_rng(5)
TIMES = ("0.2", "1.2", "2.2", "3.2")


def frames(count: int, width: int = 384, height: int = 384, mode: str = "RGB") -> list[Image.Image]:
    """Pictures of few colours, each another; 384 is a size that needs no resize."""
    blocks = RANDOM.integers(0, 256, (count, 4, 5, len(mode)), dtype=np.uint8)
    return [Image.fromarray(block).resize((width, height), Image.Resampling.NEAREST) for block in blocks]


def close(left: Any, right: Any) -> bool:
    return bool(np.abs(np.asarray(left) - np.asarray(right)).max() <= TOLERANCE)


@pytest.fixture(scope="module")
def stock() -> Stock:
    return Stock()


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return load_once(NAME, "sdpa")


PICTURE = frames(1, 96, 64)[0]
LONG, SHORT, WIDE = frames(3), frames(1), frames(2, 512, 320)
ROWS: list[tuple[str, Sequence[Image.Image], Sequence[Image.Image]]] = [
    ("what is shown?", (), LONG),
    ("a lamp", (), ()),
    ("", (PICTURE, PICTURE), SHORT),
    ("both", (PICTURE,), WIDE),
    ("", (PICTURE,), ()),
    ("", (), WIDE),
]


def item(text: str, pictures: Sequence[Image.Image], clip: Sequence[Image.Image]) -> dict[str, Any]:
    parts = {"text": text, "image": list(pictures), "video": list(clip)}
    return {name: part for name, part in parts.items() if part}


@pytest.fixture(scope="module")
def expected(stock: Stock) -> np.ndarray:
    vectors: list[np.ndarray] = []
    for text, pictures, clip in ROWS:
        even = [*clip, *list(clip[-1:]) * (len(clip) % 2)]
        vectors.append(stock.vector(text, *pictures, clip=even, times=TIMES[: len(even) // 2]))
    return np.stack(vectors)


OPTIONS = [None, *(field.name for field in dataclasses.fields(EncodeOptions))]


@pytest.mark.parametrize(
    ("option", "attention"), [*((option, "sdpa") for option in OPTIONS), (None, "eager"), ("packing", "eager")]
)
def test_rows_with_videos_and_pictures_are_stock_rows(option: str | None, attention: str, expected: np.ndarray) -> None:
    model = reference(NAME).load(NAME, attention)
    model.encode_options = EncodeOptions(**{option: False} if option else {})
    items = [item(*row) for row in ROWS]
    assert close(model.encode(items), expected)
    # Another order and batches, and nothing carried from call to call.
    assert close(model.encode(items[::-1], batch_size=2), expected[::-1])


def test_kept_prefixes_change_nothing(expected: np.ndarray) -> None:
    model = reference(NAME).load(NAME, keep_prefixes=True)
    for row, vector in zip(ROWS, expected, strict=True):
        assert close(model.encode(item(*row)), vector)


def test_a_saved_model_is_the_same(expected: np.ndarray, tmp_path: Path) -> None:
    model = reference(NAME).load(NAME, num_frames=4)
    model.save_pretrained(str(tmp_path), create_model_card=False)
    again = SentenceTransformer(str(tmp_path), device="cpu")
    assert close(again.encode([item(*row) for row in ROWS]), expected)
    clip = frames(9)
    assert close(again.encode({"video": clip}), again.encode({"video": [clip[number] for number in (0, 2, 5, 8)]}))


def test_a_message_says_the_same_as_an_item(model: SentenceTransformer) -> None:
    message = [
        {"role": "system", "content": "Find it:"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image", "image": PICTURE},
                {"type": "video", "video": SHORT},
            ],
        },
    ]
    assert close(model.encode([message]), [model.encode(item("a", (PICTURE,), SHORT), prompt="Find it:")])


@pytest.mark.parametrize("rows", [1, 2])
def test_a_training_batch_split_by_rows_has_the_gradients_of_the_whole(rows: int) -> None:
    model = reference(NAME).load(NAME).eval()
    columns = [
        [item("a", (PICTURE,), SHORT), "a cat", item("", (), WIDE)],
        [PICTURE, item("", (), SHORT), "two dogs"],
    ]

    def find_gradients(loss: torch.nn.Module) -> dict[str, torch.Tensor]:
        return gradients(model, loss, [model.preprocess(column) for column in columns])

    expected = find_gradients(MultipleNegativesRankingLoss(model))
    found = find_gradients(CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
    largest = max(gradient.abs().max() for gradient in expected.values())
    assert largest > 1e-3
    assert max((found[name] - expected[name]).abs().max() for name in expected) <= 1e-4 * largest


# ------------------------------------------------------------------------------------------------------- frames


@pytest.mark.parametrize("total", [1, 2, 63, 64, 65, 100, 1000])
def test_of_a_list_64_frames_are_taken_evenly(model: SentenceTransformer, total: int) -> None:
    backbone: Any = model[0]
    taken = np.linspace(0, total - 1, 64, dtype=int).tolist() if total > 64 else list(range(total))
    assert backbone.select_frames(total) == spread(total, 64) == taken
    clip = [Image.new("RGB", (8, 8))] * total
    (row,) = backbone.plan(model.parse([{"video": clip}]))
    assert row.ids.count(backbone.model.config.video_token_id) == backbone.video_tokens(row.visuals[0])
    written = "".join(f"<{step + 0.25:.1f} seconds>" for step in range((len(taken) + 1) // 2))
    assert written in "".join(model.tokenizer.decode(row.ids, skip_special_tokens=True).split("<|video_pad|>"))


# Of smart_nframes of qwen-vl-utils 0.0.14, for one frame a second and 64 at most; it has none of a single frame.
COUNTS = {
    (1, 25): 1,
    (2, 25): 2,
    (3, 25): 2,
    (4, 25): 4,
    (5, 25): 4,
    (10, 25): 4,
    (250, 25): 10,
    (251, 25): 10,
    (3000, 25): 64,
    (100, 29.97): 4,
    (100, 1): 64,
    (9, 2): 4,
    (99, 0.5): 64,
}


@pytest.mark.parametrize(("video", "count"), COUNTS.items())
def test_of_a_file_a_frame_a_second_is_taken(video: tuple[int, float], count: int) -> None:
    total, rate = video
    taken = select_each_second(total, rate, 64)
    assert len(taken) == count
    assert (taken[0], taken[-1]) == (0, total - 1 if count > 1 else 0)
    gaps = np.diff(taken)
    assert count < 3 or gaps.max() - gaps.min() <= 1


def test_fewer_frames_of_a_file_can_be_asked_for() -> None:
    assert [select_each_second(3000, 25, most) for most in (1, 2, 3, 4)] == [
        [0],
        [0, 2999],
        [0, 2999],
        [0, 1000, 1999, 2999],
    ]


@pytest.mark.parametrize("container", ["matroska", "mov", "avi"])
def test_a_file_has_the_times_of_its_frames(stock: Stock, model: SentenceTransformer, container: str) -> None:
    pytest.importorskip("av")
    clip = random_frames(30, 384, 384)
    expected = stock.vector(
        "a", PICTURE, clip=[Image.fromarray(clip[number]) for number in (0, 10, 19, 29)], times=("0.2", "1.0")
    )
    file = write_video(clip, container)
    assert close(model.encode({"video": file, "text": "a", "image": PICTURE}), expected)


def test_a_file_of_one_frame_is_doubled(stock: Stock, model: SentenceTransformer) -> None:
    pytest.importorskip("av")
    clip = random_frames(1, 384, 384)
    expected = stock.vector("", clip=[Image.fromarray(clip[0])] * 2, times=("0.0",))
    assert close(model.encode({"video": write_video(clip)}), expected)


def test_a_file_that_does_not_say_how_fast_it_is_is_refused(model: SentenceTransformer) -> None:
    pytest.importorskip("av")
    video: Any = VideoSource(write_video(random_frames(2)))
    assert video.frame_count == 2
    video._track = dataclasses.replace(video._track, rate=None)
    with pytest.raises(VideoError, match="does not say how many frames it shows in a second"):
        model.encode(["a", {"video": video}])


# -------------------------------------------------------------------------------------------------------- sizes

# Of fetch_video of qwen-vl-utils 0.0.14 as the authors' code calls it, for a list of frames: height, width, frames.
SIZES = {
    (40, 60, 4): (320, 448),
    (40, 60, 1): (320, 448),
    (96, 160, 3): (384, 384),
    (10, 200, 2): (128, 1088),
    (720, 1280, 4): (640, 1184),
    (720, 1280, 20): (640, 1184),
    (720, 1280, 21): (608, 1120),
    (720, 1280, 64): (352, 640),
    (3000, 100, 64): (2400, 96),
    (2000, 10, 2): (2016, 96),
    (480, 854, 40): (480, 768),
}


@pytest.mark.parametrize(("video", "expected"), SIZES.items())
def test_frames_are_resized_twice(
    model: SentenceTransformer, video: tuple[int, int, int], expected: tuple[int, int]
) -> None:
    height, width, count = video
    backbone: Any = model[0]
    (source,) = backbone.plan(model.parse([{"video": [Image.new("L", (width, height))] * count}]))[0].visuals
    assert backbone.video_tokens(source) == (count + 1) // 2 * (expected[0] // 32) * (expected[1] // 32)


def test_many_frames_have_a_little_more_than_the_fewest_tokens() -> None:
    backbone: Any = reference(NAME).load(NAME, num_frames=200)[0]
    assert backbone.video_tokens(VideoSource([Image.new("L", (500, 300))] * 200)) == 100 * (288 // 32) * (448 // 32)


# The same for a file, of which the frames are resized once: height, width, frames at 1 a second.
FILES = {(40, 60, 4): (320, 448), (96, 160, 4): (288, 480), (240, 320, 30): (320, 448)}


@pytest.mark.parametrize(("video", "expected"), FILES.items())
def test_frames_of_a_file_are_resized_once(
    model: SentenceTransformer, video: tuple[int, int, int], expected: tuple[int, int]
) -> None:
    pytest.importorskip("av")
    height, width, count = video
    source: Any = VideoSource(write_video(random_frames(count, width, height)))
    assert source.frame_count == count
    source._track = dataclasses.replace(source._track, rate=1.0)
    features = model.preprocess([{"video": source}])
    assert features["video_grid_thw"].tolist() == [[count // 2, expected[0] // 16, expected[1] // 16]]


def test_the_second_resize_is_torchs(model: SentenceTransformer) -> None:
    (picture,) = frames(1, 70, 50)
    (smaller,) = frames(1, 700, 500)
    for image, (width, height) in ((picture, (128, 96)), (smaller, (128, 96)), (picture, (70, 50))):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double()
        resized = torch.nn.functional.interpolate(pixels, (height, width), mode="bicubic", antialias=True)
        whole = resized.round().clamp(0, 255)[0].permute(1, 2, 0).numpy()
        found = np.asarray(resize_like_torch(image, (width, height))).astype(float)
        # Halves may be rounded otherwise in another precision.
        assert (np.abs(found - whole).max() <= 1, (found != whole).mean() < 1e-3) == (True, True)


def test_frames_with_alpha_are_put_on_white(model: SentenceTransformer) -> None:
    clip = frames(2, 128, 64, "RGBA")
    flat = [Image.alpha_composite(Image.new("RGBA", frame.size, "white"), frame).convert("RGB") for frame in clip]
    assert close(model.encode({"video": clip}), model.encode({"video": flat}))


def test_elongated_frames_are_refused_by_item(model: SentenceTransformer) -> None:
    with pytest.raises(VideoError, match="^item 1: frames of 201x1 pixels: the aspect ratio is above 200"):
        model.encode(["a", {"video": [Image.new("RGB", (201, 1))]}])


def test_what_is_over_the_limit_is_named() -> None:
    short = reference(NAME).load(NAME, max_length=120)
    with pytest.raises(InputError, match=r"^item 1: its 6 image tokens, its 144 video tokens and its instruction are"):
        short.encode(["a", item("a", (PICTURE,), SHORT)])
