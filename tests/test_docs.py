"""What the documentation prints, quotes and links to is what is there."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from st_modules import get_model, list_models
from tests.helpers.paths import ROOT


def test_the_sizes_in_the_docs_are_those_that_the_tool_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "tools" / "sizes" / "model_sizes.py"), run_name="__main__")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert len(rows) == len(list_models()) - 1
    documented = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in documented] == []
    on_pages = "\n".join(FAMILIES.values()).splitlines()
    assert [row for row in rows if row not in on_pages] == []


FAMILIES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "models").glob("*.md")}
PROMPTS = [
    pytest.param(spec.name, name, prompt, id=f"{spec.name}-{name}")
    for spec in (*list_models(), *list_models("rerank"))
    for name, prompt in spec.prompts.items()
]


@pytest.mark.parametrize(("model", "name", "prompt"), PROMPTS)
def test_every_prompt_is_on_the_page_of_its_family(model: str, name: str, prompt: str) -> None:
    (page,) = (text for text in FAMILIES.values() if f"\n| `{model}` |" in text)
    assert f"| `{name}` | `{prompt}` |" in page


def test_the_pages_say_of_those_models_that_they_can_be_cut_of_which_the_catalog_does() -> None:
    cut = [spec.name for spec in list_models() if spec.least_dimension]
    pages = {page for page, text in FAMILIES.items() for name in cut if f"\n| `{name}` |" in text}
    assert {page for page, text in FAMILIES.items() if "Matryoshka" in text} == pages


@pytest.mark.parametrize("name", [spec.name for spec in list_models()])
def test_every_model_is_in_the_docs(name: str) -> None:
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    repo_id = get_model(name).repo_id
    assert f"`{name}`" in models
    assert repo_id is None or repo_id in models


PAGES = [path for folder in (ROOT, ROOT / "docs", ROOT / "docs" / "models") for path in sorted(folder.glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not leads_somewhere(page, *link)] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "pyproject.toml"], ids=lambda path: path.name)
def test_every_absolute_link_into_the_repository_leads_to_a_file_and_a_heading(page: Path) -> None:
    address = r"https://github\.com/st-modules/st-modules/(blob|tree|raw)/main/([^)#\s\"]+)(?:#([^)\s\"]+))?"
    links = re.findall(address, page.read_text(encoding="utf-8"))
    assert [link for link in links if not is_in_the_repository(*link)] == []


def is_in_the_repository(kind: str, target: str, anchor: str) -> bool:
    return (ROOT / target).is_dir() == (kind == "tree") and leads_somewhere(ROOT / "README.md", target, anchor)


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    path = page.parent / target if target else page
    return path.exists() and (not anchor or anchor in anchors(path))


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


QUOTES = re.findall(
    r"From `([^`]+)`:\n\n```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL
)


@pytest.mark.parametrize(("path", "quoted"), QUOTES, ids=[path for path, _ in QUOTES])
def test_a_quoted_example_is_in_its_file(path: str, quoted: str) -> None:
    # Each line is looked for after the one before it.
    written = iter((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert [line for line in quoted.splitlines() if line.strip() != "..." and line not in written] == []


def test_every_folder_and_module_of_the_package_is_on_the_plan_of_the_house() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    parts = [path for path in (ROOT / "st_modules").iterdir() if path.is_dir() or path.suffix == ".py"]
    names = {f"{path.name}/" if path.is_dir() else path.name for path in parts} - {"__pycache__/", "__init__.py"}
    assert {name for name in names if f"`{name}`" not in page and f"`st_modules/{name}`" not in page} == set()


def test_the_page_on_inputs_from_strangers_runs_as_written(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "inputs.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "docs/inputs.md", "exec"), names)
    refused = [line for line in capsys.readouterr().out.splitlines() if "is turned off" in line]
    assert len(refused) == 6


def test_the_page_on_text_and_pictures_prints_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "text-and-pictures.md").read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/text-and-pictures.md", "exec"), names)
    shown = re.findall(r"^    (?!python )(.+)$", re.sub(r"```python\n.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    assert capsys.readouterr().out.splitlines() == shown


def test_the_pictures_of_the_docs_are_what_the_script_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "charts"))
    import draw_charts

    for name, drawn in draw_charts.draw_all().items():
        assert (ROOT / "docs" / "images" / name).read_text(encoding="utf-8") == drawn, name


def test_every_picture_of_the_docs_says_in_words_what_it_shows() -> None:
    pictures = [each for page in PAGES for each in re.findall(r"!\[([^\]]*)\]\(", page.read_text(encoding="utf-8"))]
    assert [words for words in pictures if len(words) < 20] == []
