"""docs/megapairs.md runs as written, and what the proof is made of works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from st_modules import cli
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import Scene
from st_modules.demo.wording import caption
from st_modules.megapairs import Triplet, read_collection, save_pictures
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "megapairs.md").read_text(encoding="utf-8")


def block(*words: str) -> str:
    """The one Python block of the page that has these words."""
    (found,) = [code for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if all(w in code for w in words)]
    return found


def test_the_page_runs_from_drawings_to_a_training_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    names: dict[str, Any] = {"__name__": "documentation"}
    exec(block("random_scenes"), names)
    exec(block("np.quantile").replace("range(200)", "range(50)"), names)
    command = re.findall(r"^    (st-modules megapairs .*tiny.*)$", PAGE, re.MULTILINE)[0]
    cli.app(shlex.split(command)[1:], standalone_mode=False)
    exec(block("training_dataset"), names)
    written = capsys.readouterr().out
    assert re.search(r"Wrote [1-9]\d+ triplets of 200 pictures to triplets.jsonl\.", written)
    assert names["dataset"].column_names == ["anchor", "positive", "negative_1", "negative_2"]


def test_every_option_of_the_page_is_one_of_the_command() -> None:
    shown = CliRunner().invoke(cli.app, ["megapairs", "--help"], env={"COLUMNS": "200", "TERM": "dumb"}).stdout
    own_words = re.sub(r"^    python .*$", "", PAGE, flags=re.MULTILINE)
    options = set(re.findall(r"--[a-z][a-z0-9-]*", own_words))
    assert {option for option in options if option not in shown} == set()


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "tiny"))
    import megapairs_tiny

    return megapairs_tiny


def test_the_proof_mines_training_rows_of_scenes_that_are_not_asked_about(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool, "SCENES", tool.SCENES[:60])
    folder = tmp_path / "pictures"
    tool.draw_pictures(folder, 1, seed=1)
    drawn = {picture.caption for picture in read_collection(folder).pictures}
    assert drawn == {caption(scene) for scene in tool.SCENES if not tool.is_held_out(scene)}
    made = tool.mine(folder, tmp_path / "triplets.jsonl", seed=1)
    assert made.triplets > 60
    rows = tool.training_rows(tmp_path / "triplets.jsonl", folder, tool.Stage(5, 2, "linear"), batch_size=30, seed=1)
    assert len(rows) == 150
    assert rows.column_names == ["anchor", "positive", "negative_1", "negative_2"]


def test_the_proof_tells_in_how_many_attributes_the_pictures_of_a_pair_differ(
    tool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    red, blue = (Scene("circle", colour, "large", 1, "center", "white") for colour in ("red", "blue"))
    other = Scene("star", "green", "large", 1, "center", "grey")
    monkeypatch.setattr(tool, "SCENES", [red, blue, other])
    rows = ({"image": draw(scene), "text": caption(scene)} for scene in (red, blue, other))
    save_pictures(rows, tmp_path / "pictures", caption="text")
    names = [picture.name for picture in read_collection(tmp_path / "pictures").pictures]
    pairs = [(0, 1), (0, 1), (1, 0), (0, 2)]
    lines = [Triplet(names[a], ("change it",), names[b], ()).to_json() for a, b in pairs]
    (tmp_path / "triplets.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert tool.differences(tmp_path / "triplets.jsonl", tmp_path / "pictures") == {1: 0.75, 3: 0.25}


def test_recall_counts_the_pictures_before_the_right_one(tool: Any) -> None:
    cosines = np.array([[0.9, 0.1, 0.2, 0.3, 0.0, 0.1], [0.9, 0.4, 0.5, 0.6, 0.0, 0.1], [1, 2, 0, 3, 4, 5]])
    assert tool._recall(cosines, np.array([0, 1, 2])) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
