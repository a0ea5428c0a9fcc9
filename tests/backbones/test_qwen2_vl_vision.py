"""A batch's pictures go through the vision tower in parts, and come out as if they had gone together."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from st_modules.backbones import qwen2_vl_vision
from tests.helpers.references import TOLERANCE, load_once, mixed, reference


@pytest.mark.parametrize("row", ["gme-2b", "qwen3-vl-embedding-2b", "vlm2vec-v2"])
@pytest.mark.parametrize("patches", [1, 100])
def test_embeddings_are_the_originals_whatever_makes_a_part(
    row: str, patches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    split = qwen2_vl_vision._split

    def split_and_count(*call: Any) -> Any:
        parts = split(*call)
        counts.append(len(parts))
        return parts

    monkeypatch.setattr(qwen2_vl_vision, "_split", split_and_count)
    monkeypatch.setattr(qwen2_vl_vision, "_CACHED_PATCHES", patches)
    model = load_once(row, "sdpa")
    calls = mixed(list(reference(row).cases.values()))
    far = [call.name for call in calls if np.abs(call.embed(model, batch_size=7) - call.expected).max() > TOLERANCE]
    assert far == []
    assert max(counts) > 1
