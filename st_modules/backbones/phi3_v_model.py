"""Phi-3-V out of transformers' own Phi-3 and CLIP: transformers has no class of it, and no repository's code is run."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from transformers import CLIPVisionConfig, Phi3Config, Phi3Model, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast

from st_modules.backbones.phi3_v_vision import PictureEmbedding

_TEXT_FIELDS = frozenset(field.name for field in dataclasses.fields(Phi3Config)) - frozenset(
    field.name for field in dataclasses.fields(PreTrainedConfig)
)
_SHORT, _LONG = "original_max_position_embeddings", "max_position_embeddings"
_ROPE_TYPES = ("su", "longrope")
"""Names of the one type that the published models have."""
_OLD_FIELDS = frozenset({"rope_scaling", "rope_theta"})


class Phi3VConfig(PreTrainedConfig):
    """The configuration of a language model and a vision tower; the published files have that of the first alone.

    Args:
        text_config: That of the language model; ``None`` where its fields stand beside it, as in published files.
        vision_config: That of the vision tower.
    """

    model_type = "phi3_v"
    sub_configs_defaults: ClassVar[dict[str, Any]] = {"text_config": Phi3Config, "vision_config": CLIPVisionConfig}

    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vision_config: dict[str, Any] | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # Code of a repository, which is not run.
        kwargs.pop("auto_map", None)
        if self.text_config is None:
            fields = {name: kwargs.pop(name) for name in kwargs.keys() & (_TEXT_FIELDS | _OLD_FIELDS)}
            self.text_config = _read_published(fields)
        super().__post_init__(**kwargs)
        text: Any = self.text_config
        # Attention within so many tokens is attention to all of them.
        if text.sliding_window is not None and text.sliding_window >= text.max_position_embeddings:
            text.sliding_window = None

    @property
    def image_token_id(self) -> int | None:
        """What stands in the place of a picture's tokens: padding, which is nowhere else among the tokens of a row."""
        return cast(Any, self.text_config).pad_token_id


class Phi3VModel(PreTrainedModel):
    """Phi-3-V without a language-modelling head."""

    config_class = Phi3VConfig
    config: Phi3VConfig
    base_model_prefix = ""
    input_modalities = ["image", "text"]
    supports_gradient_checkpointing = True
    _no_split_modules = ["Phi3DecoderLayer", "CLIPEncoderLayer"]
    # The head, and a second name of the language model's embeddings.
    _keys_to_ignore_on_load_unexpected = [r"^lm_head\.weight$", r"^(model\.)?vision_embed_tokens\.wte\.weight$"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_flash_attn = True
    _supports_sdpa = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    language_model: Phi3Model

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.language_model = Phi3Model._from_config(text)
        self.vision_embed_tokens = PictureEmbedding(cast(CLIPVisionConfig, config.vision_config), text.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_sizes: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """Run the language model over texts and pictures.

        Args:
            input_ids: Shape (rows, tokens).
            attention_mask: 1 for tokens and 0 for padding, of the same shape; another shape is the language model's own
                affair.
            position_ids: The same shape.
            pixel_values: The pictures' tiles, in the order of their places; see :class:`PictureEmbedding`.
            image_sizes: Rows and columns of their tiles.
            **kwargs: For the language model.

        Returns:
            What the language model returns.
        """
        embeddings = self.language_model.get_input_embeddings()(input_ids)
        if pixel_values is not None and image_sizes is not None:
            places = input_ids == self.config.image_token_id
            if attention_mask is not None and attention_mask.shape == input_ids.shape:
                places &= attention_mask.bool()
            pictures = self.vision_embed_tokens(pixel_values, image_sizes)
            embeddings = torch.index_put(embeddings, (places,), pictures.to(embeddings.dtype))
        return self.language_model(
            inputs_embeds=embeddings, attention_mask=attention_mask, position_ids=position_ids, **kwargs
        )


def _read_published(fields: dict[str, Any]) -> dict[str, Any]:
    """Turn the fields of published files into those that ``Phi3Config`` takes.

    Raises:
        ValueError: Positions are of a type that the models' own code does otherwise than ``Phi3Config``, or not at all.
    """
    rope, short, long = (fields.get(name) for name in ("rope_scaling", _SHORT, _LONG))
    if isinstance(rope, dict) and (found := rope.get("rope_type", rope.get("type"))) not in _ROPE_TYPES:
        raise ValueError(f"rope_scaling.type is {found!r}, and one of {', '.join(_ROPE_TYPES)} is needed")
    if isinstance(rope, dict) and short and long:
        fields["rope_scaling"] = {_SHORT: short, "factor": long / short, **rope}
    return fields
