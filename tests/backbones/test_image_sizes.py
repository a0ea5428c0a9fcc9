"""Image sizes: GME's first resize, and the token count that is known from the size alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from st_modules import ImageError, SentenceTransformer
from st_modules.backbones.qwen2_vl import Qwen2VL
from st_modules.backbones.qwen2_vl_sizes import FIRST_RESIZES
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from tests.helpers.paths import GOLDEN
from tests.helpers.references import load_once, reference

CHECKPOINT = GOLDEN / "gme" / "checkpoint"
# The model's own side of a token and bounds, which the rules of scripts with bounds of their own do not read.
UNREAD = (14, 1, 1)


@pytest.fixture(scope="module")
def backbone() -> Qwen2VL:
    model = SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu", min_image_tokens=4, max_image_tokens=80)
    backbone = model[0]
    assert isinstance(backbone, Qwen2VL)
    return backbone


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (280, 280, (280, 280)),
        (42, 56, (56, 56)),  # 1.5 rounds to 2, as Python rounds halves to even
        (70, 56, (56, 56)),  # 2.5 rounds to 2
        (10, 5, (84, 56)),  # under 4 tokens: scaled by sqrt(3136 / 50), then rounded up
        (1, 4000, (28, 4004)),
        (1, 10_000, (28, 5600)),  # an aspect ratio of 357 is clamped to 200
        (10_000, 1, (5600, 28)),
        (8000, 4000, (5068, 2520)),  # over 16384 tokens: scaled by sqrt(32000000 / 12845056), then floored
    ],
)
def test_the_first_resize_follows_the_authors_rule(height: int, width: int, expected: tuple[int, int]) -> None:
    assert FIRST_RESIZES["gme"](height, width, *UNREAD) == expected


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (280, 280, (280, 280)),
        (600, 4, (588, 28)),  # a side that rounds to nothing is 28 pixels at least, where transformers' rule has 700x28
        (30, 6000, (28, 5992)),  # an aspect ratio of 200, which rounding makes larger
        (10, 5, (84, 56)),
        (8000, 4000, (5068, 2520)),
    ],
)
def test_the_resize_of_qwen_vl_utils_has_no_clamp(height: int, width: int, expected: tuple[int, int]) -> None:
    assert FIRST_RESIZES["qwen_vl_utils"](height, width, *UNREAD) == expected


def test_the_resize_of_qwen_vl_utils_refuses_what_is_too_elongated() -> None:
    with pytest.raises(ValueError, match="above 200"):
        FIRST_RESIZES["qwen_vl_utils"](1, 201, *UNREAD)


@pytest.mark.parametrize(
    ("rule", "height", "width", "expected"),
    [
        ("ops_mm", 448, 448, (448, 448)),
        ("ops_mm", 7, 9, (420, 532)),  # under 256 tokens: scaled by sqrt(200704 / 63), then rounded up
        ("ops_mm", 2000, 3000, (812, 1204)),  # over 768: 1280 tokens here
        ("ops_mm", 100, 100_000, (28, 5600)),  # an aspect ratio of 1131 is clamped to 200
        ("vdr", 7, 9, (28, 28)),
        ("vdr", 9, 500, (28, 504)),
        ("vdr", 4, 1000, (28, 1008)),  # 250 times as long as wide, and 36 times afterwards
        ("vdr", 2000, 3000, (616, 924)),
    ],
)
def test_the_first_resizes_by_the_models_own_bounds(
    rule: str, height: int, width: int, expected: tuple[int, int]
) -> None:
    bounds = {"ops_mm": (256 * 784, 1280 * 784), "vdr": (784, 768 * 784)}[rule]
    assert FIRST_RESIZES[rule](height, width, 28, *bounds) == expected
    assert FIRST_RESIZES[rule](width, height, 28, *bounds) == expected[::-1]


@pytest.mark.parametrize(
    ("name", "size", "first"),
    [
        ("ops-mm-v1-2b", (7000, 20), (5600, 28)),  # too small after the clamp: the processor scales it up again
        ("ops-mm-v1-2b", (5, 1300), (28, 5600)),
        ("ops-mm-v1-2b", (30, 40), (392, 532)),
        ("vdr-2b-multi", (13, 500), (28, 504)),
        ("vdr-2b-multi", (1000, 4), (1008, 28)),
        ("ops-mm-v1-2b", (1120, 896), (1120, 896)),  # 1280 tokens
        ("vdr-2b-multi", (1, 1), (28, 28)),
        ("vdr-2b-multi", (896, 672), (896, 672)),  # 768 tokens
    ],
)
def test_pictures_are_resized_by_the_authors_and_then_by_the_processor(
    name: str, size: tuple[int, int], first: tuple[int, int]
) -> None:
    fewest, most = {"ops-mm-v1-2b": (256, 1280), "vdr-2b-multi": (1, 768)}[name]
    source = reference(name)
    processor = Qwen2VLImageProcessorPil.from_pretrained(
        source.weights, do_convert_rgb=False, min_pixels=fewest * 784, max_pixels=most * 784
    )
    pixels = np.random.default_rng(7).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    expected = processor(picture.resize(first, Image.Resampling.BICUBIC), return_tensors="pt")
    backbone: Any = load_once(name, "sdpa")[0]
    found = backbone.pixel_features(ImageSource(picture))
    assert found["image_grid_thw"].tolist() == expected["image_grid_thw"].tolist()
    assert torch.equal(found["pixel_values"], expected["pixel_values"])


def test_a_page_that_stays_too_elongated_is_refused_by_position() -> None:
    with pytest.raises(ImageError, match=r"^item 1: .*aspect ratio must be smaller than 200"):
        load_once("vdr-2b-multi", "sdpa").encode(["a", Image.new("RGB", (7000, 20))])


@pytest.mark.parametrize("rule", ["gme", "ops_mm", "qwen_vl_utils", "vdr"])
def test_no_side_is_rounded_down_to_nothing(rule: str) -> None:
    with pytest.raises(ValueError, match=r"too elongated for \d+ tokens|the aspect ratio is above 200"):
        FIRST_RESIZES[rule](10, 20_000_000, 28, 784, 4 * 784)


@pytest.mark.parametrize("seed", range(3))
def test_token_counts_are_those_of_the_processor(backbone: Qwen2VL, seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = [(int(width), int(height)) for height, width in np.exp(random.uniform(0, 6.5, (40, 2))).astype(int)]
    sources = {size: ImageSource(Image.new("RGB", size)) for size in sizes}
    grids = {
        size: backbone.collate(backbone.plan([Item(None, (source,), None, 0)]))["image_grid_thw"][0]
        for size, source in sources.items()
    }
    counts = {size: backbone.image_tokens(source) for size, source in sources.items()}
    assert counts == {size: int(grid.prod()) // 4 for size, grid in grids.items()}
    assert {size: count for size, count in counts.items() if not 4 <= count <= 80} == {}


def test_an_image_that_no_resize_can_fit_is_refused(backbone: Qwen2VL) -> None:
    source = ImageSource(Image.new("1", (20_000_000, 1)))
    with pytest.raises(ImageError, match="20000000x1 pixels.*elongated"):
        backbone.image_tokens(source)


@pytest.mark.parametrize("size", [(30, 30), (500, 300), (3000, 2000)])
@pytest.mark.parametrize("bounds", [(256, 1280), (4, 16), (30, 60)])
def test_the_bounds_of_the_constructor_hold(bounds: tuple[int, int], size: tuple[int, int]) -> None:
    model = SentenceTransformer(
        "gme-2b", weights=CHECKPOINT, device="cpu", min_image_tokens=bounds[0], max_image_tokens=bounds[1]
    )
    backbone: Any = model[0]
    assert bounds[0] * 0.9 <= backbone.image_tokens(ImageSource(Image.new("RGB", size))) <= bounds[1]
