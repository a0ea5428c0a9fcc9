from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from st_modules import SentenceTransformer
from st_modules.serve import create_app
from tests.helpers.gallery import Gallery
from tests.helpers.searchable import index_collection
from tests.helpers.serving import KEY, HeldModel, Running, serve


@pytest.fixture(scope="session")
def client(tiny: SentenceTransformer) -> TestClient:
    """A client of an application with "tiny", as it is by default."""
    return TestClient(create_app(tiny))


@pytest.fixture
def app(tiny: SentenceTransformer) -> FastAPI:
    """An application of the test's own."""
    return create_app(tiny)


@pytest.fixture
def held(app: FastAPI) -> HeldModel:
    """The model of ``app``, which can be held up."""
    model = HeldModel(app.state.service.model)
    app.state.service.model = model
    return model


@pytest.fixture(scope="session")
def running() -> Iterator[Running]:
    """A server in a process of its own, which asks for a key."""
    with serve(ST_MODULES_API_KEY=KEY) as server:
        yield server


@pytest.fixture(scope="session")
def collection(tmp_path_factory: pytest.TempPathFactory, gallery: Gallery, tiny: SentenceTransformer) -> Path:
    """An index of drawings, captions and a PDF; no test changes it."""
    return index_collection(tmp_path_factory.mktemp("collection"), gallery, tiny)
