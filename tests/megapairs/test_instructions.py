"""Instructions from captions, and from chat models that answer well, badly first, or never."""

from __future__ import annotations

import base64
import io
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.language_models import FakeListChatModel, FakeMessagesListChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatResult
from PIL import Image
from pydantic import PrivateAttr

from st_modules import ImageError, InputError
from st_modules.demo.drawings import draw
from st_modules.megapairs import (
    CaptionTemplates,
    ChatInstructions,
    InstructionError,
    Picture,
    PicturePair,
    Written,
)
from st_modules.megapairs.chat_models import import_chat_model
from st_modules.megapairs.instructions import caption_changes
from tests.helpers.gallery import CAPTIONS, SCENES, Gallery

# ------------------------------------------------------------------------------------------------------- captions

CIRCLE = "a large red circle in the center on a white background"


@pytest.mark.parametrize(
    ("before", "after", "changes"),
    [
        (CIRCLE, CIRCLE.replace("red", "blue"), [("red circle", "blue circle")]),
        (CIRCLE, CIRCLE.replace("white", "black"), [("white background", "black background")]),
        (CIRCLE, CIRCLE.replace("circle", "star"), [("circle", "star")]),
        (
            CIRCLE,
            CIRCLE.replace("red", "blue").replace("white", "black"),
            [("red circle", "blue circle"), ("white background", "black background")],
        ),
        (CIRCLE, CIRCLE.replace("a large red circle", "two large red circles"),
         [("a large red circle", "two large red circles")]),
        ("a dog", "a dog, running on grass", [("", "running on grass")]),
        ("a dog running on grass", "a dog", [("running on grass", "")]),
        ("A dog.", "a dog", []),
        ("a dog on grass", "a cat, small, on grass", [("dog", "cat, small")]),
        ("a very big dog", "a small dog", [("very big", "small")]),
        ("a small dog", "a very big dog", [("small", "very big")]),
        ("red On grass", "blue On grass", [("red", "blue")]),
        ("one b c d e two", "three b c d e four", [("one b", "three b"), ("two", "four")]),
        ("one b c d two", "three b c d four", [("one b c d two", "three b c d four")]),
        ("eine Katze", "три собаки", [("eine Katze", "три собаки")]),
    ],
)  # fmt: skip
def test_what_differs_between_captions(before: str, after: str, changes: list[tuple[str, str]]) -> None:
    assert caption_changes(before, after) == changes


def test_a_long_caption_of_few_words_is_compared_like_a_short_one() -> None:
    words = random.Random(1).choices("bcdefg", k=300)
    before, after = " ".join(words), " ".join([*words[:150], "fox", *words[151:]])
    assert caption_changes(before, after) == [(f"{words[150]} {words[151]}", f"fox {words[151]}")]


def pair(before: str | None, after: str | None, root: Path = Path()) -> PicturePair:
    return PicturePair(Picture("0.png", before), Picture("1.png", after), root)


def test_templates_name_the_difference_in_several_ways() -> None:
    (written,) = CaptionTemplates(4).write([pair(CIRCLE, CIRCLE.replace("red", "blue"))])
    assert sorted(written.texts) == [
        "blue circle instead of red circle",
        "change red circle to blue circle",
        "not red circle but blue circle",
        "replace red circle with blue circle",
    ]


@pytest.mark.parametrize(
    ("before", "after", "texts"),
    [
        ("a dog", "a dog in snow", {"with in snow", "add in snow", "now with in snow", "in snow as well"}),
        ("a dog in snow", "a dog", {"without in snow", "remove in snow", "now without in snow", "no in snow"}),
    ],
)
def test_templates_say_what_was_added_and_what_was_removed(before: str, after: str, texts: set[str]) -> None:
    (written,) = CaptionTemplates(4).write([pair(before, after)])
    assert set(written.texts) == texts


def test_the_wording_depends_on_the_target_too() -> None:
    pairs = [PicturePair(Picture("x.png", CIRCLE), Picture(f"{n}.png", "a dog"), Path()) for n in range(20)]
    assert len({written.texts for written in CaptionTemplates(1).write(pairs)}) > 1


def test_other_templates_have_another_identity() -> None:
    assert len({CaptionTemplates(count, seed).identity for count in (1, 2) for seed in (1, 2)}) == 4
    assert CaptionTemplates(2, 1).identity == CaptionTemplates(2, 1).identity


def test_templates_write_as_many_as_they_are_asked_for_and_the_seed_chooses_them() -> None:
    pairs = [PicturePair(Picture(f"{n}.png", CIRCLE), Picture("x.png", "a dog"), Path()) for n in range(20)]
    texts = [written.texts for written in CaptionTemplates(2, seed=1).write(pairs)]
    assert {len(some) for some in texts} == {2}
    assert texts == [written.texts for written in CaptionTemplates(2, seed=1).write(pairs)]
    assert texts != [written.texts for written in CaptionTemplates(2, seed=2).write(pairs)]
    assert len(set(texts)) > 1


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [(None, "a", "no caption"), ("a", None, "no caption"), ("A dog", "a dog.", "equal captions")],
)
def test_a_pair_that_captions_say_nothing_about_is_left_out_with_the_reason(
    before: str | None, after: str | None, problem: str
) -> None:
    assert list(CaptionTemplates().write([pair(before, after)])) == [Written(problem=problem)]


