"""A fingerprint is that of what a model makes of an item, and of nothing else."""

from __future__ import annotations

import pytest
import torch

from st_modules import SentenceTransformer
from st_modules.index import IndexMismatchError
from st_modules.index.model_facts import ModelFacts, fingerprint, name_model


def load(**options: object) -> SentenceTransformer:
    return SentenceTransformer("tiny", device="cpu", **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "options", [{}, {"model_kwargs": {"dtype": torch.bfloat16}}, {"keep_prefixes": True}, {"max_batch_tokens": 100}]
)
def test_a_model_is_the_same_however_it_runs(tiny: SentenceTransformer, options: dict[str, object]) -> None:
    assert fingerprint(load(**options)) == fingerprint(tiny)


@pytest.mark.parametrize("options", [{"max_image_tokens": 15}, {"max_length": 100}])
def test_other_options_are_another_model(tiny: SentenceTransformer, options: dict[str, object]) -> None:
    assert fingerprint(load(**options)) != fingerprint(tiny)


def test_other_weights_are_another_model(tiny: SentenceTransformer) -> None:
    other = load()
    with torch.no_grad():
        next(other.parameters()).mul_(1.5)
    assert fingerprint(other) != fingerprint(tiny)


def test_a_fingerprint_is_computed_once_for_a_loaded_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load()
    found = fingerprint(model)
    monkeypatch.setattr(model, "state_dict", lambda: pytest.fail("hashed again"))
    assert fingerprint(model) == found


def test_another_model_is_refused_by_both_names(tiny: SentenceTransformer) -> None:
    facts = ModelFacts("gme-2b", "0" * 32, 1536)
    with pytest.raises(IndexMismatchError, match=f"gme-2b .*0{{32}}.* tiny .*{fingerprint(tiny)}"):
        facts.check_model(tiny, "made.index")


def test_a_model_is_called_what_loads_it(tiny: SentenceTransformer) -> None:
    assert name_model(tiny) == "tiny"
