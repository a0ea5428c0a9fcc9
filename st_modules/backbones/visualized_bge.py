"""Visualized-BGE: a BGE text encoder that reads an image's patches as tokens before the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image as PILImage
from PIL.Image import Resampling
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedModel,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizer,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from typing_extensions import Self

from st_modules.backbones.base import Backbone, loading_kwargs, scaled_size
from st_modules.backbones.eva02 import EVA02, EVA02Shape
from st_modules.backbones.visualized_bge_weights import upstream_weights
from st_modules.checkpoints import cast_parameters, check_model_type, load_model, refuse_misfits
from st_modules.errors import CheckpointError
from st_modules.images import ImageLimits, ImageSource, to_rgb
from st_modules.templates import TEMPLATES
from st_modules.tokens import SegmentEncoder

_TEXT_MODELS: dict[str, tuple[Any, Any, Any]] = {
    "bert": (BertConfig, BertModel, BertTokenizer),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaModel, XLMRobertaTokenizer),
}
_WEIGHTS_FILE = "model.safetensors"


class FusedEncoder(nn.Module):
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

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixels: Tensor | None, has_image: Tensor) -> Tensor:
        """Return the last hidden states of rows whose image tokens are placeholders.

        Args:
            input_ids: Token ids of shape (rows, tokens).
            attention_mask: 1 for tokens, 0 for padding, of the same shape.
            pixels: Normalised images of shape (images, 3, side, side).
            has_image: Which rows have an image, in the images' order: shape (rows,), bool.

        Returns:
            Hidden states of shape (rows, tokens, dimension).
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
        encoder: Turns rendered items into token ids.
        template: Name of the layout in ``st_modules.templates``.
        max_length: Longest row in tokens, image tokens included; longer rows lose the end of their text, never the
            end token.
        image_limits: What an image may cost; see :class:`st_modules.images.ImageLimits`.
    """

    config_keys: list[str] = [*Backbone.config_keys, "heads"]
    model: FusedEncoder
    image_processor: CLIPImageProcessorPil

    def __init__(
        self,
        model: FusedEncoder,
        encoder: SegmentEncoder,
        *,
        template: str,
        max_length: int | None = None,
        image_limits: ImageLimits | None = None,
    ) -> None:
        positions = model.text.config.max_position_embeddings - model.position_offset
        scale_only = CLIPImageProcessorPil(do_resize=False, do_center_crop=False, do_convert_rgb=False)
        super().__init__(model, encoder, scale_only, template, positions, max_length, image_limits)

    @property
    def heads(self) -> int:
        """Attention heads of the vision tower, which its weights do not tell."""
        return self.model.tower.shape.heads

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

    def pixel_features(self, images: Sequence[ImageSource]) -> Mapping[str, Tensor]:
        """Read images, and scale and crop them to the tower's square.

        Returns:
            ``pixel_values`` of shape (images, 3, side, side), float32.
        """
        return self.image_processor([self._read(image) for image in images], return_tensors="pt")

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
            The features with ``token_embeddings`` of shape (rows, tokens, dimension) and ``sentence_embedding`` of
            shape (rows, dimension), in the model's precision.
        """
        hidden = self.model(
            features["input_ids"],
            features["attention_mask"],
            features.get("pixel_values"),
            features["num_images_per_sample"] > 0,
        )
        features["token_embeddings"] = hidden
        features["sentence_embedding"] = hidden[:, 0]
        return features

    def _limit(self, max_length: int | None, has_image: bool) -> int:
        # A row with an image counts from 0, so that it has the positions too that a row of text leaves out.
        limit = super()._limit(max_length, has_image)
        return limit + self.model.position_offset if has_image and limit == self.positions else limit

    def save_weights(self, output_path: str) -> None:
        """Write the weights and the text encoder's ``config.json`` to a folder."""
        weights = {name: tensor.contiguous() for name, tensor in self.model.state_dict().items()}
        save_file(weights, Path(output_path) / _WEIGHTS_FILE, metadata={"format": "pt"})
        self.model.text.config.save_pretrained(output_path)

    @classmethod
    def from_checkpoint(
        cls,
        folder: Path,
        base: Path | None = None,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        device: str | None = None,
        heads: int = 0,
        **options: Any,
    ) -> Self:
        """Build the module; see :meth:`Backbone.from_checkpoint`.

        Args:
            folder: The authors' ``.pth`` file, or a folder that :meth:`save` wrote.
            base: Folder with the text model's ``config.json`` and tokenizer, for a ``.pth`` file.
            model_kwargs: ``dtype`` and ``attn_implementation``.
            config_kwargs: Values that take the place of those in ``config.json``.
            device: Where the model will run, which decides the precision where ``model_kwargs`` does not.
            heads: Attention heads of the vision tower, for a saved folder.
            **options: The constructor's keyword arguments.
        """
        files = base or folder
        config_class, model_class, tokenizer_class = _TEXT_MODELS[check_model_type(files, *_TEXT_MODELS)]
        kwargs = loading_kwargs(model_kwargs, device)
        if refused := kwargs.keys() - {"dtype", "attn_implementation"}:
            raise ValueError(f"model_kwargs {sorted(refused)}: this model takes dtype and attn_implementation only.")
        if base:
            weights, heads = upstream_weights(folder)
        else:
            weights = _saved_weights(folder / _WEIGHTS_FILE)
        text = load_model(
            model_class,
            folder,
            state_dict=_under("text.", weights),
            config=config_class.from_pretrained(files, **(config_kwargs or {})),
            add_pooling_layer=False,
            **kwargs,
        )
        try:
            shape = EVA02Shape.of(_under("tower.", weights), heads)
        except KeyError as error:
            raise CheckpointError(
                f"{folder}: the weights do not fit the model. missing: tower.{error.args[0]}."
            ) from error
        vision = nn.ModuleDict({"tower": EVA02(shape), "projection": nn.Linear(shape.width, text.config.hidden_size)})
        _fill(vision, {name: weight for name, weight in weights.items() if not name.startswith("text.")}, folder)
        cast_parameters(vision, text.dtype)
        model = FusedEncoder(text, vision["tower"], vision["projection"]).eval()
        return cls(model, SegmentEncoder(files, tokenizer_class, TEMPLATES[options["template"]]), **options)


def _saved_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise CheckpointError(f"{path}: cannot be read ({error}).") from error


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _fill(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module, each of its own and no other."""
    needed = module.state_dict()
    refuse_misfits(
        path,
        missing=set(needed.keys() - weights.keys()),
        unexpected=set(weights.keys() - needed.keys()),
        misshapen={
            f"{name} ({list(weights[name].shape)} in the file, {list(needed[name].shape)} in the model)"
            for name in needed.keys() & weights.keys()
            if weights[name].shape != needed[name].shape
        },
    )
    module.load_state_dict(weights)
