"""Pictures, texts and positions that two releases of transformers are asked about, generated the same under each."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from PIL import Image

FOLDERS = {
    "gme": "gme/checkpoint",
    "vlm2vec": "vlm2vec/base",
    "dse": "gme/checkpoint",
    "bge_vl_clip": "bge_vl_clip/checkpoint",
    "bge_vl_mllm": "bge_vl_mllm/checkpoint",
    "bge_visualized_base": "bge_visualized_base/bge",
    "bge_visualized_m3": "bge_visualized_m3/bge",
}
"""For each family, the folder in tests/golden with its configuration, tokenizer and image processor."""

INSTRUCTION = "Find an image that matches the given text."
_TURN = "<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
_STAND_IN = f"<|vision_start|>{'<|image_pad|>' * 4}<|vision_end|>"

LAYOUTS: dict[str, Callable[[str], str]] = {
    "gme": lambda text: _TURN.format(INSTRUCTION, text),
    "vlm2vec": lambda text: f"{INSTRUCTION} {text}",
    "dse": lambda text: _TURN.format("You are a helpful assistant.", f"{_STAND_IN}Query: {text}"),
    "bge_vl_clip": str,
    "bge_vl_mllm": lambda text: f"[INST] \n <instruct> {INSTRUCTION} <query>  {text} \n [/INST]",
    "bge_visualized_base": str,
    "bge_visualized_m3": str,
}
"""For each family, the string that its authors make of a query, with an instruction where they have a place for one."""

# The smallest pictures, the most elongated, and those beside a multiple of a patch or a tile.
_EDGES = """1x1 2x2 3x3 1x3 3x1 3x5 5x3 1x40 40x1 3x40 40x3 3x224 224x3 14x14 27x27 28x28 29x29 27x60 60x27 57x55 64x65
65x64 129x63 224x225 225x224 336x336 337x336 512x511 333x777 37x1000 28x5600 5600x28 28x6000 6000x28 2049x1025"""
_MODES = ["RGB", "L", "1", "P", "P transparent", "RGB transparent", "RGBA", "LA", "CMYK", "YCbCr"]

_SENTENCE = """The quick brown fox isn't battery-electric 2023. #tag @user C++ naïve café Zürich 北京 東京都 서울 Москва
ελληνικά مرحبا שלום नमस्ते ขอบคุณ don’t “hi” <tag> {x:1} \\n %20 $5.00 €9,99 ½ x² H₂O A&B İ ΑΣ ß ﬁ Ａｂｃ ① 🇩🇪 👨‍👩‍👧
e\u0301 か\u3099 \u1112\u1161\u11ab [INST] <|im_start <image [MASK ##a ▁a Ġa </w> a\u200bb a\u00adb \ufeff"""
_SEPARATORS = [" ", " ", "  ", "\n", "\n\n", "\t", ", ", ". ", " \n", "\r\n", "\u00a0", "\u3000", "-", "/", "'", ""]
_BLANKS = " \n\t\r\u00a0\u3000\u0085\u2028\u000b\u0000\u001c\u2009ab1.,'’\u0301\u200b\u200d"
# First and last characters of scripts and signs.
_SCRIPTS = [
    (0x20, 0x7E),
    (0xA0, 0x24F),
    (0x250, 0x52F),
    (0x590, 0x6FF),
    (0x900, 0xDFF),
    (0xE00, 0xEFF),
    (0x1000, 0x11FF),
]
_SCRIPTS += [(0x1E00, 0x1FFF), (0x2000, 0x2BFF), (0x3000, 0x33FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFFEF)]
_SCRIPTS += [(0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2A6DF)]


def list_pictures() -> list[tuple[int, int, str]]:
    """Return the width, height and mode of every picture."""
    rng = random.Random(7)
    sizes = [(int(width), int(height)) for width, height in (size.split("x") for size in _EDGES.split())]
    sizes += [(int(28 * 40 ** rng.random()), int(28 * 40 ** rng.random())) for _ in range(60)]
    sizes += [(rng.randint(1, 60), rng.randint(1, 400)) for _ in range(30)]
    of_every_mode = [(300, 200), (199, 301), (64, 64), (225, 223), (41, 500)]
    return [(*size, "RGB") for size in sizes] + [(*size, mode) for mode in _MODES for size in of_every_mode]


def make_pictures(every: int = 1) -> Iterator[tuple[str, Image.Image]]:
    """Make every n-th picture, of gradients with noise on them, with a name that says its size and mode."""
    for number, (width, height, kind) in list(enumerate(list_pictures()))[::every]:
        rng = np.random.default_rng(number)
        y, x = np.mgrid[:height, :width]
        shades = np.stack([x * 255 / max(1, width - 1), y * 255 / max(1, height - 1), (x * 7 + y * 3) % 256], -1)
        picture = Image.fromarray(np.clip(shades + rng.normal(0, 40, shades.shape), 0, 255).astype(np.uint8))
        mode, *transparent = kind.split()
        if mode in ("RGBA", "LA"):
            picture.putalpha(Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)))
        picture = picture.convert(mode)
        if transparent:
            picture.info["transparency"] = 3 if mode == "P" else picture.getpixel((0, 0))
        yield f"{width}x{height} {kind}", picture


def make_texts(every: int = 1) -> list[str]:
    """Make every n-th text: words of many scripts, characters of few, blanks of all kinds."""
    rng = random.Random(5)
    words = _SENTENCE.split()
    texts = [*words, "a" * 300, "猫" * 300, "\n" * 50, " " * 64 + "a"]
    texts += [
        "".join(rng.choice(words) + rng.choice(_SEPARATORS) for _ in range(rng.randint(1, 25))) for _ in range(1000)
    ]
    for _ in range(1000):
        scripts = [*rng.sample(_SCRIPTS, rng.randint(1, 3)), (0x20, 0x20)]
        texts.append("".join(chr(rng.randint(*rng.choice(scripts))) for _ in range(rng.randint(1, 40))))
    texts += ["".join(rng.choices(_BLANKS, k=rng.randint(1, 30))) for _ in range(500)]
    return list(dict.fromkeys(texts))[::every]


def make_batches(config: dict[str, Any], every: int = 1) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Make every n-th batch of rows with a picture each, padded on the left.

    Yields:
        Token ids of shape (rows, tokens), with -1 as the padding, and grids of patches of shape (rows, 3); int64.
    """
    start, image, end = (config[f"{name}_token_id"] for name in ("vision_start", "image", "vision_end"))
    for number in range(0, 100, every):
        rng = random.Random(number)
        grids = [(rng.randint(1, 40), rng.randint(1, 40)) for _ in range(rng.randint(1, 5))]
        texts = [[rng.choices(range(3, 400), k=rng.randint(1, most)) for most in (12, 60)] for _ in grids]
        rows = [
            [*before, start, *[image] * (height * width), end, *after]
            for (before, after), (height, width) in zip(texts, grids, strict=True)
        ]
        longest = max(map(len, rows))
        ids = [[-1] * (longest - len(row)) + row for row in rows]
        yield np.array(ids), np.array([[1, 2 * height, 2 * width] for height, width in grids])
