"""Qwen3-VL as an embedder: last-token pooling, rotary positions of rows and columns, and DeepStack.

What the vision tower sees on its way is added to the first layers of the language model (DeepStack), at the places of
the image tokens. transformers does that itself, for rows that are packed too: it finds them by their token ids.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling, fromarray, merge
from torch.nn.functional import interpolate
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLImageProcessorPil,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
)

from st_modules.arguments import check_integer
from st_modules.backbones.architecture import Architecture
from st_modules.backbones.decoder import DecoderBackbone
from st_modules.backbones.qwen2_vl import Qwen2VL
from st_modules.backbones.qwen2_vl_sizes import qwen_vl_utils_resize
from st_modules.backbones.sampling import select_each_second, spread
from st_modules.checkpoints.configuration import CONFIG
from st_modules.checkpoints.fields import Kind, each, exactly, optional, whole
from st_modules.errors import VideoError
from st_modules.inputs.image_conversion import flatten_on_white
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.tokenizer import SegmentTokenizer

_DEFAULT_FRAMES = 64
"""How many frames of a video the authors of Qwen3-VL-Embedding take at most."""
_LIST_RATE = 2.0
"""How many frames of a list are shown in a second, as ``qwen-vl-utils`` has it."""
_FRAME_TOKENS = (128, 768)
_VIDEO_TOKENS = 7680
"""Fewest and most tokens that a frame of a video is as large as, and most of half of its frames together."""
_LIST_TOKENS = (4, 16384)
"""The same of a frame of a list when it is first resized, in tokens of double the side."""


class Qwen3VL(Qwen2VL):
    """Qwen3-VL with the recipe of its published embedders.

    Args:
        model: The transformer, vision tower included.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Says how pixels are normalised; its bounds are not read.
        template: Name of the layout in ``st_modules.prompts.templates``.
        min_image_tokens: Fewest tokens that an image becomes; smaller images are scaled up.
        max_image_tokens: Most tokens that an image becomes; larger images are scaled down. A token is 32x32 pixels.
        num_frames: How many frames of a video are embedded at most. ``None`` is 64.
        max_length: Longest row in tokens; longer rows lose the end of their text, never the tokens after it.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_keys: list[str] = [*DecoderBackbone.config_keys, "min_image_tokens", "max_image_tokens", "num_frames"]
    model: Qwen3VLModel  # pyright: ignore[reportIncompatibleVariableOverride]
    architecture = Architecture(
        "qwen3_vl",
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLModel,
        Qwen2Tokenizer,
        Qwen2VLImageProcessorPil,
        {
            "text_config": frozenset({"qwen3_vl_text"}),
            # Older files have the name of the whole model there, which transformers reads as the other.
            "vision_config": frozenset({"qwen3_vl", "qwen3_vl_vision"}),
        },
    )

    def __init__(
        self,
        model: Qwen3VLModel,
        segment_tokenizer: SegmentTokenizer,
        image_processor: Qwen2VLImageProcessorPil,
        *,
        template: str,
        min_image_tokens: int = 4,
        max_image_tokens: int = 1800,
        num_frames: int | None = None,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        super().__init__(
            model,  # pyright: ignore[reportArgumentType]
            segment_tokenizer,
            image_processor,
            template=template,
            resize="qwen_vl_utils",
            multimodal_positions=True,
            min_image_tokens=min_image_tokens,
            max_image_tokens=max_image_tokens,
            num_frames=num_frames,
            max_length=max_length,
            image_limits=image_limits,
        )

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model; see :meth:`Backbone.check_options`."""
        super().check_options(options)
        for name in ("min_image_tokens", "max_image_tokens"):
            if name in options:
                check_integer(name, options[name])

    @classmethod
    def config_fields(cls, config: Qwen3VLConfig) -> tuple[dict[str, Any], dict[str, Kind]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return fields of a configuration that transformers takes at its word; see :meth:`Backbone.config_fields`."""
        text: Any = config.text_config
        vision: Any = config.vision_config
        rope, half = text.rope_parameters or {}, text.head_dim // 2
        # transformers cuts off what does not fit between the others.
        section = Kind(
            f"a list of three whole numbers whose sum is {half}, half the size of an attention head, the last two at "
            f"most {half // 3}",
            lambda value: each(whole(0, half), 3, 3).fits(value) and sum(value) == half and max(value[1:]) <= half // 3,
        )
        heads = Kind(
            f"a number that divides hidden_size={vision.hidden_size} into heads of a multiple of 4",
            lambda value: vision.hidden_size % (4 * value) == 0,
        )
        layers = Kind(
            f"a list of numbers from 0 to {vision.depth - 1}, in their order, and fewer than "
            f"num_hidden_layers={text.num_hidden_layers} of them,",
            lambda value: (
                each(whole(0, vision.depth - 1), 0, text.num_hidden_layers - 1).fits(value)
                and all(before < after for before, after in pairwise(value))
            ),
        )
        square = Kind("the square of a whole number", lambda value: value > 0 and math.isqrt(value) ** 2 == value)
        even = Kind("an even number", lambda value: value % 2 == 0)
        kinds: dict[str, tuple[Any, Kind]] = {
            "mrope_section of rope_scaling or rope_parameters": (rope.get("mrope_section"), section),
            "mrope_interleaved of rope_scaling or rope_parameters": (
                rope.get("mrope_interleaved"),
                optional(exactly(True)),
            ),
            "video_token_id": (config.video_token_id, whole(0, text.vocab_size - 1)),
            "text_config.head_dim": (text.head_dim, even),
            "vision_config.num_heads": (vision.num_heads, heads),
            "vision_config.head_dim": (
                getattr(vision, "head_dim", None),
                optional(exactly(vision.hidden_size // vision.num_heads, ", that of its num_heads,")),
            ),
            "vision_config.in_channels": (vision.in_channels, exactly(3)),
            "vision_config.num_position_embeddings": (vision.num_position_embeddings, square),
            "vision_config.deepstack_visual_indexes": (vision.deepstack_visual_indexes, layers),
            "vision_config.out_hidden_size": (
                vision.out_hidden_size,
                exactly(text.hidden_size, ", the hidden_size of text_config,"),
            ),
        }
        return {name: value for name, (value, _) in kinds.items()}, {name: kind for name, (_, kind) in kinds.items()}

    @classmethod
    def image_settings(cls, config: Qwen3VLConfig) -> dict[str, Kind]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return what the model needs of its image processor; see :meth:`Backbone.image_settings`."""
        vision: Any = config.vision_config
        return {
            "patch_size": exactly(vision.patch_size, f", as in {CONFIG},"),
            "merge_size": exactly(vision.spatial_merge_size, f", as in {CONFIG},"),
            "temporal_patch_size": exactly(vision.temporal_patch_size, f", as in {CONFIG},"),
        }

    def pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image and cut it into patches; see :meth:`Qwen2VL.pixel_features`."""
        return self.image_processor(self._read(image), do_resize=False, do_convert_rgb=False, return_tensors="pt")

    def _read(self, image: ImageSource) -> PILImage:
        _, (height, width) = self._sizes(image)
        return flatten_on_white(image.load()).resize((width, height), Resampling.BICUBIC)

    def select_frames(self, total: int) -> list[int]:
        """Return the numbers of the frames that are embedded of a list; see :meth:`Backbone.select_frames`."""
        return spread(total, self._most_frames)

    def video_times(self, video: VideoSource) -> list[float]:
        """Return at how many seconds each step of a video is, which is the middle of its frames' own."""
        numbers, _ = self._frames(video)
        length, rate = self.image_processor.temporal_patch_size, video.rate
        if rate is None:
            numbers, rate = list(range(math.ceil(len(numbers) / length) * length)), _LIST_RATE
        numbers += numbers[-1:] * (-len(numbers) % length)
        steps = zip(numbers[::length], numbers[length - 1 :: length], strict=True)
        return [(first / rate + last / rate) / 2 for first, last in steps]

    @property
    def _most_frames(self) -> int:
        return self.num_frames or _DEFAULT_FRAMES

    def _frames(self, video: VideoSource) -> tuple[list[int], tuple[int, int]]:
        total, rate = video.frame_count, video.rate
        numbers = self.select_frames(total) if rate is None else select_each_second(total, rate, self._most_frames)
        width, height = video.check_size(numbers)
        try:
            if rate is None:
                width, height = self._first_frame_size(width, height)
            # For each frame, of which two are one step.
            area, count = self._token_side**2, math.ceil(len(numbers) / 2) * 2
            largest = max(min(_FRAME_TOKENS[1], _VIDEO_TOKENS / count * 2) * area, int(_FRAME_TOKENS[0] * area * 1.05))
            return numbers, qwen_vl_utils_resize(height, width, self._token_side, _FRAME_TOKENS[0] * area, largest)
        except ValueError as error:
            raise VideoError(
                f"frames of {width}x{height} pixels: {error}. Crop or resize them.", video.place
            ) from error

    def _read_frames(self, video: VideoSource, numbers: Sequence[int], size: tuple[int, int]) -> Iterator[PILImage]:
        for frame in video.read(numbers):
            pixels = flatten_on_white(frame)
            if video.rate is None:
                pixels = pixels.resize(self._first_frame_size(*pixels.size), Resampling.BICUBIC)
            yield resize_like_torch(pixels, size)

    def _first_frame_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a frame of a list, which is resized by itself before the clip is."""
        side = 2 * self._token_side
        height, width = qwen_vl_utils_resize(height, width, side, *(tokens * side**2 for tokens in _LIST_TOKENS))
        return width, height


def resize_like_torch(image: PILImage, size: tuple[int, int]) -> PILImage:
    """Resize an RGB image by torch's bicubic filter with antialiasing; Pillow's also rounds between its two passes.

    Args:
        image: The image.
        size: Width and height.
    """
    if image.size == size:
        return image
    bands: list[PILImage] = []
    # One by one, since each is made of floats.
    for band in image.split():
        pixels = torch.from_numpy(np.array(band)).float()[None, None]
        resized = interpolate(pixels, size[::-1], mode="bicubic", align_corners=False, antialias=True)
        bands.append(fromarray(resized.clamp(0, 255).round().byte()[0, 0].numpy()))
    return merge("RGB", bands)
