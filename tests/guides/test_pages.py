"""The guides run as written, each in an empty folder, with "tiny" and without network."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.guides import PageRunner


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PageRunner]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    with contextlib.ExitStack() as cleanup:
        yield PageRunner(monkeypatch, cleanup)


def test_the_first_steps(page: PageRunner) -> None:
    assert page.run("get-started.md") == {"python": 7, "bash": 1, "command": 4}
    assert '"image":"/v1/index/picture?id=' in page.printed[-1]


def test_a_catalogue_of_products(page: PageRunner) -> None:
    assert page.run("products.md") == {"python": 14, "bash": 1, "command": 12}
    (asked,) = (text for text in page.printed if text.startswith('{"data"'))
    assert asked.count('"sku":"P003"') == 2
