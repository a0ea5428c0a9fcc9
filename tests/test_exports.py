"""What the packages offer: the names that programs may rely on, and none beside them."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PUBLIC = {
    "st_modules": {
        "CheckpointError",
        "Embedder",
        "EncodeOptions",
        "ImageError",
        "ImageLimits",
        "InputError",
        "MissingExtraError",
        "ModelSpec",
        "Place",
        "STModulesError",
        "SentenceTransformer",
        "Side",
        "UnknownModelError",
        "get_model",
        "list_models",
        "register",
        "unregister",
    },
    "langchain_gme": {"GMEEmbeddings", "MultimodalRetriever", "aadd_multimodal", "add_multimodal"},
    "llamaindex_gme": {"GMEEmbedding", "MultimodalVectorIndexRetriever", "identify_images"},
}
LAZY = ["st_modules", "st_modules.evaluate", "st_modules.megapairs", "st_modules.train"]


@pytest.mark.parametrize("package", PUBLIC)
def test_a_package_exports_these_names(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) == PUBLIC[package]
    assert [name for name in module.__all__ if not hasattr(module, name)] == []


@pytest.mark.parametrize("package", LAZY)
def test_exported_names_are_those_that_type_checkers_see(package: str) -> None:
    module = importlib.import_module(package)
    assert set(module.__all__) <= imported_names(Path(str(module.__file__)))


def imported_names(path: Path) -> set[str]:
    """The names that a package imports for type checkers or for all."""
    imports = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom))
    return {alias.asname or alias.name for node in imports for alias in node.names}


@pytest.mark.parametrize("package", LAZY)
def test_dir_shows_public_names_alone(package: str) -> None:
    program = f"import {package} as package; print(*dir(package))"
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert shown.stdout.split() == sorted(importlib.import_module(package).__all__)


@pytest.mark.parametrize("package", LAZY)
def test_an_unknown_name_is_an_attribute_error(package: str) -> None:
    module = importlib.import_module(package)
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nothing'"):
        _ = module.nothing
