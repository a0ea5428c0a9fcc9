from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import sentence_transformers
from sentence_transformers.sentence_transformer.modules import Normalize

import st_modules
from tests.helpers.paths import GOLDEN

CHECKPOINT = GOLDEN / "gme" / "checkpoint"
GOLDEN_WEIGHTS: dict[str, Any] = {"weights": CHECKPOINT}
"""An argument that the plain class has only once it is registered."""
PLAIN = sentence_transformers.SentenceTransformer


@pytest.fixture
def registered() -> Iterator[None]:
    st_modules.register()
    yield
    st_modules.unregister()


def test_the_plain_class_loads_the_catalogs_names_once_registered(registered: None) -> None:
    model = PLAIN("gme-2b", **GOLDEN_WEIGHTS, device="cpu")
    own = st_modules.SentenceTransformer("gme-2b", weights=CHECKPOINT, device="cpu")
    assert type(model) is st_modules.SentenceTransformer
    assert (model.encode("a") == own.encode("a")).all()


def test_other_models_are_built_as_before_once_registered(registered: None) -> None:
    model = PLAIN(modules=[Normalize()])
    assert type(model) is PLAIN


def test_registering_twice_is_undone_by_unregistering_once() -> None:
    before = PLAIN.__init__
    st_modules.register()
    once = PLAIN.__init__
    st_modules.register()
    assert PLAIN.__init__ is once is not before
    assert inspect.signature(once) == inspect.signature(before)
    st_modules.unregister()
    assert PLAIN.__init__ is before
    st_modules.unregister()
    assert PLAIN.__init__ is before


def test_subclasses_of_others_are_untouched_once_registered(registered: None) -> None:
    class Theirs(PLAIN):
        pass

    with pytest.raises(TypeError, match="weights"):
        Theirs("gme-2b", **GOLDEN_WEIGHTS)


def test_importing_the_package_changes_nothing_in_sentence_transformers() -> None:
    code = (
        "import sentence_transformers as s; b = dict(vars(s.SentenceTransformer));"
        "import st_modules.registration; assert dict(vars(s.SentenceTransformer)) == b"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
