"""The scripts of tools/ still fit the package; the model that tools/tiny made is tested in test_tiny.py."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import transformers

from tests.helpers.paths import GOLDEN, ROOT

TOOLS = ROOT / "tools" / "tiny"
RELEASES = ROOT / "tools" / "releases"


def test_the_training_script_builds_a_model_that_embeds_and_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    import train_tiny

    from st_modules import SentenceTransformer

    (tmp_path / "untrained").mkdir()
    model = train_tiny.initialise(tmp_path / "untrained", seed=1)
    vectors = model.encode(["a red circle", "two green stars"])
    model.save_pretrained(str(tmp_path / "saved"))
    again = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert np.abs(again.encode(["a red circle", "two green stars"]) - vectors).max() <= 1e-6


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(RELEASES))
    import compare

    return compare


def test_beside_the_installed_release_only_what_is_known_to_differ_from_it_does(compare: Any) -> None:
    import old_release

    cells = compare.compare(transformers.__version__, lambda out: old_release.main(GOLDEN, out, 30), 30)
    differing = {(cell.family, cell.what): cell.differing for cell in cells if cell.differing}
    # Its library tokenizers read accents in parts otherwise, and its processors put what is transparent on white.
    # It also strips a control character from the end of a text.
    known = (r"\u0301", r"\x85")
    texts = differing.pop(("bge_visualized_m3", "texts"))
    assert [text for text in texts if not any(each in text for each in known)] == []
    assert differing == {
        ("gme", "pixels"): ["300x200 RGB transparent"],
        ("vlm2vec", "pixels"): ["22x380 RGB", "300x200 RGB transparent"],
        ("vlm2vec", "token counts"): ["22x380 RGB"],
        ("dse", "pixels"): ["300x200 RGB transparent"],
    }
    assert {cell.what for cell in cells if cell.compared} == set(compare.COLUMNS)


def test_another_release_than_the_one_asked_for_is_not_compared(compare: Any) -> None:
    stated = {"versions": {"transformers": "4.45.2", "pillow": PIL.__version__}}
    with pytest.raises(SystemExit, match=r"4\.45\.2.*4\.51\.3"):
        compare.compare("4.51.3", lambda out: (out / "release.json").write_text(json.dumps(stated)))


def test_a_cell_says_how_many_differ_and_by_how_much(compare: Any) -> None:
    cell = compare.Comparison("gme", "pixels", refused_there=["1x1 RGB"])
    for number, old in enumerate([[0.0, 1.0], [0.0, 1.5], [0.25, 1.0]]):
        cell.add(str(number), old, [0.0, 1.0])
    assert (cell.cell(), cell.differing) == ("2 of 3, by 0.5; 1 refused there", ["1", "2"])
    cell.add("3", [0.0], [0.0, 1.0])
    assert cell.cell() == "3 of 4, by inf; 1 refused there"


def test_the_old_side_runs_where_this_package_is_not() -> None:
    sources = [(RELEASES / f"{name}.py").read_text(encoding="utf-8") for name in ("old_release", "release_inputs")]
    assert [source for source in sources if re.search(r"^\s*(import|from) (st_modules|compare)\b", source, re.M)] == []


def test_the_docs_name_as_many_inputs_as_are_compared(compare: Any) -> None:
    import release_inputs

    config = json.loads((GOLDEN / "gme" / "checkpoint" / "config.json").read_text(encoding="utf-8"))
    rows = sum(len(ids) for ids, _ in release_inputs.make_batches(config))
    pictures, texts = len(release_inputs.list_pictures()), len(release_inputs.make_texts())
    page = (ROOT / "docs" / "exactness.md").read_text(encoding="utf-8")
    assert f"{pictures} pictures" in page
    assert f"{texts:,} texts" in page
    assert f"positions of {rows} rows" in page
