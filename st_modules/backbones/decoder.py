"""What the language-model backbones share: image tokens among the text, and pooling of a row's last token."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from transformers import BaseImageProcessor, PreTrainedModel

from st_modules.backbones.base import Backbone
from st_modules.backbones.packing import PackedRows, Packing, allow_packing, take_recorded, takes_packed
from st_modules.backbones.prefixes import KeptPrefixes, PrefixState, PrefixStates
from st_modules.backbones.rows import Row
from st_modules.errors import CheckpointError, InputError
from st_modules.inputs.items import Item
from st_modules.inputs.limits import ImageLimits
from st_modules.prompts.templates import Side
from st_modules.prompts.tokenizer import SegmentTokenizer

logger = logging.getLogger(__name__)


class DecoderBackbone(Backbone):
    """A vision-language model whose embedding is the last hidden state of each row's last token.

    Args:
        model: The transformer without its language-modelling head, vision tower included.
        segment_tokenizer: Turns rendered items into token ids.
        image_processor: Turns images into the pixel features of the model.
        template: Name of the layout in ``st_modules.prompts.templates``.
        max_length: Longest row in tokens; ``None`` is the longest that the language model was made for.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.

    Raises:
        CheckpointError: Tokenizer and model disagree about the image token.
    """

    visual_features: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        model: PreTrainedModel,
        segment_tokenizer: SegmentTokenizer,
        image_processor: BaseImageProcessor,
        *,
        template: str,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        text_config = model.config.get_text_config()
        super().__init__(
            model,
            segment_tokenizer,
            image_processor,
            template,
            text_config.max_position_embeddings,
            max_length,
            image_limits,
        )
        self._kept_prefixes: KeptPrefixes | None = None
        allow_packing(model.language_model)
        if model.config.image_token_id not in segment_tokenizer.image_ids:
            raise CheckpointError(
                f"config.json names token {model.config.image_token_id} as the image token, which is not the "
                "tokenizer's control token for images. Use the tokenizer files of the model's repository."
            )
        if self.takes_video and model.config.video_token_id not in segment_tokenizer.video_ids:
            raise CheckpointError(
                f"config.json names token {model.config.video_token_id} as the video token, which is not the "
                "tokenizer's control token for videos. Use the tokenizer files of the model's repository."
            )

    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""
        return self.model.get_input_embeddings().weight.shape[1]

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, side: Side | None = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; see :meth:`Backbone.plan`."""
        rows = super().plan(items, prompt, side, max_length)
        for item, row in zip(items, rows, strict=True):
            if not row.ids:
                raise InputError("an empty text is no token at all to this model; leave it out.", item.place)
        return rows

    @property
    def packs(self) -> bool:
        """Whether rows may lie end to end: not where the attention is another than the plain causal one."""
        return takes_packed(self.model.language_model)

    @property
    def keep_prefixes(self) -> bool:
        """Whether the keys and values of what rows begin with outlive a call; ``False`` once the model is trained."""
        if take_recorded(self.model.language_model):
            self._stop_keeping_prefixes()
        return self._kept_prefixes is not None

    @keep_prefixes.setter
    def keep_prefixes(self, value: bool) -> None:
        take_recorded(self.model.language_model)
        self._kept_prefixes = KeptPrefixes() if value else None

    def prefix_states(self) -> PrefixStates:
        """Return where the keys and values of what the rows of a call begin with are looked up, and go."""
        if not self.keep_prefixes or self._kept_prefixes is None:
            return PrefixStates()
        return self._kept_prefixes.find([self.model, *self.model.language_model.modules()])

    def train(self, mode: bool = True) -> Self:
        """Set the module in training mode, which says that the weights are fixed no longer, or in evaluation mode."""
        if mode:
            self._stop_keeping_prefixes()
        return super().train(mode)

    def _stop_keeping_prefixes(self) -> None:
        if self._kept_prefixes is not None:
            self._kept_prefixes = None
            logger.warning("keep_prefixes is off from here on, since the model is trained.")

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the transformer and pool each row's last token.

        Args:
            features: What :meth:`collate` returned, on the model's device; with ``packing``, a :class:`Packing` of its
                rows, they run without their padding, and with ``pruned`` the last layer for their last tokens alone.
            **kwargs: Not used.

        Returns:
            The features with ``sentence_embedding`` of shape (rows, dimension) and, where nothing is packed,
            ``token_embeddings`` of shape (rows, tokens, dimension), in the model's precision.
        """
        if "packing" in features:
            features["sentence_embedding"] = self._embed_packed(
                features, features["packing"], features.get("pruned", False)
            )
            return features
        mask = features["attention_mask"]
        hidden = self.model(
            input_ids=features["input_ids"],
            attention_mask=mask,
            position_ids=self.position_ids(features),
            use_cache=False,
            **self.visual_inputs(features),
        ).last_hidden_state
        last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
        features["token_embeddings"] = hidden
        features["sentence_embedding"] = hidden[torch.arange(len(hidden), device=hidden.device), last]
        return features

    def _embed_packed(self, features: dict[str, Any], packing: Packing, pruned: bool) -> torch.Tensor:
        """Run rows without their padding, after the beginning that they share."""
        tokens = features["attention_mask"].bool()
        prefix = self._run_prefix(packing)
        hidden = self.model(
            input_ids=features["input_ids"][tokens][None],
            # The model passes a mask of four dimensions on as it is, and packed attention reads none.
            attention_mask=tokens.new_ones(1, 1, 1, 1),
            position_ids=self.position_ids(features)[..., tokens].unsqueeze(-2) + prefix.end,
            use_cache=False,
            packed=PackedRows(packing.lengths, prefix.layers, packing.last if pruned else None),
            **self.visual_inputs(features),
        ).last_hidden_state[0]
        return hidden if pruned else hidden[packing.last]

    def _run_prefix(self, packing: Packing) -> PrefixState:
        """Return the state of the beginning that rows share, which is run where it was not yet."""
        prefix, device = packing.prefix, self.model.device

        def run() -> PrefixState:
            ids = torch.tensor([prefix], device=device)
            seen = packing.read(packing.visuals) if packing.visuals else {}
            features = {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                **{name: tensor.to(device) for name, tensor in seen.items()},
            }
            positions = self.position_ids(features)
            # By its place in the output: its name differs between releases of transformers.
            cache = self.model(input_ids=ids, position_ids=positions, use_cache=True, **self.visual_inputs(features))[1]
            return PrefixState([(layer.keys, layer.values) for layer in cache.layers], int(positions.max()) + 1)

        return packing.states.get(prefix, run, packing.visuals) if prefix else PrefixState([], 0)

    def visual_inputs(self, features: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments by which the model gets a batch's images."""
        return {name: features[name] for name in self.visual_features if len(features.get(name, ()))}

    def position_ids(self, features: dict[str, Any]) -> torch.Tensor:
        """Return the positions of a batch's tokens, counted one by one in each row: shape (rows, tokens), int64."""
        return (features["attention_mask"].cumsum(-1) - 1).clamp(min=0)
