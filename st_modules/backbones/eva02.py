"""The EVA-02 vision transformer, as CLIP trains it: the tower whose patches Visualized-BGE reads.

Fang et al., "EVA-02: A Visual Representation for Neon Genesis" (2023) and Sun et al., "EVA-CLIP" (2023): pre-norm
blocks with SwiGLU, a normalisation inside attention and inside the feed-forward part, and two-dimensional rotary
positions on top of learned ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from st_modules.backbones.blocked_attention import attend

_PRETRAINED_GRID = 16
_LAYER_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class EVA02Shape:
    """The dimensions of a tower.

    Attributes:
        width: Size of a patch's vector.
        layers: Number of blocks.
        heads: Attention heads.
        hidden: Size inside the feed-forward part.
        patch: Side of a patch in pixels.
        grid: Patches along each side of the image.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    patch: int
    grid: int

    @property
    def image_side(self) -> int:
        """Side of the image in pixels."""
        return self.patch * self.grid

    @classmethod
    def of(cls, weights: Mapping[str, Tensor], head_dim: int) -> EVA02Shape:
        """Read the dimensions from a tower's weights, which do not say the size of a head.

        Raises:
            KeyError: A weight is missing.
        """
        width, _, _, patch = weights["patch_embed.proj.weight"].shape
        return cls(
            width=width,
            hidden=weights["blocks.0.mlp.w1.weight"].shape[0],
            layers=1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks.")),
            heads=width // head_dim,
            patch=patch,
            grid=isqrt(weights["pos_embed"].shape[1] - 1),
        )


class EVA02(nn.Module):
    """The tower up to its last block, without the final normalisation and the projection.

    Args:
        shape: The dimensions.
    """

    def __init__(self, shape: EVA02Shape) -> None:
        super().__init__()
        self.shape = shape
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, shape.width, shape.patch, shape.patch)})
        self.cls_token = nn.Parameter(torch.zeros(1, 1, shape.width))
        self.pos_embed = nn.Parameter(torch.zeros(1, shape.grid**2 + 1, shape.width))
        self.blocks = nn.ModuleList(_Block(shape) for _ in range(shape.layers))
        cos, sin = rotary_table(shape.grid, shape.width // shape.heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the vectors of the patches.

        Args:
            pixels: Normalised images of shape (images, 3, side, side).

        Returns:
            Vectors of shape (images, patches, width), row by row of the image.
        """
        patches = self.patch_embed["proj"](pixels.to(self.cls_token.dtype)).flatten(2).transpose(1, 2)
        hidden = torch.cat([self.cls_token.expand(len(pixels), -1, -1), patches], dim=1) + self.pos_embed
        for block in self.blocks:
            hidden = block(hidden, self.cos, self.sin)
        return hidden[:, 1:]


class _Block(nn.Module):
    def __init__(self, shape: EVA02Shape) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(shape.width, _LAYER_NORM_EPSILON)
        self.attn = _Attention(shape)
        self.norm2 = nn.LayerNorm(shape.width, _LAYER_NORM_EPSILON)
        self.mlp = _SwiGLU(shape)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        hidden = hidden + self.attn(self.norm1(hidden), cos, sin)
        return hidden + self.mlp(self.norm2(hidden))


class _Attention(nn.Module):
    def __init__(self, shape: EVA02Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.q_proj = nn.Linear(shape.width, shape.width)
        self.k_proj = nn.Linear(shape.width, shape.width, bias=False)
        self.v_proj = nn.Linear(shape.width, shape.width)
        self.inner_attn_ln = nn.LayerNorm(shape.width, _LAYER_NORM_EPSILON)
        self.proj = nn.Linear(shape.width, shape.width)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        query, key, value = (
            projection(hidden).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attended = attend(_rotate(query, cos, sin), _rotate(key, cos, sin), value)
        return self.proj(self.inner_attn_ln(attended.transpose(1, 2).flatten(2)))


class _SwiGLU(nn.Module):
    def __init__(self, shape: EVA02Shape) -> None:
        super().__init__()
        self.w1 = nn.Linear(shape.width, shape.hidden)
        self.w2 = nn.Linear(shape.width, shape.hidden)
        self.ffn_ln = nn.LayerNorm(shape.hidden, _LAYER_NORM_EPSILON)
        self.w3 = nn.Linear(shape.hidden, shape.width)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(silu(self.w1(hidden)) * self.w2(hidden)))


def rotary_table(grid: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the rotary angles of every patch.

    The rotary embedding of RoFormer (Su et al., 2021) in two dimensions: the first half of a head turns by the patch's
    row, the second by its column. Both are counted on the grid of 16 that the towers were pretrained on.

    Args:
        grid: Patches along each side.
        head_dim: Size of an attention head.

    Returns:
        Two tensors of shape (patches, head_dim), float32.
    """
    half = head_dim // 2
    frequencies = 10000.0 ** -(torch.arange(0, half, 2, dtype=torch.float32, device="cpu") / half)
    places = torch.arange(grid, dtype=torch.float32, device="cpu") / grid * _PRETRAINED_GRID
    angles = (places[:, None] * frequencies).repeat_interleave(2, dim=-1)
    rows, columns = angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)
    both = torch.cat([rows, columns], dim=-1).flatten(0, 1)
    return both.cos(), both.sin()


def _rotate(vectors: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the neighbouring pairs of every vector but the first, which is that of no patch."""
    first, patches = vectors[:, :, :1], vectors[:, :, 1:]
    pairs = patches.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return torch.cat([first, (patches * cos + turned * sin).to(vectors.dtype)], dim=2)
