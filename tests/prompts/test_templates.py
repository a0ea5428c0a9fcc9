from __future__ import annotations

import json
from typing import Any

import pytest

from st_modules.errors import InputError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import Item
from st_modules.inputs.videos import VideoSource
from st_modules.prompts.segments import End, Segment, Special, Start, Text, Video
from st_modules.prompts.templates import (
    TEMPLATES,
    Side,
    divide_qwen3_video,
    render_bge_vl_mllm,
    render_dse_phi3,
    render_gme,
    render_qwen3_vl_embedding,
    render_vlm2vec_llava_next,
    render_vlm2vec_phi3v,
    render_vlm2vec_qwen2vl,
    render_vlm2vec_v2,
)
from tests.helpers.paths import GOLDEN
from tests.helpers.references import SEVERAL_IMAGES

PAD = "<|vision_start|><|image_pad|><|vision_end|>"
TAIL = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"


def written(segments: list[Segment]) -> str:
    """Join segments to the string that they stand for, one token an image."""
    return "".join(
        segment.before + segment.user + segment.after if isinstance(segment, Text) else getattr(segment, "token", "")
        for segment in segments
    )


def item(text: str | None = None, images: int = 0) -> Item:
    return Item(text, tuple(ImageSource(b"") for _ in range(images)), None, 0)


@pytest.mark.parametrize("instruction", [None, ""])
@pytest.mark.parametrize("side", [None, "query", "document"])
def test_no_instruction_is_the_authors_default(instruction: str | None, side: Side | None) -> None:
    assert written(render_gme(item("hello"), instruction, side)) == (
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhello{TAIL}"
    )


@pytest.mark.parametrize(
    ("side", "system"), [(None, "Find it."), ("query", "Find it."), ("document", "You are a helpful assistant.")]
)
def test_an_instruction_counts_on_the_query_side_only(side: Side | None, system: str) -> None:
    assert written(render_gme(item("hello"), "Find it.", side)).startswith(f"<|im_start|>system\n{system}<|im_end|>")


@pytest.mark.parametrize(
    ("instruction", "system"),
    [
        (None, "Represent the user's input."),
        ("", "Represent the user's input."),
        (" \n ", "Represent the user's input."),
        ("  Find the document ", "Find the document."),
        ("What is it?", "What is it?"),
        ("检索相关图片。", "检索相关图片。"),
        ("cost in $", "cost in $."),
        ("(in brackets)", "(in brackets)"),
        ("a b_", "a b_"),
        ("an emoji 😀", "an emoji 😀."),
    ],
)
@pytest.mark.parametrize("side", [None, "query", "document"])
def test_qwen3_vl_embedding_ends_an_instruction_in_punctuation(
    instruction: str | None, system: str, side: Side | None
) -> None:
    segments = render_qwen3_vl_embedding(item("hello", 2), instruction, side)
    assert written(segments) == (
        f"<|im_start|>system\n{system}<|im_end|>\n<|im_start|>user\n{PAD}{PAD}hello<|im_end|>\n<|im_start|>assistant\n"
    )
    assert segments[-1] == End()


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("text", [None, "", "hello"])
def test_images_come_before_the_text_one_block_each(images: int, text: str | None) -> None:
    user = written(render_gme(item(text, images), None, None)).partition("user\n")[2]
    assert user == PAD * images + (text or "") + TAIL


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("side", [None, "query", "document"])
@pytest.mark.parametrize("thing", [item("hello"), item(None, 1), item("hello", 1)], ids=["text", "image", "both"])
def test_text_is_never_beside_text_so_that_it_is_cut_at_control_tokens_only(
    name: str, side: Side | None, thing: Item
) -> None:
    segments = TEMPLATES[name].render(thing, None, side)
    pairs = zip(segments, segments[1:], strict=False)
    assert [pair for pair in pairs if all(isinstance(segment, Text) for segment in pair)] == []


def test_the_last_segment_is_the_pooled_token() -> None:
    assert render_gme(item("hello", 1), None, None)[-1] == Special("<|endoftext|>")


@pytest.mark.parametrize("name", sorted(TEMPLATES.keys() - SEVERAL_IMAGES))
def test_more_images_than_the_model_takes_are_refused_by_position(name: str) -> None:
    images = tuple(ImageSource(b"") for _ in range(2))
    with pytest.raises(InputError, match="item 3: 2 images"):
        TEMPLATES[name].render(Item("hello", images, None, 3), None, None)


@pytest.mark.parametrize("name", ["e5_v", "dse_qwen2", "dse_phi3"])
def test_an_instruction_that_a_layout_has_no_place_for_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="^the prompt: .*no instruction"):
        TEMPLATES[name].render(item("hello"), "Find it.", "query")
    with pytest.raises(InputError, match="^item 3, system message: .*no instruction") as error:
        TEMPLATES[name].render(Item("hello", (), "Find it.", 3), "Find it.", "query")
    assert error.value.index == 3


BGE_VL_CASES = [
    (case, number)
    for case in json.loads((GOLDEN / "bge_vl_mllm" / "cases.json").read_text(encoding="utf-8"))["cases"]
    for number in range(len(case["items"]))
]


@pytest.mark.parametrize(
    ("case", "number"), BGE_VL_CASES, ids=lambda value: value["id"] if "id" in str(value) else None
)
def test_bge_vl_mllm_writes_what_the_authors_prompt_builder_writes(case: dict[str, Any], number: int) -> None:
    given = case["items"][number]
    segments = render_bge_vl_mllm(item(given.get("text"), int("image" in given)), case["instruction"], case["kind"])
    assert written(segments) == case["rendered"][number]


