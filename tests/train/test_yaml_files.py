"""YAML files are read as YAML says, and within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from st_modules.train import ConfigError, yaml_files
from st_modules.train.yaml_files import read_yaml

LEVELS = "abcdefghijklmnop"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 8)}]\n" for before, name in zip(LEVELS, LEVELS[1:], strict=False)
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


@pytest.mark.parametrize(
    "text",
    ["", "5", "a: 1e-4", "a: {b: [1, 2.5, yes, ~, 2020-01-01]}", "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]", "- ü"],
)
def test_a_file_is_read_as_yaml_reads_it(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    assert read_yaml(path) == yaml.safe_load(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "over 100000 values"),
        ("a: &a [*a]", "nested more than 50 levels"),
        ("[" * 60 + "]" * 60, "nested more than 50 levels"),
        ("[" * 3000, "nested more than 50 levels"),
        ("a: 1\nb: {c: 1}\na: 2", "line 3: a is there twice"),
        ("b:\n  - c: 1\n    c: 1", "line 3: c is there twice"),
        ("a: " + "9" * 5000, "not a YAML file"),
        ("a: 2020-99-99", "not a YAML file"),
        ("a: 1\n---\nb: 2", "not a YAML file"),
        ("!!python/object/apply:os.getcwd []", "not a YAML file"),
        ("a: \0", "not a YAML file"),
        ("? [a]\n: 1", "not a YAML file"),
    ],
    ids=lambda value: value[:20],
)
def test_what_has_no_bound_or_no_sense_is_refused_by_the_file(path: Path, text: str, message: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"^{path}: {message}"):
        read_yaml(path)


def test_a_file_that_is_not_utf8_is_refused(path: Path) -> None:
    path.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match=f"^{path}: not a YAML file"):
        read_yaml(path)


def test_a_file_that_is_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_files, "_MOST_BYTES", 5)
    path.write_text("a: 12")
    assert read_yaml(path) == {"a": 12}
    path.write_text("a: 123")
    with pytest.raises(ConfigError, match=f"^{path}: over 5 bytes"):
        read_yaml(path)


def test_a_device_is_read_no_further_than_a_file_may_be(path: Path) -> None:
    path.symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=f"^{path}: over "):
        read_yaml(path)
