"""Qwen2-VL as an embedder: last-token pooling, and mostly positions that count tokens one by one.

Most published embedders ran with plain positions 0..T-1 for image tokens too. transformers would use multimodal rotary
positions, which gives other embeddings without an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from transformers import (
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessorPil,
    Qwen2VLModel,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from st_modules.arguments import check_choice, check_flag, check_optional_integer
from st_modules.backbones.architecture import Architecture, Towers
from st_modules.backbones.decoder import DecoderBackbone
from st_modules.backbones.qwen2_vl_sizes import FIRST_RESIZES, MOST_TOKENS, RESIZES, Resize
from st_modules.backbones.qwen2_vl_vision import computes_the_same, cut_frames, cut_patches, embed_images, normalise
from st_modules.backbones.rows import Row
from st_modules.backbones.sampling import select_frames
from st_modules.checkpoints.configuration import CONFIG
from st_modules.checkpoints.fields import Kind, each, exactly, whole
from st_modules.errors import ArgumentError, ImageError, Place
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.limits import ImageLimits
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.templates import TEMPLATES, Side
from st_modules.prompts.tokenizer import SegmentTokenizer

_DEFAULT_FRAMES = 8
"""How many frames of a video are embedded where nobody says, as by VLM2Vec-V2's authors."""


