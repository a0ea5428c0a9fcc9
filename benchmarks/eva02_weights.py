"""Random weights of an EVA-02 tower, under the names of the published file."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from random_weights import fill
from torch import Tensor, nn

_PRETRAINED_GRID = 16


@dataclass(frozen=True)
class EVA02Weights:
    """The dimensions of a tower.

    Attributes:
        width: Size of a patch's vector.
        layers: Number of blocks.
        head_dim: Size of an attention head.
        hidden: Size inside the feed-forward part.
        patch: Side of a patch in pixels.
        grid: Patches along each side of the image.
    """

    width: int
    layers: int
    head_dim: int
    hidden: int
    patch: int
    grid: int

    def make(self, seed: int) -> dict[str, Tensor]:
        """Return the weights, with the tables of the rotary positions among them."""
        names = nn.ModuleDict(
            {"patch_embed": nn.ModuleDict({"proj": nn.Conv2d(3, self.width, self.patch, self.patch)})}
        )
        names["blocks"] = nn.ModuleList(self._block() for _ in range(self.layers))
        fill(names, seed)
        weights = {_rename_published(name): weight for name, weight in names.state_dict().items()}
        generator = torch.Generator().manual_seed(seed)
        weights["cls_token"] = torch.randn(1, 1, self.width, generator=generator)
        weights["pos_embed"] = torch.randn(1, self.grid**2 + 1, self.width, generator=generator)
        for place in ("", *(f"blocks.{number}.attn." for number in range(self.layers))):
            weights[f"{place}rope.freqs_cos"], weights[f"{place}rope.freqs_sin"] = self._rotary_tables()
        return weights

    def _block(self) -> nn.Module:
        width, hidden = self.width, self.hidden
        attention = {
            "q_proj": nn.Linear(width, width),
            "k_proj": nn.Linear(width, width, bias=False),
            "v_proj": nn.Linear(width, width),
            "inner_attn_ln": nn.LayerNorm(width),
            "proj": nn.Linear(width, width),
        }
        feed_forward = {
            "w1": nn.Linear(width, hidden),
            "w2": nn.Linear(width, hidden),
            "ffn_ln": nn.LayerNorm(hidden),
            "w3": nn.Linear(hidden, width),
        }
        return nn.ModuleDict(
            {
                "norm1": nn.LayerNorm(width),
                "attn": nn.ModuleDict(attention),
                "norm2": nn.LayerNorm(width),
                "mlp": nn.ModuleDict(feed_forward),
            }
        )

    def _rotary_tables(self) -> tuple[Tensor, Tensor]:
        """Cosines and sines of shape (patches, head_dim): half of a head turns by the row, half by the column."""
        half = self.head_dim // 2
        frequencies = 10000.0 ** -(torch.arange(0, half, 2) / half)
        places = torch.arange(self.grid) / self.grid * _PRETRAINED_GRID
        angles = torch.outer(places, frequencies).repeat_interleave(2, dim=1)
        rows, columns = angles.repeat_interleave(self.grid, dim=0), angles.repeat(self.grid, 1)
        both = torch.cat([rows, columns], dim=1)
        return both.cos(), both.sin()


def _rename_published(name: str) -> str:
    return name.replace("q_proj.bias", "q_bias").replace("v_proj.bias", "v_bias")
