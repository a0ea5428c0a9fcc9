"""Long texts, cut before they are tokenised to what a model reads of them.

A text is cut at a place where what follows can change none of the tokens that count. The place is proven, not guessed:

- Normalisation does not reach over it (``_is_plain``), and neither does a token that was added to the vocabulary.
- The pre-tokenizers read from the left. What comes next can join or split their last word, and two words of white
  space (a line break takes back the spaces before it), and none before.
- Within a word, BPE and Unigram read what is left of a boundary between two tokens as if it stood alone: no merge and
  no best path of its left depends on its right. So the tokens at the beginning of a word are sure where they come out
  alike for every boundary that is possible near its end.
"""

from __future__ import annotations

import dataclasses
import os.path
import pickle
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, cast

from tokenizers.models import BPE, Unigram
from transformers import PreTrainedTokenizerBase

from st_modules.errors import InputError, Place
from st_modules.prompts.long_runs import shorten_runs
from st_modules.prompts.segments import Text

# The first try, which is enough for prose and for code; a text that is not longer is read as it is.
_USUAL_PER_TOKEN, _USUAL = 8, 1024
# The last try. 128 spaces are one token of Qwen2's; spaces are none of CLIP's, and control characters none of BERT's.
_MOST_PER_TOKEN, _MOST = 128, 2**18
# Places that are tried, and what is kept of the end of a text that something of the template follows.
_PLACES = 512
_TAIL = 512
_WINDOW = 64
# What comes next can change the last character, and take one from a run of spaces.
_UNSURE = 8

# Letters and signs that join those beside them in a normal form, or in the clusters that SentencePiece normalises:
# letters of syllables (Hangul), signs of Thai, Lao and Japanese, flags, colours of skin, letters that precede.
_JOINING = re.compile(
    "[\u0d4e\u0e33\u0eb3\u1100-\u11ff\u3131-\u318e\ua960-\ua97f\ud7b0-\ud7ff\uff9e-\uffdc"
    "\U00011000-\U00011fff\U0001f1e6-\U0001f1ff\U0001f3fb-\U0001f3ff]"
)


def most_characters(max_length: int) -> int:
    """Return how many characters of a text are read at most, to find the tokens of a row of ``max_length``."""
    return _MOST_PER_TOKEN * (max_length + 1) + _MOST


def untold(length: int, read: int, max_length: int, place: Place | str) -> InputError:
    """Return the error for a text whose beginning does not tell its tokens.

    Args:
        length: Of the text in characters.
        read: How many of them were read.
        max_length: Most tokens of the row.
        place: Where the text stands.
    """
    return InputError(
        f"a text of {length} characters, of which the first {read} do not tell the first {max_length} tokens: one long "
        "word, or white space, control characters or accents without end. Pass its beginning, or a text without them, "
        f"of at most {most_characters(max_length)} characters.",
        place,
    )


