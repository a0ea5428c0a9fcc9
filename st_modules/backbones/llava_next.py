"""LLaVA-NeXT as an embedder: last-token pooling over an image cut into tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextModel,
    PreTrainedTokenizerFast,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from st_modules.arguments import check_choice, check_optional_integer
from st_modules.backbones.architecture import Architecture, Towers
from st_modules.backbones.attention import attention_of
from st_modules.backbones.blocked_attention import speed_up_attention
from st_modules.backbones.decoder import DecoderBackbone
from st_modules.backbones.linear import speed_up_layers
from st_modules.backbones.llava_next_tiles import TILE_LAYOUTS, TileLayout, count_tokens, cut_tiles, embed_tiles
from st_modules.backbones.packing import allow_packing
from st_modules.checkpoints.adapters import collect_adapters, install_adapters, without_adapters
from st_modules.checkpoints.configuration import CONFIG
from st_modules.checkpoints.fields import Kind, each, either, exactly, whole
from st_modules.checkpoints.image_processors import square_settings
from st_modules.checkpoints.weights import load_pretrained
from st_modules.errors import ArgumentError
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from st_modules.prompts.tokenizer import SegmentTokenizer

_LONGEST_SIDE = 10_000
_MOST_GRIDS = 1000
_MOST_TILES = 64
"""Along a side. The published models have at most three."""


class LlavaNext(DecoderBackbone):
    """LLaVA-NeXT with the recipe of one of its published embedders.

    Args:
        model: The transformer, vision tower included.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Cuts images into tiles.
        template: Name of the layout in ``st_modules.prompts.templates``.
        first_resize: Side in pixels of the square that every image is resized to, in its own mode, before anything
            else; ``None`` leaves images as they are.
        tile_layout: Name in ``TILE_LAYOUTS`` of the release of transformers whose layout of tiles the model's authors
            ran; it makes a difference to images that do not fill their grid, or whose grid is not square.
        max_length: Longest row in tokens; longer rows lose the end of their text, never the tokens after it.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_keys: list[str] = [*DecoderBackbone.config_keys, "first_resize", "tile_layout"]
    model: LlavaNextModel
    image_processor: LlavaNextImageProcessorPil
    architecture = Architecture(
        "llava_next",
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextModel,
        PreTrainedTokenizerFast,
        LlavaNextImageProcessorPil,
        {"text_config": frozenset({"llama", "mistral", "qwen2"}), "vision_config": frozenset({"clip_vision_model"})},
    )
    towers = Towers("language_model", "vision_tower")
    visual_features = ("pixel_values", "image_sizes")

    def __init__(
        self,
        model: LlavaNextModel,
        segment_tokenizer: SegmentTokenizer,
        image_processor: LlavaNextImageProcessorPil,
        *,
        template: str,
        first_resize: int | None = None,
        tile_layout: str = "transformers-5",
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
        speed_up_attention(model.vision_tower)
        self.first_resize = first_resize
        self.tile_layout = tile_layout

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model; see :meth:`Backbone.check_options`."""
        super().check_options(options)
        side = check_optional_integer("first_resize", options.get("first_resize"))
        if side and side > _LONGEST_SIDE:
            raise ArgumentError(f"first_resize={side}: pass at most {_LONGEST_SIDE} pixels.")
        check_choice("tile_layout", options.get("tile_layout", "transformers-5"), TILE_LAYOUTS)

    @classmethod
    def config_fields(cls, config: LlavaNextConfig) -> tuple[dict[str, Any], dict[str, Kind]]:
        """Return fields of a configuration that transformers takes at its word; see :meth:`Backbone.config_fields`."""
        vision: Any = config.vision_config
        layer = whole(-vision.num_hidden_layers - 1, vision.num_hidden_layers)
        return vars(config), {
            "image_grid_pinpoints": each(each(_multiple_of(vision.image_size), 2, 2), 1, _MOST_GRIDS),
            "vision_feature_layer": either(layer, each(layer, 1)),
            # With another, the whole image has one token more than its patches.
            "vision_feature_select_strategy": exactly("default"),
        }

    @classmethod
    def image_settings(cls, config: LlavaNextConfig) -> dict[str, Kind]:
        """Return what the model needs of its image processor; see :meth:`Backbone.image_settings`."""
        grids = exactly(config.image_grid_pinpoints, f", as in {CONFIG},")
        return {"image_grid_pinpoints": grids, "do_center_crop": exactly(True), **square_settings(config)}

    def image_tokens(self, image: ImageSource) -> int:
        """Return how many tokens an image becomes, from its size alone.

        The whole image in one tile, and then the tiles that it covers with a newline token after each of their rows.
        """
        width, height = image.size
        if self.first_resize:
            width = height = self.first_resize
        return count_tokens(height, width, self.model.config, self._layout)

    def pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image and cut it into tiles.

        Returns:
            ``pixel_values`` of shape (1, tiles, 3, tile height, tile width), float32, and ``image_sizes`` of shape
            (1, 2), int64: height and width in pixels.
        """
        pixels = self._read(image)
        return {
            "pixel_values": cut_tiles(pixels, self.model.config, self.image_processor, self._layout)[None],
            "image_sizes": torch.tensor([[pixels.height, pixels.width]]),
        }

    def visual_inputs(self, features: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by which the model gets a batch's images."""
        found = super().visual_inputs(features)
        if not found:
            return {}
        output = BaseModelOutputWithPooling()
        output["pooler_output"] = embed_tiles(self.model, layout=self._layout, **found)
        return {"mm_encoder_outputs": {"image": output}}

    @property
    def _layout(self) -> TileLayout:
        return TILE_LAYOUTS[self.tile_layout]

    def join_pixels(self, images: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        """Join the tiles of a batch's images, those of images with fewer tiles filled up with zeros."""
        return {
            "pixel_values": pad_sequence([image["pixel_values"][0] for image in images], batch_first=True),
            "image_sizes": torch.cat([image["image_sizes"] for image in images]),
        }

    # transformers captures the vision tower's hidden states by hooks that no pickle takes, and that a model which was
    # not constructed in its process lacks: so the weights travel, and the model is built anew around them.
    def __getstate__(self) -> dict[str, Any]:
        modules = {name: module for name, module in self._modules.items() if module is not self.model}
        plain = without_adapters(self.model)
        frozen = [name for name, parameter in self.model.named_parameters() if not parameter.requires_grad]
        packed = (plain.config, plain.state_dict(), collect_adapters(self.model), frozen)
        return {**self.__dict__, "_modules": modules, "_model_state": packed}

    def __setstate__(self, state: dict[str, Any]) -> None:
        config, weights, adapters, frozen = state.pop("_model_state")
        super().__setstate__(state)
        # Not by the configuration, which does not follow a model that was cast or moved.
        sample = weights["image_newline"]
        kwargs = {"dtype": sample.dtype, "attn_implementation": attention_of(config)}
        model = load_pretrained(LlavaNextModel, Path("pickle"), state_dict=weights, config=config, **kwargs)
        self.model = cast(LlavaNextModel, model.train(self.training).to(sample.device))
        allow_packing(self.model.language_model)
        speed_up_attention(self.model.vision_tower)
        speed_up_layers(self.model)
        if adapters:
            install_adapters(self.model, adapters, Path("pickle"))
        for name in frozen:
            self.model.get_parameter(name).requires_grad_(False)

    def _read(self, image: ImageSource) -> PILImage:
        pixels = image.load()
        if self.first_resize:
            pixels = pixels.resize((self.first_resize, self.first_resize), Resampling.BICUBIC)
        return to_rgb(pixels)


def _multiple_of(side: int) -> Kind:
    """Return the kind of lengths in pixels that tiles fill."""
    tiles = {side * number for number in range(1, _MOST_TILES + 1)}
    return Kind(f"1 to {_MOST_TILES} times {side}", lambda value: type(value) is int and value in tiles)