# ----------------------------------------------------------------------------------------------------- chat models

INSTRUCTIONS = ["make it blue", "the same in blue"]
GOOD = json.dumps({"common": "a circle", "difference": "B is blue", "instructions": INSTRUCTIONS})


class Listener(FakeListChatModel):
    """A chat model that remembers what it was sent; a response that starts with "!" is raised."""

    _heard: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
        self._heard.append(messages)
        response = super()._call(messages, *args, **kwargs)
        if response.startswith("!"):
            raise ConnectionError(response[1:])
        return response


class ToolCaller(FakeMessagesListChatModel):
    """A chat model with tools, and so with ``with_structured_output``."""

    _tools: list[Any] = PrivateAttr(default_factory=list)
    _heard: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        self._tools.extend(tools)
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        self._heard.append(messages)
        return super()._generate(messages, *args, **kwargs)


@pytest.fixture
def drawn(gallery: Gallery) -> PicturePair:
    return pair(CAPTIONS[0], CAPTIONS[1], gallery.paths[0].parent)


def chat(*responses: str, **options: Any) -> tuple[Listener, ChatInstructions]:
    model = Listener(responses=list(responses))
    return model, ChatInstructions(model, 2, concurrency=1, **options)


def test_a_chat_models_answer_becomes_the_instructions(drawn: PicturePair) -> None:
    model, writer = chat(GOOD)
    assert list(writer.write([drawn])) == [Written(tuple(INSTRUCTIONS))]
    assert len(model._heard) == 1


