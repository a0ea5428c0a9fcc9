"""Reading a path as the command line does."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_modules.files.reading import read_file
from st_modules.files.records import Reading
from st_modules.files.tables import Columns
from tests.helpers.files import Read


@pytest.fixture
def read(tmp_path_factory: pytest.TempPathFactory) -> Read:
    scratch = tmp_path_factory.mktemp("scratch")

    def read(path: Path, **columns: str) -> Reading:
        return read_file(path, Columns(**columns), scratch)

    return read
