"""CLIP as an embedder of text, images, and both: the two towers' features are added before they are normalised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from torch import Tensor
from transformers import (
    BaseImageProcessor,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    PreTrainedModel,
)
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from st_modules.arguments import check_flag
from st_modules.backbones.architecture import Architecture, Towers
from st_modules.backbones.attention import KeysAndValues, split_heads
from st_modules.backbones.base import Backbone
from st_modules.backbones.clip_sizes import scaled_size
from st_modules.backbones.clip_weights import check_openai_config, openai_weights
from st_modules.backbones.pruning import allow_pruning, pooling_arguments
from st_modules.checkpoints.fields import Kind, exactly
from st_modules.checkpoints.image_processors import square_settings
from st_modules.checkpoints.locate import Checkpoint
from st_modules.checkpoints.weights import load_pretrained
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from st_modules.prompts.tokenizer import SegmentTokenizer


class CLIP(Backbone):
    """CLIP with the fusion of an image and a text that BGE-VL and UniIR's CLIP-SF have.

    Args:
        model: Both towers.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Resizes, crops and normalises images.
        template: Name of the layout in ``st_modules.prompts.templates``.
        rounded_crop: Whether the square that is cut out of the middle of an image begins at the nearest whole pixel,
            as in OpenAI's code, or at the one before, as in transformers.
        max_length: Most tokens of a text; a longer text loses its end, never the end token, which is pooled.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_keys: list[str] = [*Backbone.config_keys, "rounded_crop"]
    has_token_embeddings = False
    architecture = Architecture("clip", CLIPConfig, CLIPModel, CLIPModel, CLIPTokenizer, CLIPImageProcessorPil)
    towers = Towers("text_model", "vision_model")
    model: CLIPModel
    image_processor: CLIPImageProcessorPil

    def __init__(
        self,
        model: CLIPModel,
        segment_tokenizer: SegmentTokenizer,
        image_processor: CLIPImageProcessorPil,
        *,
        template: str,
        rounded_crop: bool = False,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        positions = model.text_model.embeddings.position_embedding.num_embeddings
        super().__init__(model, segment_tokenizer, image_processor, template, positions, max_length, image_limits)
        self.rounded_crop = rounded_crop
        # Some published configurations name another token, for which transformers pools the one with the highest id.
        model.text_model.eos_token_id = segment_tokenizer.end_ids[0]
        towers: list[Any] = [model.text_model, model.vision_model]
        for tower in towers:
            allow_pruning(tower, tower.encoder.layers[-1], _keys_and_values)

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model; see :meth:`Backbone.check_options`."""
        super().check_options(options)
        check_flag("rounded_crop", options.get("rounded_crop", False))

    @classmethod
    def image_settings(cls, config: CLIPConfig) -> dict[str, Kind]:
        """Return what the model needs of its image processor; see :meth:`Backbone.image_settings`."""
        return {"do_center_crop": exactly(True), **square_settings(config)}

    @classmethod
    def _load_model(cls, checkpoint: Checkpoint, **kwargs: Any) -> PreTrainedModel:
        if not checkpoint.base:
            return super()._load_model(checkpoint, **kwargs)
        check_openai_config(kwargs["config"], checkpoint.base)
        return load_pretrained(CLIPModel, checkpoint.path, state_dict=openai_weights(checkpoint.path), **kwargs)

    @classmethod
    def _load_image_processor(cls, checkpoint: Checkpoint, config: Any) -> BaseImageProcessor:
        if not checkpoint.base:
            return super()._load_image_processor(checkpoint, config)
        # OpenAI's code has these numbers in itself, and reads none of the files beside the weights.
        side = config.vision_config.image_size
        return CLIPImageProcessorPil(
            size={"shortest_edge": side},
            crop_size={"height": side, "width": side},
            resample=Resampling.BICUBIC,
            image_mean=OPENAI_CLIP_MEAN,
            image_std=OPENAI_CLIP_STD,
        )

    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""
        return self.model.text_projection.out_features

    def image_tokens(self, image: ImageSource) -> int:
        """Return how many patches the image tower sees, which is the same for every image.

        Raises:
            ImageError: The image cannot be read, or is too elongated to be scaled.
        """
        scaled_size(image, self.image_processor.size["shortest_edge"])
        return self.model.vision_model.embeddings.num_positions

    def pixel_features(self, image: ImageSource) -> Mapping[str, torch.Tensor]:
        """Read an image, and scale and crop it to the tower's square.

        Returns:
            ``pixel_values`` of shape (1, 3, height, width), float32.
        """
        return self.image_processor(
            self._read(image), do_convert_rgb=False, do_resize=False, do_center_crop=False, return_tensors="pt"
        )

    def _read(self, image: ImageSource) -> PILImage:
        """Scale and crop a picture as the processor does, which makes arrays of the whole picture for that."""
        side, crop = self.image_processor.size["shortest_edge"], self.image_processor.crop_size["height"]
        pixels = to_rgb(image.load()).resize(scaled_size(image, side), self.image_processor.resample)
        rests = [length - crop for length in pixels.size]
        left, top = (round(rest / 2) if self.rounded_crop else rest // 2 for rest in rests)
        return pixels.crop((left, top, left + crop, top + crop))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the towers that the rows need, and add the features of a row's text and image.

        Args:
            features: What :meth:`collate` returned, on the model's device.
            **kwargs: Not used.

        Returns:
            The features with ``sentence_embedding`` of shape (rows, dimension), in the model's precision.
        """
        mask, prune = features["attention_mask"], features.get("pruned", False)
        text_model, vision_model = self.model.text_model, self.model.vision_model
        has_text, has_image = mask.any(1), features["num_images_per_sample"] > 0
        embedding = torch.zeros(len(mask), self.get_embedding_dimension(), dtype=self.model.dtype, device=mask.device)
        if has_text.any():
            ids, mask = features["input_ids"][has_text], mask[has_text]
            pooled: dict[str, Any] = pooling_arguments(text_model, mask.sum(1) - 1) if prune else {}
            text: Any = self.model.get_text_features(input_ids=ids, attention_mask=mask, **pooled)
            embedding = embedding.index_add(0, has_text.nonzero()[:, 0], text.pooler_output.to(embedding.dtype))
        if has_image.any():
            pixels, rows = features["pixel_values"], has_image.nonzero()[:, 0]
            pooled = pooling_arguments(vision_model, torch.zeros_like(rows)) if prune else {}
            image: Any = self.model.get_image_features(pixel_values=pixels, **pooled)
            embedding = embedding.index_add(0, rows, image.pooler_output.to(embedding.dtype))
        features["sentence_embedding"] = embedding
        return features


def _keys_and_values(layer: Any, hidden: Tensor) -> KeysAndValues:
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    return (
        split_heads(attention.k_proj(normed), attention.head_dim),
        split_heads(attention.v_proj(normed), attention.head_dim),
    )
