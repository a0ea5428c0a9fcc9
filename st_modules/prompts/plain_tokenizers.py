"""Tokenizers of users' texts: to them, control tokens are words like any other."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from transformers import AddedToken, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from st_modules.errors import CheckpointError
from st_modules.prompts.tokenizer_files import TOKENIZER_FILE

_END_OF_TEXT = "</s>"
"""Phi-3-V's tokenizer does not mark it as special, and not every layout of that model has it."""


def choose_class(folder: Path, fallback: type[PreTrainedTokenizerBase]) -> Any:
    """Return the class that reads a folder's tokenizer.

    Args:
        folder: Folder with the tokenizer's files.
        fallback: The class for a folder without ``tokenizer.json``.

    Raises:
        CheckpointError: The files are missing.
    """
    if (folder / TOKENIZER_FILE).is_file():
        return PreTrainedTokenizerFast
    # Without its files a tokenizer class builds an empty vocabulary.
    needed = sorted(set(fallback.vocab_files_names.values()) - {TOKENIZER_FILE})
    if not needed or not all((folder / name).is_file() for name in needed):
        others = f" (or {' and '.join(needed)})" if needed else ""
        raise CheckpointError(f"{folder}: no {TOKENIZER_FILE}{others} in it, which the tokenizer is made of.")
    return fallback


def read_as_text(tokenizer: PreTrainedTokenizerBase, control_tokens: Sequence[str]) -> None:
    """Change a tokenizer, made with ``split_special_tokens=True``, so that it finds no control token in a text."""
    # split_special_tokens spares only tokens that are marked as special, and some published tokenizers do not mark
    # their image token, or the end of a text.
    unmarked = [
        AddedToken(token.content, normalized=token.normalized, special=True)
        for token in cast("dict[int, Any]", tokenizer.added_tokens_decoder).values()
        if token.content in {*control_tokens, _END_OF_TEXT} and not token.special
    ]
    if unmarked:
        tokenizer.add_tokens(unmarked, special_tokens=True)
    _hide_control_pieces(tokenizer, control_tokens)


def _hide_control_pieces(tokenizer: Any, control_tokens: Sequence[str]) -> None:
    # A Unigram model finds control tokens in a text by itself, since they are pieces of its vocabulary. With a space
    # before them they match nothing: every space of a text has become another character by then.
    backend = tokenizer.backend_tokenizer
    if not isinstance(backend.model, Unigram):
        return
    model = json.loads(backend.to_str())["model"]
    hidden = {*control_tokens, *(token.content for token in tokenizer.added_tokens_decoder.values() if token.special)}
    vocabulary = [(f" {piece}" if piece in hidden else piece, score) for piece, score in model["vocab"]]
    backend.model = Unigram(vocabulary, model["unk_id"], model["byte_fallback"])


def opens_words_once(tokenizer: Any) -> bool:
    """Whether a tokenizer puts a space before the first text of a string alone."""
    # Some SentencePiece tokenizers put a space before the first text of a string only; each piece is a string here.
    pre_tokenizer = tokenizer.backend_tokenizer.pre_tokenizer
    return isinstance(pre_tokenizer, Metaspace) and pre_tokenizer.prepend_scheme == "first"
