from __future__ import annotations

import pytest

from st_modules.images import ImageSource
from st_modules.inputs import Item
from st_modules.templates import Image, Segment, Special, Text, gme

PAD = "<|vision_start|><|image_pad|><|vision_end|>"
TAIL = "<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"


def written(segments: list[Segment]) -> str:
    """Join segments to the string that they stand for, one token an image."""
    return "".join(segment.fixed + segment.user if isinstance(segment, Text) else segment.token for segment in segments)


def item(text: str | None = None, images: int = 0) -> Item:
    return Item(text, tuple(ImageSource(b"") for _ in range(images)), None, 0)


@pytest.mark.parametrize("instruction", [None, ""])
@pytest.mark.parametrize("task", [None, "query", "document"])
def test_no_instruction_is_the_authors_default(instruction: str | None, task: str | None) -> None:
    assert written(gme(item("hello"), instruction, task)) == (
        f"<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhello{TAIL}"
    )


@pytest.mark.parametrize(
    ("task", "system"), [(None, "Find it."), ("query", "Find it."), ("document", "You are a helpful assistant.")]
)
def test_an_instruction_counts_on_the_query_side_only(task: str | None, system: str) -> None:
    assert written(gme(item("hello"), "Find it.", task)).startswith(f"<|im_start|>system\n{system}<|im_end|>")


@pytest.mark.parametrize("images", [1, 2, 3])
@pytest.mark.parametrize("text", [None, "", "hello"])
def test_images_come_before_the_text_one_block_each(images: int, text: str | None) -> None:
    user = written(gme(item(text, images), None, None)).partition("user\n")[2]
    assert user == PAD * images + (text or "") + TAIL


def test_text_is_never_beside_text_so_that_it_is_cut_at_control_tokens_only() -> None:
    for segments in (gme(item("hello"), "Find it.", None), gme(item("hello", 2), None, None)):
        for left, right in zip(segments, segments[1:], strict=False):
            assert not (isinstance(left, Text) and isinstance(right, Text))


def test_the_last_segment_is_the_pooled_token() -> None:
    assert gme(item("hello", 1), None, None)[-1] == Special("<|endoftext|>")
    assert Image("<|image_pad|>") in gme(item("hello", 1), None, None)
