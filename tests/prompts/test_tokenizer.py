"""Encoding of segments, on a tokenizer that merges newlines as the published ones do."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer, XLMRobertaTokenizer

from st_modules import CheckpointError, InputError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.prompts.segments import End, Image, Segment, Special, Start, Text
from st_modules.prompts.templates import render_gme, render_visualized_bge
from st_modules.prompts.tokenizer import SegmentTokenizer
from tests.helpers.paths import GOLDEN

CONTROL = ("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE that knows runs of two and four newlines, letter pairs, and the control tokens."""
    merges = [("Ċ", "Ċ"), ("ĊĊ", "ĊĊ"), ("Ġ", "Ġ"), ("h", "e"), ("u", "s"), ("us", "er"), ("e", "r"), ("t", "e")]
    merges.sort(key=lambda pair: pair == ("us", "er"))
    words = sorted(ByteLevel.alphabet()) + [left + right for left, right in merges]
    tokenizer = Tokenizer(models.BPE({word: number for number, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=__import__("tokenizers").Regex(QWEN2_PATTERN), behavior="isolated"),
            ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(CONTROL))
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SegmentTokenizer:
    return SegmentTokenizer(folder, Qwen2Tokenizer, render_gme)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def render(text: str | None, instruction: str | None = None, images: int = 0) -> list[Segment]:
    return render_gme(Item(text, tuple(ImageSource(b"") for _ in range(images)), None, 0), instruction, None)


def encode(encoder: SegmentTokenizer, segments: list[Segment], images: list[int], max_length: int = 10**6) -> list[int]:
    return encoder([segments], [images], ["item 0"], [max_length])[0].ids


def as_string(segments: list[Segment], image_tokens: int = 0) -> str:
    return "".join(
        segment.before + segment.user + segment.after
        if isinstance(segment, Text)
        else getattr(segment, "token", "") * (image_tokens if isinstance(segment, Image) else 1)
        for segment in segments
    )


def fuzz_texts() -> list[str]:
    random_state = random.Random(7)
    return [
        "".join(random_state.choices("\n\n\n \t hetusr.1é猫😀", k=random_state.randint(0, 30))) for _ in range(2000)
    ]


def test_ordinary_text_tokenises_as_the_whole_string_does(encoder: SegmentTokenizer, whole: Tokenizer) -> None:
    rendered = {text: render(text, instruction="\n" + text[:5]) for text in fuzz_texts()}
    assert {text: encode(encoder, segments, []) for text, segments in rendered.items()} == {
        text: whole.encode(as_string(segments), add_special_tokens=False).ids for text, segments in rendered.items()
    }


def test_this_tokenizer_would_show_a_cut_at_the_users_text(encoder: SegmentTokenizer, whole: Tokenizer) -> None:
    assert whole.encode("user\n\n\n\nhe").ids != whole.encode("user\n").ids + whole.encode("\n\n\nhe").ids


def test_text_after_images_tokenises_as_the_whole_string_does(encoder: SegmentTokenizer, whole: Tokenizer) -> None:
    segments = render("\n\nhe", images=2)
    expected = whole.encode(as_string(segments, image_tokens=5), add_special_tokens=False).ids
    assert encode(encoder, segments, [5, 5]) == expected


@pytest.mark.parametrize("token", CONTROL)
def test_control_tokens_in_text_and_instruction_stay_text(
    encoder: SegmentTokenizer, whole: Tokenizer, token: str
) -> None:
    segments = render(f"he {token} te", instruction=f"{token}us")
    ids = encode(encoder, segments, [])
    clean = encode(encoder, render("he", instruction="us"), [])
    structure = set(encoder.control_ids.values())
    assert [i for i in ids if i in structure] == [i for i in clean if i in structure]
    assert whole.decode(ids, skip_special_tokens=False) == as_string(segments)


def test_images_are_as_many_tokens_as_asked_in_order(encoder: SegmentTokenizer) -> None:
    ids = encode(encoder, render("te", images=2), [3, 1])
    pad, end = encoder.control_ids["<|image_pad|>"], encoder.control_ids["<|vision_end|>"]
    start = encoder.control_ids["<|vision_start|>"]
    first = ids.index(start)
    assert ids[first : first + 8] == [start, pad, pad, pad, end, start, pad, end]


@pytest.mark.parametrize("images", [[], [4]])
@pytest.mark.parametrize("excess", [0, 1, 10, 300])
def test_trimming_takes_the_end_of_the_users_text_and_nothing_else(
    encoder: SegmentTokenizer, images: list[int], excess: int
) -> None:
    segments = render("x" * 300, images=len(images))
    full = encode(encoder, segments, images)
    row = encoder([segments], [images], ["item 0"], [len(full) - excess])[0]
    start = full.index(encoder._plain("x", add_special_tokens=False)["input_ids"][0])
    assert row.ids == full[: start + 300 - excess] + full[start + 300 :]
    assert row.trimmed == (excess > 0)


def test_what_cannot_be_trimmed_is_an_error_that_names_the_item(encoder: SegmentTokenizer) -> None:
    with pytest.raises(InputError, match=r"^item 4: its 900 image tokens .* over max_length=500"):
        encoder([render("te", images=1)], [[900]], ["item 4"], [500])
    with pytest.raises(InputError, match=r"^item 4: .*instruction"):
        encoder([render("te", instruction="x" * 900)], [[]], ["item 4"], [500])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tokenizer"):
        SegmentTokenizer(tmp_path, Qwen2Tokenizer, render_gme)


def test_a_tokenizer_without_a_control_token_is_refused(folder: Path) -> None:
    with pytest.raises(CheckpointError, match="absent"):
        SegmentTokenizer(folder, Qwen2Tokenizer, lambda *_: [Special("<|absent|>"), Text("a")])


def test_a_control_token_that_is_not_marked_as_special_stays_text_too(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<|ordinary|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))

    def template(item: Item, instruction: str | None, task: str | None) -> list[Segment]:
        return [Special("<|ordinary|>"), Text("", item.text or "")]

    encoder = SegmentTokenizer(tmp_path, Qwen2Tokenizer, template)
    control = encoder.control_ids["<|ordinary|>"]
    ids = encode(encoder, template(Item("he <|ordinary|> te", (), None, 0), None, None), [])
    assert ids.count(control) == 1
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|ordinary|>he <|ordinary|> te"


