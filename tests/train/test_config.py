"""A configuration is checked before anything is loaded; what is wrong is named by its place."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from st_modules.train import ConfigError, LoraSettings, LossSettings, read_config

GOOD: dict[str, Any] = {
    "model": {"name": "tiny"},
    "output": "out",
    "data": [
        {
            "name": "icons",
            "file": "icons.jsonl",
            "columns": {
                "anchor": {"text": "caption"},
                "positive": {"image": "image"},
                "negatives": [{"text": "other", "image": "other_image"}],
            },
            "prompts": {"anchor": "Find it."},
        },
        {"name": "pairs", "megapairs": "pairs.jsonl", "negatives": 3},
    ],
    "lora": {"rank": 8},
    "training": {"steps": 10},
}


def read(values: Any, tmp_path: Path) -> Any:
    path = tmp_path / "config.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return read_config(path)


def changed(place: str, value: Any) -> dict[str, Any]:
    """The good configuration with one value set; ``place`` is its keys and numbers, joined by dots."""
    values = copy.deepcopy(GOOD)
    *keys, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    target: Any = values
    for key in keys:
        target = target[key]
    target[last] = value
    return values


def test_a_configuration_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = read(GOOD, tmp_path)
    assert config.output == Path("out")
    assert config.lora.rank == 8
    assert config.lora.vision is False
    assert config.data[0].columns.negatives[0].image == "other_image"
    assert config.data[0].column_names == ["anchor", "positive", "negative_1"]
    assert config.data[1].column_names == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]
    assert config.training.learning_rate == 1e-4


def test_a_number_that_yaml_reads_as_a_text_is_a_number(tmp_path: Path) -> None:
    text = yaml.safe_dump(GOOD).replace("steps: 10", "steps: 10\n  learning_rate: 2e-5")
    assert read(text, tmp_path).training.learning_rate == 2e-5


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("modle", {}, "modle: unknown key. Did you mean 'model'?"),
        ("training.learing_rate", 1, "training.learing_rate: unknown key. Did you mean 'learning_rate'?"),
        ("data.0.columns.negative", [], "data[0].columns.negative: unknown key. Did you mean 'negatives'?"),
        ("training.steps", "ten", "training.steps: must be a whole number, not 'ten'."),
        ("training.steps", True, "training.steps: must be a whole number, not True."),
        ("training.batch_size", 1, "training.batch_size: Input should be greater than or equal to 2, not 1."),
        ("training.learning_rate", "fast", "training.learning_rate: could not convert string to float: 'fast'"),
        ("training.learning_rate", True, "training.learning_rate: Input should be a valid number, not True."),
        ("training.learning_rate", -1, "training.learning_rate: Input should be greater than or equal to 0, not -1."),
        ("training.learning_rate", float("inf"), "training.learning_rate: Input should be a finite number, not inf."),
        ("training.learning_rate", "nan", "training.learning_rate: Input should be a finite number, not nan."),
        ("training.epochs", 0, "training.epochs: Input should be greater than 0, not 0."),
        ("training.scheduler", "cosin", "training.scheduler: Input should be 'linear', 'cosine'"),
        ("training.bf16", 1, "training.bf16: must be true or false, not 1."),
        ("training.bf16", "yes please", "training.bf16: must be true or false"),
        ("training.epochs", 1, "training: pass exactly one of steps and epochs."),
        ("training.evaluate_every", 5, "evaluation and training.evaluate_every: one needs the other."),
        ("model", "tiny", "model: must be a mapping of keys to values, not 'tiny'."),
        ("model", {}, "model.name: missing; it has no default."),
        ("data", [], "data: name at least one source of rows."),
        ("data", {"name": "icons"}, "data: must be a list"),
        ("data.1.name", "icons", "data: two sources are named 'icons'."),
        ("data.0.dataset", "a/b", "data[0]: pass exactly one of file, folder, dataset and megapairs, not file"),
        ("data.0.file", 3, "data[0].file: must be a path, not 3."),
        ("output", "", "output: must be a path, not ''."),
        ("output", "a\0b", "output: must be a path, and no path has the character 0."),
        ("output", "~nobody-of-this-name/x", "output: ~nobody-of-this-name/x: there is no such user."),
        ("lora.rank", 10**30, "lora.rank: Input should be less than or equal to 1000000000"),
        ("data.0.file", None, "data[0]: pass exactly one of file, folder, dataset and megapairs, not none."),
        ("data.0.columns", None, "data[0]: columns: say what the rows are made of"),
        ("data.0.columns.anchor", {}, "data[0].columns.anchor: name the column of its text, of its image, or both."),
        ("data.0.columns.negatives", [{"txt": "a"}], "data[0].columns.negatives[0].txt: unknown key."),
        ("data.0.prompts", {"query": "Find it."}, "data[0]: prompts: no column 'query'; there are anchor, positive"),
        ("data.0.prompts", {"anchor": 3}, "data[0].prompts.anchor: Input should be a valid string, not 3."),
        ("data.0.sides", {"anchor": "left"}, "data[0].sides.anchor: Input should be 'query', 'document' or 'none'"),
        ("data.1.negatives", -1, "data[1].negatives: Input should be greater than or equal to 0, not -1."),
        ("data.1.subset", "x", "data[1]: subset: only a dataset of the Hub has one."),
        ("loss", {"mini_batch_size": 0}, "loss.mini_batch_size: Input should be greater than or equal to 1, not 0."),
        ("loss", {"matryoshka_dims": [64, 0]}, "loss.matryoshka_dims[1]: Input should be greater than or equal to 1"),
        ("loss", {"matryoshka_dims": 64}, "loss.matryoshka_dims: must be a list, not 64."),
        ("lora.rank", 0, "lora.rank: Input should be greater than or equal to 1, not 0."),
        ("lora.dropout", 1.5, "lora.dropout: Input should be less than or equal to 1, not 1.5."),
        ("evaluation", [{**GOOD["data"][0], "prompts": {}}], "evaluation"),
        ("train_vision", True, "train_vision: with an adapter, this is lora.vision."),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(place: str, value: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(changed(place, value), tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "config.yaml"))


def test_everything_that_is_wrong_is_told_a_line_each(tmp_path: Path) -> None:
    values = changed("training", {"steps": 0, "batchsize": 4})
    del values["output"]
    with pytest.raises(ConfigError) as caught:
        read(values, tmp_path)
    assert sorted(str(caught.value).splitlines()) == [
        f"{tmp_path / 'config.yaml'}: output: missing; it has no default.",
        f"{tmp_path / 'config.yaml'}: training.batchsize: unknown key. Did you mean 'batch_size'?",
        f"{tmp_path / 'config.yaml'}: training.steps: Input should be greater than or equal to 1, not 0.",
    ]


def test_the_users_folder_may_be_written_as_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read(changed("output", "~/out"), tmp_path).output == tmp_path / "out"


@pytest.mark.parametrize("wrong", [{"rank": 0}, {"rank": True}, {"dropout": 1.5}, {"rnak": 8}])
def test_an_adapter_that_is_set_up_in_python_is_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LoraSettings(**wrong)


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"mini_batch_size": 0}, {"matryoshka_dims": (0,)}])
def test_a_loss_that_is_set_up_in_python_is_checked_too(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LossSettings(**wrong)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "must be a mapping"), ("- a", "must be a mapping"), ("a: [", "not a YAML file"), ("a: !!python/x", "YAML")],
)
def test_a_file_that_holds_no_mapping_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        read(text, tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: No such file"):
        read_config(tmp_path / "nowhere.yaml")
