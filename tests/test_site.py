"""The site of the documentation is built of the repository alone, and needs nothing from elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import open_browser
from tests.helpers.paths import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert built.returncode == 0, built.stderr
    return folder


def test_every_public_name_has_a_place_in_the_reference(site: Path, tools: Any) -> None:
    missing = [
        f"{package}.{name}"
        for package, names in tools.EXPORTS.items()
        for name in names
        if f'id="{package}.{name}"' not in (site / "api" / f"{package}.html").read_text(encoding="utf-8")
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("security.html", "inputs.html#limits"),
        ("index.html", "models/qwen3-vl-reranker.html"),
        ("models/gme.html", "../evaluation.html#umrb"),
        ("training.html", "models/tiny.html"),
        ("langchain.html", "https://github.com/st-modules/st-modules/blob/main/examples/langchain_rag.py"),
    ],
)
def test_a_link_between_files_is_one_between_pages(site: Path, page: str, link: str) -> None:
    assert f'href="{link}"' in (site / page).read_text(encoding="utf-8")


def test_bars_in_the_code_of_tables_have_no_backslash(site: Path) -> None:
    assert "<code>&lt;|image_pad|&gt; {instruction} {text}</code>" in (site / "models" / "vlm2vec.html").read_text()


def test_the_site_is_searched_from_the_disk_without_network(site: Path) -> None:
    asked: list[str] = []
    with open_browser() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        # The search listens to keys, not to a value that is set.
        page.locator("[data-md-component=search-query]").press_sequentially("MultimodalReranker")
        found = page.locator(".md-search-result__link[href*=langchain]").first
        found.wait_for()
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "site"))
    import reference

    return reference


def test_a_notebook_becomes_its_text_its_code_and_what_that_printed(tools: Any) -> None:
    from notebooks import to_markdown

    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "Words."]},
        {
            "cell_type": "code",
            "source": ["print(1)\n", "figure"],
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"text/plain": ["2"]}},
                {"output_type": "display_data", "data": {"text/plain": ["<Figure>"], "image/png": "aGk=\n"}},
            ],
        },
        {"cell_type": "code", "source": [], "outputs": []},
    ]
    assert to_markdown(json.dumps({"cells": cells})).split("\n\n") == [
        "# Title\nWords.",
        "````python\nprint(1)\nfigure\n````",
        "````text\n1\n````",
        "````text\n2\n````",
        "![What the code above draws](data:image/png;base64,aGk=)\n",
    ]


def test_docstrings_become_markdown(tools: Any) -> None:
    docstring = (
        "Makes a :class:`SentenceTransformer`, as :func:`st_modules.index.build`; see :meth:`embed`.\n\nExample:\n"
    )
    assert tools.to_markdown(docstring, "st_modules") == (
        "Makes a [`SentenceTransformer`][st_modules.SentenceTransformer], as "
        "[`st_modules.index.build`][st_modules.index.build]; see `embed`.\n\nExamples:\n"
    )


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.html", '<script src="https://cdn.example/a.js"></script>', "<script> https://cdn.example/a.js"),
        ("a.html", '<link rel="stylesheet" href="//fonts.example/a">', "<link> //fonts.example/a"),
        ("a.html", '<link rel="preconnect" href="http://fonts.example">', "<link> http://fonts.example"),
        ("a.html", '<img src="HTTPS://example.org/a.png">', "<img> HTTPS://example.org/a.png"),
        ("a.html", "<style>@font-face {src: url('https://a.example/b')}</style>", "url('https://a.example/b"),
        ("a.html", '<p style="background: url(//a.example/b)">', "url(//a.example/b"),
        ("a.css", '@import "https://a.example/b.css";', '@import "https://a.example/b.css'),
        (
            "a.html",
            '<a href="https://example.org"><script src="a.js"></script><link rel="canonical" href="https://a">',
            "",
        ),
        ("a.css", "a {background: url(a.png)} /* https://example.org */", ""),
    ],
)
def test_what_a_page_loads_from_elsewhere_is_found(
    tmp_path: Path, tools: Any, name: str, content: str, found: str
) -> None:
    from outside import find_outside

    (tmp_path / name).write_text(content)
    assert find_outside(tmp_path) == ([f"{name}: {found}"] if found else [])
