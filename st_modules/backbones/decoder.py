"""What the language-model backbones share: image tokens among the text, and pooling of a row's last token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from transformers import BaseImageProcessor, PreTrainedModel

from st_modules.backbones.base import Backbone, Row
from st_modules.errors import CheckpointError, InputError
from st_modules.images import ImageLimits
from st_modules.inputs import Item
from st_modules.templates import Task
from st_modules.tokens import SegmentEncoder


class DecoderBackbone(Backbone):
    """A vision-language model whose embedding is the last hidden state of each row's last token.

    Args:
        model: The transformer without its language-modelling head, vision tower included.
        encoder: Turns rendered items into token ids.
        image_processor: Turns images into the pixel features of the model.
        template: Name of the layout in ``st_modules.templates``.
        max_length: Longest row in tokens; ``None`` is the longest that the language model was made for.
        image_limits: What an image may cost; see :class:`st_modules.images.ImageLimits`.

    Raises:
        CheckpointError: Tokenizer and model disagree about the image token.
    """

    visual_features: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: PreTrainedModel,
        encoder: SegmentEncoder,
        image_processor: BaseImageProcessor,
        *,
        template: str,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        text_config = model.config.get_text_config()
        super().__init__(
            model,
            encoder,
            image_processor,
            template,
            text_config.max_position_embeddings,
            max_length,
            image_limits,
        )
        if model.config.image_token_id not in encoder.image_ids:
            raise CheckpointError(
                f"config.json names token {model.config.image_token_id} as the image token, which is not the "
                "tokenizer's control token for images. Use the tokenizer files of the model's repository."
            )

    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""
        return self.model.get_input_embeddings().embedding_dim

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, task: Task = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; see :meth:`Backbone.plan`."""
        rows = super().plan(items, prompt, task, max_length)
        for item, row in zip(items, rows, strict=True):
            if not row.ids:
                raise InputError(f"item {item.index}: an empty text is no token at all to this model; leave it out.")
        return rows

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
            position_ids=self.position_ids(features),
            use_cache=False,
            **{name: features[name] for name in self.visual_features if len(features.get(name, ()))},
        ).last_hidden_state
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        features["token_embeddings"] = hidden
        features["sentence_embedding"] = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return features

    def position_ids(self, features: dict[str, Any]) -> torch.Tensor:
        """Return the positions of a batch's tokens, counted one by one in each row: shape (rows, tokens), int64."""
        return (features["attention_mask"].cumsum(-1) - 1).clamp(min=0)
