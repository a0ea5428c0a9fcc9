"""Which frames of a video are embedded."""

from __future__ import annotations

import numpy as np

_MOST_SAVED = 64
"""How many frames VLM2Vec's authors save of a video, before they take a few of those."""


def select_frames(total: int, count: int) -> list[int]:
    """Return the numbers of the frames that VLM2Vec-V2's authors embed of a video.

    Of more than 64 frames they save 64, evenly from the first on. Of those they take some, evenly from the first to the
    last.

    Args:
        total: How many frames there are.
        count: How many are wanted; all are taken where there are fewer.
    """
    saved = [number * total // _MOST_SAVED for number in range(_MOST_SAVED)] if total > _MOST_SAVED else range(total)
    if len(saved) <= count:
        return list(saved)
    return [saved[place] for place in np.linspace(0, len(saved) - 1, count, dtype=int)]
