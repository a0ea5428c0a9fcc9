"""Arrays on disk of which something is damaged are refused by their names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from st_modules.errors import STModulesError
from st_modules.files.arrays import ArrayFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "vectors.npy"
    ArrayFile.create(path, (4, 3), np.float32).append(np.ones((2, 3)))
    return path


def test_a_whole_one_goes_on_where_it_was(path: Path) -> None:
    assert ArrayFile(path).filled == 2


@pytest.mark.parametrize(
    "content", ["", "{", "5", "-1", "1.5", "true", "null", "[" * 100_000], ids=lambda text: text[:5]
)
def test_a_number_of_rows_that_is_none_is_refused(path: Path, content: str) -> None:
    path.with_suffix(".filled").write_text(content)
    with pytest.raises(STModulesError, match=f"^{path}: it or vectors.filled beside it is damaged"):
        ArrayFile(path)


@pytest.mark.parametrize("size", [0, 5, 40, 130])
def test_a_truncated_array_is_refused(path: Path, size: int) -> None:
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(STModulesError, match=f"^{path}: "):
        ArrayFile(path)


@pytest.mark.parametrize("array", [np.ones(4), np.ones((4, 3, 2)), np.array([["a", None]], dtype=object)], ids=str)
def test_an_array_of_another_shape_or_of_objects_is_refused(path: Path, array: np.ndarray) -> None:
    np.save(path, array, allow_pickle=True)
    with pytest.raises(STModulesError, match=f"^{path}: "):
        ArrayFile(path)


def test_an_array_that_is_gone_is_refused(path: Path) -> None:
    path.unlink()
    with pytest.raises(STModulesError, match=f"^{path}: "):
        ArrayFile(path)