def test_the_model_sees_both_pictures_as_standard_blocks_and_reads_their_captions(drawn: PicturePair) -> None:
    model, writer = chat(GOOD)
    list(writer.write([drawn]))
    (messages,) = model._heard
    blocks: list[Any] = messages[-1].content_blocks
    assert [block["type"] for block in blocks] == ["text", "image", "text", "image", "text"]
    assert [blocks[1]["mime_type"], blocks[3]["mime_type"]] == ["image/jpeg"] * 2
    seen = [Image.open(io.BytesIO(base64.b64decode(block["base64"]))) for block in (blocks[1], blocks[3])]
    originals = [draw(scene, seed=3) for scene in SCENES[:2]]
    assert [image.size for image in seen] == [image.size for image in originals]
    found, expected = (
        np.array([image.getpixel((image.width // 2, image.height // 2)) for image in images])
        for images in (seen, originals)
    )
    assert np.abs(found - expected).max() < 12
    assert CAPTIONS[0] in blocks[0]["text"]
    assert CAPTIONS[1] in blocks[2]["text"]


def test_large_pictures_are_sent_scaled_down(tmp_path: Path) -> None:
    Image.new("RGBA", (900, 300)).save(tmp_path / "0.png")
    Image.new("L", (10, 20)).save(tmp_path / "1.png")
    model, writer = chat(GOOD, max_side=90)
    list(writer.write([pair(None, None, tmp_path)]))
    blocks: list[Any] = [block for block in model._heard[0][-1].content_blocks if block["type"] == "image"]
    sizes = [Image.open(io.BytesIO(base64.b64decode(block["base64"]))).size for block in blocks]
    assert sizes == [(90, 30), (10, 20)]


WRONG = [
    "I cannot do that.",
    json.dumps({"common": "a", "difference": "b"}),
    json.dumps({"common": "a", "difference": "b", "instructions": ["only one"]}),
    json.dumps({"common": "a", "difference": "b", "instructions": ["the same", " the same "]}),
    json.dumps({"common": "a", "difference": "b", "instructions": ["x", " "]}),
    json.dumps({"common": "a", "difference": "b", "instructions": ["x", "y" * 301]}),
    json.dumps({"common": "a", "difference": "b", "instructions": "make it blue"}),
]


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_answer_is_sent_back_and_the_next_one_is_taken(drawn: PicturePair, wrong: str) -> None:
    model, writer = chat(wrong, GOOD)
    assert list(writer.write([drawn])) == [Written(tuple(INSTRUCTIONS))]
    first, second = model._heard
    assert second[: len(first)] == first
    answer, complaint = second[len(first) :]
    assert answer.text == wrong
    assert "cannot be used" in complaint.text


def test_only_the_last_wrong_answer_is_sent_back(drawn: PicturePair) -> None:
    model, writer = chat("first", "", GOOD)
    assert list(writer.write([drawn])) == [Written(tuple(INSTRUCTIONS))]
    assert [len(messages) for messages in model._heard] == [2, 4, 4]
    assert [messages[2].text for messages in model._heard[1:]] == ["first", "(nothing)"]


def test_an_error_of_the_provider_is_tried_again(drawn: PicturePair) -> None:
    _, writer = chat("!the line is down", GOOD)
    assert list(writer.write([drawn])) == [Written(tuple(INSTRUCTIONS))]


@pytest.mark.parametrize(("response", "words"), [("rubbish", "rubbish"), ("!the line is down", "the line is down")])
def test_a_model_that_always_fails_is_an_error_that_names_the_pair(
    drawn: PicturePair, response: str, words: str
) -> None:
    model, writer = chat(response, attempts=3)
    with pytest.raises(InstructionError) as error:
        list(writer.write([drawn]))
    assert len(model._heard) == 3
    assert "0.png → 1.png" in str(error.value)
    assert words in str(error.value)


def test_failures_up_to_the_limit_are_left_out_with_the_reason(drawn: PicturePair) -> None:
    _, writer = chat("rubbish", GOOD, "rubbish", "rubbish", attempts=1, max_failures=2)
    results = writer.write([drawn] * 4)
    kinds = [next(results).problem for _ in range(3)]
    assert kinds == ["no usable answer", "", "no usable answer"]
    with pytest.raises(InstructionError, match="3 pairs failed, and max_failures is 2"):
        next(results)


def test_a_run_that_stops_asks_no_more_pairs(drawn: PicturePair) -> None:
    model, writer = chat("rubbish", attempts=1)
    with pytest.raises(InstructionError):
        list(writer.write([drawn] * 50))
    assert len(model._heard) < 50


def test_other_chat_models_and_other_numbers_have_another_identity() -> None:
    class Named(FakeListChatModel):
        model_name: str

    models = [Named(model_name=name, responses=[GOOD]) for name in ("a", "b")]
    writers = [
        ChatInstructions(model, count) for model in (*models, FakeListChatModel(responses=[])) for count in (1, 2)
    ]
    assert len({writer.identity for writer in writers}) == 6


def called(arguments: dict[str, Any]) -> AIMessage:
    return AIMessage("", tool_calls=[{"name": "Instructions", "args": arguments, "id": "1"}])


def test_a_model_with_structured_output_answers_through_it(drawn: PicturePair) -> None:
    model = ToolCaller(responses=[called(json.loads(GOOD))])
    assert list(ChatInstructions(model, 2).write([drawn])) == [Written(tuple(INSTRUCTIONS))]
    assert len(model._tools) == 1


@pytest.mark.parametrize("wrong", [called({"instructions": ["one"]}), AIMessage("Sorry, no.")])
def test_a_wrong_structured_answer_is_sent_back(drawn: PicturePair, wrong: AIMessage) -> None:
    model = ToolCaller(responses=[wrong, called(json.loads(GOOD))])
    assert list(ChatInstructions(model, 2).write([drawn])) == [Written(tuple(INSTRUCTIONS))]
    answer, complaint = model._heard[1][2:]
    assert answer.text == (wrong.text or "[{'instructions': ['one']}]")
    assert "cannot be used" in complaint.text


def test_results_come_in_the_order_of_the_pairs_when_many_are_asked_at_once(gallery: Gallery) -> None:
    class Echo(FakeListChatModel):
        def _call(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> str:
            block: Any = messages[-1].content_blocks[0]
            caption = block["text"]
            return json.dumps({"common": "a", "difference": "b", "instructions": [caption]})

    root = gallery.paths[0].parent
    pairs = [PicturePair(Picture("0.png", f"number {n}"), Picture("1.png"), root) for n in range(20)]
    written = list(ChatInstructions(Echo(responses=[""]), 1, concurrency=8).write(pairs))
    assert [one.texts[0].rsplit(" ", 1)[1] for one in written] == [str(n) for n in range(20)]


def test_a_picture_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    _, writer = chat(GOOD)
    with pytest.raises(ImageError, match="0.png"):
        list(writer.write([pair(None, None, tmp_path)]))


@pytest.mark.parametrize("option", ["count", "attempts", "concurrency", "max_side"])
def test_numbers_below_one_are_errors(option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0"):
        ChatInstructions(FakeListChatModel(responses=[GOOD]), **{option: 0})


# ------------------------------------------------------------------------------------------- names of chat models


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "megapairs_chat_models.py").write_text(
        "from langchain_core.language_models import FakeListChatModel\n"
        "model = FakeListChatModel(responses=['a'])\n"
        "def make():\n    return model\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "megapairs_chat_models", raising=False)
    return "megapairs_chat_models"


@pytest.mark.parametrize("name", ["model", "make"])
def test_a_chat_model_of_the_current_folder_is_imported(module: str, name: str) -> None:
    assert isinstance(import_chat_model(f"{module}:{name}"), FakeListChatModel)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("{}", "write MODULE:NAME"),
        ("{}:", "write MODULE:NAME"),
        ("no_such_module:model", "cannot be imported"),
        ("{}:nothing", "has no 'nothing'"),
        ("{}:number", "of type int"),
    ],
)
def test_a_name_of_no_chat_model_is_an_error(module: str, name: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        import_chat_model(name.format(module))
