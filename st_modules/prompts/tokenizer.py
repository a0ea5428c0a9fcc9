"""Segments to token ids: user text never becomes a control token, truncation trims user text only."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, get_args

from tokenizers.normalizers import Lowercase
from transformers import PreTrainedTokenizerBase

from st_modules.errors import CheckpointError, InputError, Place
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.charsmap import take_charsmap
from st_modules.prompts.long_texts import TextCutter, most_characters, untold
from st_modules.prompts.plain_tokenizers import choose_class, opens_words_once, read_as_text
from st_modules.prompts.segments import (
    End,
    Image,
    Segment,
    Special,
    Start,
    Text,
    Video,
    find_control_token,
    find_first_text,
    write_segment,
)
from st_modules.prompts.templates import Render, Side
from st_modules.prompts.tokenizer_changes import CHANGED, describe, hash_rules, make_added_token
from st_modules.prompts.tokenizer_files import TOKENIZER_FILE, check_tokenizer_files

# As many as a single query has pieces.
_FEW_TEXTS = 4

Piece: TypeAlias = tuple[bool, str]


@dataclass(frozen=True)
class TokenizedRow:
    """The token ids of a row.

    Attributes:
        ids: The ids.
        trimmed: Whether the end of the user's text was cut.
        constant: How many of the first ids are the same for every item that has the same instruction, and the same
            query where there is one.
    """

    ids: list[int]
    trimmed: bool
    constant: int


class SegmentTokenizer:
    """Turns segments into token ids with tokenizers that differ in one option.

    ``split_special_tokens`` must not be toggled on a shared tokenizer, since the setting lives in its Rust
    half and leaks between threads: hence one instance that knows control tokens and one that reads them as
    plain text.

    Args:
        folder: Folder with the tokenizer's files.
        fallback: Tokenizer class for a folder without ``tokenizer.json``. Where that file exists it is used as
            it is: a named class would rebuild its pre-tokenizer from the class's own defaults.
        render: Layout of the rows; the tokenizer must have each of its control tokens, and must read a row piece by
            piece as it reads the whole string.
        normalised: Whether the layout's texts are normalised, so that the tokenizer does no more than lower-case them,
            which concerns tokens that are added to it.
        takes_video: Whether the layout has a place for a video.
        takes_pairs: Whether it has one for a query, which is never trimmed.

    Raises:
        CheckpointError: The files are missing, or do not fit the template.
    """

    def __init__(
        self,
        folder: Path,
        fallback: type[PreTrainedTokenizerBase],
        render: Render,
        *,
        normalised: bool = False,
        takes_video: bool = False,
        takes_pairs: bool = False,
    ) -> None:
        tokenizer_class = choose_class(folder, fallback)
        check_tokenizer_files(folder)
        try:
            self.tokenizer = tokenizer_class.from_pretrained(folder)
            self._plain = tokenizer_class.from_pretrained(folder, split_special_tokens=True)
            self._inner = self._plain
            if normalised:
                self._plain.backend_tokenizer.normalizer = Lowercase()
            if opens_words_once(self._plain):
                self._inner = tokenizer_class.from_pretrained(folder, split_special_tokens=True)
                self._inner.backend_tokenizer.pre_tokenizer.prepend_scheme = "never"
        except Exception as error:
            raise CheckpointError(
                f"{folder}: the tokenizer's files cannot be read ({error}). Where {TOKENIZER_FILE} is there, no other "
                "vocabulary is read."
            ) from error
        self._charsmap = take_charsmap(self._plain)
        if self._inner is not self._plain:
            take_charsmap(self._inner)
        self.pad_id: int = self.tokenizer.pad_token_id or 0
        self.start_ids, self.end_ids = _edges(folder, self.tokenizer)
        samples = _render_samples(render, takes_video, takes_pairs)
        self._fixed = ["its instruction", *(["its query"] if takes_pairs else [])]
        vocabulary = self.tokenizer.get_vocab()
        tokens = list(dict.fromkeys(token for row in samples for token in map(find_control_token, row) if token))
        if missing := [token for token in tokens if token not in vocabulary]:
            raise CheckpointError(f"{folder}: the tokenizer does not have the control tokens {', '.join(missing)}.")
        self.control_ids: dict[str, int] = {token: vocabulary[token] for token in tokens}
        self.image_ids: set[int] = {
            vocabulary[part.token] for row in samples for part in row if isinstance(part, Image) and part.token
        }
        self.video_ids: set[int] = {
            vocabulary[part.token] for row in samples for part in row if isinstance(part, Video)
        }
        structure = [*tokens, *self.tokenizer.convert_ids_to_tokens([*self.start_ids, *self.end_ids])]
        for tokenizer in (self._plain, self._inner):
            read_as_text(tokenizer, structure)
        self._read = describe(self.tokenizer)
        self._digest = hash_rules(self.tokenizer)
        cutter = TextCutter(self._plain)
        self._cutters = {True: cutter, False: cutter if self._inner is self._plain else TextCutter(self._inner)}
        self._numbers = self._number_added_tokens()
        self._check(folder, structure, samples)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A copy of a tokenizer whose control pieces are hidden numbers its added tokens anew.
        self._numbers = self._number_added_tokens()

    def _number_added_tokens(self) -> dict[bool, dict[int, int]]:
        """For each of the tokenizers of texts, the ids of added tokens that have others in the model's vocabulary."""
        numbers = {token.content: token.id for token in describe(self.tokenizer).tokens}
        return {
            first: {
                token.id: numbers[token.content]
                for token in describe(self._tokenizer(first)).tokens
                if token.id != numbers[token.content]
            }
            for first in (True, False)
        }

    def __call__(
        self,
        rows: Sequence[Sequence[Segment]],
        visual_tokens: Sequence[Sequence[int]],
        places: Sequence[Place | str],
        max_lengths: Sequence[int],
    ) -> list[TokenizedRow]:
        """Tokenise rows of segments.

        Args:
            rows: One list of segments an item.
            visual_tokens: For each item, the number of tokens of each of its images, and of each part of its video.
            places: Where each item stands, for errors.
            max_lengths: Most tokens of each row; a longer row loses the end of its user text.

        Returns:
            One row for each item.

        Raises:
            InputError: The images and the instruction of an item exceed its limit by themselves, or a long text has too
                few tokens to be cut.
        """
        rows = [self._cut(*row) for row in zip(rows, places, max_lengths, strict=True)]
        pieces = {piece for row in rows for piece in [*_pieces(row), *_openings(row)]}
        ids = dict(zip(pieces, self._tokenise(pieces), strict=True))
        tokenized: list[TokenizedRow] = []
        for row, counts, place, max_length in zip(rows, visual_tokens, places, max_lengths, strict=True):
            parts = self._parts(row, counts, ids)
            excess = sum(map(len, parts)) - max_length
            if excess > 0:
                self._trim(row, parts, excess, place, max_length)
            joined = [token_id for part in parts for token_id in part]
            tokenized.append(TokenizedRow(joined, excess > 0, _constant(row, parts, ids)))
        return tokenized

    def follow_changes(self, embeddings: int, resize: str) -> None:
        """Read tokens that were added to ``tokenizer`` by ``add_tokens`` as tokens of users' texts too.

        Args:
            embeddings: How many tokens the model has an embedding for.
            resize: How errors are to call the method that gives it more.

        Raises:
            ValueError: It was changed in another way, or the model has no embedding for a token that was added.
        """
        now = describe(self.tokenizer)
        if now == self._read:
            return
        known = set(self._read.tokens)
        added = [token for token in now.tokens if token not in known]
        if not known <= set(now.tokens) or self._read.rules != now.rules or any(token.special for token in added):
            raise ValueError(CHANGED)
        if len(self.tokenizer) > embeddings:
            raise ValueError(
                f"The tokenizer has {len(self.tokenizer)} tokens, and the model embeddings for {embeddings}: call "
                f"{resize}({len(self.tokenizer)}) after add_tokens."
            )
        for tokenizer in (self._plain, self._inner):
            tokenizer.add_tokens([make_added_token(token) for token in added])
        self._numbers = self._number_added_tokens()
        self._read = now

    def check_unchanged(self) -> None:
        """Make sure that what would be saved reads texts as this does; that takes too long for every call.

        Raises:
            ValueError: The tokenizer was changed by more than ``add_tokens``.
        """
        if hash_rules(self.tokenizer) != self._digest:
            raise ValueError(CHANGED)

    def _cut(self, row: Sequence[Segment], place: Place | str, max_length: int) -> list[Segment]:
        """Leave out of the texts of a row what is too far behind to be among its tokens."""
        first = find_first_text(row)
        return [
            self._cutters[number == first](self._normalise(segment, max_length, place), max_length, place)
            if isinstance(segment, Text)
            else segment
            for number, segment in enumerate(row)
        ]

    def _normalise(self, segment: Text, max_length: int, place: Place | str) -> Text:
        """Do what the tokenizers of texts do not, as far as a text is read."""
        if self._charsmap is None:
            return segment
        most = most_characters(max_length)
        read = self._charsmap(segment.user[: 2 * most])
        if len(read) <= most and len(segment.user) > 2 * most:
            raise untold(len(segment.user), 2 * most, max_length, place)
        before, after = self._charsmap(segment.before), self._charsmap(segment.after)
        return dataclasses.replace(segment, before=before, user=read, after=after)

    def _parts(
        self, row: Sequence[Segment], visual_tokens: Sequence[int], ids: Mapping[Piece, list[int]]
    ) -> list[list[int]]:
        texts, counts = iter(_pieces(row)), iter(visual_tokens)
        parts: list[list[int]] = []
        for segment in row:
            match segment:
                case Special(token):
                    parts.append([self.control_ids[token]])
                case Start():
                    parts.append(self.start_ids)
                case End():
                    parts.append(self.end_ids)
                case Image(None):
                    parts.append([])
                    next(counts)
                case Image(token) | Video(token):
                    parts.append([self.control_ids[token] if token else self.pad_id] * next(counts))
                case Text():
                    parts.append(ids[next(texts)])
        return parts

    def _trim(
        self, row: Sequence[Segment], parts: list[list[int]], excess: int, place: Place | str, max_length: int
    ) -> None:
        """Shorten the user's text in ``parts`` until the row fits."""
        for number, segment in enumerate(row):
            if isinstance(segment, Text) and segment.user:
                budget = len(parts[number]) - excess
                first = number == find_first_text(row)
                tokenizer = self._tokenizer(first)
                fixed = tokenizer(segment.before + segment.after, add_special_tokens=False)["input_ids"]
                if len(fixed) <= budget:
                    kept = parts[number][:budget] if segment.keeps_tokens else None
                    parts[number] = kept or self._renumber(first, _shorten(tokenizer, segment, budget))
                    return
        images, frames = (
            sum(len(part) for part, segment in zip(parts, row, strict=True) if isinstance(segment, kind))
            for kind in (Image, Video)
        )
        visuals = [f"its {count} {kind} tokens" for count, kind in ((images, "image"), (frames, "video")) if count]
        *others, last = [*visuals, *self._fixed]
        what = f"{', '.join(others)} and {last} are" if others else f"{last} is"
        advice = "Shorten"
        if images and frames:
            advice = "Pass fewer or smaller images and frames, shorten"
        elif images:
            advice = "Pass fewer or smaller images, shorten"
        elif frames:
            advice = "Pass a video of smaller or fewer frames, shorten"
        fixed = " or ".join(each.replace("its", "the") for each in self._fixed)
        raise InputError(
            f"{what} over max_length={max_length} without any text. {advice} {fixed}, or raise max_length where the "
            "model allows it.",
            place,
        )

    def _tokenise(self, pieces: Collection[Piece]) -> list[list[int]]:
        ids: dict[Piece, list[int]] = {}
        for first in (True, False):
            group = [piece for piece in pieces if piece[0] == first]
            texts = [text for _, text in group]
            found = _ids(self._tokenizer(first), texts)
            ids.update(zip(group, (self._renumber(first, row) for row in found), strict=True))
        return [ids[piece] for piece in pieces]

    def _renumber(self, first: bool, ids: list[int]) -> list[int]:
        numbers = self._numbers[first]
        return [numbers.get(token_id, token_id) for token_id in ids] if numbers else ids

    def _tokenizer(self, first: bool) -> PreTrainedTokenizerBase:
        return self._plain if first else self._inner

    def _check(self, folder: Path, structure: Sequence[str], samples: Sequence[Sequence[Segment]]) -> None:
        """Raise where a text could write a control token, or where pieces of a row are read otherwise than the row."""
        ids_of_structure = set(self.tokenizer.convert_tokens_to_ids(list(structure)))
        for token, ids in zip(structure, _ids(self._plain, list(structure)), strict=True):
            if set(ids) & ids_of_structure:
                raise CheckpointError(f"{folder}: the tokenizer turns the text {token!r} into a control token.")
        for row in samples:
            written = [segment for segment in row if isinstance(segment, Text) or find_control_token(segment)]
            counts = [1 for segment in written if isinstance(segment, (Image, Video))]
            string = _string(written)
            (row_alone,) = self([written], [counts], ["sample"], [sys.maxsize])
            if row_alone.ids != _ids(self.tokenizer, [string])[0]:
                raise CheckpointError(
                    f"{folder}: the tokenizer reads {string!r} otherwise than piece by piece between its control "
                    "tokens. Use the tokenizer files of the model's repository."
                )


