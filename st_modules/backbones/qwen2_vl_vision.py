"""The fast way of an image through the vision towers of Qwen2-VL and Qwen3-VL.

Bytes go in, and images of one size attend together.

A still image is two equal frames to the tower, so that its patch embedding may be summed over time (that of a video's
frames, which differ, is not); and normalising pixels is linear, so that it may be done to the patch embedding's
weights. What is left to be made of an image is its patches as bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from PIL.Image import Image as PILImage
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers.vision_utils import get_vision_interpolation_indices_and_weights, get_vision_position_ids

from st_modules.backbones.attention import attends_by, rotate
from st_modules.backbones.blocked_attention import attend
from st_modules.backbones.varlen import attend_rows, suits_varlen

# A CPU is faster while what it makes of the patches stays in its caches.
_CACHED_PATCHES = 2048


def cut_patches(image: PILImage, patch_size: int, merge_size: int) -> Tensor:
    """Cut an image into patches, those that become one token next to each other.

    Args:
        image: An RGB image whose sides are multiples of ``patch_size * merge_size`` pixels.
        patch_size: Side of a patch in pixels.
        merge_size: Patches along each side of a token.

    Returns:
        Shape (patches, 3 * patch_size**2), uint8, channel by channel.
    """
    return cut_frames([image], patch_size, merge_size)


def cut_frames(frames: Sequence[PILImage], patch_size: int, merge_size: int) -> Tensor:
    """Cut the frames that become one step in time into patches, as :func:`cut_patches` does with an image.

    Args:
        frames: RGB images of one size.
        patch_size: Side of a patch in pixels.
        merge_size: Patches along each side of a token.

    Returns:
        Shape (patches, 3 * frames * patch_size**2), uint8, channel by channel and therein frame by frame.
    """
    columns, rows = (length // patch_size // merge_size for length in frames[0].size)
    pixels = np.stack([np.asarray(frame) for frame in frames])
    cells = pixels.reshape(len(frames), rows, merge_size, patch_size, columns, merge_size, patch_size, 3)
    patches = cells.transpose(1, 4, 2, 5, 7, 0, 3, 6).reshape(-1, 3 * len(frames) * patch_size**2)
    return torch.from_numpy(patches)


def normalise(patches: Tensor, processor: Any) -> Tensor:
    """Return patches of bytes as an image processor normalises their pixels, in float32."""
    mean, std = (torch.tensor(value, dtype=torch.float32)[:, None] for value in _statistics(processor))
    return ((patches.unflatten(1, (3, -1)) * processor.rescale_factor - mean) / std).flatten(1)


def computes_the_same(tower: Any, processor: Any) -> bool:
    """Whether a tower and its image processor are the stock ones, whose computation this module rearranges."""
    proj = tower.patch_embed.proj
    stock_tower = type(proj) is nn.Conv3d and attends_by(tower)
    return stock_tower and processor.do_resize and processor.do_rescale and processor.do_normalize


def embed_images(tower: Any, processor: Any, patches: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run the tower.

    Args:
        tower: Qwen2-VL's vision tower, or Qwen3-VL's.
        processor: Its image processor, which says how pixels are normalised.
        patches: What :func:`cut_patches` returned for each image, joined; or :func:`cut_frames` for each step of a
            video.
        grids: Steps in time, rows and columns of patches of each image: shape (images, 3), int64.

    Returns:
        The images' tokens, joined: shape (tokens, width of the language model). And what Qwen3-VL's tower takes out on
        the way, layer by layer, of the same shape each.
    """
    parts = [_embed_part(tower, processor, *part) for part in _split(patches, grids)]
    tokens, on_the_way = zip(*parts, strict=True)
    return torch.cat(tokens), [torch.cat(layer) for layer in zip(*on_the_way, strict=True)]


