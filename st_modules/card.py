"""What the model card of a saved model says: sentence-transformers' card, in words that hold for these models."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from sentence_transformers.base.model_card import BaseModelCardData

from st_modules.catalog import ModelSpec

_LANGUAGES = {
    "Chinese": "zh",
    "English": "en",
    "French": "fr",
    "German": "de",
    "Italian": "it",
    "Spanish": "es",
    "multilingual": "multilingual",
}

# A saved model loads through this package, so its card must not send readers to the plain class.
_WORDING = {
    "First install the Sentence Transformers library:": "First install st-modules:",
    "pip install -U sentence-transformers": "pip install -U st-modules",
    "from sentence_transformers import SentenceTransformer": "from st_modules import SentenceTransformer",
    "from sentence_transformers import CrossEncoder": "from st_modules import CrossEncoder",
}
_MADE_FROM = re.compile(
    r"(This is a \[(?:sentence-transformers|Cross Encoder)\]\([^)]*\) model) "
    r"(?:finetuned from (\[.*?\]\(.*?\))|trained)"
)
_SNIPPET = re.compile(r"```python\n.*?\n```", re.DOTALL)
EMBEDDER_USAGE = """\
```python
from st_modules import SentenceTransformer

# The folder of this file, or its repository on the Hub
model = SentenceTransformer("{model_id}")

query = model.encode_query("a red bicycle")
# A picture is a path, a URL or a Pillow image; a text with a picture becomes one vector
documents = model.encode_document(
    [
        "A bicycle with a red frame leans on a wall.",
        {"image": "picture.jpg"},
        {"text": "A bicycle with a red frame", "image": "picture.jpg"},
    ]
)
print(documents.shape)
# (3, {dimension})
print(model.similarity(query, documents))
```"""
RERANKER_USAGE = """\
```python
from st_modules import CrossEncoder

# The folder of this file, or its repository on the Hub
model = CrossEncoder("{model_id}")

# A picture is a path, a URL or a Pillow image; a document may have a text and pictures
documents = [
    "A bicycle with a red frame leans on a wall.",
    {"image": "picture.jpg"},
    {"text": "A bicycle with a red frame", "image": "picture.jpg"},
]
print(model.rank("a red bicycle", documents))
```"""


@contextmanager
def write_card(
    path: Path, data: BaseModelCardData, spec: ModelSpec | None, *, kept: str | None, usage: str
) -> Generator[None, None, None]:
    """Let sentence-transformers write a card within, and put it into words that hold for these models.

    Args:
        path: The card.
        data: What the card is made of. What it lacks is filled in.
        spec: The catalog's row, where the model was loaded by its name.
        kept: The card that the model was loaded with. It is written again as it is, unless the model was trained.
        usage: The example, with ``{model_id}`` in the place of the model's name.
    """
    trained = "generated_from_trainer" in data.tags
    made = trained or not kept
    if made:
        _complete(data, spec, kept)
    with _no_examples(data):
        yield
    if not path.is_file():  # sentence-transformers has logged why
        return
    card = path.read_text(encoding="utf-8")
    if made:
        example = usage.replace("{model_id}", data.model_id or "sentence_transformers_model_id")
        card = _SNIPPET.sub(lambda _: example, card, count=1)
    if not trained:
        card = _MADE_FROM.sub(_say_loaded, card)
    for theirs, ours in _WORDING.items():
        card = card.replace(theirs, ours)
    path.write_text(card, encoding="utf-8")


def _complete(data: BaseModelCardData, spec: ModelSpec | None, kept: str | None) -> None:
    data.add_tags("multimodal")
    if spec:
        data.license = data.license or spec.licence
        data.language = data.language or [_LANGUAGES[name] for name in spec.languages.split(", ")]
    elif kept:
        stated = _read_metadata(kept)
        data.license = data.license or stated.get("license")
        data.language = data.language or stated.get("language")
        if isinstance(base := stated.get("base_model"), str):  # it is a list where several models were merged
            data.base_model = data.base_model or base


def _read_metadata(card: str) -> dict[str, Any]:
    try:
        return ModelCard(card, ignore_metadata_errors=True).data.to_dict()
    except Exception:  # a card that its owner has damaged is no reason not to save the model
        return {}


@contextmanager
def _no_examples(data: BaseModelCardData) -> Generator[None, None, None]:
    """Keep rows of the training data out of the example: they may be private, and name files of another machine."""
    before = data.usage_examples, data.generate_widget_examples
    data.usage_examples, data.generate_widget_examples = [], False
    try:
        yield
    finally:
        data.usage_examples, data.generate_widget_examples = before


def _say_loaded(found: re.Match[str]) -> str:
    """Say of a model that was loaded and saved that it is what it was loaded from, and not made from it."""
    return f"{found[1]}: {found[2]}, saved by st-modules" if found[2] else found[1]
