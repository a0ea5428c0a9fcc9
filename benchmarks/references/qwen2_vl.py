"""Qwen2-VL as the authors of GME and of VLM2Vec run it."""

from __future__ import annotations

import math
import warnings
from abc import abstractmethod
from typing import Any, ClassVar

import torch
from checkpoints import Files
from peft import PeftModel
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from workloads import MAX_IMAGE_TOKENS, MIN_IMAGE_TOKENS

from references.base import Images, Reference, Texts

_SIDE = 28
_IMAGE = "<|image_pad|>"


class Qwen2VLReference(Reference):
    """Qwen2-VL with positions counted one by one, and pooling of the last token.

    Args:
        files: The checkpoint.
        max_image_tokens: Most tokens of an image.
    """

    max_length: ClassVar[int | None] = None

    def __init__(self, files: Files, max_image_tokens: int = MAX_IMAGE_TOKENS) -> None:
        folder = files.base or files.weights
        self.model = self._load(files).model.eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, padding_side="right")
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(
            folder,
            do_convert_rgb=False,
            min_pixels=MIN_IMAGE_TOKENS * _SIDE**2,
            max_pixels=max_image_tokens * _SIDE**2,
        )

    def _load(self, files: Files) -> Any:
        return Qwen2VLForConditionalGeneration.from_pretrained(files.weights, dtype=torch.float32)

    @abstractmethod
    def string(self, text: str | None, has_image: bool, prompt: str | None) -> str:
        """Return the whole string of an item, with one image token."""

    def prepare(self, image: Image.Image) -> Image.Image:
        """Return the image that the processor gets."""
        return image.convert("RGB")

    def embed(self, texts: Texts, images: Images, prompt: str | None) -> torch.Tensor:
        """Embed one batch; see :meth:`Reference.embed`."""
        strings = [self.string(text, image is not None, prompt) for text, image in zip(texts, images, strict=True)]
        pixels: Any = {}
        if prepared := [self.prepare(image) for image in images if image is not None]:
            pixels = self.processor(prepared, return_tensors="pt")
            counts = iter((pixels["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist())
            strings = [
                string.replace(_IMAGE, _IMAGE * next(counts)) if _IMAGE in string else string for string in strings
            ]
        features = self.tokenizer(
            strings,
            padding=True,
            truncation=self.max_length is not None,
            max_length=self.max_length,
            return_tensors="pt",
        )
        mask = features["attention_mask"]
        hidden = self.model(
            input_ids=features["input_ids"],
            attention_mask=mask,
            position_ids=torch.arange(mask.shape[1])[None].expand(len(mask), -1),
            use_cache=True,
            **pixels,
        ).last_hidden_state
        return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]


class GMEReference(Qwen2VLReference):
    """``gme_inference.py`` of the model repositories."""

    max_length = 1800

    def string(self, text: str | None, has_image: bool, prompt: str | None) -> str:
        """Return a chat turn with the instruction as its system text."""
        image = f"<|vision_start|>{_IMAGE}<|vision_end|>" if has_image else ""
        return (
            f"<|im_start|>system\n{prompt or 'You are a helpful assistant.'}<|im_end|>\n"
            f"<|im_start|>user\n{image}{text or ''}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        )

    def prepare(self, image: Image.Image) -> Image.Image:
        """Resize an image to multiples of 28 pixels, with an area of 4 to 16384 squares of them."""
        image = image.convert("RGB")
        width, height = (max(_SIDE, round(length / _SIDE) * _SIDE) for length in image.size)
        fewest, most = 4 * _SIDE**2, 16384 * _SIDE**2
        if width * height > most:
            scale = math.sqrt(image.width * image.height / most)
            width, height = (math.floor(length / scale / _SIDE) * _SIDE for length in image.size)
        elif width * height < fewest:
            scale = math.sqrt(fewest / (image.width * image.height))
            width, height = (math.ceil(length * scale / _SIDE) * _SIDE for length in image.size)
        return image.resize((width, height))


class VLM2VecReference(Qwen2VLReference):
    """The usage that VLM2Vec's model card shows, whose processor takes texts and images in one batch."""

    mixes = True

    def string(self, text: str | None, has_image: bool, prompt: str | None) -> str:
        """Return image, instruction and text, with a space between them."""
        if has_image and text is None and not prompt:
            prompt = "Represent the given image."
        return " ".join(part for part in (_IMAGE if has_image else None, prompt, text) if part)

    def _load(self, files: Files) -> Any:
        base = Qwen2VLForConditionalGeneration.from_pretrained(files.base, dtype=torch.float32)
        with warnings.catch_warnings():
            # PEFT asks a model of transformers for a property that has a new name.
            warnings.simplefilter("ignore", FutureWarning)
            adapted: Any = PeftModel.from_pretrained(
                base, str(files.weights), key_mapping={r"^model\.layers": "model.language_model.layers"}
            )
        return adapted.merge_and_unload()
