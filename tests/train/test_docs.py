"""The page on training, the examples and the tools that they name fit each other and run as written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest
from pydantic.fields import FieldInfo

from st_modules.train import load_source, read_config, run
from st_modules.train.config import TrainConfig
from tests.helpers.paths import ROOT

PAGE = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "examples").glob("train_*.yaml"))


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with the data of `examples/train_tiny.yaml`, less of it."""
    monkeypatch.syspath_prepend(str(ROOT / "tools" / "tiny"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    from framed_data import write_training_data

    write_training_data(tmp_path / "shapes", rows=12, seed=1)
    return tmp_path


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_valid_configuration(path: Path) -> None:
    assert read_config(path).data


def test_the_configuration_of_the_page_is_valid(drawn: Path) -> None:
    _, block = blocks("yaml")
    (drawn / "config.yaml").write_text(block)
    (source,) = read_config(drawn / "config.yaml").data
    assert len(load_source(source)) == 12


def test_the_table_of_the_page_trains_a_model(drawn: Path) -> None:
    (table,), (block, _) = blocks("csv"), blocks("yaml")
    (drawn / "config.yaml").write_text(block)
    config = read_config(drawn / "config.yaml")
    (source,) = config.data
    (drawn / str(source.file)).write_text(table)
    run(config, quiet=True)
    assert (drawn / config.output / "model" / "model.safetensors").is_file()


# The page has the keys of one source and of one column: those of the others are the same.
REPEATED = ("evaluation", "data[].columns.positive", "data[].columns.negatives")


def keys(section: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every key of a section and of those below it, as a path, and how its default is written."""
    hints = get_type_hints(section)
    for field in fields(section):
        path, hint = prefix + field.name, hints[field.name]
        yield path, write_default(field)
        for below in filter(is_dataclass, [] if path in REPEATED else (hint, *get_args(hint))):
            yield from keys(below, f"{path}[]." if get_origin(hint) is tuple else f"{path}.")


def write_default(field: Field[Any]) -> str:
    value = field.default
    if isinstance(value, FieldInfo):
        value = value.get_default(call_default_factory=True)
    if value is MISSING:
        return "needed"
    if is_dataclass(value):
        return "all defaults"
    if value is None or value in ((), {}):
        return "–"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_every_key_of_the_configuration_is_on_the_page_with_its_default() -> None:
    rows = re.findall(r"^\| `([a-z0-9_\[\].]+)` \| (.*?) \|", PAGE.partition("### Every key")[2], re.MULTILINE)
    assert dict(rows) == dict(keys(TrainConfig))
    assert len(rows) == len(dict(rows))


# The program leaves the training arguments at their defaults, which are those for a GPU.
@pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true:UserWarning")
def test_the_commands_and_programs_of_the_page_run(drawn: Path) -> None:
    example = ROOT / "examples" / "train_tiny.yaml"
    assert f"st-modules train {example.relative_to(ROOT)}" in PAGE
    config = read_config(example)
    run(replace(config, training=replace(config.training, steps=1, batch_size=4)), quiet=True)
    for block in blocks("python"):
        exec(compile(block, "docs/training.md", "exec"), {})
    assert (drawn / "my-model" / "model.safetensors").is_file()


def test_no_held_out_shape_is_drawn_for_training(drawn: Path) -> None:
    from framed_data import ICONS, TRAINING

    held_out = {(icon.shape, icon.colour) for icon in ICONS if icon.is_held_out}
    trained = {(icon.shape, icon.colour) for icon in TRAINING}
    assert held_out.isdisjoint(trained)
    assert 10 <= len(held_out) < len(trained)


def test_each_frame_gives_another_picture_of_the_same_shape(drawn: Path) -> None:
    from framed_data import FRAMES, Icon, paint

    pictures = [paint(Icon("heart", "red", frame, "white"), seed=1) for frame in FRAMES]
    assert len({picture.tobytes() for picture in pictures}) == len(FRAMES)
    assert {picture.size for picture in pictures} == {pictures[0].size}
    centre = (pictures[0].width // 2, pictures[0].height // 2)
    assert {picture.getpixel(centre) for picture in pictures} == {pictures[0].getpixel(centre)}
