"""Qwen3-VL as the authors of Qwen3-VL-Embedding run it."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

import torch
from checkpoints import Files
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen3VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from workloads import MAX_IMAGE_TOKENS, MIN_IMAGE_TOKENS

from references.base import Images, Reference, Texts

_SIDE = 32
_IMAGE = "<|image_pad|>"


class Qwen3VLEmbeddingReference(Reference):
    """``Qwen3VLEmbedder`` of the authors' repository: any items in a batch, padded on the right.

    Args:
        files: The checkpoint.
    """

    mixes = True

    def __init__(self, files: Files) -> None:
        self.model = Qwen3VLModel.from_pretrained(files.weights, dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(files.weights, padding_side="right")
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(files.weights, do_convert_rgb=False, do_resize=False)

    def embed(self, texts: Texts, images: Images, prompt: str | None) -> torch.Tensor:
        """Embed one batch; see :meth:`Reference.embed`."""
        strings = [_write(text, image is not None, prompt) for text, image in zip(texts, images, strict=True)]
        pixels: Any = {}
        if prepared := [_resize(image.convert("RGB")) for image in images if image is not None]:
            pixels = self.processor(prepared, return_tensors="pt")
            counts = iter((pixels["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist())
            strings = [
                string.replace(_IMAGE, _IMAGE * next(counts)) if _IMAGE in string else string for string in strings
            ]
        features = self.tokenizer(strings, padding=True, truncation=True, max_length=8192, return_tensors="pt")
        ids, mask = features["input_ids"], features["attention_mask"]
        self.model.rope_deltas = None
        hidden = self.model(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=(ids == self.model.config.image_token_id).int(),
            **pixels,
        ).last_hidden_state
        return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]


def _write(text: str | None, has_image: bool, prompt: str | None) -> str:
    """Return a chat turn with the instruction as its system text."""
    system = (prompt or "").strip() or "Represent the user's input."
    system += "" if unicodedata.category(system[-1]).startswith("P") else "."
    image = f"<|vision_start|>{_IMAGE}<|vision_end|>" if has_image else ""
    return (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{image}{text or ''}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def _resize(image: Image.Image) -> Image.Image:
    """Resize an image to multiples of 32 pixels, within the bounds of the workloads, as qwen-vl-utils does."""
    fewest, most = MIN_IMAGE_TOKENS * _SIDE**2, MAX_IMAGE_TOKENS * _SIDE**2
    width, height = (max(_SIDE, round(length / _SIDE) * _SIDE) for length in image.size)
    if width * height > most:
        scale = math.sqrt(image.width * image.height / most)
        width, height = (math.floor(length / scale / _SIDE) * _SIDE for length in image.size)
    elif width * height < fewest:
        scale = math.sqrt(fewest / (image.width * image.height))
        width, height = (math.ceil(length * scale / _SIDE) * _SIDE for length in image.size)
    return image.resize((width, height))
