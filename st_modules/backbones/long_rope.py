"""LongRoPE with the factors of each row's own length.

The factors of long texts hold for rows of more tokens than the language model was first trained with, and those of
short texts for others. The authors' code, and transformers', choose once for a batch, by its longest row: a short text
then has another embedding beside a long one. Here every row has the factors that it has alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

_LONG_ROPE = "longrope"


class LongRope(nn.Module):
    """Cosines and sines of the positions of rows, each with the factors of its length.

    Args:
        config: Configuration of the language model.
    """

    short: Tensor
    long: Tensor

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.longest_short = longest_short(config)
        compute = ROPE_INIT_FUNCTIONS[_LONG_ROPE]
        # A length over the first one is what asks for the long factors.
        short, self.scaling = compute(config)
        long, _ = compute(config, seq_len=self.longest_short + 1)
        self.register_buffer("short", short, persistent=False)
        self.register_buffer("long", long, persistent=False)

    @torch.no_grad()
    def forward(self, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Return cosines and sines of shape (batch, tokens, rotary dimension), in the precision of ``x``.

        Args:
            x: What they are for.
            position_ids: Positions of shape (batch, tokens). Rows that lie end to end begin anew.
        """
        is_long = _row_ends(position_ids) >= self.longest_short
        frequencies = torch.where(is_long[..., None], self.long.to(x.device), self.short.to(x.device))
        angles = position_ids[..., None].float() * frequencies
        angles = torch.cat([angles, angles], dim=-1)
        return (angles.cos() * self.scaling).to(x.dtype), (angles.sin() * self.scaling).to(x.dtype)


def use_long_rope(language_model: Any) -> None:
    """Let a language model choose the factors row by row, where it has two sets of them."""
    if language_model.config.rope_parameters["rope_type"] == _LONG_ROPE:
        language_model.rotary_emb = LongRope(language_model.config).to(language_model.device)


def longest_short(config: Any) -> int:
    """Return the most tokens of a row that has the factors of short texts."""
    rope = config.rope_parameters
    return int(rope.get("original_max_position_embeddings") or config.max_position_embeddings)


def _row_ends(positions: Tensor) -> Tensor:
    """Return for each token the position of the last one of its row, which is the last before positions begin anew."""
    places = torch.arange(positions.shape[-1], device=positions.device).expand_as(positions)
    goes_on = torch.zeros_like(positions, dtype=torch.bool)
    goes_on[..., :-1] = positions[..., 1:] == positions[..., :-1] + 1
    ends = places.masked_fill(goes_on, positions.shape[-1]).flip(-1).cummin(-1).values.flip(-1)
    return positions.gather(-1, ends)
