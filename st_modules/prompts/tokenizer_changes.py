"""What a tokenizer reads texts by, so that a change of it is noticed."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

from transformers import AddedToken

CHANGED = (
    "The tokenizer was changed by more than add_tokens, which is all that texts are read by. Special tokens are none "
    "of a text's: add them as plain ones. For another tokenizer change the files of a saved model, and load it again."
)
"""What errors say of a tokenizer that was changed in another way."""


class Added(NamedTuple):
    """A token that a tokenizer has beside its model's vocabulary, and how it is found in a text."""

    id: int
    content: str
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool
    special: bool


class Description(NamedTuple):
    """What a tokenizer reads texts by, as far as it can be changed."""

    tokens: tuple[Added, ...]
    rules: tuple[str, ...]


def describe(tokenizer: Any) -> Description:
    """Return what a tokenizer reads texts by; this takes little enough time for every call."""
    tokens = [
        Added(number, each.content, each.single_word, each.lstrip, each.rstrip, each.normalized, each.special)
        for number, each in sorted(tokenizer.added_tokens_decoder.items())
    ]
    backend = tokenizer.backend_tokenizer
    parts = (backend.normalizer, backend.pre_tokenizer, backend.post_processor)
    edges = (getattr(tokenizer, name, None) for name in ("add_bos_token", "add_eos_token"))
    return Description(tuple(tokens), (*map(str, parts), str(tokenizer.special_tokens_map), *map(str, edges)))


def hash_rules(tokenizer: Any) -> bytes:
    """Return a hash of all that a tokenizer reads texts by, but for added tokens."""
    written: str = tokenizer.backend_tokenizer.to_str()
    return hashlib.blake2b(written[written.index('"normalizer"') :].encode()).digest()


def make_added_token(token: Added) -> AddedToken:
    """Return a token as other tokenizers take it."""
    options = token._asdict()
    del options["id"]
    return AddedToken(options.pop("content"), **options)
