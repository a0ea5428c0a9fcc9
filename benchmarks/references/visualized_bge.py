"""Visualized-BGE on BERT as its authors run it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from checkpoints import Files
from PIL import Image
from torch import Tensor
from torch.nn.functional import linear
from transformers import BertConfig, BertModel, BertTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from references import eva02
from references.base import Images, Reference, Texts

_SIDE = 224


class VisualizedBGEReference(Reference):
    """``Visualized_BGE.encode``: the patches of an image stand between the first token and the text."""

    def __init__(self, files: Files) -> None:
        assert files.base is not None
        weights = torch.load(files.weights, weights_only=True)
        self.model: Any = BertModel(BertConfig.from_pretrained(files.base), add_pooling_layer=False).eval()
        text = {f"embeddings.{name}": weight for name, weight in _under("bge_embeddings.", weights).items()}
        text |= {f"encoder.{name}": weight for name, weight in _under("bge_encoder.", weights).items()}
        self.model.load_state_dict(text, strict=True)
        self.tower = _under("model_visual.visual.", weights)
        self.projection = (weights["visual_proj.weight"], weights["visual_proj.bias"])
        self.tokenizer = BertTokenizer.from_pretrained(files.base)
        self.scale = CLIPImageProcessorPil(do_resize=False, do_center_crop=False, do_convert_rgb=False)

    def embed(self, texts: Texts, images: Images, prompt: str | None) -> Tensor:
        """Embed one batch; see :meth:`Reference.embed`."""
        strings = ["" if text is None else (prompt or "") + text for text in texts]
        features = self.tokenizer(strings, padding=True, return_tensors="pt")
        ids, mask = features["input_ids"], features["attention_mask"]
        pictures = [_square(image) for image in images if image is not None]
        if not pictures:
            return self.model(input_ids=ids, attention_mask=mask).last_hidden_state[:, 0]
        embeddings = self.model.embeddings
        pixels = self.scale(pictures, return_tensors="pt")["pixel_values"]
        patches = linear(eva02.patches(self.tower, pixels), *self.projection)
        words = embeddings.word_embeddings(ids)
        # The encoder adds the first token type to every token, and an image token has none.
        patches = patches - embeddings.token_type_embeddings.weight[0]
        hidden = torch.cat([words[:, :1], patches, words[:, 1:]], dim=1)
        mask = torch.cat([mask[:, :1], torch.ones(patches.shape[:2], dtype=mask.dtype), mask[:, 1:]], dim=1)
        return self.model(inputs_embeds=hidden, attention_mask=mask).last_hidden_state[:, 0]


def _under(prefix: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


def _square(image: Image.Image) -> Image.Image:
    """Scale the shorter side, and cut the middle out: the pixels of torchvision's ``Resize`` and ``CenterCrop``."""
    short = min(image.size)
    width, height = (_SIDE if length == short else int(_SIDE * length / short) for length in image.size)
    scaled = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - _SIDE) / 2), round((height - _SIDE) / 2)
    return scaled.crop((left, top, left + _SIDE, top + _SIDE)).convert("RGB")
