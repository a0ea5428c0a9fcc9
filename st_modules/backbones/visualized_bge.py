"""Visualized-BGE: a BGE text encoder that reads an image's patches as tokens before the text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPImageProcessorPil,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)

from st_modules.arguments import check_choice, check_integer
from st_modules.backbones.architecture import Towers
from st_modules.backbones.attention import KeysAndValues, split_heads
from st_modules.backbones.base import Backbone
from st_modules.backbones.clip_sizes import scaled_size
from st_modules.backbones.eva02 import EVA02, EVA02Shape
from st_modules.backbones.pruning import allow_pruning, pooling_arguments
from st_modules.backbones.visualized_bge_weights import upstream_weights
from st_modules.checkpoints.adapters import without_adapters
from st_modules.checkpoints.configuration import load_config
from st_modules.checkpoints.locate import Checkpoint
from st_modules.checkpoints.weights import cast_parameters, check_model_type, load_pretrained, refuse_other_weights
from st_modules.errors import CheckpointError
from st_modules.inputs.image_conversion import to_rgb
from st_modules.inputs.images import ImageSource
from st_modules.inputs.limits import ImageLimits
from st_modules.prompts.templates import TEMPLATES
from st_modules.prompts.tokenizer import SegmentTokenizer

_TEXT_MODELS: dict[str, tuple[Any, Any, Any]] = {
    "bert": (BertConfig, BertModel, BertTokenizer),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer),
}
_WEIGHTS_FILE = "model.safetensors"


class FusedModel(nn.Module):
    """The three parts of a Visualized-BGE model.

    Args:
        text: The text encoder, without a pooler.
        tower: The vision tower.
        projection: From the tower's width to the text encoder's.
    """

    text: Any
    tower: Any
    projection: Any

    def __init__(self, text: PreTrainedModel, tower: nn.Module, projection: nn.Module) -> None:
        super().__init__()
        self.text = text
        self.tower = tower
        self.projection = projection
        allow_pruning(self.text, self.text.encoder.layer[-1], _keys_and_values)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixels: Tensor | None,
        has_image: Tensor,
        *,
        prune: bool = False,
    ) -> Tensor:
        """Return the last hidden states of rows whose image tokens are placeholders.

        Args:
            input_ids: Token ids of shape (rows, tokens).
            attention_mask: 1 for tokens, 0 for padding, of the same shape.
            pixels: Normalised images of shape (images, 3, side, side).
            has_image: Which rows have an image, in the images' order: shape (rows,), bool.
            prune: Whether the last layer runs for the rows' first tokens alone.

        Returns:
            Hidden states of shape (rows, tokens, dimension); with ``prune`` only those of first tokens are right.
        """
        embeddings = self.text.embeddings
        hidden = embeddings.word_embeddings(input_ids)
        if has_image.any():
            # An image token has no token type; the encoder adds the first one to every token.
            patches = self.projection(self.tower(pixels)) - embeddings.token_type_embeddings.weight[0]
            rows = has_image.nonzero()
            places = torch.arange(1, 1 + patches.shape[1], device=hidden.device)
            hidden = hidden.index_put((rows, places[None]), patches.to(hidden.dtype))
        positions = torch.arange(input_ids.shape[1], device=hidden.device) + self.position_offset * ~has_image[:, None]
        return self.text(
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            position_ids=positions.clamp(max=self.text.config.max_position_embeddings - 1),
            **(pooling_arguments(self.text, input_ids.new_zeros(len(input_ids))) if prune else {}),
        ).last_hidden_state

    @property
    def position_offset(self) -> int:
        """First position of a row of text: XLM-RoBERTa keeps the first ones free, BERT does not.

        A row with an image starts at 0 in the authors' code, on either.
        """
        padding = self.text.embeddings.position_embeddings.padding_idx
        return 0 if padding is None else padding + 1


class VisualizedBGE(Backbone):
    """Visualized-BGE on BERT or XLM-RoBERTa; the embedding is the last hidden state of the first token.

    Args:
        model: Text encoder, vision tower and the projection between them.
        segment_tokenizer: Turns rendered items into token ids.
        template: Name of the layout in ``st_modules.prompts.templates``.
        max_length: Longest row in tokens, image tokens included; longer rows lose the end of their text, never the
            end token.
        image_limits: What an image may cost; see :class:`st_modules.ImageLimits`.
    """

    config_keys: list[str] = [*Backbone.config_keys, "text_model", "head_dim"]
    identity_keys = [*Backbone.identity_keys, "text_model"]
    towers = Towers("text", "tower")
    model: FusedModel
    image_processor: CLIPImageProcessorPil

    def __init__(
        self,
        model: FusedModel,
        segment_tokenizer: SegmentTokenizer,
        *,
        template: str,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        positions = model.text.config.max_position_embeddings - model.position_offset
        scale_only = CLIPImageProcessorPil(do_resize=False, do_center_crop=False, do_convert_rgb=False)
        super().__init__(model, segment_tokenizer, scale_only, template, positions, max_length, image_limits)

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> None:
        """Check options that were saved with a model; see :meth:`Backbone.check_options`."""
        super().check_options(options)
        check_choice("text_model", options.get("text_model"), _TEXT_MODELS)
        check_integer("head_dim", options.get("head_dim"))

    @property
    def text_model(self) -> str:
        """Architecture of the text encoder, as ``config.json`` names it."""
        return self.model.text.config.model_type

    @property
    def head_dim(self) -> int:
        """Size of the vision tower's attention heads, which its weights do not tell."""
        return self.model.tower.shape.width // self.model.tower.shape.heads

    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""
        return self.model.projection.out_features

    def image_tokens(self, image: ImageSource) -> int:
        """Return how many patches an image is, which is the same for every image.

        Raises:
            ImageError: The image cannot be read, or is too elongated to be scaled.
        """
        scaled_size(image, self.model.tower.shape.image_side)
        return self.model.tower.shape.grid**2

    def pixel_features(self, image: ImageSource) -> Mapping[str, Tensor]:
        """Read an image, and scale and crop it to the tower's square.

        Returns:
            ``pixel_values`` of shape (1, 3, side, side), float32.
        """
        return self.image_processor(self._read(image), return_tensors="pt")

    def _read(self, image: ImageSource) -> PILImage:
        """Scale the shorter side, crop the middle, and only then convert to RGB: the order of the authors' code."""
        side = self.model.tower.shape.image_side
        pixels = image.load().resize(scaled_size(image, side), Resampling.BICUBIC)
        left, top = (round((length - side) / 2) for length in pixels.size)
        return to_rgb(pixels.crop((left, top, left + side, top + side)))

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Run the encoder and pool each row's first token.

        Args:
            features: What :meth:`collate` returned, on the model's device.
            **kwargs: Not used.

        Returns:
            The features with ``sentence_embedding`` of shape (rows, dimension) and, for those of :meth:`collate`,
            ``token_embeddings`` of shape (rows, tokens, dimension), in the model's precision.
        """
        hidden = self.model(
            features["input_ids"],
            features["attention_mask"],
            features.get("pixel_values"),
            features["num_images_per_sample"] > 0,
            prune=(prune := features.get("pruned", False)),
        )
        if not prune:
            features["token_embeddings"] = hidden
        features["sentence_embedding"] = hidden[:, 0]
        return features

    def _limit(self, max_length: int | None, has_image: bool) -> int:
        # A row with an image counts from 0, so that it has the positions too that a row of text leaves out.
        limit = super()._limit(max_length, has_image)
        return limit + self.model.position_offset if has_image and limit == self.positions else limit

    def save_weights(self, output_path: str) -> None:
        """Write the weights and the text encoder's ``config.json`` to a folder, those of adapters left out."""
        model = without_adapters(self.model)
        weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, Path(output_path) / _WEIGHTS_FILE, metadata={"format": "pt"})
        model.text.config.save_pretrained(output_path)

    @classmethod
    def _build(
        cls,
        checkpoint: Checkpoint,
        model_kwargs: dict[str, Any],
        config_kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Self:
        """Build the module from the authors' ``.pth`` file and its text model's folder, or from a saved folder."""
        if refused := model_kwargs.keys() - {"dtype", "attn_implementation"}:
            raise ValueError(f"model_kwargs {sorted(refused)}: this model takes dtype and attn_implementation only.")
        path, files = checkpoint.path, checkpoint.base or checkpoint.path
        options = dict(options)
        text_model, head_dim = options.pop("text_model"), options.pop("head_dim", 0)
        check_model_type(files, text_model)
        config_class, model_class, tokenizer_class = _TEXT_MODELS[text_model]
        if checkpoint.base:
            weights, head_dim = upstream_weights(path)
        else:
            weights = _saved_weights(path / _WEIGHTS_FILE)
        text = load_pretrained(
            model_class,
            path,
            state_dict=_under("text.", weights),
            config=load_config(config_class, files, config_kwargs),
            add_pooling_layer=False,
            **model_kwargs,
        )
        vision = _build_vision(
            {name: weights[name] for name in weights if not name.startswith("text.")}, head_dim, text, path
        )
        segment_tokenizer = SegmentTokenizer(files, tokenizer_class, TEMPLATES[options["template"]].render)
        return cls(FusedModel(text, vision["tower"], vision["projection"]).eval(), segment_tokenizer, **options)


def _keys_and_values(layer: Any, hidden: Tensor) -> KeysAndValues:
    attention = layer.attention.self
    return (
        split_heads(attention.key(hidden), attention.attention_head_size),
        split_heads(attention.value(hidden), attention.attention_head_size),
    )


def _build_vision(weights: dict[str, Tensor], head_dim: int, text: PreTrainedModel, path: Path) -> nn.ModuleDict:
    """Build the tower and the projection to the text encoder's width, in its precision, from their weights."""
    source = path if path.is_file() else path / Backbone.config_file_name
    if head_dim < 1 or head_dim % 4:  # pairs turn by the row in one half of a head, by the column in the other
        raise CheckpointError(f"{source}: head_dim={head_dim}, and a multiple of 4 is needed.")
    try:
        shape = EVA02Shape.of(_under("tower.", weights), head_dim)
    except KeyError as error:
        raise CheckpointError(f"{path}: the weights do not fit the model. missing: tower.{error.args[0]}.") from error
    except (ValueError, IndexError) as error:
        raise CheckpointError(f"{path}: the vision tower's weights are of no shape that it can have.") from error
    if shape.width % head_dim:
        raise CheckpointError(
            f"{source}: head_dim={head_dim}, and the vision tower's width of {shape.width} is no multiple."
        )
    with torch.device("meta"):
        vision = nn.ModuleDict({"tower": EVA02(shape), "projection": nn.Linear(shape.width, text.config.hidden_size)})
    _fill(vision, weights, path)
    cast_parameters(vision, text.dtype)
    return vision


def _saved_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module, each of its own and no other."""
    refuse_other_weights(path, weights, module.state_dict())
    module.load_state_dict(weights, assign=True)
