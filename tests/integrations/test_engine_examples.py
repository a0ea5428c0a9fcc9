"""The examples of engines of data and of stores run as written, offline, each where its package is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fuzz import ray_cluster
from tests.helpers.paths import ROOT

ENGINES = ROOT / "examples" / "engines"
MISSING = "missing.png: no such file; check the path (~ is not expanded)"
EXAMPLES = {
    "daft_frames": ("daft", ["1 128 None", f"2 128 {MISSING}"]),
    "haystack_images": ("haystack", ["1 128 None", f"2 0 {MISSING}"]),
    "lancedb_tables": ("lancedb", ["2 two small blue stars"]),
    "ray_batches": ("ray", ["1 128 None", f"2 128 {MISSING}"]),
    "spark_frames": ("pyspark", ["1 128 None", f"2 128 {MISSING}"]),
}
# Nothing is told to anybody; what an engine asks of this machine stays small.
QUIET = {
    **ray_cluster.SETTINGS,
    "RAY_DEFAULT_OBJECT_STORE_MEMORY": str(ray_cluster.STORE_BYTES),
    "DO_NOT_TRACK": "1",
    "DAFT_ANALYTICS_ENABLED": "0",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "SPARK_LOCAL_IP": "127.0.0.1",
    "PYSPARK_PYTHON": sys.executable,
    "PYTHONWARNINGS": "ignore",
}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in ENGINES.glob("*.py")} == set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_embeds(name: str, tmp_path: Path) -> None:
    package, printed = EXAMPLES[name]
    pytest.importorskip(package)
    if package == "pyspark" and shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
    run = subprocess.run(
        [sys.executable, str(ENGINES / f"{name}.py")],
        cwd=tmp_path,
        env={**environment, **QUIET},
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == printed
