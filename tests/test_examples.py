"""The examples and the pages on LangChain and LlamaIndex run as written, offline, and find what they say."""

from __future__ import annotations

import base64
import importlib
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from llama_index.core.instrumentation.events.llm import LLMChatStartEvent
from llama_index.core.llms import ImageBlock, MockLLM, TextBlock

from tests.helpers.paths import ROOT
from tests.helpers.recorder import Recorder

EXAMPLES = ROOT / "examples"
# Python calls this file when it starts: any attempt to reach another machine ends the program.
NO_NETWORK = """\
import socket
def refused(*args, **kwargs): raise AssertionError("network")
socket.getaddrinfo = socket.socket.connect = refused
"""
PRINTED = {
    "index_and_search": [
        "5 pictures, and 0 the second time",
        "a large green star → green_star.png",
        "a red circle, as a picture → red_circle.png",
        "the same, and make it blue → blue_circle.png",
    ],
    "langchain_chroma": [
        "a large green star → green_star.png",
        "a red circle, as a picture → red_circle.png",
        "the same, and make it blue → blue_circle.png",
    ],
    "langchain_rag": ["(what a real chat model says about the page)"],
    "llamaindex_qdrant": [
        "a large green star → green_star.png",
        "a red circle, as a picture → red_circle.png",
        "the same, and make it blue → blue_circle.png",
        "black crosses → two small black crosses",
    ],
    "llamaindex_rag": ["page: 2 three small green stars at the top on a white background"],
    "llamaindex_ingestion": ["5 pictures, 5 embeddings", "the second run, from the cache, gave the same: True"],
}


def test_every_example_is_run_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {*PRINTED, "drawings", "pages"}


@pytest.mark.parametrize("name", ["langchain_chroma", "llamaindex_qdrant"])
def test_an_example_runs_as_a_program_offline(name: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("COV_")}
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(tmp_path), "PYTHONIOENCODING": "utf-8"},
        check=False,
        capture_output=True,
        encoding="utf-8",
    )
    assert run.returncode == 0, run.stderr
    assert [line for line in PRINTED[name] if line not in run.stdout.splitlines()] == []
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("sitecustomize.py", "__pycache__")] == []


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_prints_what_it_finds(
    name: str, example: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    example("drawings")
    example("pages")

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("network")

    monkeypatch.setattr(socket, "getaddrinfo", refused)
    monkeypatch.setattr(socket.socket, "connect", refused)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in PRINTED[name] if line not in printed] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", PRINTED)
