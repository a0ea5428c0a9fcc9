"""Strings of embedders on Qwen2-VL through the stock model, put together from what their authors publish."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Qwen2VLModel
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

from tests.helpers.paths import GOLDEN
from tests.helpers.stock_models import Case, StockModel

CHECKPOINT = GOLDEN / "gme" / "checkpoint"
SYSTEM = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
BLOCK = "<|vision_start|><|image_pad|><|vision_end|>"
TAIL = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
TOKEN = 28 * 28


class StockQwen2VL(StockModel):
    """Pictures as qwen-vl-utils resizes them, and then the image processor; the model counts positions one by one."""

    image_token = "<|image_pad|>"
    control_tokens = (
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|image_pad|>",
        "<|video_pad|>",
    )
    fewest: int
    most: int

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        loaded: Any = Qwen2VLModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
        self.model = loaded.eval()
        # Not by size=, over which the file's own min_pixels and max_pixels would win.
        self.image_processor = Qwen2VLImageProcessorPil.from_pretrained(
            folder, do_convert_rgb=False, min_pixels=self.fewest * TOKEN, max_pixels=self.most * TOKEN
        )
        size = self.image_processor.size
        assert (size["shortest_edge"], size["longest_edge"]) == (self.fewest * TOKEN, self.most * TOKEN)

    def cut(self, pictures: Sequence[Image.Image]) -> Any:
        return self.image_processor(list(pictures), return_tensors="pt")

    def read(self, path: Path) -> Image.Image:
        with Image.open(path) as opened:
            picture = opened.convert("RGB")
        height, width = smart_resize(picture.height, picture.width, 28, min_pixels=4 * TOKEN, max_pixels=16384 * TOKEN)
        return picture.resize((width, height), Image.Resampling.BICUBIC)

    def hidden_states(self, ids: list[int], images: tuple[Path, ...]) -> torch.Tensor:
        embed = self.model.get_input_embeddings()
        if not images:
            embedded = embed(torch.tensor([ids]))
        else:
            pixels = self.cut([self.read(path) for path in images])
            # Asked of the model, so that the count is not one more copy of the rule under test.
            features = self.model.get_image_features(**pixels, return_dict=True).pooler_output
            input_ids = self.repeat_image_token(ids, *map(len, features))
            embedded = embed(input_ids).clone()
            embedded[input_ids == self.image_id] = torch.cat(list(features))
        # As the authors' classes call it: without token ids and grids there are no rows and columns to go by.
        self.model.rope_deltas = None
        mask = torch.ones(embedded.shape[:2], dtype=torch.long)
        return self.model(input_ids=None, inputs_embeds=embedded, attention_mask=mask).last_hidden_state


class StockDSE(StockQwen2VL):
    """Qwen2-VL with its own M-RoPE; a text goes with a black picture."""

    fewest, most = 1, 2560

    def string(self, case: Case) -> str:
        assert case.instruction is None
        if case.picture is not None:
            text = "What is shown in this image?" if case.text is None else case.text
        else:
            text = f"{'Query' if case.method == 'encode_query' else 'Document'}: {case.text}"
        return f"{SYSTEM}{BLOCK}{text}{TAIL}"

    def hidden_states(self, ids: list[int], images: tuple[Path, ...]) -> torch.Tensor:
        pixels = self.cut([self.read(path) for path in images] or [Image.new("RGB", (56, 56))])
        input_ids = self.repeat_image_token(ids, int(pixels["image_grid_thw"].prod()) // 4)
        # Given the token types and no position_ids, the model works out M-RoPE positions by itself.
        token_types = (input_ids == self.image_id).int()
        return self.model(input_ids=input_ids, mm_token_type_ids=token_types, **pixels).last_hidden_state


class StockRzenEmbed(StockQwen2VL):
    """By ``rzen_embed_inference.py`` of its authors, and mteb's copy of it."""

    fewest, most = 256, 1280

    def string(self, case: Case) -> str:
        return f"{SYSTEM}{BLOCK * len(case.names)}{case.instruction or ''}{case.text or ''}{TAIL}"


class StockUnite(StockQwen2VL):
    """By ``inference/inference_demo.py`` of its authors, where qwen-vl-utils reads the pictures."""

    fewest, most = 256, 1280

    def string(self, case: Case) -> str:
        assert case.instruction is None
        kinds = {(False, True): "image", (True, False): "sentence", (True, True): "sentence and image"}
        kind = kinds[bool(case.text) or not case.names, bool(case.names)]
        return f"{SYSTEM}{BLOCK * len(case.names)}{case.text or ''}\nSummary above {kind} in one word:{TAIL}"
