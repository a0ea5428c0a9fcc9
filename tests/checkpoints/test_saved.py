"""What sentence-transformers reads of a saved model is refused by file and field before it does."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from st_modules import CheckpointError, SentenceTransformer
from st_modules.backbones import BACKBONES
from st_modules.checkpoints import json_files
from st_modules.checkpoints.saved import check_saved_model

MODULES, SETTINGS, NORMALIZE = "modules.json", "config_sentence_transformers.json", "1_Normalize/config.json"
TYPES = [f"{backbone.__module__}.{backbone.__name__}" for backbone in BACKBONES.values()]


@pytest.fixture
def folder(tiny: SentenceTransformer, tmp_path: Path) -> Path:
    """A saved model without its weights."""
    for file in (MODULES, SETTINGS, NORMALIZE, "st_modules_config.json"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        source = Path(str(tiny._checkpoint.folder)) / file
        (tmp_path / file).write_bytes(source.read_bytes())
    return tmp_path


def check(folder: Path) -> None:
    check_saved_model(
        lambda name: str(folder / name) if (folder / name).exists() else None, SentenceTransformer, TYPES, ["document"]
    )


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def test_a_saved_model_is_fine(folder: Path) -> None:
    check(folder)


@pytest.mark.parametrize("content", ["", "{", "[", "\xff", "[" * 100_000, '{"a": NaN}', "\ufeff{}"], ids=ascii)
@pytest.mark.parametrize("file", [MODULES, SETTINGS, NORMALIZE])
def test_a_damaged_file_is_refused_by_its_name(folder: Path, file: str, content: str) -> None:
    (folder / file).write_bytes(content.encode("latin-1" if content == "\xff" else "utf-8"))
    with pytest.raises(CheckpointError, match=f"^{folder / file}: "):
        check(folder)


@pytest.mark.parametrize("content", [[], {}, None, 5, "x", [1], [None], [[]]], ids=str)
def test_a_list_of_modules_that_is_none_is_refused(folder: Path, content: Any) -> None:
    (folder / MODULES).write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=f"^{folder / MODULES}: "):
        check(folder)


@pytest.mark.parametrize("number", [0, 1])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("type", value) for value in (None, True, 5, "", "x", [], {})),
        *(("name", value) for value in (None, True, 5, "", [], {}, "a.b", "encode", "forward")),
        *(("path", value) for value in (None, 5, [], "../x", "/tmp", "a/../../x", "C:/x", "..\\x", "a\0b")),
        *(("kwargs", value) for value in (5, "x", {}, [1])),
    ],
    ids=str,
)
def test_a_field_of_a_module_is_refused_by_its_place(folder: Path, number: int, field: str, value: Any) -> None:
    def change(modules: Any) -> Any:
        modules[number][field] = value
        return modules

    rewrite(folder / MODULES, change)
    with pytest.raises(CheckpointError, match=rf"^{folder / MODULES}: \[{number}\]\.{field} is "):
        check(folder)


@pytest.mark.parametrize("field", ["type", "name", "path"])
def test_a_missing_field_of_a_module_is_refused_by_its_place(folder: Path, field: str) -> None:
    rewrite(folder / MODULES, lambda modules: [{key: modules[0][key] for key in modules[0] if key != field}])
    with pytest.raises(CheckpointError, match=rf"\[0\]\.{field} is None"):
        check(folder)


def test_two_modules_of_one_name_are_refused(folder: Path) -> None:
    rewrite(folder / MODULES, lambda modules: [modules[0], {**modules[1], "name": modules[0]["name"]}])
    with pytest.raises(CheckpointError, match=r"\[1\]\.name is '0'"):
        check(folder)


def test_a_model_whose_first_module_is_anothers_is_refused(folder: Path) -> None:
    rewrite(folder / MODULES, lambda modules: modules[::-1])
    with pytest.raises(CheckpointError, match=r"\[0\]\.type is 'sentence_tra.* is needed"):
        check(folder)


@pytest.mark.parametrize("name", ["sentence_transformers.nothing.Here", "sentence_transformers.util.cos_sim"])
def test_a_module_that_sentence_transformers_lacks_is_refused(folder: Path, name: str) -> None:
    rewrite(folder / MODULES, lambda modules: [modules[0], {**modules[1], "type": name}])
    with pytest.raises(CheckpointError, match=rf"\[1\]\.type is '{name}'"):
        check(folder)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        *(("prompts", value) for value in (None, True, "x", [])),
        *(("prompts.query", value) for value in (True, 5, [], {}, "\ud800")),
        *(("default_prompt_name", value) for value in (True, 5, "", "x", [])),
        *(("similarity_fn_name", value) for value in (True, 5, "", "x", [], "maxsim")),
        *(("model_type", value) for value in (None, True, "", "SparseEncoder", [])),
        *(("__version__", value) for value in (None, 5, "6.2", [])),
        *(("__version__.sentence_transformers", value) for value in (None, 5, "", "x", "6..2")),
        *(("requirements", value) for value in (5, "x", [1])),
    ],
    ids=ascii,
)
def test_a_setting_that_cannot_be_is_refused_by_its_name(folder: Path, place: str, value: Any) -> None:
    name, _, key = place.partition(".")
    rewrite(folder / SETTINGS, lambda content: {**content, name: {**content[name], key: value} if key else value})
    with pytest.raises(CheckpointError, match=f"^{folder / SETTINGS}: {place} is "):
        check(folder)


@pytest.mark.parametrize("name", ["document", "t2i", None])
def test_a_default_prompt_is_one_that_is_saved_or_known(folder: Path, name: str | None) -> None:
    rewrite(folder / SETTINGS, lambda content: {**content, "default_prompt_name": name})
    check(folder)


@pytest.mark.parametrize("field", ["module_input_name", "module_output_name"])
@pytest.mark.parametrize("value", ["", "x", 5, {}, []])
def test_an_embedding_is_what_is_normalised(folder: Path, field: str, value: Any) -> None:
    rewrite(folder / NORMALIZE, lambda content: {**content, field: value})
    with pytest.raises(CheckpointError, match=f"^{folder / NORMALIZE}: {field} is "):
        check(folder)


def test_a_card_that_is_no_text_of_bounded_length_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = folder / "README.md"
    os.symlink("/dev/zero", card)
    with pytest.raises(CheckpointError, match=f"^{card}: not a regular file"):
        check(folder)
    card.unlink()
    monkeypatch.setattr(json_files, "_MOST_BYTES", 10_000)
    card.write_text("a" * 10_001)
    with pytest.raises(CheckpointError, match=f"^{card}: over 10000 bytes"):
        check(folder)


def test_models_of_others_are_left_alone(folder: Path) -> None:
    (folder / "st_modules_config.json").unlink()
    (folder / MODULES).write_text(json.dumps([{"type": "sentence_transformers.models.Transformer"}]))
    (folder / SETTINGS).write_text("{")
    check(folder)
    (folder / MODULES).unlink()
    check(folder)


@pytest.mark.parametrize(
    ("file", "content"),
    [(MODULES, "[]"), (SETTINGS, '{"prompts": 5}'), (NORMALIZE, '{"module_input_name": "x"}'), (SETTINGS, "[" * 9999)],
)
def test_a_model_is_not_loaded_from_such_a_folder(
    tiny: SentenceTransformer, tmp_path: Path, file: str, content: str
) -> None:
    tiny.save_pretrained(str(tmp_path), create_model_card=False)
    (tmp_path / file).write_text(content)
    with pytest.raises(CheckpointError, match=f"^{tmp_path / file}: "):
        SentenceTransformer(str(tmp_path), device="cpu")
    with pytest.raises(CheckpointError, match=f"^{tmp_path / file}: "):
        SentenceTransformer("tiny", weights=tmp_path, device="cpu")


def test_a_module_in_a_folder_that_is_not_there_is_refused(tiny: SentenceTransformer, tmp_path: Path) -> None:
    tiny.save_pretrained(str(tmp_path), create_model_card=False)
    rewrite(tmp_path / MODULES, lambda modules: [{**modules[0], "path": "x"}, modules[1]])
    with pytest.raises(CheckpointError, match=r"modules\.json: it names the folder 'x'"):
        SentenceTransformer(str(tmp_path), device="cpu")
