"""Qwen2-VL as an embedder: last-token pooling, and positions that count tokens one by one.

The published embedders were trained with plain positions 0..T-1 for image tokens too. transformers would use
multimodal rotary positions, which gives other embeddings without an error.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from torch.nn.utils.rnn import pad_sequence
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize
from typing_extensions import Self

from st_modules.backbones.base import Backbone, Row, loading_kwargs, refuse_options
from st_modules.checkpoints import load_model, read_config
from st_modules.errors import CheckpointError, ImageError
from st_modules.images import ImageLimits, ImageSource, to_rgb
from st_modules.inputs import Item
from st_modules.templates import TEMPLATES, Task
from st_modules.tokens import SegmentEncoder

MAX_ASPECT_RATIO = 200
_CONTROL_TOKENS = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_LM_HEAD = frozenset({"lm_head.weight"})


class Qwen2VL(Backbone):
    """Qwen2-VL with the recipe of one of its published embedders.

    Args:
        model: The transformer, vision tower included.
        folder: Folder with the tokenizer's and the image processor's files.
        template: Name of the layout in ``st_modules.templates``.
        first_resize_tokens: Bounds, in image tokens, of a resize that comes before the processor's own, as GME's
            script does it; ``None`` leaves it out.
        min_image_tokens: Fewest tokens that an image becomes; smaller images are scaled up.
        max_image_tokens: Most tokens that an image becomes; larger images are scaled down. A token is 28x28 pixels.
        max_length: Longest row in tokens; longer rows lose the end of their text, never the tokens after it.
        image_limits: What an image may cost; see :class:`st_modules.images.ImageLimits`.
    """

    config_keys = ["template", "first_resize_tokens", "min_image_tokens", "max_image_tokens", "max_length"]

    def __init__(
        self,
        model: Qwen2VLModel,
        folder: Path,
        *,
        template: str,
        first_resize_tokens: Sequence[int] | None = None,
        min_image_tokens: int = 256,
        max_image_tokens: int = 1280,
        max_length: int = 1800,
        image_limits: ImageLimits | None = None,
    ) -> None:
        super().__init__()
        if not 0 < min_image_tokens <= max_image_tokens:
            raise ValueError(
                f"min_image_tokens={min_image_tokens} and max_image_tokens={max_image_tokens}: the first must be at "
                "least 1 and at most the second."
            )
        if max_length < 1:
            raise ValueError(f"max_length={max_length}: it must be at least 1.")
        self.model = model
        self.template = template
        self.first_resize_tokens = first_resize_tokens
        self.min_image_tokens = min_image_tokens
        self.max_image_tokens = max_image_tokens
        self.max_length = max_length
        self.image_limits = image_limits or ImageLimits()
        self.encoder = SegmentEncoder(folder, Qwen2Tokenizer, _CONTROL_TOKENS)
        self.tokenizer = self.encoder.tokenizer
        self.image_processor = _image_processor(folder)

    @property
    def processor(self) -> Qwen2VLImageProcessorPil:
        """The image processor."""
        return self.image_processor

    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""
        return self.model.language_model.embed_tokens.embedding_dim

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, task: Task = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; see :meth:`Backbone.plan`."""
        self._check_prompt(prompt)
        render = TEMPLATES[self.template]
        encoded = self.encoder(
            [render(item, item.instruction or prompt, task) for item in items],
            [[self.image_tokens(image) for image in item.images] for item in items],
            [f"item {item.index}" for item in items],
            max_length or self.max_length,
        )
        return [Row(ids, item.images, trimmed) for item, (ids, trimmed) in zip(items, encoded, strict=True)]

    def image_tokens(self, image: ImageSource) -> int:
        """Return how many tokens an image becomes, from its size alone.

        Raises:
            ImageError: The image cannot be read, or is too elongated for the model.
        """
        width, height = image.size
        if self.first_resize_tokens:
            height, width = self._first_size(image)
        try:
            height, width = smart_resize(height, width, self._token_side, *self._pixel_bounds)
        except ValueError as error:
            raise ImageError(f"{image.label}: {width}x{height} pixels: {error}. Crop or resize it.") from error
        return (height // self._token_side) * (width // self._token_side)

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Read the rows' pixels and pad the rows on the right.

        Args:
            rows: What :meth:`plan` returned.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape (rows, longest row), int64; ``num_images_per_sample`` of
            shape (rows,), int64; and where there are images ``pixel_values`` of shape (patches, patch dimension),
            float32, and ``image_grid_thw`` of shape (images, 3), int64.
        """
        ids = [torch.tensor(row.ids) for row in rows]
        features = {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=self.encoder.control_ids["<|endoftext|>"]),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "num_images_per_sample": torch.tensor([len(row.images) for row in rows]),
        }
        images = [self._read(image) for row in rows for image in row.images]
        if images:
            shortest, longest = self._pixel_bounds
            features.update(
                self.image_processor(
                    images,
                    size={"shortest_edge": shortest, "longest_edge": longest},
                    do_convert_rgb=False,
                    return_tensors="pt",
                )
            )
        return features

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the transformer and pool each row's last token.

        Args:
            features: What :meth:`collate` returned, on the model's device.
            **kwargs: Not used.

        Returns:
            The features with ``token_embeddings`` of shape (rows, tokens, dimension) and ``sentence_embedding`` of
            shape (rows, dimension), in the model's precision.
        """
        mask = features["attention_mask"]
        hidden = self.model(
            input_ids=features["input_ids"],
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            pixel_values=features.get("pixel_values"),
            image_grid_thw=features.get("image_grid_thw"),
            use_cache=False,
        ).last_hidden_state
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        features["token_embeddings"] = hidden
        features["sentence_embedding"] = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return features

    def save(self, output_path: str, *args: Any, safe_serialization: bool = True, **kwargs: Any) -> None:
        """Write the weights, the tokenizer, the image processor and the module's options to a folder."""
        self.model.save_pretrained(output_path, safe_serialization=safe_serialization)
        self.save_tokenizer(output_path)
        self.image_processor.save_pretrained(output_path)
        self.save_config(output_path)

    @classmethod
    def load(
        cls,
        model_name_or_path: str,
        subfolder: str = "",
        token: bool | str | None = None,
        cache_folder: str | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        init_defaults: dict[str, Any] | None = None,
        model_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Load a module that :meth:`save` wrote, from a folder or from the Hub.

        ``init_defaults`` are the options and the device that the user asked for, so here they win over the saved
        ones.
        """
        refuse_options(
            {
                "processor_kwargs": kwargs.get("processor_kwargs"),
                "backend": kwargs.get("backend", "torch") != "torch",
            }
        )
        location = {
            "subfolder": subfolder,
            "token": token,
            "cache_folder": cache_folder,
            "revision": revision,
            "local_files_only": local_files_only,
        }
        folder = cls.load_dir_path(model_name_or_path, **location)
        options = cls.load_config(model_name_or_path, **location)
        return cls.from_checkpoint(
            Path(cast(str, folder)), model_kwargs, config_kwargs, **{**options, **(init_defaults or {})}
        )

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        model_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        device: str | None = None,
        **options: Any,
    ) -> Self:
        """Build the module from a folder in the upstream's layout, or one that :meth:`save` wrote.

        Args:
            folder: The checkpoint.
            model_kwargs: For ``from_pretrained``: ``dtype``, ``attn_implementation``, ``device_map`` and others.
            config_kwargs: Values that take the place of those in ``config.json``.
            device: Where the model will run, which decides the precision where ``model_kwargs`` does not.
            **options: The constructor's keyword arguments.

        Raises:
            CheckpointError: The folder does not hold exactly this architecture's weights.
        """
        read_config(folder, "qwen2_vl")
        # Qwen2VLModel itself leaves the vision tower at random for one of the published key layouts.
        full = load_model(
            Qwen2VLForConditionalGeneration,
            folder,
            optional=_LM_HEAD,
            config=Qwen2VLConfig.from_pretrained(folder, **(config_kwargs or {})),
            **loading_kwargs(model_kwargs, device),
        )
        return cls(cast(Qwen2VLForConditionalGeneration, full).model, folder, **options)

    @property
    def _token_side(self) -> int:
        return self.image_processor.patch_size * self.image_processor.merge_size

    @property
    def _pixel_bounds(self) -> tuple[int, int]:
        area = self._token_side**2
        return self.min_image_tokens * area, self.max_image_tokens * area

    def _read(self, image: ImageSource) -> PILImage:
        pixels = to_rgb(image.load())
        if self.first_resize_tokens:
            height, width = self._first_size(image)
            pixels = pixels.resize((width, height), Resampling.BICUBIC)
        return pixels

    def _first_size(self, image: ImageSource) -> tuple[int, int]:
        assert self.first_resize_tokens is not None
        width, height = image.size
        size = first_resize(height, width, self._token_side, *self.first_resize_tokens)
        if not all(size):
            raise ImageError(f"{image.label}: {width}x{height} pixels are too elongated. Crop or resize it.")
        return size


def _image_processor(folder: Path) -> Qwen2VLImageProcessorPil:
    try:
        return Qwen2VLImageProcessorPil.from_pretrained(folder)
    except Exception as error:
        raise CheckpointError(f"{folder}: preprocessor_config.json is missing or cannot be read.") from error


def first_resize(height: int, width: int, side: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Return the size that GME's script gives an image before the processor sees it.

    The rule of ``gme_inference.py`` in the model repositories: both sides become multiples of ``side``, the area
    stays within the bounds, and an aspect ratio above 200 is clamped, where transformers' own rule raises.

    Args:
        height: Height in pixels.
        width: Width in pixels.
        side: Side of one image token in pixels.
        min_tokens: Fewest image tokens.
        max_tokens: Most image tokens.

    Returns:
        Height and width in pixels; a side of 0 where the image is too elongated for ``max_tokens``.
    """
    new_height, new_width = (max(side, round(length / side) * side) for length in (height, width))
    if new_height * new_width > max_tokens * side**2:
        scale = math.sqrt(height * width / (max_tokens * side**2))
        new_height, new_width = (math.floor(length / scale / side) * side for length in (height, width))
    elif new_height * new_width < min_tokens * side**2:
        scale = math.sqrt(min_tokens * side**2 / (height * width))
        new_height, new_width = (math.ceil(length * scale / side) * side for length in (height, width))
    return min(new_height, new_width * MAX_ASPECT_RATIO), min(new_width, new_height * MAX_ASPECT_RATIO)
