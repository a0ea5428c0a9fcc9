"""The training script of the embedded model still fits the package; its result is tested in test_tiny.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.paths import ROOT

TOOLS = ROOT / "tools" / "tiny"


def test_the_training_script_builds_a_model_that_embeds_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import train_tiny

    from st_modules import SentenceTransformer

    (tmp_path / "untrained").mkdir()
    model = train_tiny.initialise(tmp_path / "untrained", seed=1)
    vectors = model.encode(["a red circle", "two green stars"])
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert np.abs(again.encode(["a red circle", "two green stars"]) - vectors).max() <= 1e-6
