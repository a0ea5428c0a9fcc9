"""What the packages offer: the names that programs may rely on, and none beside them."""

from __future__ import annotations

import ast
import importlib
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from st_modules import MissingExtraError
from tests.helpers.paths import ROOT

PUBLIC = {
    "st_modules": {
        "BatchEmbedder",
        "CheckpointError",
        "CrossEncoder",
        "Embedder",
        "EncodeOptions",
        "ImageError",
        "ImageLimits",
        "ImageSource",
        "InputError",
        "MissingExtraError",
        "ModelSpec",
        "Place",
        "RemoteEmbedder",
        "Reranker",
        "STModulesError",
        "SentenceTransformer",
        "ServerError",
        "Side",
        "UnknownModelError",
        "VideoError",
        "VideoSource",
        "get_model",
        "image_suffixes",
        "list_errors",
        "list_models",
        "register",
        "unregister",
    },
    "st_modules.integrations": {"ChromaEmbeddings", "LanceDBEmbeddings"},
    "langchain_gme": {
        "GMEEmbeddings",
        "IndexRetriever",
        "MultimodalFilter",
        "MultimodalRedundantFilter",
        "MultimodalReranker",
        "MultimodalRetriever",
        "MultimodalStore",
        "aadd_multimodal",
        "add_multimodal",
        "identify_images",
        "to_content_blocks",
    },
    "llamaindex_gme": {
        "GMEEmbedding",
        "IndexRetriever",
        "MultimodalNodeParser",
        "MultimodalRerank",
        "MultimodalVectorIndexRetriever",
        "identify_images",
        "multimodal_readers",
    },
}
LAZY = ["st_modules", "st_modules.evaluate", "st_modules.integrations", "st_modules.megapairs", "st_modules.train"]


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


ADAPTERS = {
    "langchain_gme": ("content", "langchain_core", 'This needs langchain-core: pip install "st-modules[langchain]"'),
    "llamaindex_gme": ("nodes", "llama_index", 'This needs llama-index-core: pip install "st-modules[llamaindex]"'),
}
"""Of each: a module, the library that both need, and what to do where that is missing."""


@pytest.mark.parametrize("package", ADAPTERS)
def test_a_module_of_an_adapter_without_its_library_says_what_to_install(package: str) -> None:
    module, library, advice = ADAPTERS[package]
    program = f"import sys; sys.modules[{library!r}] = None; import {package}.{module}"
    shown = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, cwd=ROOT)
    assert shown.stderr.splitlines()[-1] == f"st_modules.errors.MissingExtraError: {advice}"


@pytest.mark.parametrize("package", ADAPTERS)
def test_an_adapter_without_its_library_says_what_to_install(package: str) -> None:
    _, library, advice = ADAPTERS[package]
    with pytest.raises(MissingExtraError) as caught:
        import_without(package, library)
    assert str(caught.value) == advice


@pytest.mark.parametrize("package", ADAPTERS)
def test_another_missing_package_is_named_as_python_names_it(package: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="typing"):
        import_without(package, "typing")


def import_without(package: str, missing: str) -> None:
    """Import a package anew, where something that its modules import is not installed."""
    module = importlib.import_module(package)
    with pytest.MonkeyPatch.context() as patch:  # pytest's plugins import things too, when the test has ended
        for name in [name for name in sys.modules if name.startswith(f"{package}.")]:
            patch.delitem(sys.modules, name)
        for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
            patch.setitem(sys.modules, name, None)
        runpy.run_path(str(module.__file__))
