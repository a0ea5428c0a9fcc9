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
        "ImageSource",
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
    "langchain_gme": {
        "GMEEmbeddings",
        "MultimodalFilter",
        "MultimodalRedundantFilter",
        "MultimodalRetriever",
        "MultimodalStore",
        "aadd_multimodal",
        "add_multimodal",
        "identify_images",
        "to_content_blocks",
    },
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


@pytest.mark.parametrize("module", ["langchain_gme", "langchain_gme.content", "llamaindex_gme", "llamaindex_gme.nodes"])
def test_an_adapter_without_its_library_says_what_to_install(module: str) -> None:
    library, package, extra = (
        ("langchain_core", "langchain-core", "langchain")
        if module.startswith("langchain")
        else ("llama_index", "llama-index-core", "llamaindex")
    )
    # A finder before all others knows neither the library nor anything in it, as where it is not installed.
    program = f"""
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {library!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
try:
    import {module}
except ImportError as error:
    print(type(error).__name__, error)
"""
    shown = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=ROOT)
    assert shown.stdout.strip() == f'MissingExtraError This needs {package}: pip install "st-modules[{extra}]"'


def test_another_missing_package_is_named_as_python_names_it() -> None:
    program = "import sys; sys.modules['pydantic'] = None; import langchain_gme"
    shown = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert "MissingExtraError" not in shown.stderr
    assert "pydantic" in shown.stderr
