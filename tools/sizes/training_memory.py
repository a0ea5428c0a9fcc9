"""How much memory training an adapter takes, estimated for the large models of the catalog.

    python tools/sizes/training_memory.py

prints the table of docs/training.md. Nothing is downloaded or computed: each architecture is built without weights, on
torch's meta device, and what its layers keep for the backward pass is counted while the language model runs on it.
The attention is counted as a fused kernel, which keeps its inputs and its output. The estimate is

    weights     2 bytes for each parameter (bfloat16)
    adapter     16 bytes for each of its parameters (float32: the weight, its gradient, and AdamW's two moments)
    activations for each token of a mini-batch, what all layers keep; with activation checkpointing the inputs of
                all layers (2 bytes for each number) and what one layer keeps

The frozen vision tower keeps nothing for the backward pass. What is left out: the tower's own passing memory, the
embeddings and the loss, cuDNN and allocator overhead.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from model_sizes import build
from peft import inject_adapter_in_model
from torch import Tensor
from transformers import AttentionInterface

from st_modules.catalog import get_model
from st_modules.train.lora import LoraSettings, lora_config

NAMES = ("gme-2b", "gme-7b", "vlm2vec-v2", "bge-vl-mllm-s1", "e5-v")
GIB = 2**30


class FusedAttention(torch.autograd.Function):
    """What a fused kernel keeps, without its numbers."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Keep inputs and output."""
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Never called."""
        raise NotImplementedError


def fused_attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
    return FusedAttention.apply(query, key, value).transpose(1, 2), None


def kept_bytes(language_model: Any, tokens: int) -> int:
    """Bytes that a forward pass of one row keeps for the backward pass, the weights not counted."""
    weights = {parameter.untyped_storage()._cdata for parameter in language_model.parameters()}
    kept: dict[int, Any] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    config = language_model.config
    embedded = torch.empty(1, tokens, config.hidden_size, dtype=torch.bfloat16, device="meta")
    positions = torch.arange(tokens, device="meta")[None]
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = language_model(inputs_embeds=embedded, position_ids=positions, use_cache=False)
    del output
    return sum(storage.nbytes() for storage in kept.values())


def estimate(name: str, rank: int, rows: int, length: int) -> list[str]:
    """The cells of a model's row."""
    with torch.device("meta"):
        backbone = build(get_model(name)).to(torch.bfloat16)
        parameters = sum(each.numel() for each in backbone.parameters())
        inject_adapter_in_model(lora_config(backbone, LoraSettings(rank=rank)), backbone.model)
    adapter = [each for name, each in backbone.named_parameters() if "lora_" in name]
    for each in adapter:
        each.data = each.data.float()
    trained = sum(each.numel() for each in adapter)
    language_model = backbone.model.language_model
    language_model.config._attn_implementation = "counted"
    layers, hidden = language_model.config.num_hidden_layers, language_model.config.hidden_size
    per_token = kept_bytes(language_model, 512) / 512
    checkpointed = 2 * hidden * layers + per_token / layers
    weights, optimiser = 2 * parameters, 16 * trained
    tokens = rows * length
    whole, less = (weights + optimiser + tokens * each for each in (per_token, checkpointed))
    return [
        f"`{name}`",
        f"{weights / GIB:.1f}",
        f"{trained / 1e6:.1f} M",
        f"{optimiser / GIB:.2f}",
        f"{per_token / 2**20:.2f}",
        f"{checkpointed / 2**20:.2f}",
        f"{whole / GIB:.1f}",
        f"{less / GIB:.1f}",
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rank", type=int, default=16, help="rank of the adapter")
    parser.add_argument("--rows", type=int, default=8, help="rows of a mini-batch")
    parser.add_argument("--length", type=int, default=320, help="tokens of a row, image tokens included")
    arguments = parser.parse_args()
    AttentionInterface.register("counted", fused_attention)
    total = f"{arguments.rows} rows of {arguments.length} tokens, GiB"
    print(
        "| name | weights, GiB | adapter | with its gradients and moments, GiB | activations, MiB a token | "
        f"checkpointed | {total} | checkpointed |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        print(f"| {' | '.join(estimate(name, arguments.rank, arguments.rows, arguments.length))} |")


if __name__ == "__main__":
    main()