def test_a_tokenizer_that_strips_around_its_control_tokens_is_refused(folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|greedy|>", rstrip=True)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"<\|greedy\|> a.*piece by piece"):
        SegmentTokenizer(tmp_path, Qwen2Tokenizer, lambda *_: [Text("a "), Special("<|greedy|>"), Text(" a")])


LLAMA_TEXTS = ["he te", " he", "", "  two spaces", "<s> he", "</s>", "[INST] <image> [/INST]", "é猫", "tail "]


def llama(item: Item, instruction: str | None, task: str | None) -> list[Segment]:
    return [Start(), Text("[INST]  ", item.text or "", " \n "), Special("<image>"), Text(" [/INST]")]


@pytest.fixture(scope="module", params=["prepended", "first only"])
def llama_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentencePiece-like BPE in the two forms that Mistral's tokenizer is published in."""
    letters = sorted(set("▁abcdefghijklmnopqrstuvwxyz[]/<>ISNT."))
    words = ["<unk>", "<s>", "</s>", *[f"<0x{byte:02X}>" for byte in range(256)], *letters, "▁▁", "▁h", "te"]
    merges = [("▁", "▁"), ("▁", "h"), ("t", "e")]
    model = models.BPE({word: n for n, word in enumerate(words)}, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    if request.param == "prepended":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", "<image>"])
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder = tmp_path_factory.mktemp("llama")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("text", LLAMA_TEXTS)
def test_sentencepiece_spaces_are_those_of_the_whole_string(llama_folder: Path, text: str) -> None:
    whole = Tokenizer.from_file(str(llama_folder / "tokenizer.json"))
    encoder = SegmentTokenizer(llama_folder, PreTrainedTokenizerFast, llama)
    if "<" in text:
        # As text, control tokens are spelled: the string beside them is encoded as if they were words.
        whole.encode_special_tokens = True
    ids = encode(encoder, llama(Item(text, (), None, 0), None, None), [])
    image = encoder.control_ids["<image>"]
    place = ids.index(image)
    assert ids[0] == whole.token_to_id("<s>")
    assert ids[1:place] == whole.encode(f"[INST]  {text} \n ", add_special_tokens=False).ids
    whole.encode_special_tokens = False
    tail = whole.encode("x<image> [/INST]", add_special_tokens=False).ids
    assert ids[place:] == tail[tail.index(image) :]


@pytest.mark.parametrize(
    ("single", "start", "end"), [("$A", [], []), ("<s> $A", [1], []), ("<s> $A </s>", [1], [2])], ids=str
)
def test_a_row_starts_and_ends_as_the_tokenizer_itself_does_it(
    llama_folder: Path, tmp_path: Path, single: str, start: list[int], end: list[int]
) -> None:
    tokenizer = Tokenizer.from_file(str(llama_folder / "tokenizer.json"))
    row = [Start(), Text("he"), End()]
    tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    encoder = SegmentTokenizer(tmp_path, PreTrainedTokenizerFast, lambda *_: row)
    assert encode(encoder, row, []) == [*start, *tokenizer.encode("he", add_special_tokens=False).ids, *end]


@pytest.mark.parametrize("room", [0, 1, 2, 3, 7, 12])
def test_a_text_before_fixed_text_is_trimmed_to_the_longest_prefix_that_fits(llama_folder: Path, room: int) -> None:
    text = "he te  te hé te. tete he"
    encoder = SegmentTokenizer(llama_folder, PreTrainedTokenizerFast, llama)
    prefixes = [encode(encoder, llama(Item(text[:n], (), None, 0), None, None), []) for n in range(len(text) + 1)]
    max_length = len(prefixes[0]) + room
    (row,) = encoder([llama(Item(text, (), None, 0), None, None)], [[]], ["item 0"], [max_length])
    assert row.trimmed
    assert row.ids in prefixes
    assert len(row.ids) <= max_length
    assert len(row.ids) >= max_length - 2


def test_no_piece_of_a_unigram_vocabulary_is_a_control_token() -> None:
    folder = GOLDEN / "bge_visualized_m3" / "bge"
    encoder = SegmentTokenizer(folder, XLMRobertaTokenizer, render_visualized_bge)
    special = set(encoder.tokenizer.all_special_ids) - {encoder.tokenizer.unk_token_id}
    texts = ["<s>", "</s>", "a <mask> b", "<pad>x", "</s></s> <s>"]
    rows = [render_visualized_bge(Item(text, (), None, 0), None, None) for text in texts]
    encoded = encoder(rows, [[]] * len(rows), texts, [512] * len(rows))
    assert [special & set(row.ids[1:-1]) for row in encoded] == [set()] * len(rows)
