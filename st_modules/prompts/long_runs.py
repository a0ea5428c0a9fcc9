"""Long runs of characters that a tokenizer reads as one token, or as none, however long they are.

Spaces are one space for CLIP, BERT and XLM-R; a word of over a hundred characters is one unknown token for BERT, and so
are characters that XLM-R's vocabulary does not have. What is taken out of the middle of such a run changes no token.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any, cast

from tokenizers.models import Unigram, WordPiece
from transformers import PreTrainedTokenizerBase

# Each character is tried, and each token that was added is looked for among them.
_MOST_CHARACTERS, _MOST_ADDED = 4096, 64
# What is kept of each end of a run, at least; the lengths of runs that are tried.
_KEPT = 64
_COUNTS = (2, 3, 2 * _KEPT)


def shorten_runs(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    """Return a text that has the same tokens, in which such runs are short.

    Args:
        tokenizer: Reads the text.
        text: The text.
    """
    backend, added = cast(Any, tokenizer).backend_tokenizer, cast(Any, tokenizer).added_tokens_decoder.values()
    contents: list[str] = [token.content for token in added]
    characters = set(text)
    if len(characters) > _MOST_CHARACTERS or len(contents) > _MOST_ADDED:
        return text
    longest_word: int = backend.model.max_input_chars_per_word if _has_words(backend) else 0
    kept = max(_KEPT, longest_word, *map(len, contents))
    for alike in (_find_spaces(backend, characters), _find_unread(tokenizer, characters)):
        # A token that was added is read in the middle of a run too.
        cased = {case for each in alike for case in (each, each.lower(), each.upper())}
        if alike and not any(cased.issuperset(content) for content in contents):
            run = re.compile(f"[{''.join(map(re.escape, sorted(alike)))}]{{{2 * kept + 1},}}")
            text = run.sub(lambda found: found[0][:kept] + found[0][-kept:], text)
    return text


def _find_spaces(backend: Any, characters: Iterable[str]) -> set[str]:
    """Find the white space of which any amount is read as one space is."""
    one = _read(backend, "a b")
    spaces = [character for character in characters if character.isspace()]
    return {each for each in spaces if all(_read(backend, f"a{each * count}b") == one for count in (1, *_COUNTS))}


def _find_unread(tokenizer: Any, characters: Iterable[str]) -> set[str]:
    """Find the characters of which a long run is one unknown token, whichever of them it has."""
    backend, unknown = tokenizer.backend_tokenizer, tokenizer.unk_token_id
    if _has_words(backend):
        # They are in one word with those beside them, and do not vanish.
        return {each for each in characters if [len(word) >= 3 for word in _words(backend, f"a{each}a")] == [True]}
    if isinstance(backend.model, Unigram) and unknown is not None:
        alone = [each for each in characters if _is_alone(each)]
        return {
            each for each in alone if all(_read(backend, f"a{each * count}a")[1:-1] == [unknown] for count in _COUNTS)
        }
    return set()


def _read(backend: Any, text: str) -> list[int]:
    return backend.encode(text, add_special_tokens=False).ids


def _has_words(backend: Any) -> bool:
    return isinstance(backend.model, WordPiece) and backend.normalizer is not None and backend.pre_tokenizer is not None


def _words(backend: Any, text: str) -> list[str]:
    return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(text))]


def _is_alone(character: str) -> bool:
    """Whether a character is normalised without those beside it, as marks and the letters of syllables are not."""
    return unicodedata.category(character) in ("Lo", "So", "Lu", "Ll") and not "\u1100" <= character <= "\u11ff"
