"""What the documentation prints is what the commands that it names print."""

from __future__ import annotations

import runpy

import pytest

from st_modules import get_model, list_models
from tests.helpers.paths import ROOT


def test_the_sizes_in_the_docs_are_those_that_the_tool_prints(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "tools" / "sizes" / "model_sizes.py"), run_name="__main__")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert len(rows) == len(list_models()) - 1
    documented = (ROOT / "docs" / "models.md").read_text(encoding="utf-8").splitlines()
    assert [row for row in rows if row not in documented] == []


@pytest.mark.parametrize("name", [spec.name for spec in list_models()])
def test_every_model_is_in_the_readme_and_in_the_docs(name: str) -> None:
    models = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    repo_id = get_model(name).repo_id
    assert f"`{name}`" in models
    assert repo_id is None or repo_id in models