def test_an_example_names_the_one_line_to_change(name: str) -> None:
    lines = [line for line in (EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines() if "tiny" in line]
    assert len(lines) == 1
    assert re.fullmatch(r'MODEL = "tiny"  # the one line to change: "gme-2b" .*', lines[0])


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports an example with what stands beside it; one of them has the name of a package."""

    def load(name: str) -> ModuleType:
        with monkeypatch.context() as patch:
            patch.syspath_prepend(str(EXAMPLES))
            return importlib.import_module(name)

    yield load
    for name in ("pages", "drawings", *PRINTED):
        if getattr(sys.modules.get(name), "__file__", None) == str(EXAMPLES / f"{name}.py"):
            del sys.modules[name]


class Listening(FakeListChatModel):
    """LangChain's stand-in, which remembers what it was told."""

    told: list[list[BaseMessage]] = []

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        self.told.append(messages)
        return super()._call(messages, *args, **kwargs)


@pytest.mark.parametrize("number", range(1, 6))
def test_the_right_page_is_handed_to_langchains_chat_model(example: Any, tmp_path: Path, number: int) -> None:
    pages, rag = example("pages"), example("langchain_rag")
    pages.write_pdf(tmp_path / "report.pdf")
    chat_model = Listening(responses=["yes"], told=[])
    chain = rag.make_chain(rag.load_pages(tmp_path / "report.pdf", tmp_path), chat_model)
    question = pages.caption(pages.SCENES[number - 1])
    assert chain.invoke(question) == "yes"
    ((message,),) = chat_model.told
    blocks: list[Any] = message.content_blocks
    asked, page, picture = blocks
    assert asked["text"] == f"Answer from these pages: {question}"
    assert page["text"] == f"Page {number}: {question}"
    assert base64.b64decode(picture["base64"]) == (tmp_path / f"page-{number}.png").read_bytes()


@pytest.mark.parametrize("number", range(1, 6))
def test_the_right_page_is_handed_to_llamaindexs_language_model(
    example: Any, tmp_path: Path, recorder: Recorder, number: int
) -> None:
    pages, rag = example("pages"), example("llamaindex_rag")
    pages.write_pdf(tmp_path / "report.pdf")
    engine = rag.make_query_engine(rag.load_pages(tmp_path / "report.pdf", tmp_path), MockLLM(is_chat_model=True))
    question = pages.caption(pages.SCENES[number - 1])
    engine.query(question)
    blocks = [block for message in recorder.of(LLMChatStartEvent)[0].messages for block in message.blocks]
    texts = "\n".join(block.text for block in blocks if isinstance(block, TextBlock))
    assert f"page: {number} {question}" in texts
    (picture,) = (block for block in blocks if isinstance(block, ImageBlock))
    assert picture.resolve_image().read() == (tmp_path / f"page-{number}.png").read_bytes()


def test_a_pdf_is_read_back_as_it_was_written(example: Any, tmp_path: Path) -> None:
    pages = example("pages")
    pages.write_pdf(tmp_path / "report.pdf")
    found = pages.read_pdf(tmp_path / "report.pdf")
    assert [page.number for page in found] == [1, 2, 3, 4, 5]
    assert [page.text for page in found] == [pages.caption(scene) for scene in pages.SCENES]
    drawings = [pages.draw(scene) for scene in pages.SCENES]
    drawn = [page.image.crop((0, 0, *each.size)).tobytes() for page, each in zip(found, drawings, strict=True)]
    assert [page.number for page, a, b in zip(found, drawn, drawings, strict=True) if a != b.tobytes()] == []


@pytest.mark.parametrize("page", ["langchain.md", "llamaindex.md"])
def test_a_page_of_the_documentation_runs_as_written(
    example: Any, page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawings, pages = example("drawings"), example("pages")
    drawings.draw_pictures(Path("pictures"))
    pages.write_pdf(Path("report.pdf"))
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 4
    namespace: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block, page, "exec"), namespace)


def readme_blocks(section: str) -> list[str]:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (words,) = re.findall(rf"^## {section}\n(.*?)^## ", readme, re.DOTALL | re.MULTILINE)
    blocks = re.findall(r"```python\n(.*?)```", words, re.DOTALL)
    assert blocks
    return blocks


def test_the_adapters_in_the_readme_pass_a_type_checker(tmp_path: Path) -> None:
    for section in ("LangChain", "LlamaIndex"):
        for number, block in enumerate(readme_blocks(section)):
            (tmp_path / f"{section}_{number}.py").write_text(block, encoding="utf-8")
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert json.loads(done.stdout)["summary"]["filesAnalyzed"] >= 2
    assert json.loads(done.stdout)["generalDiagnostics"] == []


def test_the_quick_start_in_the_readme_runs_as_written_in_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    *blocks, placeholders = readme_blocks("Quick start")
    assert "does not run as it stands" in placeholders
    namespace: dict[str, Any] = {"__name__": "documentation"}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert namespace["best"] == Path("green.png")
    assert Path("my-model", "modules.json").is_file()


@pytest.mark.parametrize("section", ["LangChain", "LlamaIndex"])
def test_an_adapter_in_the_readme_runs_as_written_in_an_empty_folder(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in readme_blocks(section):
        *_, last = block.strip().splitlines()
        namespace: dict[str, Any] = {"__name__": "documentation"}
        exec(compile(block.replace(last, f"found = {last}"), "README.md", "exec"), namespace)
        (best,) = namespace["found"]
        assert "blue.png" in repr(best)
        assert "red.png" not in repr(best)
