"""A model for the tests of this folder."""

from __future__ import annotations

import pytest

from st_modules import SentenceTransformer
from tests.helpers.references import reference


@pytest.fixture
def gme() -> SentenceTransformer:
    return reference("gme-2b").load("gme-2b", min_image_tokens=4, max_image_tokens=64)
