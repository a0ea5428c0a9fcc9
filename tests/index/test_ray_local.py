"""Without a cluster, one is started for an index, and ended with it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fuzz.ray_cluster import STORE_BYTES
from st_modules.index import Index, RayOptions, build
from tests.helpers.paths import ROOT

ray = pytest.importorskip("ray")


def test_a_cluster_is_started_and_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_DEFAULT_OBJECT_STORE_MEMORY", str(STORE_BYTES))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps({"text": f"text {n}"}) + "\n" for n in range(100)))
    seen: list[Any] = []
    init = ray.init
    monkeypatch.setattr(ray, "init", lambda **options: seen.append(options["address"]) or init(**options))
    report = build(tmp_path / "rows.jsonl", tmp_path / "my.index", "tiny", device="cpu", engine=RayOptions())
    assert (report.added, len(Index.open(tmp_path / "my.index"))) == (100, 100)
    assert seen == ["local"]
    assert not ray.is_initialized()


def test_what_reads_on_ray_imports_neither_the_model_nor_ray() -> None:
    program = (
        "import sys, st_modules.index.ray_engine; print(*{'lancedb', 'ray', 'torch', 'transformers'} & {*sys.modules})"
    )
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert shown.stdout == "\n"
