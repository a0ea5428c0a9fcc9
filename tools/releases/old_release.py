"""What a release of transformers makes of the inputs, by the steps of the models' authors.

compare.py runs it under the release, where st_modules is not: it imports nothing else of the repository than its
neighbour.

    python tools/releases/old_release.py GOLDEN OUT EVERY

writes, for every n-th input, ``<family>_<number>.npy`` into the folder OUT for the pixels of each picture that the
release takes, and ``release.json``: token counts, token ids and positions.
"""

from __future__ import annotations

import inspect
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import transformers
from PIL import Image
from release_inputs import FOLDERS, LAYOUTS, make_batches, make_pictures, make_texts

_SIDE, _AREA = 28, 28**2


def _on_pillow(name: str) -> Any:
    """Return the image processor that runs on Pillow, which has a name of its own since transformers 5."""
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


def _resize_first(picture: Image.Image, clamp: bool) -> Image.Image:
    """Resize as qwen-vl-utils does, or as GME's script does, which clamps an aspect ratio that the other refuses."""
    width, height = picture.size
    if not clamp and max(width, height) / min(width, height) > 200:
        raise ValueError("aspect ratio above 200")
    new_height, new_width = (max(_SIDE, round(length / _SIDE) * _SIDE) for length in (height, width))
    if new_height * new_width > 16384 * _AREA:
        scale = math.sqrt(height * width / (16384 * _AREA))
        new_height, new_width = (math.floor(length / scale / _SIDE) * _SIDE for length in (height, width))
    elif new_height * new_width < 4 * _AREA:
        scale = math.sqrt(4 * _AREA / (height * width))
        new_height, new_width = (math.ceil(length * scale / _SIDE) * _SIDE for length in (height, width))
    new_height, new_width = min(new_height, new_width * 200), min(new_width, new_height * 200)
    return picture.convert("RGB").resize((new_width, new_height))


def _read_patches(processor: Any, picture: Image.Image) -> tuple[np.ndarray, int]:
    features = processor(images=[picture], return_tensors="np")
    return features["pixel_values"], int(features["image_grid_thw"].prod()) // processor.merge_size**2


def _readers(golden: Path) -> dict[str, Callable[[Image.Image], tuple[np.ndarray, int | None]]]:
    """Return what makes pixels and a number of tokens of a picture, which for CLIP is always the same."""
    qwen, clip, llava = map(_on_pillow, ("Qwen2VLImageProcessor", "CLIPImageProcessor", "LlavaNextImageProcessor"))
    folders = {family: golden / folder for family, folder in FOLDERS.items()}
    gme = qwen.from_pretrained(folders["gme"], min_pixels=256 * _AREA, max_pixels=1280 * _AREA)
    dse = qwen.from_pretrained(folders["dse"], min_pixels=_AREA, max_pixels=2560 * _AREA)
    vlm2vec = qwen.from_pretrained(folders["vlm2vec"])
    square = clip.from_pretrained(folders["bge_vl_clip"])
    tiles = llava.from_pretrained(folders["bge_vl_mllm"])
    settings: dict[str, Any] = {"patch_size": 14, "vision_feature_select_strategy": "default"}
    if "num_additional_image_tokens" in inspect.signature(transformers.LlavaNextProcessor.__init__).parameters:
        settings["num_additional_image_tokens"] = 1
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["bge_vl_mllm"])
    llava_next: Any = transformers.LlavaNextProcessor(tiles, tokenizer, image_token="<image>", **settings)

    def read_tiles(picture: Image.Image) -> tuple[np.ndarray, int]:
        resized = picture.resize((512, 512)).convert("RGB")
        features = llava_next(images=[resized], text=["<image>"], return_tensors="pt")
        tokens = (features["input_ids"] == tokenizer.convert_tokens_to_ids("<image>")).sum()
        return features["pixel_values"].numpy(), int(tokens)

    return {
        "gme": lambda picture: _read_patches(gme, _resize_first(picture, clamp=True)),
        "vlm2vec": lambda picture: _read_patches(vlm2vec, picture),
        "dse": lambda picture: _read_patches(dse, _resize_first(picture, clamp=False)),
        "bge_vl_clip": lambda picture: (square(picture.convert("RGB"), return_tensors="np")["pixel_values"], None),
        "bge_vl_mllm": read_tiles,
    }


def _tokenise(folder: Path, family: str, every: int) -> list[list[int]]:
    # The authors of Visualized-BGE ask for slow tokenizers, which transformers 5 no longer has.
    slow = family.startswith("bge_visualized")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=not slow)
    return [tokenizer(LAYOUTS[family](text), verbose=False)["input_ids"] for text in make_texts(every)]


def _position(folder: Path, every: int) -> list[list[list[int]]]:
    """Return the positions of each row, its padding left out, of shape (3, tokens)."""
    model: Any = transformers.Qwen2VLForConditionalGeneration.from_pretrained(folder)
    ask = (model if hasattr(model, "get_rope_index") else model.model).get_rope_index
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rows: list[list[list[int]]] = []
    for ids, grids in make_batches(config, every):
        tokens, mask = torch.tensor(ids).clamp(min=0), torch.tensor(ids >= 0).long()
        # transformers 5 asks for one argument more.
        wanted = "mm_token_type_ids" in inspect.signature(ask).parameters
        kinds = {"mm_token_type_ids": (tokens == config["image_token_id"]).int()} if wanted else {}
        positions, _ = ask(tokens, image_grid_thw=torch.tensor(grids), attention_mask=mask, **kinds)
        rows += [positions[:, row, mask[row].bool()].tolist() for row in range(len(ids))]
    return rows


def main(golden: Path, out: Path, every: int) -> None:
    """Write what the installed release makes of every n-th input."""
    tokens: dict[str, list[int | None]] = {}
    for family, read in _readers(golden).items():
        tokens[family] = []
        for number, (_, picture) in enumerate(make_pictures(every)):
            try:
                pixels, count = read(picture)
            except ValueError:  # a picture that the release refuses; it leaves no file
                tokens[family].append(None)
                continue
            tokens[family].append(count)
            np.save(out / f"{family}_{number}.npy", pixels)
    ids = {family: _tokenise(golden / folder, family, every) for family, folder in FOLDERS.items()}
    versions = {"transformers": transformers.__version__, "pillow": PIL.__version__}
    positions = _position(golden / FOLDERS["dse"], every)
    results = {"versions": versions, "tokens": tokens, "ids": ids, "positions": positions}
    (out / "release.json").write_text(json.dumps(results), encoding="utf-8")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