class Qwen2VL(DecoderBackbone):
    """Qwen2-VL with the recipe of one of its published embedders.

    Args:
        model: The transformer, vision tower included.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Cuts images into patches.
        template: Name of the layout in ``st_modules.prompts.templates``.
        first_resize: Name in ``FIRST_RESIZES`` of a resize that comes before the processor's own, as the model's
            authors do it; ``None`` leaves it out. Frames of videos do without.
        resize: Name in ``RESIZES`` of a rule that takes the place of the processor's own; ``None`` is that.
        multimodal_positions: Whether image tokens have the rows and columns of Qwen2-VL's own rotary positions.
        min_image_tokens: Fewest tokens that an image becomes; smaller images are scaled up. ``None`` takes the bound
            of the checkpoint's image processor.
        max_image_tokens: Most tokens that an image becomes; larger images are scaled down. A token is 28x28 pixels.
        num_frames: How many frames of a video are embedded, where the layout has a place for one. ``None`` is 8. Two
            frames have the tokens of one image.
        max_length: Longest row in tokens; longer rows lose the end of their text, never the tokens after it.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_keys: list[str] = [
        *DecoderBackbone.config_keys,
        "first_resize",
        "resize",
        "multimodal_positions",
        "min_image_tokens",
        "max_image_tokens",
        "num_frames",
    ]
    model: Qwen2VLModel
    image_processor: Qwen2VLImageProcessorPil
    # Qwen2VLModel itself leaves the vision tower at random for one of the published key layouts.
    architecture = Architecture(
        "qwen2_vl",
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen2VLModel,
        Qwen2Tokenizer,
        Qwen2VLImageProcessorPil,
    )
    towers = Towers("language_model", "visual")
    visual_features = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")

    def __init__(
        self,
        model: Qwen2VLModel,
        segment_tokenizer: SegmentTokenizer,
        image_processor: Qwen2VLImageProcessorPil,
        *,
        template: str,
        first_resize: str | None = None,
        resize: str | None = None,
        multimodal_positions: bool = False,
        min_image_tokens: int | None = None,
        max_image_tokens: int | None = None,
        num_frames: int | None = None,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        super().__init__(
            model,
            segment_tokenizer,
            image_processor,
            template=template,
            max_length=max_length,
            image_limits=image_limits,
        )
        self.first_resize = first_resize
        self.resize = resize
        self.multimodal_positions = multimodal_positions
        self.min_image_tokens = min_image_tokens
        self.max_image_tokens = max_image_tokens
        self.num_frames = num_frames
        self._check_bounds()

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model; see :meth:`Backbone.check_options`."""
        super().check_options(options)
        check_choice("first_resize", options.get("first_resize"), (*FIRST_RESIZES, None))
        check_choice("resize", options.get("resize"), (*RESIZES, None))
        check_flag("multimodal_positions", options.get("multimodal_positions", False))
        for name in ("min_image_tokens", "max_image_tokens"):
            check_optional_integer(name, options.get(name))
        if check_optional_integer("num_frames", options.get("num_frames")) is not None:
            template: Any = options.get("template")
            if not TEMPLATES[template].takes_video:
                raise ArgumentError("num_frames: this model takes no video. Leave it out.")

    @classmethod
    def config_fields(cls, config: Qwen2VLConfig) -> tuple[dict[str, Any], dict[str, Kind]]:
        """Return fields of a configuration that transformers takes at its word; see :meth:`Backbone.config_fields`."""
        text: Any = config.text_config
        half = text.hidden_size // text.num_attention_heads // 2
        section = Kind(
            f"a list of three whole numbers whose sum is {half}, half the size of an attention head,",
            lambda value: each(whole(0, half), 3, 3).fits(value) and sum(value) == half,
        )
        # transformers fills in lengths for heads of another size.
        name = "mrope_section of rope_scaling or rope_parameters"
        vision: Any = config.vision_config
        heads = Kind(
            f"a number that divides embed_dim={vision.embed_dim} into heads of a multiple of 4",
            lambda value: vision.embed_dim % (4 * value) == 0,
        )
        return {
            name: (text.rope_parameters or {}).get("mrope_section"),
            "vision_config.num_heads": vision.num_heads,
        }, {name: section, "vision_config.num_heads": heads}

    @classmethod
    def image_settings(cls, config: Qwen2VLConfig) -> dict[str, Kind]:
        """Return what the model needs of its image processor; see :meth:`Backbone.image_settings`."""
        vision: Any = config.vision_config
        token = (vision.patch_size * vision.spatial_merge_size) ** 2
        return {
            "do_resize": exactly(True),
            "patch_size": exactly(vision.patch_size, f", as in {CONFIG},"),
            "merge_size": exactly(vision.spatial_merge_size, f", as in {CONFIG},"),
            "temporal_patch_size": exactly(vision.temporal_patch_size, f", as in {CONFIG},"),
            # The same under its older name.
            "size.shortest_edge": _called("min_pixels", whole(1, MOST_TOKENS * token)),
            "size.longest_edge": _called("max_pixels", whole(token, 10**12)),
        }

    def image_tokens(self, image: ImageSource) -> int:
        """Return how many tokens an image becomes, from its size alone.

        Raises:
            ImageError: The image cannot be read, or is too elongated for the model.
        """
        _, (height, width) = self._sizes(image)
        return (height // self._token_side) * (width // self._token_side)

    def pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image and cut it into patches.

        Returns:
            ``pixel_values`` of shape (patches, patch dimension), float32, and ``image_grid_thw`` of shape (1, 3),
            int64.
        """
        return self.image_processor(self._read(image), do_resize=False, do_convert_rgb=False, return_tensors="pt")

    def byte_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image and cut it into patches that are not normalised.

        Returns:
            ``patches`` of shape (patches, patch dimension), uint8, and ``image_grid_thw`` of shape (1, 3), int64.
        """
        processor, pixels = self.image_processor, self._read(image)
        return {
            "patches": cut_patches(pixels, processor.patch_size, processor.merge_size),
            "image_grid_thw": torch.tensor([self._grid(1, *pixels.size)]),
        }

    def fast_pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image as bytes where the vision tower is one that takes them; see :meth:`byte_features`."""
        return self.byte_features(image) if self._takes_bytes else self.pixel_features(image)

    def select_frames(self, total: int) -> list[int]:
        """Return the numbers of the frames that are embedded of a video; see :meth:`Backbone.select_frames`."""
        return select_frames(total, self.num_frames or _DEFAULT_FRAMES)

    def video_tokens(self, video: VideoSource) -> int:
        """Return how many tokens a video becomes, from the number and the size of its frames alone.

        Raises:
            InputError: The video cannot be read, or its frames are not of one size.
        """
        numbers, (height, width) = self._frames(video)
        steps = math.ceil(len(numbers) / self.image_processor.temporal_patch_size)
        return steps * (height // self._token_side) * (width // self._token_side)

    def video_features(self, video: VideoSource, *, fast: bool) -> Mapping[str, torch.Tensor]:
        """Read frames of a video and cut them into patches, of which each is of two frames.

        Returns:
            ``pixel_values_videos`` of shape (patches, patch dimension), float32, or their bytes ``video_patches``,
            and ``video_grid_thw`` of shape (1, 3), int64.
        """
        processor, (numbers, (height, width)) = self.image_processor, self._frames(video)
        length, steps, waiting = processor.temporal_patch_size, [], []
        for number, frame in enumerate(self._read_frames(video, numbers, (width, height)), start=1):
            waiting.append(frame)
            if number == len(numbers):
                waiting += waiting[-1:] * (-number % length)
            if len(waiting) == length:
                steps.append(cut_frames(waiting, processor.patch_size, processor.merge_size))
                waiting = []
        patches, grid = torch.cat(steps), torch.tensor([self._grid(len(steps), width, height)])
        if fast and self._takes_bytes:
            return {"video_patches": patches, "video_grid_thw": grid}
        return {"pixel_values_videos": normalise(patches, processor), "video_grid_thw": grid}

    def visual_inputs(self, features: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by which the model gets a batch's images and videos."""
        outputs: dict[str, BaseModelOutputWithPooling] = {}
        for kind, name in (("image", "patches"), ("video", "video_patches")):
            if name in features:
                tokens, on_the_way = embed_images(
                    self.model.visual, self.image_processor, features[name], features[f"{kind}_grid_thw"]
                )
                outputs[kind] = BaseModelOutputWithPooling()
                outputs[kind]["pooler_output"] = (tokens,)
                outputs[kind]["deepstack_features"] = [(layer,) for layer in on_the_way]
        return {"mm_encoder_outputs": outputs} if outputs else super().visual_inputs(features)

    def position_ids(self, features: dict[str, Any]) -> torch.Tensor:
        """Return the positions of a batch's tokens.

        Returns:
            Shape (rows, tokens) where tokens are counted one by one, (3, rows, tokens) for multimodal ones; int64.
        """
        grids = {name: features[name] for name in ("image_grid_thw", "video_grid_thw") if name in features}
        if not self.multimodal_positions or not grids:
            return super().position_ids(features)
        ids, config = features["input_ids"], self.model.config
        positions, _ = self.model.get_rope_index(
            ids,
            mm_token_type_ids=(ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int(),
            attention_mask=features["attention_mask"],
            **grids,
        )
        return positions

    def _check_bounds(self) -> None:
        fewest, most = (bound // self._token_side**2 for bound in self._pixel_bounds)
        if not 0 < fewest <= most:
            raise ArgumentError(
                f"min_image_tokens={fewest} and max_image_tokens={most}: the first must be at least 1 and at most the "
                "second."
            )

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, side: Side | None = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; see :meth:`Backbone.plan`."""
        # Each bound can be set by itself, before the other.
        self._check_bounds()
        return super().plan(items, prompt, side, max_length)

    @property
    def _token_side(self) -> int:
        return self.image_processor.patch_size * self.image_processor.merge_size

    @property
    def _pixel_bounds(self) -> tuple[int, int]:
        area, size = self._token_side**2, self.image_processor.size
        fewest, most = self.min_image_tokens, self.max_image_tokens
        return (
            size["shortest_edge"] if fewest is None else fewest * area,
            size["longest_edge"] if most is None else most * area,
        )

    @property
    def _takes_bytes(self) -> bool:
        return computes_the_same(self.model.visual, self.image_processor)

    def _grid(self, steps: int, width: int, height: int) -> list[int]:
        side = self.image_processor.patch_size
        return [steps, height // side, width // side]

    def _read(self, image: ImageSource) -> PILImage:
        pixels = to_rgb(image.load())
        (height, width), (final_height, final_width) = self._sizes(image)
        if pixels.size != (width, height):
            pixels = pixels.resize((width, height), Resampling.BICUBIC)
        return pixels.resize((final_width, final_height), self.image_processor.resample)

    def _frames(self, video: VideoSource) -> tuple[list[int], tuple[int, int]]:
        """Which frames of a video are embedded, and the height and width that they are resized to."""
        numbers = self.select_frames(video.frame_count)
        width, height = video.check_size(numbers)
        return numbers, self._final_size(height, width, video.place)

    def _read_frames(self, video: VideoSource, numbers: Sequence[int], size: tuple[int, int]) -> Iterator[PILImage]:
        """Yield some frames as RGB images of a width and a height."""
        return (to_rgb(frame).resize(size, self.image_processor.resample) for frame in video.read(numbers))

    def _sizes(self, image: ImageSource) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of an image after the first resize, and after the processor's."""
        width, height = image.size
        first = (height, width)
        if self.first_resize:
            first = self._find_size(FIRST_RESIZES[self.first_resize], height, width, image.place)
        return first, self._final_size(*first, image.place)

    def _final_size(self, height: int, width: int, place: Place | str) -> tuple[int, int]:
        return self._find_size(RESIZES[self.resize] if self.resize else smart_resize, height, width, place)

    def _find_size(self, rule: Resize, height: int, width: int, place: Place | str) -> tuple[int, int]:
        try:
            return rule(height, width, self._token_side, *self._pixel_bounds)
        except ValueError as error:
            raise ImageError(f"{width}x{height} pixels: {error}. Crop or resize it.", place) from error


def _called(name: str, kind: Kind) -> Kind:
    """Return the kind of a field that has an older name too."""
    return Kind(f"{kind.needed} ({name})", kind.fits)
