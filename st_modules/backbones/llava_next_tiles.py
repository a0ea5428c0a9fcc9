"""A picture as LLaVA-NeXT sees it: the whole in one tile, and a grid of tiles at a higher resolution.

Releases of transformers lay tiles out in different ways, and a model's weights were trained and scored by one of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPImageProcessorPil
from transformers.image_processing_utils import select_best_resolution

# What is done to each tile is what CLIP's processor does to a picture; LLaVA-NeXT's has the same settings.
_OF_TILES = (
    "do_resize",
    "size",
    "resample",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)


@dataclass(frozen=True)
class TileLayout:
    """How a release of transformers lays out the tiles of a picture.

    Attributes:
        pads_odd_pixel: Whether an odd rest of the canvas is padded whole. Else the canvas is a pixel short, and the
            last column or row of tiles is stretched.
        swaps_grid: Whether rows and columns of the grid change places once the tiles are encoded, and the picture's
            share of them is computed in 32 bits.
    """

    pads_odd_pixel: bool
    swaps_grid: bool


TILE_LAYOUTS: Mapping[str, TileLayout] = {
    "transformers-4.41": TileLayout(pads_odd_pixel=False, swaps_grid=True),
    "transformers-4.46": TileLayout(pads_odd_pixel=False, swaps_grid=False),
    "transformers-5": TileLayout(pads_odd_pixel=True, swaps_grid=False),
}
"""The layouts by the release that has them; the last one is today's."""


class Grid(NamedTuple):
    """Numbers of tiles."""

    rows: int
    columns: int


def find_grid(height: int, width: int, config: Any) -> Grid:
    """Return the grid that suits a picture best, of those of LLaVA-NeXT's configuration."""
    side = config.vision_config.image_size
    rows, columns = select_best_resolution((height, width), config.image_grid_pinpoints)
    return Grid(rows // side, columns // side)


def cut_tiles(picture: Image.Image, config: Any, processor: Any, layout: TileLayout) -> Tensor:
    """Scale a picture onto the canvas of its grid and cut that into tiles.

    Args:
        picture: An RGB image.
        config: LLaVA-NeXT's configuration.
        processor: Its image processor.
        layout: How tiles are laid out.

    Returns:
        Shape (1 + rows * columns, 3, side, side), float32: the whole picture, and the tiles row by row.
    """
    width, height = picture.size
    side, grid = config.vision_config.image_size, find_grid(height, width, config)
    canvas = _fill_canvas(picture, grid.columns * side, grid.rows * side, processor.resample, layout)
    squeezed = processor.size["shortest_edge"]
    tiles = [
        picture.resize((squeezed, squeezed), processor.resample),
        *(canvas.crop(box) for box in _boxes(canvas.size, side)),
    ]
    settings = processor.to_dict()
    processor_of_tiles = CLIPImageProcessorPil(**{name: settings[name] for name in _OF_TILES})
    return processor_of_tiles(tiles, do_convert_rgb=False, return_tensors="pt")["pixel_values"]


def _fill_canvas(picture: Image.Image, width: int, height: int, resample: int, layout: TileLayout) -> Image.Image:
    """Scale a picture to one side of a canvas, and pad the other with black."""
    scaled = _scale_within(picture.size, width, height)
    left, top = ((most - length) // 2 for most, length in zip((width, height), scaled, strict=True))
    if not layout.pads_odd_pixel:
        width, height = (length + 2 * rest for length, rest in zip(scaled, (left, top), strict=True))
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture.resize(scaled, Image.Resampling(resample)), (left, top))
    return canvas


def _scale_within(size: tuple[int, int], width: int, height: int) -> tuple[int, int]:
    by_width, by_height = width / size[0], height / size[1]
    if by_width < by_height:
        return width, min(-int(-(size[1] * by_width) // 1), height)
    return min(-int(-(size[0] * by_height) // 1), width), height


def _boxes(size: tuple[int, int], side: int) -> Iterator[tuple[int, int, int, int]]:
    width, height = size
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield left, top, min(left + side, width), min(top + side, height)


def count_tokens(height: int, width: int, config: Any, layout: TileLayout) -> int:
    """Return how many tokens a picture becomes: the whole, and the tiles with a newline after each row of patches."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    rows, columns = find_shares(height, width, config, layout)
    return side**2 + len(rows) * (len(columns) + 1)


def find_shares(height: int, width: int, config: Any, layout: TileLayout) -> tuple[range, range]:
    """Return the rows and the columns of the tiles' patches that a picture covers, the padding left out."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    grid = _encoded_grid(height, width, config, layout)
    rows, columns = grid.rows * side, grid.columns * side
    # As torch divides whole numbers, which is in 32 bits, or as Python does.
    tall: Any = torch.tensor(height) if layout.swaps_grid else height
    wide: Any = torch.tensor(width) if layout.swaps_grid else width
    if wide / tall > columns / rows:
        rest = (rows - _round_down(tall * (columns / wide))) // 2
        return range(rest, rows - rest), range(columns)
    rest = (columns - _round_down(wide * (rows / tall))) // 2
    return range(rows), range(rest, columns - rest)


def _round_down(length: Any) -> int:
    # Python's numbers are often a little less than the whole one that they should be.
    return int(length) if isinstance(length, Tensor) else int(round(length, 7))


def _encoded_grid(height: int, width: int, config: Any, layout: TileLayout) -> Grid:
    """Return the grid that the encoded tiles are put together by."""
    grid = find_grid(height, width, config)
    return Grid(grid.columns, grid.rows) if layout.swaps_grid else grid


def embed_tiles(model: Any, pixel_values: Tensor, image_sizes: Tensor, layout: TileLayout) -> list[Tensor]:
    """Run the vision tower and the projector on the tiles of pictures.

    Args:
        model: LLaVA-NeXT.
        pixel_values: Shape (pictures, most tiles, 3, side, side).
        image_sizes: Height and width of each picture in pixels: shape (pictures, 2), int64.
        layout: How tiles are laid out.

    Returns:
        For each picture its tokens: shape (tokens, width of the language model).
    """
    sizes = [(int(height), int(width)) for height, width in image_sizes.tolist()]
    counts = [1 + grid.rows * grid.columns for grid in (find_grid(*size, model.config) for size in sizes)]
    layers = model.config.vision_feature_layer
    tiles = torch.cat([values[:count] for values, count in zip(pixel_values, counts, strict=True)])
    states = model.vision_tower(tiles, output_hidden_states=layers, return_dict=True).hidden_states
    features = torch.cat([states[layer] for layer in (layers if isinstance(layers, Sequence) else [layers])], dim=-1)
    # The first is of the class token.
    encoded = model.multi_modal_projector(features[:, 1:]).split(counts)
    return [_join(model, picture, *size, layout=layout) for picture, size in zip(encoded, sizes, strict=True)]


def _join(model: Any, encoded: Tensor, height: int, width: int, *, layout: TileLayout) -> Tensor:
    """Put a picture's tokens in order: those of the whole, and row by row those of the tiles, a newline after each."""
    config = model.config
    side = config.vision_config.image_size // config.vision_config.patch_size
    grid = _encoded_grid(height, width, config, layout)
    rows, columns = find_shares(height, width, config, layout)
    patches = encoded[1:].unflatten(1, (side, side)).unflatten(0, grid).transpose(1, 2).flatten(2, 3).flatten(0, 1)
    patches = patches[rows.start : rows.stop, columns.start : columns.stop]
    newlines = model.image_newline.to(patches.dtype).expand(len(rows), 1, -1)
    return torch.cat([encoded[0], torch.cat([patches, newlines], dim=1).flatten(0, 1)])
