"""CLIP-SF on the CLIP backbone: OpenAI's rules for weights and pictures, whatever stands beside the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from st_modules import CheckpointError, SentenceTransformer
from tests.helpers.references import TOLERANCE, load_once, reference
from tests.helpers.training_checkpoints import clip_sf_weights, save_run

SIDE = 112
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (height, width, 3), dtype=np.uint8))


def openai_pixels(image: Image.Image) -> np.ndarray:
    """The steps of ``_transform`` in openai/CLIP, by torchvision's rules for sizes."""
    width, height = image.size
    short, long = sorted(image.size)
    longer = int(SIDE * long / short)
    resized = image.resize((SIDE, longer) if width <= height else (longer, SIDE), Image.Resampling.BICUBIC)
    left, top = (int(round((length - SIDE) / 2.0)) for length in resized.size)
    cut = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)).convert("RGB"), dtype=np.float32)
    return ((cut / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)).transpose(2, 0, 1)


@pytest.fixture
def model() -> SentenceTransformer:
    return load_once("clip-sf-large", "sdpa")


@pytest.mark.parametrize("size", [(112 + rest, 112) for rest in range(8)] + [(112, 113), (112, 115), (333, 50), (7, 5)])
def test_pictures_are_cut_at_a_rounded_offset(model: SentenceTransformer, size: tuple[int, int]) -> None:
    image = noise(*size)
    found = model.preprocess([image])["pixel_values"][0].numpy()
    assert np.abs(found - openai_pixels(image)).max() <= 1e-6


def test_the_other_clip_cuts_as_transformers_does(model: SentenceTransformer, tmp_path: Path) -> None:
    image = noise(112 + 3, 112)
    expected = model.preprocess([image])["pixel_values"]
    model.save_pretrained(str(tmp_path), create_model_card=False)
    options = tmp_path / "st_modules_config.json"
    saved = json.loads(options.read_text())
    assert saved["rounded_crop"] is True
    options.write_text(json.dumps({key: value for key, value in saved.items() if key != "rounded_crop"}))
    floored = SentenceTransformer(str(tmp_path), device="cpu").preprocess([image])["pixel_values"]
    # 1.5 pixels are two, and are one there.
    assert torch.equal(floored[..., 1:], expected[..., :-1])
    assert not torch.equal(floored, expected)


def copy_base(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    base = reference("clip-sf-large").base_weights
    assert base is not None
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def load(weights: Path | None = None, base: Path | None = None) -> SentenceTransformer:
    source = reference("clip-sf-large")
    return SentenceTransformer(
        "clip-sf-large", weights=weights or source.weights, base_weights=base or source.base_weights, device="cpu"
    )


@pytest.mark.parametrize("change", ["missing", "other", "damaged"])
def test_how_pictures_are_prepared_is_not_read_beside_the_file(
    model: SentenceTransformer, change: str, tmp_path: Path
) -> None:
    base = copy_base(tmp_path / "base", lambda config: None)
    path = base / "preprocessor_config.json"
    if change == "missing":
        path.unlink()
    else:
        path.write_text("{" if change == "damaged" else json.dumps({"size": {"shortest_edge": 5}, "image_mean": [0.0]}))
    image = noise(150, 112)
    found = load(base=base).encode(image)
    assert np.abs(found - model.encode(image)).max() <= TOLERANCE


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("vision_config", "num_attention_heads", 4),
        ("text_config", "num_attention_heads", 2),
        ("text_config", "hidden_act", "gelu"),
        ("vision_config", "hidden_act", "gelu"),
        ("vision_config", "layer_norm_eps", 1e-6),
    ],
)
def test_a_configuration_that_computes_something_else_is_refused(
    part: str, field: str, value: Any, tmp_path: Path
) -> None:
    base = copy_base(tmp_path / "base", lambda config: config[part].update({field: value}))
    with pytest.raises(CheckpointError, match=rf"base/config\.json: {part}\.{field} is {re.escape(repr(value))}"):
        load(base=base)


PREFIX = "clip_model."
IN_PROJ = f"{PREFIX}visual.transformer.resblocks.0.attn.in_proj_weight"
CHANGES: dict[str, tuple[dict[str, torch.Tensor | None], str]] = {
    "a projection that is turned": (
        {f"{PREFIX}text_projection": clip_sf_weights()[f"{PREFIX}text_projection"].T.contiguous()},
        r"of another shape: text_projection\.weight",
    ),
    "a joined weight of two thirds": ({IN_PROJ: torch.zeros(256, 128)}, r"of another shape: .*q_proj\.weight"),
    "a joined weight that is one number": ({IN_PROJ: torch.tensor(1.0)}, r"of another shape: .*q_proj\.weight"),
    "a layer that is missing": (
        {name: None for name in clip_sf_weights() if ".resblocks.1." in name},
        r"missing: .*layers\.1\.layer_norm1\.bias",
    ),
    "a layer too many": (
        {name.replace("s.1.", "s.2."): w.clone() for name, w in clip_sf_weights().items() if "blocks.1." in name},
        r"unexpected: .*layers\.2\.",
    ),
    "a part that OpenAI's code does not have": (
        {f"{PREFIX}visual.transformer.resblocks.0.attn.bias_k": torch.zeros(3)},
        r"unexpected: clip_model\.visual\.transformer\.resblocks\.0\.attn\.bias_k",
    ),
    "a name of transformers": (
        {"text_model.final_layer_norm.bias": torch.zeros(64), f"{PREFIX}ln_final.bias": None},
        r"unexpected: text_model\.final_layer_norm\.bias",
    ),
    "a number of a layer that is written otherwise": (
        {f"{PREFIX}transformer.resblocks.01.ln_1.weight": torch.zeros(64)},
        r"unexpected: clip_model\.transformer\.resblocks\.01\.ln_1\.weight",
    ),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_weights_that_are_not_those_of_openais_clip_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    changes, message = CHANGES[kind]
    weights = {**clip_sf_weights(), **changes}
    save_run({name: weight for name, weight in weights.items() if weight is not None}, tmp_path / "clip_sf_large.pth")
    with pytest.raises(CheckpointError, match=f"the weights do not fit the model.*{message}"):
        load(weights=tmp_path)


def test_the_temperature_is_not_needed(model: SentenceTransformer, tmp_path: Path) -> None:
    weights = {name: weight for name, weight in clip_sf_weights().items() if "logit_scale" not in name}
    save_run(weights, tmp_path / "clip_sf_large.pth")
    assert (load(weights=tmp_path).encode("a cat") == model.encode("a cat")).all()


def test_weights_in_float16_load_as_they_are(tmp_path: Path) -> None:
    save_run({name: weight.half() for name, weight in clip_sf_weights().items()}, tmp_path / "clip_sf_large.pth")
    half: Any = load(weights=tmp_path)[0]
    expected = {name: weight.half().float() for name, weight in clip_sf_weights().items()}
    assert torch.equal(half.model.visual_projection.weight, expected[f"{PREFIX}visual.proj"].T)