def _render_samples(render: Render, takes_video: bool, takes_pairs: bool) -> list[list[Segment]]:
    """Rows that have every control token of a layout between them."""
    image = (ImageSource(b"", "sample"),)
    items = [Item("a b", (), None, 0), Item(None, image, None, 0), Item("a b", image, None, 0)]
    if takes_video:
        video = VideoSource(image, "sample")
        items += [Item(None, (), None, 0, video), Item("a b", (), None, 0, video)]
    if takes_pairs:
        items = [dataclasses.replace(item, query=query) for item in items for query in items]
    return [render(item, None, side) for item in items for side in get_args(Side)]


def _edges(folder: Path, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """What a tokenizer puts before and after a text by itself."""
    (text,) = _ids(tokenizer, ["a"])
    whole: Any = tokenizer("a", verbose=False)["input_ids"]
    start = next((number for number in range(len(whole)) if whole[number : number + len(text)] == text), None)
    if start is None or not text:
        raise CheckpointError(f"{folder}: the tokenizer reads no text; the text 'a' is {whole} and {text}.")
    return whole[:start], whole[start + len(text) :]


def _pieces(row: Sequence[Segment]) -> list[Piece]:
    """The texts of a row, and whether its string begins with them."""
    first = find_first_text(row)
    return [
        (number == first, write_segment(segment)) for number, segment in enumerate(row) if isinstance(segment, Text)
    ]


def _openings(row: Sequence[Segment]) -> list[Piece]:
    """What the template writes before the user's texts of a row, as pieces of their own."""
    first = find_first_text(row)
    return [
        (number == first, segment.before)
        for number, segment in enumerate(row)
        if isinstance(segment, Text) and segment.user
    ]


def _constant(row: Sequence[Segment], parts: Sequence[list[int]], ids: Mapping[Piece, list[int]]) -> int:
    """How many of a row's first tokens come before anything of the item's own."""
    count = 0
    for segment, part in zip(row, parts, strict=True):
        if isinstance(segment, (Image, Video)) and not segment.common:
            break
        if isinstance(segment, Text) and segment.user:
            # The last token before the user's text may be one with its beginning.
            opening = ids[_openings(row)[0]][:-1]
            return count + (len(opening) if part[: len(opening)] == opening else 0)
        count += len(part)
    return count


def _string(row: Sequence[Segment]) -> str:
    return "".join(map(write_segment, row))


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    encode = partial(tokenizer, add_special_tokens=False, return_attention_mask=False, verbose=False)
    # A tokenizer reads several texts in threads of its own, which come late where the model's have the cores.
    return encode(texts)["input_ids"] if len(texts) > _FEW_TEXTS else [encode(text)["input_ids"] for text in texts]


def _shorten(tokenizer: PreTrainedTokenizerBase, segment: Text, budget: int) -> list[int]:
    """Encode a segment with as much of the user's text as fits: what is kept is a prefix of that text."""
    before, user, after = segment.before, segment.user, segment.after
    while True:
        encoding = tokenizer(
            before + user + after, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        ids, offsets = encoding["input_ids"], encoding["offset_mapping"]
        if len(ids) <= budget:
            return ids
        starts = [start for start, _ in offsets if len(before) <= start < len(before) + len(user)]
        kept = max(0, len(starts) - (len(ids) - budget))
        user = user[: starts[kept] - len(before)] if starts else ""