class TextCutter:
    """Cuts long texts for a tokenizer.

    Args:
        tokenizer: Reads the texts; tokens may be added to it later.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._words: _WordReader | None = None

    def __call__(self, segment: Text, max_length: int, place: Place | str) -> Text:
        """Take out of a long text what cannot be among the tokens of a row.

        Args:
            segment: The text.
            max_length: Most tokens of the row.
            place: Where the text stands, for errors.

        Returns:
            A segment that is trimmed to the same tokens, which is over ``max_length`` as the whole one is; the segment
            itself where it is not long.

        Raises:
            InputError: As many characters as are read at most do not tell its first tokens.
        """
        length = len(segment.before) + len(segment.user) + len(segment.after)
        most = most_characters(max_length)
        first = size = _USUAL_PER_TOKEN * (max_length + 1) + _USUAL
        if length <= size:
            return segment
        start = _join_beginning(segment, most + _longest(self._added()) + _WINDOW)
        while size < length:
            size = min(size, most)
            end = self._find_place(start, size)
            sure = self._count_sure(start[:end], max_length + 1) if end else 0
            if end and sure > max_length and (shortened := self._take_out(segment, end)):
                return shortened
            shorter = shorten_runs(self._tokenizer, segment.user) if size == first else segment.user
            if len(shorter) < len(segment.user):
                return self(dataclasses.replace(segment, user=shorter), max_length, place)
            if size == most:
                raise untold(length, size, max_length, place)
            size *= 2
        return segment

    def _added(self) -> list[Any]:
        return list(cast("dict[int, Any]", self._tokenizer.added_tokens_decoder).values())

    def _find_place(self, text: str, size: int) -> int | None:
        """Find the last place within ``size`` characters that nothing but words and merges reaches over."""
        places = range(size, max(0, size - _PLACES), -1)
        return next((place for place in places if self._is_free(text, place)), None)

    def _is_free(self, text: str, place: int) -> bool:
        """Whether neither normalisation nor a token that was added reaches over a place of a text."""
        if not _splits_normally(text[place - 1], text[place : place + 1] or "\n"):
            return False
        added = self._added()
        if any(token.lstrip for token in added) and text[place - 1].isspace():
            return False
        if _is_straddled(text, place, added, [token.content for token in added]):
            return False
        changed = [token for token in added if token.normalized]
        normalizer = cast(Any, self._tokenizer).backend_tokenizer.normalizer
        if not changed or normalizer is None:
            return True
        contents = [normalizer.normalize_str(token.content) for token in changed]
        reach = 2 * max(map(len, contents)) + _WINDOW
        first = max(0, place - reach)
        left = normalizer.normalize_str(text[first:place])
        around = normalizer.normalize_str(text[first : place + reach])
        # Where characters have vanished, too few are left to see a whole token in.
        seen = around.startswith(left) and (first == 0 or 2 * len(left) >= reach)
        seen = seen and (len(text) <= place + reach or 2 * (len(around) - len(left)) >= reach)
        return seen and not _is_straddled(around, len(left), changed, contents)

    def _count_sure(self, text: str, enough: int) -> int:
        """Count the first tokens of a text that it has whatever follows it."""
        encoding = cast(Any, self._tokenizer)(text, add_special_tokens=False, verbose=False).encodings[0]
        words: list[int] = encoding.word_ids
        if not words:
            return 0
        last = words.index(words[-1])
        before_last = words.index(words[last - 1]) if last else 0
        if before_last >= enough:
            return before_last
        if self._words is None:
            self._words = _WordReader(cast(Any, self._tokenizer).backend_tokenizer)
        start = encoding.offsets[last][0]
        if last and text[start - 1].isspace() and text[start].isspace():
            start = encoding.offsets[before_last][0]
            return before_last + self._words.count_sure(text[start:], encoding.ids[before_last:], 2)
        return last + self._words.count_sure(text[start:], encoding.ids[last:], 1)

    def _take_out(self, segment: Text, end: int) -> Text | None:
        """Drop what comes after the place ``end`` of a segment's string; ``None`` where no end fits to it.

        How many tokens the template's own text after it has may depend on the end of the text, so that is kept.
        """
        before, user, after = segment.before, segment.user, segment.after
        if end <= len(before):
            return dataclasses.replace(segment, before=before[:end], user="", after="")
        head, first = before + user[: end - len(before)], len(user) - _TAIL
        if not after:
            return dataclasses.replace(segment, user=head[len(before) :])
        if end - len(before) >= first:
            return segment
        for start in range(first, len(user) - _WINDOW):
            joint = head + user[start:]
            if self._is_free(joint + after, end):
                return dataclasses.replace(segment, user=joint[len(before) :])
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_words": None}


class _WordReader:
    """Reads long words as a tokenizer's model does, where their end is not known."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        model = backend.model
        if isinstance(model, BPE) and (model.end_of_word_suffix or model.ignore_merges):
            # A word that goes on has no end yet, and is no token as a whole.
            model = cast(BPE, pickle.loads(pickle.dumps(model)))
            model.end_of_word_suffix, model.ignore_merges = None, False
        self._model = model
        self._vocabulary: Mapping[str, int] = backend.get_vocab(with_added_tokens=False)
        self._longest = max(map(len, self._vocabulary), default=1)

    def count_sure(self, text: str, ids: Sequence[int], count: int) -> int:
        """Count the first tokens of words that they have however the last one goes on.

        Args:
            text: The beginning of the words.
            ids: How the tokenizer reads it.
            count: How many words it is: 1, or 2 that may be one.
        """
        if not isinstance(self._model, (BPE, Unigram)) or getattr(self._model, "continuing_subword_prefix", None):
            return 0
        words = self._write(text)
        # What is read by itself here must be what the tokenizer read in its place.
        if len(words) != count or [number for word in words for number in _read(self._backend.model, word)] != ids:
            return 0
        sure = self._read_beginning(words[-1])
        if count == 2:
            sure = _common_beginning([_read(self._model, words[0]) + sure, self._read_beginning("".join(words))])
        return len(sure)

    def _write(self, text: str) -> list[str]:
        """Return the words that the model is given of a text."""
        normalizer, pre_tokenizer = self._backend.normalizer, self._backend.pre_tokenizer
        normal = normalizer.normalize_str(text) if normalizer else text
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normal)] if pre_tokenizer else [normal]

    def _read_beginning(self, word: str) -> list[int]:
        """Return the first tokens of a word that it has however it goes on."""
        longest = self._longest
        first = len(word) - _UNSURE - 2 * longest
        if first < longest:
            return []
        ends = self._find_ends(word, range(first, first + longest))
        return _common_beginning([_read(self._model, word[:end]) for end in ends])

    def _find_ends(self, word: str, places: range) -> set[int]:
        """Return, for the best of some places of a word, where the last token before it may end.

        It ends there, or where one of the vocabulary begins that reaches over the place.
        """
        ends = {place: {place} for place in places}
        for start in range(places.start - self._longest, places.stop):
            for end in range(start + 2, start + self._longest + 1):
                if word[start:end] in self._vocabulary:
                    for place in range(max(start + 1, places.start), min(end, places.stop)):
                        ends[place].add(start)
        return min(ends.values(), key=len)


def _join_beginning(segment: Text, length: int) -> str:
    return (segment.before[:length] + segment.user[:length] + segment.after)[:length]


def _longest(added: Sequence[Any]) -> int:
    return max((len(token.content) for token in added), default=0)


def _is_straddled(text: str, place: int, added: Sequence[Any], contents: Sequence[str]) -> bool:
    """Whether a token stands over a place of a text, or ends there and needs to know what follows."""
    return any(
        content in text[max(0, place - len(content) + (not token.single_word)) : place + len(content) - 1]
        for token, content in zip(added, contents, strict=True)
        if content
    )


def _splits_normally(left: str, right: str) -> bool:
    """Whether two characters are normalised apart, whatever stands before and after them."""
    if not _is_plain(right) or (left, right) == ("\r", "\n"):
        return False
    # A mark joins the one that it is on, and letters of India that follow it.
    return _is_plain(left) or (unicodedata.category(left)[0] == "M" and unicodedata.category(right) != "Lo")


def _is_plain(character: str) -> bool:
    category = unicodedata.category(character)
    return category[0] != "M" and category not in ("Cf", "Cn", "Co", "Cs") and not _JOINING.match(character)


def _common_beginning(readings: Sequence[list[int]]) -> list[int]:
    return list(os.path.commonprefix(readings))


def _read(model: Any, word: str) -> list[int]:
    return [token.id for token in model.tokenize(word)]
