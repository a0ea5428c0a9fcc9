"""Phi-3-V as an embedder: last-token pooling over a picture that is seen whole and in tiles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image as PILImage
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, PreTrainedTokenizerFast

from st_modules.arguments import check_integer, check_optional_integer
from st_modules.backbones.architecture import Architecture, Towers
from st_modules.backbones.blocked_attention import speed_up_attention
from st_modules.backbones.decoder import DecoderBackbone
from st_modules.backbones.long_rope import longest_short, use_long_rope
from st_modules.backbones.phi3_v_model import Phi3VConfig, Phi3VModel
from st_modules.backbones.phi3_v_vision import Tiling, cut_tiles, plan_tiles, read_vision_shape, resize_and_pad
from st_modules.backbones.rows import Row
from st_modules.checkpoints.fields import Kind, each, exactly, number, optional
from st_modules.checkpoints.shapes import find_weights, read_shapes, read_tensors
from st_modules.errors import ArgumentError, CheckpointError, ImageError
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.limits import ImageLimits
from st_modules.prompts.templates import Side
from st_modules.prompts.tokenizer import SegmentTokenizer

_MOST_CROPS = 16
_LONGEST_SIDE = 10_000

_EMBEDDINGS = re.compile(r"(?:model\.|language_model\.)+embed_tokens\.weight")
_SECOND_EMBEDDINGS = "vision_embed_tokens.wte.weight"
_PUBLISHED_NAMES = {
    "^model.embed_tokens": "language_model.embed_tokens",
    "^model.layers": "language_model.layers",
    "^model.norm": "language_model.norm",
    "^model.vision_embed_tokens": "vision_embed_tokens",
    "img_processor.vision_model.": "img_processor.",
}


class Phi3V(DecoderBackbone):
    """Phi-3-V or Phi-3.5-V with the recipe of one of its published embedders.

    Args:
        model: The transformer, vision tower included.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Its means and deviations normalise pixels.
        template: Name of the layout in ``st_modules.prompts.templates``.
        num_crops: Most tiles that an image is cut into; the fewest are a single one.
        first_resize: Side in pixels of the square that every image is resized to, in its own mode, before anything
            else; ``None`` leaves images as they are.
        text_max_length: Most tokens of a row without an image, which is cut behind so many of them, closing tokens and
            all, as the model's authors do it. Where ``max_length`` is set it holds instead.
        max_length: Longest row in tokens; longer rows lose the end of their text, never the tokens after it.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_keys: list[str] = [*DecoderBackbone.config_keys, "num_crops", "first_resize", "text_max_length"]
    model: Phi3VModel
    image_processor: CLIPImageProcessorPil
    architecture = Architecture(
        "phi3_v",
        Phi3VConfig,
        Phi3VModel,
        Phi3VModel,
        PreTrainedTokenizerFast,
        CLIPImageProcessorPil,
        {"text_config": frozenset({"phi3"}), "vision_config": frozenset({"clip_vision_model"})},
        _PUBLISHED_NAMES,
    )
    towers = Towers("language_model", "vision_embed_tokens.img_processor")
    visual_features = ("pixel_values", "image_sizes")

    def __init__(
        self,
        model: Phi3VModel,
        segment_tokenizer: SegmentTokenizer,
        image_processor: CLIPImageProcessorPil,
        *,
        template: str,
        num_crops: int = 4,
        first_resize: int | None = None,
        text_max_length: int | None = None,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        super().__init__(
            model,
            segment_tokenizer,
            # The published settings are those of code that is not run, which reads the last two of them.
            CLIPImageProcessorPil(
                do_resize=False,
                do_center_crop=False,
                do_convert_rgb=False,
                image_mean=image_processor.image_mean,
                image_std=image_processor.image_std,
            ),
            template=template,
            max_length=max_length,
            image_limits=image_limits,
        )
        use_long_rope(model.language_model)
        speed_up_attention(model.vision_embed_tokens.img_processor)
        self.num_crops = num_crops
        self.first_resize = first_resize
        self.text_max_length = text_max_length

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model; see :meth:`Backbone.check_options`."""
        super().check_options(options)
        if check_integer("num_crops", options.get("num_crops", 4)) > _MOST_CROPS:
            raise ArgumentError(f"num_crops={options['num_crops']}: pass at most {_MOST_CROPS} tiles.")
        side = check_optional_integer("first_resize", options.get("first_resize"))
        if side and side > _LONGEST_SIDE:
            raise ArgumentError(f"first_resize={side}: pass at most {_LONGEST_SIDE} pixels.")
        check_optional_integer("text_max_length", options.get("text_max_length"))

    @classmethod
    def config_fields(cls, config: Phi3VConfig) -> tuple[dict[str, Any], dict[str, Kind]]:
        """Return fields of a configuration that transformers takes at its word; see :meth:`Backbone.config_fields`."""
        text: Any = config.text_config
        # The code of the published models can do it otherwise too, which none of them does.
        needed = {
            "embd_layer": {
                "embedding_cls": exactly("image"),
                "hd_transform_order": exactly("sub_glb"),
                "projection_cls": exactly("mlp"),
                "use_hd_transform": exactly(True),
                "with_learnable_separator": exactly(True),
            },
            "img_processor": {
                "name": exactly("clip_vision_model"),
                "layer_idx": optional(exactly(-2)),
                "type_feature": optional(exactly("patch")),
            },
        }
        kinds = {f"{part}.{name}": kind for part, fields in needed.items() for name, kind in fields.items()}
        stated = {
            f"{part}.{name}": _fields_of(config, part).get(name) for part, fields in needed.items() for name in fields
        }
        for name in ("short_factor", "long_factor"):
            stated[name] = text.rope_parameters.get(name)
            kinds[name] = optional(each(number(0, 1e6)))
        return stated, kinds

    @classmethod
    def read_config(cls, folder: Path, changes: Mapping[str, Any], *, quantised: bool) -> Phi3VConfig:
        """Read the configuration, and fill in what only the weights say of the vision tower.

        Raises:
            CheckpointError: A file cannot be read, or the weights are of no shape that the tower can have.
        """
        config: Phi3VConfig = super().read_config(folder, changes, quantised=quantised)
        files = find_weights(folder)
        shapes = read_shapes(files)
        _refuse_other_embeddings(folder, files, shapes)
        try:
            config.vision_config = CLIPVisionConfig(**read_vision_shape(shapes))
        except ValueError as error:
            raise CheckpointError(f"{folder}: the weights do not fit the model: {error}.") from error
        return config

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, side: Side | None = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; see :meth:`Backbone.plan`."""
        most = self._most_of_text(max_length)
        rows = [
            replace(row, ids=row.ids[:most], length=most, trimmed=True, constant=min(row.constant, most))
            if most and not row.visuals and len(row.ids) > most
            else row
            for row in super().plan(items, prompt, side, max_length)
        ]
        # A beginning that is run for short rows has other positions than that of a long one.
        switch = longest_short(self.model.config.text_config)
        return [replace(row, constant=0) if len(row.ids) > switch else row for row in rows]

    def report_trimmed(self, rows: Sequence[Row], max_length: int | None = None) -> None:
        """Log how many rows lost the end of their text, where any did."""
        if most := self._most_of_text(max_length):
            super().report_trimmed([row for row in rows if not row.visuals], most)
            rows = [row for row in rows if row.visuals]
        super().report_trimmed(rows, max_length)

    def image_tokens(self, image: ImageSource) -> int:
        """Return how many tokens an image becomes, from its size alone.

        Raises:
            ImageError: The image cannot be read, or is too elongated for the model.
        """
        return self._plan_tiles(image).tokens

    def pixel_features(self, image: ImageSource) -> Mapping[str, Tensor]:
        """Read an image and cut it into tiles.

        Returns:
            ``pixel_values`` of shape (1, 1 + tiles, 3, side, side), float32, the whole image first; and
            ``image_sizes`` of shape (1, 2), int64: rows and columns of the tiles.
        """
        tiling = self._plan_tiles(image)
        pixels = self.image_processor(resize_and_pad(self._read(image), tiling), return_tensors="pt")["pixel_values"]
        return {
            "pixel_values": cut_tiles(pixels[0])[None],
            "image_sizes": torch.tensor([[tiling.rows, tiling.columns]]),
        }

    def join_pixels(self, images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Join the tiles of a batch's images, those of images with fewer tiles filled up with zeros."""
        return {
            "pixel_values": pad_sequence([image["pixel_values"][0] for image in images], batch_first=True),
            "image_sizes": torch.cat([image["image_sizes"] for image in images]),
        }

    def _most_of_text(self, max_length: int | None) -> int | None:
        """Return the most tokens of a row without an image by the rule of the authors; ``None`` where it does not hold.

        A length that was asked for takes its place, and leaves the closing tokens to a row.
        """
        return self.text_max_length if max_length is None and self.max_length == self.positions else None

    def _plan_tiles(self, image: ImageSource) -> Tiling:
        width, height = (self.first_resize, self.first_resize) if self.first_resize else image.size
        try:
            return plan_tiles(width, height, self.num_crops)
        except ValueError as error:
            raise ImageError(f"{width}x{height} pixels: {error}. Crop or resize it.", image.place) from error

    def _read(self, image: ImageSource) -> PILImage:
        pixels = image.load()
        if self.first_resize:
            # By Pillow's default filter, which depends on the mode.
            pixels = pixels.resize((self.first_resize, self.first_resize))
        return to_rgb(pixels)


def _fields_of(config: Phi3VConfig, part: str) -> Mapping[str, Any]:
    found = getattr(config, part, None)
    return found if isinstance(found, dict) else {}


def _refuse_other_embeddings(folder: Path, files: Iterable[Path], shapes: Mapping[str, Tensor]) -> None:
    """Refuse embeddings of tokens for the pictures' part that are others than the language model's, and not read."""
    second = [name for name in shapes if name.endswith(_SECOND_EMBEDDINGS)]
    first = [name for name in shapes if _EMBEDDINGS.fullmatch(name)]
    if second and first:
        tensors = read_tensors(files, {*second, *first})
        if any(not torch.equal(tensors[name], tensors[first[0]]) for name in second):
            raise CheckpointError(
                f"{folder}: the tensor {second[0]} is another than {first[0]}, and the model has one for both."
            )
