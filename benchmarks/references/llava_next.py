"""LLaVA-NeXT as the authors of BGE-VL-MLLM run it."""

from __future__ import annotations

from typing import Any

import torch
from checkpoints import Files
from transformers import LlavaNextForConditionalGeneration, LlavaNextProcessor, PreTrainedTokenizerFast
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from references.base import Images, Reference, Texts

_SQUARE = (512, 512)


class BGEVLMLLMReference(Reference):
    """The published class's ``data_process``, and the last position of rows that are padded on the left."""

    def __init__(self, files: Files) -> None:
        loaded: Any = LlavaNextForConditionalGeneration.from_pretrained(files.weights, dtype=torch.float32)
        self.model = loaded.model.eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(files.weights, padding_side="left")
        self.processor: Any = LlavaNextProcessor(
            image_processor=LlavaNextImageProcessorPil.from_pretrained(files.weights, do_convert_rgb=False),
            tokenizer=self.tokenizer,
            patch_size=self.model.config.vision_config.patch_size,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            image_token="<image>",
        )

    def embed(self, texts: Texts, images: Images, prompt: str | None) -> torch.Tensor:
        """Embed one batch; see :meth:`Reference.embed`."""
        pictures = [image.resize(_SQUARE).convert("RGB") for image in images if image is not None]
        strings = [_string(text, image is not None, prompt) for text, image in zip(texts, images, strict=True)]
        features = self.processor(text=strings, images=pictures or None, padding=True, return_tensors="pt")
        return self.model(**features, use_cache=True).last_hidden_state[:, -1]


def _string(text: str | None, has_image: bool, prompt: str | None) -> str:
    """``prepare_text_input``: an instruction makes a query, and its uneven spaces are the authors'."""
    body = ("" if text is None else f"{text} \n ") + ("<image> " if has_image else "")
    if prompt is None:
        return f"[INST]  {body}[/INST]"
    return f"[INST] \n <instruct> {prompt} <query>  {body}[/INST]"
