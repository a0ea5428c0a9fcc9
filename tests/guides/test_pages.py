"""The guides run as written, each in an empty folder, with "tiny" and without network."""

from __future__ import annotations

import contextlib
import re
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


def test_a_benchmark_of_ones_own(page: PageRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.run("own-benchmark.md") == {"python": 7, "bash": 0, "command": 1}
    table, python = (
        re.findall(r"ndcg_at_10[ |]+([\d.]+)", text) for text in (page.printed[0], capsys.readouterr().out)
    )
    assert len(table) == 1
    assert table == python


def test_vector_stores(page: PageRunner, postgres: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    servers = pytest.importorskip("milvus_lite.server_manager").server_manager_instance
    monkeypatch.setenv("POSTGRES_URL", f"postgresql+psycopg://postgres@/postgres?host={postgres}")
    try:
        assert page.run("stores.md") == {"python": 10, "bash": 0, "command": 0}
    finally:
        servers.release_server(str(tmp_path / "milvus.db"))


def test_pdfs(page: PageRunner) -> None:
    assert page.run("pdfs.md") == {"python": 6, "bash": 0, "command": 4}
    assert any("letter.pdf" in text and "invoice" in text for text in page.printed)


def test_questions(page: PageRunner, capsys: pytest.CaptureFixture[str]) -> None:
    assert page.run("faq.md") == {"python": 11, "bash": 0, "command": 0}
    assert "127.0.0.1" in capsys.readouterr().out
