"""Qwen3-VL-Reranker's strings through stock Qwen3-VL with its head, put together by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen3VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
SYSTEM = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct "
    'provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>'
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n"


class Stock:
    """One pair at a time through transformers' own model of generation, whose whole head is run.

    Pictures must have a size that needs no resize.
    """

    def __init__(self, folder: Path) -> None:
        loader: Any = Qwen3VLForConditionalGeneration
        self.model: Any = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.plain = PreTrainedTokenizerFast.from_pretrained(folder, split_special_tokens=True)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder, do_resize=False)

    @torch.no_grad()
    def logit(
        self,
        query: tuple[str, list[Image.Image]],
        document: tuple[str, list[Image.Image]],
        instruction: str = INSTRUCTION,
    ) -> float:
        """Return the logit of yes less that of no, for the text and the pictures of each side."""
        pictures = query[1] + document[1]
        pixels: Any = self.processor(pictures, return_tensors="pt") if pictures else {}
        blocks = [
            f"<|vision_start|>{'<|image_pad|>' * (int(grid.prod()) // 4)}<|vision_end|>"
            for grid in pixels.get("image_grid_thw", ())
        ]
        asked, read = "".join(blocks[: len(query[1])]), "".join(blocks[len(query[1]) :])
        # What users wrote is read by a tokenizer that knows no control tokens; it is together what stands between them.
        ids = self._ids(SYSTEM, control=True)
        written = f"user\n<Instruct>: {instruction}<Query>:"
        for block, text in ((asked, f"{query[0]}\n<Document>:"), (read, document[0])):
            if block:
                ids += self._ids(written, control=False) + self._ids(block, control=True)
                written = ""
            written += text
        ids += self._ids(written, control=False) + self._ids(TAIL, control=True)
        row = torch.tensor([ids])
        self.model.model.rope_deltas = None
        kinds = (row == self.model.config.image_token_id).int()
        logits = self.model(input_ids=row, mm_token_type_ids=kinds, **pixels).logits[0, -1]
        yes, no = self.tokenizer.convert_tokens_to_ids(["yes", "no"])
        return float(logits[yes] - logits[no])

    def _ids(self, text: str, *, control: bool) -> list[int]:
        tokenizer = self.tokenizer if control else self.plain
        return tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
