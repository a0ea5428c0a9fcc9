"""Folders of the repository that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
"""Small checkpoints in the upstreams' layouts, and the vectors that the upstreams' own code returns for them."""
