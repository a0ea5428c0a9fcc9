"""Damaged and differently laid out GME checkpoints."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor

from st_modules import CheckpointError, SentenceTransformer
from tests.helpers.paths import GOLDEN

GOLDEN_GME = GOLDEN / "gme"
Weights = dict[str, Tensor]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN_GME / "checkpoint", tmp_path / "checkpoint"))


def load(folder: Path) -> SentenceTransformer:
    return SentenceTransformer("gme-2b", weights=folder, device="cpu")


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def rename(weights: Weights, rule: Callable[[str], str]) -> Weights:
    return {rule(name): tensor for name, tensor in weights.items()}


LAYOUTS: dict[str, Callable[[str], str]] = {
    "transformers 4.45, as published": lambda name: name,
    "transformers 4.52": lambda name: (
        name.replace("model.", "model.language_model.", 1)
        if name.startswith("model.")
        else name.replace("visual.", "model.visual.", 1)
    ),
    "headless, as Qwen2VLModel saves": lambda name: name.replace("model.", "language_model.", 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_key_layout_gives_the_same_embeddings(checkpoint: Path, layout: str) -> None:
    rewrite(checkpoint, lambda weights: rename(weights, LAYOUTS[layout]))
    items = [{"text": "What kind of car is this?", "image": GOLDEN_GME / "images" / "square.png"}]
    expected = load_file(GOLDEN_GME / "expected.safetensors")["fused"][:1].numpy()
    assert np.abs(load(checkpoint).encode(items) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.q_proj.bias",
        "model.norm.weight",
        "visual.patch_embed.proj.weight",
        "visual.blocks.0.attn.qkv.weight",
        "visual.merger.mlp.2.bias",
    ],
)
def test_a_missing_weight_is_refused_by_name(checkpoint: Path, name: str) -> None:
    rewrite(checkpoint, lambda weights: {key: tensor for key, tensor in weights.items() if key != name})
    with pytest.raises(CheckpointError, match=f"missing: .*{name.removeprefix('model.')}"):
        load(checkpoint)


def test_a_renamed_weight_is_refused_by_both_names(checkpoint: Path) -> None:
    rewrite(
        checkpoint, lambda weights: rename(weights, lambda name: name.replace("visual.merger.ln_q", "visual.merger.ln"))
    )
    with pytest.raises(CheckpointError, match=r"missing: .*merger\.ln_q.*unexpected: .*merger\.ln\."):
        load(checkpoint)


def test_a_weight_of_another_shape_is_refused_by_name(checkpoint: Path) -> None:
    def cut(weights: Weights) -> Weights:
        return {**weights, "model.norm.weight": weights["model.norm.weight"][:-1].contiguous()}

    rewrite(checkpoint, cut)
    with pytest.raises(CheckpointError, match=r"norm\.weight"):
        load(checkpoint)


def test_a_superfluous_weight_is_refused_by_name(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda weights: {**weights, "model.extra.weight": weights["model.norm.weight"].clone()})
    with pytest.raises(CheckpointError, match=r"unexpected: .*extra\.weight"):
        load(checkpoint)


def test_the_unused_language_modelling_head_may_be_there(checkpoint: Path) -> None:
    rewrite(checkpoint, lambda weights: {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    load(checkpoint)


def test_a_truncated_weights_file_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load(checkpoint)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json", "preprocessor_config.json"])
def test_a_missing_file_is_refused(checkpoint: Path, name: str) -> None:
    (checkpoint / name).unlink()
    if name == "tokenizer.json":
        (checkpoint / "vocab.json").unlink()
    with pytest.raises(CheckpointError, match=str(checkpoint)):
        load(checkpoint)


def test_a_checkpoint_of_another_architecture_is_refused(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "llava_next"}))
    with pytest.raises(CheckpointError, match="'llava_next'.*'qwen2_vl'"):
        load(checkpoint)


def test_broken_json_is_refused(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json"):
        load(checkpoint)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        load(tmp_path / "nowhere")


def test_a_file_in_the_place_of_a_folder_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.safetensors: a file\. Pass the folder"):
        load(checkpoint / "model.safetensors")


def test_remote_code_named_by_a_checkpoint_is_not_run(checkpoint: Path) -> None:
    path = checkpoint / "config.json"
    auto_map = {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}
    path.write_text(json.dumps({**json.loads(path.read_text()), "auto_map": auto_map}))
    (checkpoint / "evil.py").write_text("raise SystemExit('remote code ran')")
    (checkpoint / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]))
    model = SentenceTransformer("gme-2b", weights=checkpoint, device="cpu", trust_remote_code=True)
    assert model.encode("a").shape == (64,)


def test_without_network_and_files_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gme-2b: Alibaba-NLP/gme-Qwen2-VL-2B-Instruct .* pass weights="):
        SentenceTransformer("gme-2b", cache_folder=str(tmp_path))