def _split(patches: Tensor, grids: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Split a batch's patches, and their grids, between images; on a GPU, all of them are one part."""
    if patches.device.type != "cpu":
        return [(patches, grids)]
    parts = [(0, 0)]
    for count in grids.prod(1).tolist():
        images, total = parts[-1]
        if images and total + count > _CACHED_PATCHES:
            parts.append((1, count))
        else:
            parts[-1] = images + 1, total + count
    images, counts = zip(*parts, strict=True)
    return list(zip(patches.split(counts), grids.split(images), strict=True))


def _embed_part(tower: Any, processor: Any, patches: Tensor, grids: Tensor) -> tuple[Tensor, list[Tensor]]:
    hidden = _embed_patches(tower.patch_embed, processor, patches)
    if hasattr(tower, "pos_embed"):
        hidden = hidden + _embed_positions(tower, grids).to(hidden.dtype)
    cos, sin = tower.rotary_pos_emb(hidden, get_vision_position_ids(grids, tower.spatial_merge_size))
    # The steps of a video do not attend to each other.
    lengths = [rows * columns for steps, rows, columns in grids.tolist() for _ in range(steps)]
    taken = {layer: place for place, layer in enumerate(getattr(tower, "deepstack_visual_indexes", ()))}
    on_the_way: list[Tensor] = []
    for layer, block in enumerate(tower.blocks):
        hidden = hidden + _attend(block.attn, block.norm1(hidden), cos, sin, lengths)
        hidden = hidden + block.mlp(block.norm2(hidden))
        if layer in taken:
            on_the_way.append(tower.deepstack_merger_list[taken[layer]](hidden))
    return tower.merger(hidden), on_the_way


def _embed_patches(patch_embed: Any, processor: Any, patches: Tensor) -> Tensor:
    weight = patch_embed.proj.weight
    mean, std = (weight.new_tensor(value, dtype=torch.float32).reshape(-1) for value in _statistics(processor))
    kernel = weight.float()
    if patches.shape[1] != kernel[0].numel():
        kernel = kernel.sum(2, keepdim=True)
    scaled = kernel * (processor.rescale_factor / std)[:, None, None, None]
    shift = -(kernel.sum((2, 3, 4)) * (mean / std)).sum(1)
    bias = patch_embed.proj.bias
    shift = shift if bias is None else shift + bias.float()
    return linear(patches.float(), scaled.flatten(1), shift).to(weight.dtype)


def _statistics(processor: Any) -> tuple[Any, Any]:
    return processor.image_mean, processor.image_std


def _embed_positions(tower: Any, grids: Tensor) -> Tensor:
    """Learned positions of a square, stretched to the grid of each image."""
    places, weights = get_vision_interpolation_indices_and_weights(
        grids,
        num_grid_per_side=tower.num_grid_per_side,
        mode=tower.interpolation_mode,
        align_corners=tower.interpolation_align_corners,
        spatial_merge_size=tower.spatial_merge_size,
    )
    return (tower.pos_embed(places) * weights[:, :, None]).sum(1)


def _attend(attention: Any, hidden: Tensor, cos: Tensor, sin: Tensor, lengths: Sequence[int]) -> Tensor:
    """Attention among the patches of each image."""
    query, key, value = attention.qkv(hidden).unflatten(1, (3, attention.num_heads, -1)).unbind(1)
    # In float32 whatever the precision of the tower, as transformers turns them.
    cos, sin = cos[:, None].float(), sin[:, None].float()
    query, key = (rotate(part.float(), cos, sin).to(part.dtype) for part in (query, key))
    heads, width = query.shape[1:]
    if suits_varlen(query.device, query.dtype, heads, heads, width):
        attended = attend_rows(query, key, value, lengths, lengths, scale=attention.scaling)
    else:
        attended = _attend_by_length(query, key, value, lengths, attention.scaling)
    return attention.proj(attended.flatten(1))


def _attend_by_length(query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], scale: float) -> Tensor:
    """Attend for neighbouring images of equal length in one call."""
    attended = torch.empty_like(query)
    start = 0
    for length, run in groupby(lengths):
        stop = start + length * len(list(run))
        queries, keys, values = (
            part[start:stop].unflatten(0, (-1, length)).transpose(1, 2) for part in (query, key, value)
        )
        attended[start:stop] = attend(queries, keys, values, scale=scale).transpose(1, 2).flatten(0, 1)
        start = stop
    return attended
