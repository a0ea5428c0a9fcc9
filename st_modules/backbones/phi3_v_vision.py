"""How Phi-3-V sees a picture: whole, and in tiles, with separators between the rows of their tokens.

The rules are those of ``HD_transform`` and ``hd_feature_transform`` of the models' own code. What that computes for
nothing is left out: empty tiles, and the last layer of CLIP, whose output is not read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from PIL import Image
from PIL.Image import Image as PILImage
from PIL.Image import Resampling, Transpose
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import CLIPVisionConfig, CLIPVisionModel

SIDE = 336
"""Side of a tile in pixels."""

_PATCH = 14
_TOKENS = SIDE // _PATCH // 2
"""Tokens along a tile's side: one is 2x2 patches."""

_HEAD = 64
_WHITE = (255, 255, 255)
_VISION_WEIGHT = re.compile(r".*img_processor\.(?:vision_model\.)?(.+)")
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.")
_CLIP_L14 = {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096}


class Tiling(NamedTuple):
    """How a picture is cut.

    Attributes:
        rows: Tiles from top to bottom.
        columns: Tiles from left to right.
        width: Width in pixels that the picture is resized to.
        height: Height in pixels that it is resized to; white is put above and below it, or beside it.
    """

    rows: int
    columns: int
    width: int
    height: int

    @property
    def tokens(self) -> int:
        """How many tokens the picture becomes: those of its tiles and of the whole, and the separators."""
        return (self.rows * self.columns + 1) * _TOKENS**2 + 1 + (self.rows + 1) * _TOKENS


def plan_tiles(width: int, height: int, most: int) -> Tiling:
    """Find the tiles of a picture.

    Args:
        width: Width in pixels.
        height: Height in pixels.
        most: The most tiles.

    Raises:
        ValueError: The picture is so elongated that nothing is left of a side.
    """
    long, short = max(width, height), min(width, height)
    ratio = long / short
    # Along the longer side; the authors count up from 1.
    count = max(number for number in range(1, most + 1) if number * math.ceil(number / ratio) <= most)
    new_long = count * SIDE
    new_short = int(new_long / ratio)
    if not new_short:
        raise ValueError(f"too elongated: resized to {new_long} pixels on one side, it has none on the other")
    across = math.ceil(new_short / SIDE)
    return Tiling(count, across, new_short, new_long) if width < height else Tiling(across, count, new_long, new_short)