@pytest.mark.parametrize(
    ("thing", "instruction", "expected"),
    [
        (item(None, 1), "Do.", "[INST] \n <instruct> Do. <query>  <image> [/INST]"),
        (item(None, 1), None, "[INST] \n <instruct>  <query> <image> [/INST]"),
        (item("hello", 1), None, "[INST] \n <instruct>  <query> hello \n <image> [/INST]"),
    ],
)
def test_bge_vl_mllm_queries_that_no_golden_has(thing: Item, instruction: str | None, expected: str) -> None:
    assert written(render_bge_vl_mllm(thing, instruction, "query")) == expected


def test_bge_vl_mllm_without_a_side_is_a_query_where_there_is_an_instruction() -> None:
    assert render_bge_vl_mllm(item("hello"), None, None) == render_bge_vl_mllm(item("hello"), None, "document")
    assert render_bge_vl_mllm(item("hello"), "Do.", None) == render_bge_vl_mllm(item("hello"), "Do.", "query")
    assert render_bge_vl_mllm(item("hello"), "Do.", "document") == render_bge_vl_mllm(item("hello"), None, "document")


@pytest.mark.parametrize("side", [None, "query", "document"])
@pytest.mark.parametrize(
    ("thing", "instruction", "expected"),
    [
        (item("a cat"), None, "a cat"),
        (item("a cat"), "Find:", "Find: a cat"),
        (item("", 0), "Find:", "Find:"),
        (item(None, 1), None, "<|image_pad|> Represent the given image."),
        (item(None, 1), "Find:", "<|image_pad|> Find:"),
        (item("a cat", 1), None, "<|image_pad|> a cat"),
        (item("a cat", 1), "Find:", "<|image_pad|> Find: a cat"),
    ],
)
def test_vlm2vec_joins_image_instruction_and_text_by_single_spaces(
    thing: Item, instruction: str | None, expected: str, side: Side | None
) -> None:
    assert written(render_vlm2vec_qwen2vl(thing, instruction, side)) == expected
    assert written(render_vlm2vec_llava_next(thing, instruction, side)) == expected.replace("<|image_pad|>", "<image>")
    segments = render_vlm2vec_phi3v(thing, instruction, side)
    assert written(segments) == expected.replace("<|image_pad|>", "<|endoftext|>")
    starts = [number for number, segment in enumerate(segments) if isinstance(segment, Start)]
    assert starts == ([0, 2] if thing.images else [0])
    assert written(render_vlm2vec_v2(thing, instruction, side)) == expected


@pytest.mark.parametrize("side", [None, "query", "document"])
@pytest.mark.parametrize(
    ("thing", "expected"),
    [
        (item("a cat"), "query: a cat</s>"),
        (item(""), "query: </s>"),
        (item(None, 1), "<|endoftext|>\nWhat is shown in this image?</s>"),
        (item("a cat", 1), "<|endoftext|>\na cat</s>"),
    ],
)
def test_dse_phi3_asks_about_a_picture_and_takes_every_text_for_a_query(
    thing: Item, expected: str, side: Side | None
) -> None:
    assert written(render_dse_phi3(thing, None, side)) == expected


@pytest.mark.parametrize("side", [None, "query", "document"])
@pytest.mark.parametrize(
    ("text", "instruction", "expected"),
    [
        (None, None, "<|video_pad|> Represent the given video."),
        (None, "Find:", "<|video_pad|> Find:"),
        ("a cat", None, "<|video_pad|> a cat"),
        ("a cat\n", "Find:", "<|video_pad|> Find: a cat\n"),
    ],
)
def test_vlm2vec_v2_has_a_video_in_the_place_of_an_image(
    text: str | None, instruction: str | None, expected: str, side: Side | None
) -> None:
    video = VideoSource([b""])
    assert written(render_vlm2vec_v2(Item(text, (), None, 0, video), instruction, side)) == expected


@pytest.mark.parametrize("text", [None, "a lamp"])
def test_qwen3_vl_embedding_has_a_video_before_images_and_its_steps_after_their_times(text: str | None) -> None:
    video, image = VideoSource([b""]), ImageSource(b"")
    row = divide_qwen3_video(
        render_qwen3_vl_embedding(Item(text, (image,), None, 0, video), None, None), lambda _: [0.25, 61]
    )
    block = "<|vision_start|><|{}_pad|><|vision_end|>"
    clip = f"<0.2 seconds>{block.format('video')}<61.0 seconds>{block.format('video')}"
    user = f"<|im_start|>user\n{clip}{block.format('image')}{text or ''}<|im_end|>"
    assert user in written(row)
    # The text before the first time is one piece with it, as in the whole string.
    assert Text("user\n<0.2 seconds>") in row
    assert [(part.part, part.parts) for part in row if isinstance(part, Video)] == [(0, 2), (1, 2)]


def test_vlm2vec_v2_refuses_a_video_beside_an_image() -> None:
    thing = Item(None, item(None, 1).images, None, 3, VideoSource([b""]))
    with pytest.raises(InputError, match="^item 3: a video and an image, and this model takes one of them"):
        render_vlm2vec_v2(thing, None, None)


SIDES: tuple[Side | None, ...] = ("query", "document", None)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("thing", [item("hello"), item(None, 1), item("hello", 1)], ids=["text", "image", "both"])
def test_a_template_says_where_it_reads_an_instruction(name: str, side: Side | None, thing: Item) -> None:
    template = TEMPLATES[name]

    def render(instruction: str) -> list[Segment]:
        try:
            return template.render(thing, instruction, side)
        except InputError:  # a layout without any place for an instruction refuses one
            return []

    changes = render("Do.") != render("Look.")
    assert template.reads_instruction(side, has_text=thing.text is not None) == changes
