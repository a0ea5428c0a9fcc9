"""Segments to token ids: user text never becomes a control token, truncation trims user text only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from st_modules.errors import CheckpointError, InputError
from st_modules.templates import Image, Segment, Special, Text


class SegmentEncoder:
    """Encodes segments with two tokenizers that differ in one option.

    ``split_special_tokens`` must not be toggled on a shared tokenizer, since the setting lives in its Rust
    half and leaks between threads: hence one instance that knows control tokens and one that reads them as
    plain text.

    Args:
        folder: Folder with the tokenizer's files.
        fallback: Tokenizer class for a folder without ``tokenizer.json``. Where that file exists it is used as
            it is: a named class would rebuild its pre-tokenizer from the class's own defaults.
        control_tokens: Tokens that the template inserts; each must exist, and none may come out of plain text.

    Raises:
        CheckpointError: The files are missing, or do not have the control tokens.
    """

    def __init__(self, folder: Path, fallback: type[PreTrainedTokenizerBase], control_tokens: Sequence[str]) -> None:
        tokenizer_class: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else fallback
        try:
            self.tokenizer = tokenizer_class.from_pretrained(folder)
            self._plain = tokenizer_class.from_pretrained(folder, split_special_tokens=True)
        except Exception as error:
            raise CheckpointError(
                f"{folder}: the tokenizer's files cannot be read ({error}). The folder needs tokenizer.json, or "
                "vocab.json and merges.txt."
            ) from error
        vocabulary = self.tokenizer.get_vocab()
        if missing := [token for token in control_tokens if token not in vocabulary]:
            raise CheckpointError(f"{folder}: the tokenizer does not have the control tokens {', '.join(missing)}.")
        self.control_ids: dict[str, int] = {token: vocabulary[token] for token in control_tokens}
        for token, ids in zip(control_tokens, self._encode(list(control_tokens)), strict=True):
            if set(ids) & set(self.control_ids.values()):
                raise CheckpointError(
                    f"{folder}: the tokenizer turns the text {token!r} into a control token. Its entry in "
                    'tokenizer.json must say "special": true.'
                )

    def __call__(
        self,
        rows: Sequence[Sequence[Segment]],
        image_tokens: Sequence[Sequence[int]],
        labels: Sequence[str],
        max_length: int,
    ) -> list[tuple[list[int], bool]]:
        """Encode rows of segments.

        Args:
            rows: One list of segments an item.
            image_tokens: For each item, the number of tokens of each of its images.
            labels: What an error calls each item, for example ``"item 3"``.
            max_length: Longest row in tokens; longer rows lose the end of their user text.

        Returns:
            For each item its token ids, and whether its text was trimmed.

        Raises:
            InputError: The images and the instruction of an item exceed ``max_length`` by themselves.
        """
        texts = list({text for row in rows for segment in row for text in _strings(segment)})
        ids = dict(zip(texts, self._encode(texts), strict=True))
        return [
            self._encode_row(row, counts, label, max_length, ids)
            for row, counts, label in zip(rows, image_tokens, labels, strict=True)
        ]

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if not texts:
            return []
        return self._plain(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]

    def _encode_row(
        self,
        row: Sequence[Segment],
        image_tokens: Sequence[int],
        label: str,
        max_length: int,
        ids: dict[str, list[int]],
    ) -> tuple[list[int], bool]:
        counts = iter(image_tokens)
        parts: list[list[int]] = []
        user_part, keep = -1, 0
        for segment in row:
            match segment:
                case Special(token):
                    parts.append([self.control_ids[token]])
                case Image(token):
                    parts.append([self.control_ids[token]] * next(counts))
                case Text(fixed, user):
                    if user:
                        user_part, keep = len(parts), len(ids[fixed])
                    parts.append(ids[fixed + user])
        excess = sum(map(len, parts)) - max_length
        trimmable = len(parts[user_part]) - keep if user_part >= 0 else 0
        if excess > trimmable:
            raise InputError(
                f"{label}: its {sum(image_tokens)} image tokens and its instruction take "
                f"{max_length + excess - trimmable} tokens without any text, over max_length={max_length}. Pass fewer "
                "or smaller images, lower max_image_tokens, shorten the instruction, or raise max_length."
            )
        if excess > 0:
            parts[user_part] = parts[user_part][:-excess]
        return [token_id for part in parts for token_id in part], excess > 0


def _strings(segment: Segment) -> tuple[str, ...]:
    return (segment.fixed, segment.fixed + segment.user) if isinstance(segment, Text) else ()