def resize_and_pad(picture: PILImage, tiling: Tiling) -> PILImage:
    """Resize an RGB picture, and fill it up with white to whole tiles."""
    # The authors turn a tall picture at its diagonal first, and back in the end.
    tall = picture.width < picture.height
    if tall:
        picture = picture.transpose(Transpose.TRANSPOSE)
    width, height = (tiling.height, tiling.width) if tall else (tiling.width, tiling.height)
    picture = picture.resize((width, height), Resampling.BILINEAR)
    padded = Image.new("RGB", (width, math.ceil(height / SIDE) * SIDE), _WHITE)
    padded.paste(picture, (0, (padded.height - height) // 2))
    return padded.transpose(Transpose.TRANSPOSE) if tall else padded


def cut_tiles(pixels: Tensor) -> Tensor:
    """Return the whole picture in the size of a tile, and its tiles row by row.

    Args:
        pixels: The normalised picture, of shape (3, height, width), both multiples of a tile's side.

    Returns:
        Shape (1 + tiles, 3, side, side).
    """
    whole = interpolate(pixels[None], (SIDE, SIDE), mode="bicubic")
    tiles = pixels.unflatten(2, (-1, SIDE)).unflatten(1, (-1, SIDE)).permute(1, 3, 0, 2, 4).flatten(0, 1)
    return torch.cat([whole, tiles])


def read_vision_shape(shapes: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the fields of the vision tower's configuration, which no file of the published models states.

    Width, layers and MLP are those of the weights, where they are there, and the rest is that of CLIP-L/14.

    Args:
        shapes: The model's weights by their names.

    Raises:
        ValueError: The weights are of no shape that the tower can have.
    """
    tower = {match[1]: tensor.shape for name, tensor in shapes.items() if (match := _VISION_WEIGHT.fullmatch(name))}
    layers = {match[1] for name in tower if (match := _LAYER.match(name))}
    sizes = {
        "hidden_size": tower.get("embeddings.class_embedding", ()),
        "intermediate_size": tower.get("encoder.layers.0.mlp.fc1.weight", ()),
        "num_hidden_layers": [len(layers)] if layers else [],
    }
    # What is missing is named once weights and model are compared.
    shape = {**_CLIP_L14, **{name: size[0] for name, size in sizes.items() if size}}
    if shape["hidden_size"] % _HEAD:
        raise ValueError(f"the vision tower is {shape['hidden_size']} wide, and heads of {_HEAD} do not fill it")
    return {
        **shape,
        "num_attention_heads": shape["hidden_size"] // _HEAD,
        "image_size": SIDE,
        "patch_size": _PATCH,
        "hidden_act": "quick_gelu",
        "layer_norm_eps": 1e-5,
    }


class PictureEmbedding(nn.Module):
    """From pictures in tiles to embeddings among those of a text's tokens.

    Args:
        config: Configuration of the vision tower.
        dimension: Size of an embedding.
    """

    img_processor: CLIPVisionModel

    # As the published files call its parts.
    def __init__(self, config: CLIPVisionConfig, dimension: int) -> None:
        super().__init__()
        width = 4 * config.hidden_size
        self.img_processor = CLIPVisionModel._from_config(config)
        self.glb_GN = nn.Parameter(torch.zeros(1, 1, width))
        self.sub_GN = nn.Parameter(torch.zeros(1, 1, 1, width))
        self.img_projection = nn.Sequential(nn.Linear(width, dimension), nn.GELU(), nn.Linear(dimension, dimension))

    def forward(self, pixel_values: Tensor, image_sizes: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            pixel_values: What :func:`cut_tiles` returned of each, filled up to the same number of tiles: shape
                (pictures, 1 + tiles, 3, side, side).
            image_sizes: Rows and columns of the tiles of each: shape (pictures, 2), int64.

        Returns:
            The embeddings of all pictures' tokens, one after the other: shape (tokens, dimension).
        """
        sizes: list[list[int]] = image_sizes.tolist()
        counts = [1 + rows * columns for rows, columns in sizes]
        tiles = torch.cat([picture[:count] for picture, count in zip(pixel_values, counts, strict=True)])
        seen = self._see(tiles).split(counts)
        laid_out = [
            torch.cat([self._lay_out(tiles[1:], *size), self.glb_GN[0], self._lay_out(tiles[:1], 1, 1)])
            for tiles, size in zip(seen, sizes, strict=True)
        ]
        return self.img_projection(torch.cat(laid_out))

    def _see(self, tiles: Tensor) -> Tensor:
        """Return what the vision tower's last layer but one makes of tiles: shape (tiles, rows, columns, width)."""
        tower: Any = self.img_processor
        hidden = tower.pre_layrnorm(tower.embeddings(tiles))
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, None)
        # Without the token of the whole tile; four neighbours become one token.
        patches = hidden[:, 1:].unflatten(1, (_TOKENS, 2, _TOKENS, 2))
        return patches.transpose(2, 3).flatten(3)

    def _lay_out(self, tiles: Tensor, rows: int, columns: int) -> Tensor:
        """Put tiles side by side, and a separator behind each row of tokens: shape (tokens, width)."""
        plane = tiles.unflatten(0, (rows, columns)).transpose(1, 2).flatten(2, 3).flatten(0, 1)
        return torch.cat([plane, self.sub_GN[0].expand(len(plane), -1, -1)], dim=1).flatten(0, 1)
