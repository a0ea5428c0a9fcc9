"""Videos as lists of their frames."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from st_modules import ImageLimits, InputError
from st_modules.errors import Place
from st_modules.inputs.items import Item, parse_items
from st_modules.inputs.videos import VideoSource


def frame(colour: str = "red", size: tuple[int, int] = (5, 3)) -> Image.Image:
    return Image.new("RGB", size, colour)


def parsed(value: Any, limits: ImageLimits | None = None) -> Item:
    return parse_items(["a", value], limits)[1]


def colours(video: VideoSource | None) -> list[Any]:
    assert video is not None
    return [image.convert("RGB").getpixel((0, 0)) for image in video.read(range(video.frame_count))]


RED, BLUE = (255, 0, 0), (0, 0, 255)
CLIP = [frame("red"), frame("blue")]


@pytest.mark.parametrize(
    ("value", "text", "instruction"),
    [
        ({"video": CLIP}, None, None),
        ({"video": tuple(CLIP), "text": "a"}, "a", None),
        ({"video": CLIP, "text": None, "image": None}, None, None),
        ({"video": CLIP, "text": ""}, None, None),
        ({"video": VideoSource(CLIP)}, None, None),
        (VideoSource(CLIP), None, None),
        ({"video": [np.asarray(each) for each in CLIP]}, None, None),
        ({"role": "user", "content": [{"type": "video", "video": CLIP}]}, None, None),
        (
            [
                {"role": "system", "content": "s"},
                {"role": "user", "content": [{"type": "video", "video": CLIP}, {"type": "text", "text": "a"}]},
            ],
            "a",
            "s",
        ),
    ],
)
def test_the_forms_of_a_clip(value: Any, text: str | None, instruction: str | None) -> None:
    item = parsed(value)
    assert (item.text, item.images, item.instruction) == (text, (), instruction)
    assert colours(item.video) == [RED, BLUE]


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"video": []}, "a video without frames"),
        ({"video": 5}, "of type int, and no video"),
        ({"video": [frame(), None]}, "frame 1: object of type NoneType: not an image"),
        ({"video": float("nan")}, '"video": the missing value nan'),
        ({"role": "user", "content": [{"type": "video", "video": CLIP}] * 2}, "2 videos, and an item has one"),
        ({"role": "user", "content": [{"type": "video"}]}, "user message, part 0: needs exactly one of"),
        ({"role": "user", "content": [{"type": "video", "image": frame()}]}, r"unknown keys \['image'\]"),
        (
            [
                {"role": "system", "content": [{"type": "text", "text": "s"}, {"type": "video", "video": CLIP}]},
                {"role": "user", "content": "a"},
            ],
            "an instruction is a text and nothing else",
        ),
    ],
)
def test_what_is_no_video_is_refused_by_its_position(value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"^item 1.*{problem}"):
        parsed(value)


def test_the_size_is_that_of_the_frames_that_are_asked_for() -> None:
    clip = VideoSource([frame(), frame(size=(6, 3)), frame()], Place(4))
    assert clip.check_size([0, 2]) == (5, 3)
    with pytest.raises(InputError, match="^item 4: frame 1 is of 6x3 pixels, and frame 0 of 5x3"):
        clip.check_size([0, 1])


def test_a_pickled_clip_is_the_same(tmp_path: Path) -> None:
    frame("blue").save(tmp_path / "a.png")
    clip = VideoSource([frame("red"), tmp_path / "a.png"], Place(2), ImageLimits(max_pixels=99))
    copy = pickle.loads(pickle.dumps(clip))
    assert colours(copy) == [RED, BLUE]
    assert (copy.place, copy.limits, copy.digest()) == (clip.place, clip.limits, clip.digest())


def test_the_limits_of_images_hold_for_each_frame() -> None:
    with pytest.raises(InputError, match="^item 1, frame 1: .*limit of 16"):
        _ = parsed({"video": [frame(), frame(size=(5, 4))]}, ImageLimits(max_pixels=16)).video.memory  # type: ignore[union-attr]


def test_clips_are_told_apart_by_their_frames_and_the_order_of_these(tmp_path: Path) -> None:
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    for path, each in zip(paths, CLIP, strict=True):
        each.save(path)
    clips = [CLIP, CLIP[::-1], CLIP[:1], [*CLIP, CLIP[1]]]
    digests = {VideoSource(clip).digest() for clip in clips}
    assert len(digests) == 4
    assert VideoSource(list(CLIP)).digest() in digests
    assert VideoSource(paths).digest() == VideoSource([path.read_bytes() for path in paths]).digest()
    assert VideoSource(CLIP).outline == VideoSource(CLIP[::-1]).outline
    assert VideoSource(CLIP[:1]).identify() != parsed(CLIP[0]).images[0].identify()


def test_limits_of_a_source_stay_with_it() -> None:
    limits = ImageLimits(max_pixels=20)
    assert VideoSource(VideoSource(CLIP, limits=limits), limits=ImageLimits()).limits == limits
    assert repr(VideoSource(CLIP)) == "VideoSource(2 frames)"


def test_a_video_says_what_it_is_read_from() -> None:
    frames = VideoSource([Image.new("RGB", (8, 8)), "https://example.org/a.png"])
    assert [source.is_remote for source in frames.sources] == [False, True]
    assert [source.is_remote for source in VideoSource("https://example.org/a.mp4").sources] == [True]
