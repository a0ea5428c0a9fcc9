"""What is installed: the wheel's files, and requirements that fit the versions that the tests run on."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.metadata import entry_points, requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.paths import ROOT

PINS = {
    canonicalize_name(name): version
    for name, equals, version in (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    if equals
}
REQUIREMENTS = [Requirement(line) for line in requires("st-modules") or [] if not line.startswith("st-modules")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return zipfile.ZipFile(next(folder.glob("*.whl")))


@pytest.mark.parametrize("package", ["st_modules", "langchain_gme", "llamaindex_gme"])
def test_wheel_has_the_packages_with_their_types(wheel: zipfile.ZipFile, package: str) -> None:
    assert {f"{package}/__init__.py", f"{package}/py.typed"} <= set(wheel.namelist())


def test_wheel_has_every_file_of_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    files = {path.relative_to(ROOT).as_posix() for path in (ROOT / "st_modules").rglob("*") if path.is_file()}
    packed = {name for name in wheel.namelist() if name.startswith("st_modules/")}
    assert packed == {name for name in files if "__pycache__" not in name}
    assert {name.split("/")[0].split("-")[0] for name in wheel.namelist()} == {
        "st_modules",
        "langchain_gme",
        "llamaindex_gme",
    }


def test_wheel_carries_the_licence(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("licenses/LICENSE"))
    assert "Apache License" in wheel.read(name).decode()


def test_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="st-modules")
    assert callable(command.load())


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_is_bounded_below_and_allows_the_pinned_version(requirement: Requirement) -> None:
    assert any(bound.operator == ">=" for bound in requirement.specifier)
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])
