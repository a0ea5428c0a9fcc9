"""CLIP as the authors of BGE-VL-CLIP run it."""

from __future__ import annotations

from typing import Any

import torch
from checkpoints import Files
from transformers import CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from references.base import Images, Reference, Texts


class CLIPReference(Reference):
    """The published class's ``encode``: the features of a text and of an image are added."""

    def __init__(self, files: Files) -> None:
        self.model = CLIPModel.from_pretrained(files.weights, dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(files.weights)
        self.processor = CLIPImageProcessorPil.from_pretrained(files.weights, do_convert_rgb=False)

    def embed(self, texts: Texts, images: Images, prompt: str | None) -> torch.Tensor:
        """Embed one batch; see :meth:`Reference.embed`."""
        features: list[Any] = []
        if strings := [(prompt or "") + text for text in texts if text is not None]:
            features.append(self.model.get_text_features(**self.tokenizer(strings, padding=True, return_tensors="pt")))
        if pictures := [image.convert("RGB") for image in images if image is not None]:
            features.append(self.model.get_image_features(**self.processor(pictures, return_tensors="pt")))
        return torch.stack([each.pooler_output for each in features]).sum(0)
