"""Mid-size random checkpoints, written in the layouts in which the models are published.

Tokenizers and settings are those of the small checkpoints that the tests have, with the sizes changed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from eva02_weights import EVA02Weights
from random_weights import fill
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    CLIPConfig,
    CLIPModel,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    PreTrainedModel,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"


@dataclass(frozen=True)
class Files:
    """Where a checkpoint is.

    Attributes:
        weights: Folder of the model's files, or the file itself where a repository holds several models.
        base: Folder of what an adapter or a tower is built on.
    """

    weights: Path
    base: Path | None = None


def write_gme(folder: Path) -> Files:
    """Write a Qwen2-VL of 8 layers, 512 wide, with a vision tower of 4 layers, 320 wide."""
    text = {"hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 8, "intermediate_size": 1408}
    vision = {"embed_dim": 320, "depth": 4, "num_heads": 5, "hidden_size": 512, "mlp_ratio": 4}
    _write_qwen2_vl(GOLDEN / "gme" / "checkpoint", folder, text, vision, seed=1)
    return Files(folder)


def write_qwen3_vl_embedding(folder: Path) -> Files:
    """Write a Qwen3-VL of 8 layers, 512 wide, with a vision tower of 4 layers, 320 wide, two of them for DeepStack."""
    config = _copy(GOLDEN / "qwen3_vl_embedding" / "checkpoint", folder)
    config["text_config"].update(
        hidden_size=512, num_hidden_layers=8, num_attention_heads=8, head_dim=64, intermediate_size=1408
    )
    config["text_config"]["rope_scaling"]["mrope_section"] = [12, 10, 10]
    config["vision_config"].update(hidden_size=320, depth=4, num_heads=5, intermediate_size=1280, out_hidden_size=512)
    _write_json(folder / "config.json", config)
    _save(Qwen3VLForConditionalGeneration(Qwen3VLConfig.from_pretrained(folder)), folder, seed=9)
    return Files(folder)


def write_vlm2vec(folder: Path) -> Files:
    """Write a DoRA adapter, and the Qwen2-VL that it belongs to: 4 layers, 384 wide, and a tower of 4, 256 wide."""
    golden = GOLDEN / "vlm2vec"
    text = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 1024}
    vision = {"embed_dim": 256, "depth": 4, "num_heads": 4, "hidden_size": 384, "mlp_ratio": 4}
    base = _write_qwen2_vl(golden / "base", folder / "base", text, vision, seed=2)
    adapter = folder / "adapter"
    adapter.mkdir()
    config = json.loads((golden / "checkpoint" / "adapter_config.json").read_text(encoding="utf-8"))
    _write_json(adapter / "adapter_config.json", config)
    layers: Any = base.model.language_model
    save_file(_adapter_weights(layers, config["r"], seed=3), adapter / "adapter_model.safetensors")
    return Files(adapter, folder / "base")


@torch.no_grad()
def _adapter_weights(model: nn.Module, rank: int, seed: int) -> dict[str, Tensor]:
    """Return an adapter for every linear layer but two, under the names of the release that VLM2Vec was made with."""
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, Tensor] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and not name.endswith(("gate_proj", "up_proj")):
            rows, columns = layer.weight.shape
            place = f"base_model.model.model.{name}"
            weights[f"{place}.lora_A.weight"] = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
            weights[f"{place}.lora_B.weight"] = torch.randn(rows, rank, generator=generator) / math.sqrt(rank)
            scales = 1 + 0.1 * torch.rand(rows, generator=generator)
            weights[f"{place}.lora_magnitude_vector"] = layer.weight.norm(dim=1) * scales
    return weights


def write_bge_vl_mllm(folder: Path) -> Files:
    """Write a LLaVA-NeXT on Mistral of 4 layers, 384 wide, with tiles of 112 pixels: 336 tokens for an image."""
    config = _copy(GOLDEN / "bge_vl_mllm" / "checkpoint", folder)
    config["text_config"].update(
        hidden_size=384, num_hidden_layers=4, num_attention_heads=6, head_dim=64, intermediate_size=1024
    )
    config["vision_config"].update(
        hidden_size=256, num_hidden_layers=5, num_attention_heads=4, intermediate_size=1024, image_size=112
    )
    tile = config["vision_config"]["image_size"]
    config["image_seq_length"] = (tile // config["vision_config"]["patch_size"]) ** 2
    config["image_grid_pinpoints"] = [
        [tile * rows, tile * columns] for rows, columns in ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3))
    ]
    _write_json(folder / "config.json", config)
    _set_image_size(folder, tile, image_grid_pinpoints=config["image_grid_pinpoints"])
    _save(LlavaNextForConditionalGeneration(LlavaNextConfig.from_pretrained(folder)), folder, seed=4)
    return Files(folder)


def write_bge_vl_clip(folder: Path) -> Files:
    """Write a CLIP of two towers of 6 layers, 384 wide for text and 256 wide for images of 14x14 patches."""
    config = _copy(GOLDEN / "bge_vl_clip" / "checkpoint", folder)
    config["projection_dim"] = 256
    sizes = {"num_hidden_layers": 6, "projection_dim": 256}
    config["text_config"].update(hidden_size=384, num_attention_heads=6, intermediate_size=1536, **sizes)
    config["vision_config"].update(
        hidden_size=256, num_attention_heads=4, intermediate_size=1024, image_size=224, **sizes
    )
    _write_json(folder / "config.json", config)
    _set_image_size(folder, config["vision_config"]["image_size"])
    _save(CLIPModel(CLIPConfig.from_pretrained(folder)), folder, seed=5)
    return Files(folder)


def write_bge_visualized(folder: Path) -> Files:
    """Write a BERT of 6 layers, 384 wide, with an EVA-02 tower of 4 layers, 256 wide, in one file."""
    base = folder / "bge"
    config = _copy(GOLDEN / "bge_visualized_base" / "bge", base)
    config.update(hidden_size=384, num_hidden_layers=6, num_attention_heads=6, intermediate_size=1536)
    _write_json(base / "config.json", config)
    text = BertModel(BertConfig.from_pretrained(base))
    fill(text, seed=6, gain=2.5)
    tower = EVA02Weights(width=256, layers=4, head_dim=64, hidden=682, patch=16, grid=14)
    projection = nn.Linear(tower.width, config["hidden_size"])
    fill(projection, seed=7)
    weights = {f"bge_{name}": weight for name, weight in text.state_dict().items() if "position_ids" not in name}
    weights |= {f"model_visual.visual.{name}": weight for name, weight in tower.make(seed=8).items()}
    weights |= {f"visual_proj.{name}": weight for name, weight in projection.state_dict().items()}
    path = folder / "Visualized_base_en_v1.5.pth"
    torch.save(weights, path)
    return Files(path, base)


def _set_image_size(folder: Path, side: int, **options: Any) -> None:
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text(encoding="utf-8"))
    settings.update(size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **options)
    _write_json(path, settings)


def _write_qwen2_vl(
    golden: Path, folder: Path, text: Mapping[str, Any], vision: Mapping[str, Any], seed: int
) -> Qwen2VLForConditionalGeneration:
    config = _copy(golden, folder)
    config.update(text)
    config["vision_config"].update(vision)
    half = config["hidden_size"] // config["num_attention_heads"] // 2
    config["rope_scaling"]["mrope_section"] = [half // 4, half * 3 // 8, half * 3 // 8]
    _write_json(folder / "config.json", config)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig.from_pretrained(folder))
    _save(model, folder, seed)
    return model


def _copy(golden: Path, folder: Path) -> dict[str, Any]:
    """Copy everything but the weights, and return the configuration."""
    folder.mkdir(parents=True)
    for path in golden.iterdir():
        if path.suffix in {".json", ".txt", ".jinja"}:
            # Not shutil.copy: the copies are rewritten, and the originals may be read-only.
            shutil.copyfile(path, folder / path.name)
    return json.loads((folder / "config.json").read_text(encoding="utf-8"))


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def _save(model: PreTrainedModel, folder: Path, seed: int) -> None:
    """Fill a model and save its weights under their published names, with the configuration as it was written."""
    config = (folder / "config.json").read_bytes()
    fill(model, seed)
    model.save_pretrained(folder)
    (folder / "config.json").write_bytes(config)
