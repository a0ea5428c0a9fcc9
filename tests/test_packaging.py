"""What is released: the files of the wheel and of the sdist, what they say and ask for, and a fresh environment."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.metadata import entry_points, metadata, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from trove_classifiers import classifiers

from tests.helpers.distributions import needs_of, show_alone
from tests.helpers.paths import ROOT

PINS = {
    canonicalize_name(name): version
    for name, equals, version in (line.partition("==") for line in (ROOT / "constraints.txt").read_text().splitlines())
    if equals
}
REQUIREMENTS = [Requirement(line) for line in requires("st-modules") or [] if not line.startswith("st-modules")]


EXTRAS = sorted(set(metadata("st-modules").get_all("Provides-Extra") or ()) - {"dev"})
# torch 2.13 names CUDA's libraries, and triton, as its own needs where it is built for them.
CUDA = ("cuda", "nvidia", "pytorch-triton", "torchvision", "triton")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sdist and of the wheel that was built of it."""
    folder = tmp_path_factory.mktemp("built")
    build(ROOT, "sdist", folder)
    with tarfile.open(next(folder.glob("*.tar.gz"))) as sdist:
        sdist.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    build(source, "wheel", folder)
    return folder


def build(source: Path, target: str, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", target, "--directory", str(folder)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


@pytest.fixture(scope="module")
def sdist(built: Path) -> set[str]:
    """The names of its files, without the folder that all are in."""
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        return {name.partition("/")[2] for name in archive.getnames()}


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    return zipfile.ZipFile(next(built.glob("*.whl")))


@pytest.fixture(scope="module")
def described(wheel: zipfile.ZipFile) -> Metadata:
    (name,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    return Metadata.from_email(wheel.read(name), validate=True)


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


def test_sdist_has_what_the_wheel_is_built_of_and_nothing_else(sdist: set[str], wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert sdist - packed == {"LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    assert packed - sdist == set()


def test_metadata_is_valid_and_complete(described: Metadata) -> None:
    assert (described.name, described.license_expression) == ("st-modules", "Apache-2.0")
    assert described.description_content_type == "text/markdown"
    assert described.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(described.classifiers or ()) <= classifiers


def test_command_is_installed() -> None:
    (command,) = entry_points(group="console_scripts", name="st-modules")
    assert callable(command.load())


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=str)
def test_each_requirement_is_bounded_below_and_allows_the_pinned_version(requirement: Requirement) -> None:
    assert any(bound.operator == ">=" for bound in requirement.specifier)
    assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)])


@pytest.mark.parametrize("extra", ["", *EXTRAS])
def test_neither_cuda_nor_torchvision_comes_but_by_torch_itself(extra: str) -> None:
    needs = needs_of("st-modules", [extra], not_through="torch")
    assert "torch" in needs
    assert {name for name in needs if name.startswith(CUDA)} == set()


@pytest.mark.skipif(
    (sys.platform, *sys.version_info[:2]) != ("linux", 3, 11), reason="other systems need other packages"
)
def test_every_pin_is_of_what_is_needed() -> None:
    assert set(PINS) - needs_of("st-modules", ["dev"]) == set()


@pytest.fixture(scope="module")
def fresh(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that has the wheel, what it needs without extras, and nothing else.

    What it needs is linked from this environment: the same versions, without network, in a second.
    """
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder / "venv", symlinks=True)
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    (site / "needs.pth").write_text(f"{folder / 'needs'}\n")
    show_alone(needs_of("st-modules") - {"st-modules"}, folder / "needs")
    python = str(folder / "venv" / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-index"]
    subprocess.run([*pip, str(next(built.glob("*.whl")))], check=True)
    return folder / "venv" / "bin"


EMBED = """
import importlib.util
import runpy
import sys

from st_modules import SentenceTransformer

command, *extras = sys.argv[1:]
assert not [name for name in extras if importlib.util.find_spec(name)]
print(SentenceTransformer("tiny", device="cpu").encode("a red circle")[0])
sys.argv = [command, "embed", "a red circle", "--out", "vectors.npy"]
runpy.run_path(command, run_name="__main__")
"""


def test_wheel_and_its_command_embed_without_extras(fresh: Path, tmp_path: Path) -> None:
    # One process for both, since most of the time goes into importing torch.
    extras = ["fastapi", "lancedb", "langchain_core", "llama_index", "mteb", "pyarrow", "pypdfium2", "torchvision"]
    done = subprocess.run(
        [str(fresh / "python"), "-c", EMBED, str(fresh / "st-modules"), *extras],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV_"))},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    vectors = np.load(tmp_path / "vectors.npy")
    assert vectors.shape == (1, 128)
    assert vectors[0, 0] == pytest.approx(float(done.stdout.splitlines()[0]), abs=1e-6)
