"""Which frames of a video are embedded."""

from __future__ import annotations

import numpy as np
import torch

_MOST_SAVED = 64
"""How many frames VLM2Vec's authors save of a video, before they take a few of those."""
_FEWEST = 4
"""How many frames ``qwen-vl-utils`` takes of a short file."""


def select_frames(total: int, count: int) -> list[int]:
    """Return the numbers of the frames that VLM2Vec-V2's authors embed of a video.

    Of more than 64 frames they save 64, evenly from the first on. Of those they take some, evenly from the first to the
    last.

    Args:
        total: How many frames there are.
        count: How many are wanted; all are taken where there are fewer.
    """
    saved = [number * total // _MOST_SAVED for number in range(_MOST_SAVED)] if total > _MOST_SAVED else range(total)
    return [saved[place] for place in spread(len(saved), count)]


def spread(total: int, count: int) -> list[int]:
    """Return the numbers of some frames, evenly from the first to the last; all where there are no more."""
    return list(range(total)) if total <= count else np.linspace(0, total - 1, count, dtype=int).tolist()


def select_each_second(total: int, rate: float, most: int) -> list[int]:
    """Return the numbers of the frames that ``qwen-vl-utils`` takes of a file where one a second is wanted.

    An even number of them, 4 at least where there are so many, evenly from the first to the last.

    Args:
        total: How many frames there are.
        rate: Frames a second.
        most: How many are taken at most.
    """
    wanted = min(max(total / rate, _FEWEST), most, total)
    count = int(wanted // 2 * 2)
    return torch.linspace(0, total - 1, count).round().long().tolist() if count else [0]
