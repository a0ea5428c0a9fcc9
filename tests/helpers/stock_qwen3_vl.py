"""Qwen3-VL-Embedding's strings through stock Qwen3-VL, put together by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedTokenizerFast, Qwen3VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.helpers.paths import GOLDEN

CHECKPOINT = GOLDEN / "qwen3_vl_embedding" / "checkpoint"
SYSTEM = "<|im_start|>system\nRepresent the user's input.<|im_end|>\n<|im_start|>user\n"
TAIL = "<|im_end|>\n<|im_start|>assistant\n"


class Stock:
    """One row at a time through transformers' own model, its own positions and its own DeepStack.

    Pictures and frames must have a size that needs no resize.
    """

    def __init__(self, folder: Path = CHECKPOINT) -> None:
        self.model: Any = Qwen3VLModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        self.processor = Qwen2VLImageProcessorPil.from_pretrained(folder, do_resize=False)

    @torch.no_grad()
    def vector(
        self, text: str, *pictures: Image.Image, clip: Sequence[Image.Image] = (), times: Sequence[str] = ()
    ) -> np.ndarray:
        """Return the embedding of a row.

        Args:
            text: Its text.
            pictures: Its pictures.
            clip: An even number of frames of its video.
            times: What is written before each two of them.
        """
        pixels: Any = self.processor(list(pictures), return_tensors="pt") if pictures else {}
        blocks = [_block("image", grid) for grid in pixels.get("image_grid_thw", ())]
        if clip:
            found: Any = self.processor(list(clip), return_tensors="pt")
            grid = found["image_grid_thw"][0]
            # Each of these frames is there twice; of two of them one step is made.
            first, second = found["pixel_values"].unflatten(0, (-1, 2, grid.prod())).unflatten(-1, (3, 2, -1)).unbind(1)
            steps = torch.stack([first[..., 0, :], second[..., 1, :]], dim=-2)
            blocks = [f"<{time} seconds>{_block('video', grid)}" for time in times] + blocks
            pixels = {
                **pixels,
                "pixel_values_videos": steps.flatten(2).flatten(0, 1),
                "video_grid_thw": torch.tensor([[len(times), *grid[1:]]]),
            }
        ids = self.tokenizer(f"{SYSTEM}{''.join(blocks)}{text}{TAIL}", return_tensors="pt")["input_ids"]
        self.model.rope_deltas = None
        config = self.model.config
        kinds = (ids == config.image_token_id).int() + 2 * (ids == config.video_token_id).int()
        hidden = self.model(input_ids=ids, mm_token_type_ids=kinds, **pixels).last_hidden_state
        return torch.nn.functional.normalize(hidden[0, -1], dim=0).numpy()


def _block(kind: str, grid: torch.Tensor) -> str:
    return f"<|vision_start|>{f'<|{kind}_pad|>' * (int(grid[1:].prod()) // 4)}<|vision_end|>"
