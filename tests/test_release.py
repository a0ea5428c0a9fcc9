"""The files that a release is made by, and what the page on versions says: checked here, not run."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from st_modules import __version__
from tests.helpers.paths import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORKFLOWS = ROOT / ".github" / "workflows"
PAGE = (ROOT / "docs" / "versions.md").read_text(encoding="utf-8")
TESTED = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
# What conda-forge calls differently.
CONDA_NAMES = {"torch": "pytorch"}


def read(path: Path) -> dict[str, Any]:
    # BaseLoader: YAML 1.1 would read the key "on" as a truth.
    return yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)


@pytest.mark.parametrize("name", ["ci.yml", "release.yml"])
def test_a_workflow_is_valid(name: str) -> None:
    linter = str(Path(sys.executable).parent / "check-jsonschema")
    command = [linter, "--builtin-schema", "vendor.github-workflows", str(WORKFLOWS / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_release_is_checked_built_and_published_by_jobs_of_the_least_rights() -> None:
    release = read(WORKFLOWS / "release.yml")
    jobs = release["jobs"]
    assert release["permissions"] == {}
    assert {name: job["permissions"] for name, job in jobs.items()} == {
        "check": {"contents": "read"},
        "build": {"contents": "read", "id-token": "write", "attestations": "write"},
        "publish": {"id-token": "write"},
    }
    assert (jobs["build"]["needs"], jobs["publish"]["needs"]) == ("check", "build")
    # What can publish runs two actions, and no command.
    assert [list(step)[0] for step in jobs["publish"]["steps"]] == ["uses", "uses"]
    assert jobs["publish"]["environment"]["name"] == "pypi"


def test_ci_runs_what_is_run_elsewhere() -> None:
    ci = read(WORKFLOWS / "ci.yml")
    assert ci["permissions"] == {"contents": "read"}
    assert [step["run"] for step in ci["jobs"]["check"]["steps"] if "run" in step] == [".ci/run"]
    assert ci["jobs"]["check"]["strategy"]["matrix"]["python"] == TESTED


@pytest.fixture(scope="module")
def recipe() -> dict[str, Any]:
    return read(ROOT / "conda" / "recipe.yaml")


def test_the_conda_recipe_asks_for_what_the_package_asks_for(recipe: dict[str, Any]) -> None:
    needs = [Requirement(line) for line in PROJECT["dependencies"]]
    wanted = {CONDA_NAMES.get(need.name, need.name): need.specifier for need in needs}
    python, *packages = recipe["requirements"]["run"]
    assert python == f"python {PROJECT['requires-python']}"
    assert {Requirement(line).name: Requirement(line).specifier for line in packages} == wanted


def test_the_conda_recipe_is_of_this_version_and_command(recipe: dict[str, Any]) -> None:
    ((command, entry_point),) = PROJECT["scripts"].items()
    assert recipe["context"]["version"] == __version__
    assert recipe["build"]["python"]["entry_points"] == [f"{command} = {entry_point}"]
    assert (recipe["package"]["name"], recipe["about"]["license"]) == (PROJECT["name"], PROJECT["license"])


@pytest.mark.parametrize("name", ["torch", "transformers", "sentence-transformers", "peft", "pillow", "numpy"])
def test_the_page_on_versions_has_the_bounds_and_the_pin(name: str) -> None:
    (need,) = (each for each in map(Requirement, PROJECT["dependencies"]) if each.name == name)
    (pin,) = re.findall(rf"^{name}==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    bounds = sorted(map(str, need.specifier), key=lambda bound: bound[0], reverse=True)
    assert f"| {name} | `{','.join(bounds)}` | {pin} |" in PAGE


def test_python_is_what_the_page_on_versions_says() -> None:
    assert f"`{PROJECT['requires-python']}`" in PAGE
    assert re.findall(r"^\| (3\.\d+) \| every test", PAGE, re.MULTILINE) == TESTED
