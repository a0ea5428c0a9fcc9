from __future__ import annotations

import subprocess
import sys

import pytest

from st_modules import UnknownModelError, get_model, list_models
from st_modules.catalog import find_model


@pytest.mark.parametrize(
    "alias",
    [
        "gme-2b",
        "GME-2B",
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        "alibaba-nlp/GME-qwen2-vl-2b-instruct",
        "iic/gme-Qwen2-VL-2B-Instruct",
    ],
)
def test_a_model_is_found_by_short_name_repository_and_modelscope_id(alias: str) -> None:
    assert get_model(alias).name == "gme-2b"


def test_short_names_and_revisions_are_well_formed() -> None:
    names = [spec.name for spec in list_models()]
    assert len(set(names)) == len(names)
    revisions = {spec.name: spec.revision for spec in list_models() if spec.revision is not None}
    assert {name: revision for name, revision in revisions.items() if len(bytes.fromhex(revision)) != 20} == {}


@pytest.mark.parametrize(("typo", "meant"), [("gme2b", "gme-2b"), ("gme-7B-", "gme-7b"), ("bge-vl-bse", "bge-vl-base")])
def test_a_near_name_is_suggested(typo: str, meant: str) -> None:
    with pytest.raises(UnknownModelError, match=f"Did you mean '{meant}'"):
        get_model(typo)


def test_a_name_far_from_every_model_gets_no_suggestion() -> None:
    with pytest.raises(UnknownModelError, match=r"^Unknown model 'all-MiniLM-L6-v2'\. `st-modules list`"):
        get_model("all-MiniLM-L6-v2")


def test_a_repository_of_two_models_asks_which() -> None:
    with pytest.raises(UnknownModelError, match="'bge-visualized-base' or 'bge-visualized-m3'"):
        find_model("BAAI/bge-visualized")


def test_the_package_and_its_catalog_import_neither_torch_nor_sentence_transformers() -> None:
    code = (
        "import sys, st_modules; st_modules.list_models(); st_modules.get_model('gme-2b');"
        "sys.exit(bool({'torch', 'transformers', 'sentence_transformers', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
