"""What LangChain's users hold texts and images in, compared with the text and the images that are in it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    ChatMessage,
    HumanMessage,
    HumanMessageChunk,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import ChatPromptValue, ImagePromptValue, StringPromptValue
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore
from PIL import Image

from langchain_gme import GMEEmbeddings, MultimodalRetriever, MultimodalStore, add_multimodal
from langchain_gme.content import document_images, image_references, text_of, to_item, video_reference
from st_modules import ImageLimits, InputError, Place, SentenceTransformer
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import parse_items
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, HEART, Gallery
from tests.helpers.paths import GOLDEN
from tests.helpers.references import load_once
from tests.helpers.videos import random_frames, write_video

PLACE = Place(3)
SQUARE = GOLDEN / "gme" / "images" / "square.png"
WIDE = GOLDEN / "gme" / "images" / "wide.png"
BYTES = SQUARE.read_bytes()
DATA = base64.b64encode(BYTES).decode()
URI = f"data:image/png;base64,{DATA}"
TEXT = {"type": "text", "text": "make it blue"}
URL = "https://example.com/picture.png"


def content(value: Any) -> tuple[str | None, list[bytes], str | None]:
    """The text, the images and the instruction of an item as ``encode`` reads it."""
    (item,) = parse_items([to_item(value, PLACE)])
    return item.text, [image.digest() for image in item.images], item.instruction


def load(value: Any) -> None:
    """Read an item, the fourth of a list, and its images."""
    fill = [{"text": str(number)} for number in range(PLACE.index)]
    for item in parse_items([*fill, to_item(value, PLACE)]):
        for image in item.images:
            image.load()


def digests(*paths: Path) -> list[bytes]:
    return [ImageSource(path).digest() for path in paths]


IMAGE_BLOCKS: dict[str, Any] = {
    "standard base64": {"type": "image", "base64": DATA, "mime_type": "image/png", "id": "1", "index": 0},
    "standard url": {"type": "image", "url": SQUARE.as_uri(), "extras": {"detail": "low"}},
    "standard data url": {"type": "image", "url": URI},
    "standard base64, as a data url": {"type": "image", "base64": URI},
    "version 0 base64": {"type": "image", "source_type": "base64", "data": DATA, "mime_type": "image/png"},
    "version 0 url": {"type": "image", "source_type": "url", "url": URI, "cache_control": {"type": "ephemeral"}},
    "openai": {"type": "image_url", "image_url": {"url": URI, "detail": "low"}},
    "openai, bare": {"type": "image_url", "image_url": URI},
    "openai responses": {"type": "input_image", "image_url": URI, "detail": "auto"},
    "openai responses, nothing else": {"type": "input_image", "image_url": URI, "file_id": None},
    "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": DATA}},
    "anthropic url": {"type": "image", "source": {"type": "url", "url": URI}, "cache_control": {"type": "ephemeral"}},
    "bedrock": {"image": {"format": "png", "source": {"bytes": BYTES}}},
    "bedrock as json": {"image": {"format": "png", "source": {"bytes": DATA}}},
    "google media": {"type": "media", "mime_type": "image/png", "data": DATA},
    "google media, bytes": {"type": "media", "mime_type": "image/png", "data": BYTES},
    "google media, uri": {"type": "media", "mime_type": "image/png", "file_uri": SQUARE.as_uri()},
    "google inline": {"inline_data": {"mime_type": "image/png", "data": DATA}},
    "google inline, nothing else": {"text": None, "inline_data": {"mime_type": "image/png", "data": DATA}},
    "google inline, camels": {"inlineData": {"mimeType": "image/png", "data": DATA}},
    "google file": {"file_data": {"mime_type": "image/png", "file_uri": SQUARE.as_uri()}},
    "non-standard": {"type": "non_standard", "value": {"type": "image_url", "image_url": URI}},
    "path": {"type": "image", "path": str(SQUARE)},
    "path object": {"type": "image", "path": SQUARE},
    "bytes": {"type": "image", "image": BYTES},
    "untyped": {"image": SQUARE},
}
TEXT_BLOCKS: dict[str, Any] = {
    "standard": {"type": "text", "text": "make it blue", "annotations": [], "index": 0},
    "version 0": {"type": "text", "source_type": "text", "text": "make it blue"},
    "plain": {"type": "text-plain", "text": "make it blue", "mime_type": "text/plain"},
    "openai responses": {"type": "input_text", "text": "make it blue"},
    "openai output": {"type": "output_text", "text": "make it blue", "annotations": []},
    "anthropic": {"type": "text", "text": "make it blue", "cache_control": {"type": "ephemeral"}},
    "bedrock": {"text": "make it blue"},
    "string": "make it blue",
}


@pytest.mark.parametrize("form", IMAGE_BLOCKS)
def test_an_image_block_is_its_image(form: str) -> None:
    block = IMAGE_BLOCKS[form]
    assert content([block, TEXT]) == ("make it blue", digests(SQUARE), None)
    assert content(block) == (None, digests(SQUARE), None)
    assert content(HumanMessage([block, TEXT])) == ("make it blue", digests(SQUARE), None)
    assert content(Document("page", metadata={"image": block})) == ("page", digests(SQUARE), None)


@pytest.mark.parametrize("form", TEXT_BLOCKS)
def test_a_text_block_is_its_text(form: str) -> None:
    block = TEXT_BLOCKS[form]
    assert content(block) == ("make it blue", [], None)
    assert content([block, IMAGE_BLOCKS["path"]]) == ("make it blue", digests(SQUARE), None)
    assert content({"role": "user", "content": [block]}) == ("make it blue", [], None)


MESSAGES: dict[str, Any] = {
    "human": HumanMessage([TEXT]),
    "human chunk": HumanMessageChunk(content="make it blue"),
    "ai alone": AIMessage("make it blue"),
    "ai chunk alone": AIMessageChunk(content="make it blue"),
    "ai of a provider": AIMessage(
        [{"type": "text", "text": "make it blue"}], response_metadata={"model_provider": "google_genai"}
    ),
    "chat": ChatMessage(content="make it blue", role="user"),
    "user": {"role": "user", "content": "make it blue"},
    "assistant alone": {"role": "assistant", "content": "make it blue"},
    "by its type": {"type": "human", "content": "make it blue"},
    "responses": {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "make it blue"}]},
    "pair": ("human", "make it blue"),
    "list": [HumanMessage("make it blue")],
    "prompt": StringPromptValue(text="make it blue"),
    "chat prompt": ChatPromptValue(messages=[HumanMessage("make it blue")]),
}


@pytest.mark.parametrize("form", MESSAGES)
def test_a_message_is_what_it_says(form: str) -> None:
    assert content(MESSAGES[form]) == ("make it blue", [], None)


@pytest.mark.parametrize(
    "conversation",
    [
        [SystemMessage("Find it."), HumanMessage("make it blue")],
        [{"role": "developer", "content": "Find it."}, {"role": "user", "content": "make it blue"}],
        [("system", "Find it."), ("human", "make it blue")],
        [SystemMessage([{"type": "text", "text": "Find it."}]), {"role": "user", "content": ["make it blue"]}],
        ChatPromptTemplate([("system", "Find it."), ("human", "make it {colour}")]).invoke({"colour": "blue"}),
    ],
    ids=["langchain", "openai", "pairs", "mixed", "prompt"],
)
def test_a_system_message_before_it_is_the_instruction(conversation: Any) -> None:
    assert content(conversation) == ("make it blue", [], "Find it.")


def test_a_prompt_with_an_image_is_both() -> None:
    prompt = ChatPromptTemplate(
        [
            (
                "human",
                [{"type": "image_url", "image_url": {"url": "{picture}"}}, {"type": "text", "text": "make it blue"}],
            )
        ]
    )
    assert content(prompt.invoke({"picture": URI})) == ("make it blue", digests(SQUARE), None)
    assert content(ImagePromptValue(image_url={"url": URI, "detail": "low"})) == (None, digests(SQUARE), None)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_prompt_and_a_chat_model_are_piped_into_a_retriever(
    is_async: bool, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    store = InMemoryVectorStore(GMEEmbeddings(model=tiny))
    add_multimodal(store, list(gallery.paths))
    retriever: Any = MultimodalRetriever(vectorstore=store, search_kwargs={"k": 1})
    picture = {"type": "image", "url": str(gallery.query)}
    asked = ChatPromptTemplate([("human", [picture, {"type": "text", "text": "make it {colour}"}])]) | retriever
    told = PromptTemplate.from_template("{what}") | FakeListChatModel(responses=[CAPTIONS[HEART]]) | retriever
    for chain, argument, number in ((asked, {"colour": "blue"}, BLUE_CIRCLE), (told, {"what": "love"}, HEART)):
        (found,) = asyncio.run(chain.ainvoke(argument)) if is_async else chain.invoke(argument)
        assert found.metadata["image"] == str(gallery.paths[number])


BLOBS: dict[str, tuple[Blob, Any]] = {
    "image bytes": (Blob(data=BYTES, mimetype="image/png"), (None, digests(SQUARE), None)),
    "image path": (Blob.from_path(SQUARE), (None, digests(SQUARE), None)),
    "bytes without a type": (Blob(data=BYTES), (None, digests(SQUARE), None)),
    "path without a type": (Blob.from_path(SQUARE, guess_type=False), (None, digests(SQUARE), None)),
    "text": (Blob(data="a page", mimetype="text/plain"), ("a page", [], None)),
    "text without a type": (Blob(data="https://example.com/a.png"), ("https://example.com/a.png", [], None)),
    "text bytes": (Blob(data="é".encode("latin-1"), mimetype="Text/HTML", encoding="latin-1"), ("é", [], None)),
}


@pytest.mark.parametrize("form", BLOBS)
def test_a_blob_is_its_text_or_its_image(form: str) -> None:
    blob, expected = BLOBS[form]
    assert content(blob) == expected


def test_a_blob_of_a_text_file_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_text("a page", encoding="utf-8")
    assert content(Blob.from_path(tmp_path / "page.txt")) == ("a page", [], None)


@pytest.mark.parametrize(
    ("make_blob", "problem"),
    [
        (
            lambda folder: Blob(data=b"%PDF-1.7", mimetype="application/pdf"),
            "type 'application/pdf' cannot be embedded",
        ),
        (lambda folder: Blob(data=None), "neither data nor a path"),
        (lambda folder: Blob.from_path(folder / "none.txt"), r"none\.txt: No such file"),
        (lambda folder: Blob.from_path(folder, mime_type="text/plain"), "not a regular file"),
        (lambda folder: Blob.from_path("/dev/zero", mime_type="text/plain"), "/dev/zero: not a regular file"),
        (lambda folder: Blob.from_path("a\0b", mime_type="text/plain"), "is no path"),
        (lambda folder: Blob(data=b"\xff", mimetype="text/plain"), "its bytes are not utf-8"),
        (lambda folder: Blob(data=b"a", mimetype="text/plain", encoding="martian"), "its bytes are not martian"),
        (lambda folder: Blob(data="<svg/>", mimetype="image/svg+xml"), "HTML, XML or SVG text"),
        (lambda folder: Blob(data=str(SQUARE), mimetype="image/png"), "not an image"),
    ],
)
def test_a_blob_that_is_neither_is_refused(make_blob: Callable[[Path], Blob], problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem):
        load(make_blob(tmp_path))


def test_the_text_of_a_blob_is_read_within_a_limit(tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(b"a" * 11)
    with pytest.raises(InputError, match=r"item 3: .*page\.txt: more than 10 bytes"):
        to_item(Blob.from_path(tmp_path / "page.txt"), PLACE, ImageLimits(max_bytes=10))


PICTURE = Image.open(io.BytesIO(BYTES))
METADATA: dict[str, tuple[dict[str, Any], list[Path]]] = {
    "path": ({"image": str(SQUARE)}, [SQUARE]),
    "path object": ({"image_path": SQUARE}, [SQUARE]),
    "the first that is set": ({"image": None, "image_path": "", "image_url": SQUARE.as_uri()}, [SQUARE]),
    "openai": ({"image_url": {"url": URI, "detail": "low"}}, [SQUARE]),
    "several": ({"image": [str(SQUARE), {"url": WIDE.as_uri()}]}, [SQUARE, WIDE]),
    "several, tuple": ({"image": (SQUARE, WIDE)}, [SQUARE, WIDE]),
    "several as json": ({"image": json.dumps([str(SQUARE), str(WIDE)])}, [SQUARE, WIDE]),
    "one as json": ({"image": json.dumps([str(SQUARE)])}, [SQUARE]),
    "one in a list": ({"image": [str(SQUARE)]}, [SQUARE]),
    "bytes": ({"image": BYTES}, [SQUARE]),
    "blob": ({"image": Blob.from_path(SQUARE)}, [SQUARE]),
    "hugging face": ({"image": {"bytes": None, "path": str(SQUARE)}}, [SQUARE]),
    "hugging face, bytes": ({"image": {"bytes": BYTES, "path": "gone.png"}}, [SQUARE]),
    "none": ({"image": "", "image_path": None, "image_url": []}, []),
    "only a source": ({"source": str(SQUARE)}, []),
}


@pytest.mark.parametrize("form", METADATA)
def test_the_images_of_a_document_are_those_in_its_metadata(form: str) -> None:
    metadata, paths = METADATA[form]
    document = Document("page", metadata=metadata)
    assert [ImageSource(image).digest() for image in document_images(document)] == digests(*paths)
    assert content(document) == ("page", digests(*paths), None)
    item = to_item(document, PLACE)
    assert isinstance(item["image"], list) == (len(paths) > 1)


def test_an_array_in_a_documents_metadata_is_its_image() -> None:
    array = np.asarray(PICTURE.convert("RGB"))
    (image,) = document_images(Document("", metadata={"image": array}))
    assert image is array


@pytest.mark.parametrize("text", ['["a.png"', '["a.png", 3]', '["a", ' + "[" * 100_000])
def test_a_string_that_is_no_list_of_strings_is_one_path(text: str) -> None:
    assert document_images(Document("", metadata={"image": text})) == [text]


REFERENCES: dict[str, tuple[Any, list[str] | None]] = {
    "text": ("a.png", []),
    "text dictionary": ({"text": "a", "image": None}, []),
    "text blocks": ([TEXT], []),
    "path": (Path("a.png"), ["a.png"]),
    "in memory": (BYTES, None),
    "dictionary": ({"text": "a", "image": URL}, [URL]),
    "several": ({"image": ["a.png", Path("b.png")]}, ["a.png", "b.png"]),
    "several, one in memory": ({"image": ["a.png", BYTES]}, None),
    "data uri": ({"image": "Data:image/png;base64,AAAA"}, None),
    "document": (Document("a", metadata={"image_url": {"url": URL}}), [URL]),
    "document of several": (Document("a", metadata={"image": '["a.png", "b.png"]'}), ["a.png", "b.png"]),
    "blocks": ([{"type": "image", "url": URL}, TEXT, {"type": "image", "path": "b.png"}], [URL, "b.png"]),
    "blocks, one in memory": ([{"type": "image", "url": URL}, {"type": "image", "base64": DATA}], None),
    "message": (HumanMessage([{"type": "image_url", "image_url": {"url": URL}}]), [URL]),
    "blob": (Blob.from_path("a.png"), ["a.png"]),
    "hugging face": ({"bytes": None, "path": "a.png"}, ["a.png"]),
    "hugging face, bytes": ({"bytes": BYTES, "path": "a.png"}, None),
}


@pytest.mark.parametrize("form", REFERENCES)
def test_references_are_to_all_images_or_none(form: str) -> None:
    value, expected = REFERENCES[form]
    assert image_references(to_item(value, PLACE)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a", "a"),
        (Path("a.png"), ""),
        ({"image": "a.png"}, ""),
        (Document("a", metadata={"image": "b.png"}), "a"),
        ([TEXT, {"type": "image", "url": URL}, "on black"], "make it blue\non black"),
        ([SystemMessage("Find it."), HumanMessage("a")], "a"),
        (Blob(data="a"), "a"),
    ],
)
def test_the_text_of_an_item_is_all_of_its_text(value: Any, expected: str) -> None:
    assert text_of(to_item(value, PLACE)) == expected


CALL = {"name": "look", "args": {}, "id": "1", "type": "tool_call"}
REFUSED: list[tuple[Any, str]] = [
    *(
        (["a", {"type": kind, "base64": "AAAA"}], f"item 3, block 1: a block of the type '{kind}' cannot be embedded")
        for kind in ("audio", "file", "document", "input_audio", "reasoning", "thinking", "tool_call")
    ),
    (["a", {"document": {"format": "pdf"}}], "item 3, block 1: a block of the type 'document' cannot be embedded"),
    (["a", {"toolUse": {"name": "look"}}], "item 3, block 1: a block of the type 'toolUse' cannot be embedded"),
    (["a", {"type": "sound"}], "item 3, block 1: the type 'sound' cannot be embedded; known are"),
    (["a", {"type": ["image"]}], r"item 3, block 1: the type \['image'\] cannot be embedded"),
    (["a", {"type": "image", "file_id": "f-1"}], r'block 1: a file that the provider keeps \("file_id": \'f-1\'\)'),
    (["a", {"type": "image", "source_type": "id", "id": "f-1"}], "block 1: a file that the provider keeps"),
    (["a", {"type": "image", "source": {"type": "file", "file_id": "f-1"}}], "block 1: a file that the provider keeps"),
    (["a", {"type": "input_image", "file_id": "f-1"}], "block 1: a file that the provider keeps"),
    (["a", {"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/a.png"}}}}], "s3Location"),
    ({"image": {"format": "png", "source": {"s3Location": {"uri": "s3://b/a.png"}}}}, "item 3: a file that the prov"),
    (["a", {"type": "media", "mime_type": "audio/mp3", "data": "AAAA"}], "block 1: media of the type 'audio/mp3'"),
    (["a", {"type": "video", "file_id": "f-1"}], r'block 1: a file that the provider keeps \("file_id": \'f-1\'\)'),
    (["a", {"type": "video"}], "block 1: a video block needs exactly one of"),
    (["a", {"type": "video", "url": "b", "fps": 3}], r"block 1: unknown keys \['fps'\]"),
    ({"video": {"type": "text", "text": "b"}}, "item 3: a text block, where a video belongs; pass it as text"),
    ({"image": {"type": "video", "url": "b"}}, "item 3: a video block, where an image belongs; pass it as video"),
    ({"video": Blob(data="a")}, "item 3: a blob of a text, where a video belongs"),
    ({"video": Blob(data=b"a", mimetype="image/png")}, "item 3: a blob of the type 'image/png' cannot be embedded"),
    (
        ["a", {"type": "media", "mime_type": None, "file_uri": "gs://b/a.png"}],
        "item 3: gs://b/a.png: gs:// is not",
    ),
    (["a", {"type": "media", "mime_type": 3, "data": "AAAA"}], "block 1: media of the type 3"),
    (["a", {"type": "media", "mime_type": "image/png"}], 'block 1: "data or file_uri" is of type NoneType'),
    (["a", {"inline_data": "AAAA"}], "block 1: media of type str"),
    (["a", {"type": "image"}], "block 1: an image block needs exactly one of"),
    (["a", {"type": "image", "url": None}], "block 1: an image block needs exactly one of"),
    (["a", {"type": "image", "url": 3}], 'block 1: "url" is of type int; pass a string'),
    (["a", {"type": "image", "url": URL, "base64": DATA}], "block 1: an image block needs exactly one of"),
    (["a", {"type": "image", "url": "", "colour": 3}], r"block 1: unknown keys \['colour'\]"),
    (["a", {"type": "image", "url": ""}], "item 3: .*an empty string names no image"),
    (["a", {"type": "image", "source": "a.png"}], 'block 1: "source" is of type str'),
    (["a", {"type": "image", "source": {"type": "base64"}}], 'block 1: "source" has the keys'),
    (["a", {"type": "image_url"}], 'block 1: "image_url" is of type NoneType'),
    (["a", {"type": "image_url", "image_url": {}}], 'block 1: "url" is of type NoneType'),
    (["a", {"type": "image", "base64": DATA[:40]}], "item 3: .*damaged or not readable"),
    (["a", {"type": "image", "base64": base64.b64encode(b"%PDF-1.7 and more").decode()}], "item 3: .*not an image"),
    (["a", {"type": "text"}], 'block 1: "text" is of type NoneType'),
    (["a", {"type": "text", "text": b"b"}], 'block 1: "text" is of type bytes'),
    (["a", {"text": "b", "image": "c.png"}], r"block 1: a block with the keys \['image', 'text'\], without a type"),
    (["a", {3: "b"}], r"block 1: a block with the keys \['3'\], without a type"),
    (["a", {"type": "non_standard", "value": "b"}], "item 3, block 1: of type str; pass a content block"),
    (["a", {"type": "non_standard"}], "item 3, block 1: of type NoneType"),
    (["a", None], "item 3, block 1: of type NoneType; pass a content block"),
    (["a", ["b"]], "item 3, block 1: of type list; pass a content block"),
    (["a", Path("b.png")], 'block 1: of type PosixPath; pass a content block, an image as {"type": "image"'),
    ([], "item 3: it has neither text nor image"),
    (HumanMessage(""), "item 3, human message: it has neither text nor image"),
    (HumanMessage([{"type": "audio", "base64": "AAAA"}]), "item 3, human message, block 0: .*'audio'"),
    ({"role": "user", "content": ["a", {"type": "file"}]}, "item 3, user message, block 1: .*'file'"),
    ({"role": "user", "content": 3}, 'item 3, user message: "content" is of type int'),
    ({"role": "user"}, 'item 3, user message: "content" is of type NoneType'),
    ({"role": 3, "content": "a"}, 'item 3, message 0: "role" is of type int'),
    ({"role": "user", "content": "a", "tool_calls": []}, r"item 3, message 0: unknown keys \['tool_calls'\]"),
    (AIMessage("", tool_calls=[CALL]), "item 3, message 0: an ai message with tool calls"),
    (AIMessage([{"type": "reasoning", "reasoning": "so"}, TEXT]), "item 3, ai message, block 0: .*'reasoning'"),
    (SystemMessage("a"), r"item 3: messages with the roles \['system'\] are not one item"),
    (ToolMessage("a", tool_call_id="1"), r"item 3: messages with the roles \['tool'\] are not one item"),
    (ChatMessage(content="a", role="critic"), r"item 3: messages with the roles \['critic'\] are not one item"),
    ([HumanMessage("a"), AIMessage("b")], r"item 3: messages with the roles \['human', 'ai'\] are not one item"),
    ([SystemMessage("a"), AIMessage("b")], r"item 3: messages with the roles \['system', 'ai'\] are not one item"),
    ([("user", "a"), ("assistant", "b")], r"item 3: messages with the roles \['user', 'assistant'\] are not one"),
    ([HumanMessage("a"), TEXT], "item 3, message 1: of type dict; pass messages alone, or content blocks alone"),
    ([SystemMessage([IMAGE_BLOCKS["path"]]), HumanMessage("a")], "item 3, system message: an instruction is a text"),
    (ChatPromptValue(messages=[]), "item 3: it has neither text nor image"),
    (Document(""), "item 3: a Document with neither text nor image"),
    (Document("", metadata={"source": "a.png"}), 'item 3: a Document with neither text nor image; .*"image"'),
    (Document("a", metadata={"image": 3}), "item 3: .*not an image"),
    (Document("a", metadata={"image": ["a.png", None]}), "item 3, image 1: .*not an image"),
    (Document("a", metadata={"image": {"colour": "red"}}), r"item 3: unknown keys \['colour'\]"),
    (Document("a", metadata={"image": {}}), 'item 3: "url" is of type NoneType'),
    (Document("a", metadata={"image": TEXT}), "item 3: a text block, where an image belongs"),
    (Document("a", metadata={"image": Blob(data="b")}), "item 3: a blob of a text, where an image belongs"),
    (Document("a", metadata={"image": float("nan")}), "item 3.*missing value nan"),
    ({"bytes": None, "path": None}, "item 3: neither bytes nor a path"),
    ({"bytes": None, "path": 3}, 'item 3: "path" is of type int'),
    ({"text": b"a"}, 'item 3, "text": of type bytes'),
    ({"text": "a", 3: "b"}, r"item 3: unknown keys \['3'\]"),
    ({"image_url": URL}, r"item 3: unknown keys \['image_url'\]"),
]


@pytest.mark.parametrize(("value", "problem"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_what_cannot_be_embedded_is_named(value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        load(value)


def test_what_is_refused_is_shown_in_few_words() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    long = "a" * 10_000_000
    blocks = [{"type": deep}, {"type": long}, {"type": "image", "file_id": long}, {long: 1}, {"type": "text", long: 1}]
    for value in (*([block] for block in blocks), [HumanMessage("a")] * 10_000, {"role": "user", long: "a"}):
        with pytest.raises(InputError) as caught:
            to_item(value, PLACE)
        assert len(str(caught.value)) < 300


def test_no_value_ends_in_another_exception(gallery: Gallery) -> None:
    leaves: list[Any] = [
        None,
        3,
        float("nan"),
        "",
        "a",
        b"",
        b"a",
        [],
        {},
        (),
        [None],
        {"a": 1},
        object(),
        TEXT,
        gallery,
    ]
    keys = ["type", "text", "image", "image_url", "url", "source", "role", "content", "inline_data", "value", "data"]
    kinds = ["text", "image", "image_url", "media", "non_standard", "user", "human", "input_image"]
    values: list[Any] = [{key: leaf} for key in keys for leaf in leaves]
    values += [{"type": kind, key: leaf} for kind in kinds for key in keys[1:] for leaf in leaves]
    values += [{"role": "user", "content": [leaf]} for leaf in leaves] + leaves
    values += [[value] for value in values] + [Document("a", metadata={"image": value}) for value in values]
    other = []
    for value in values:
        try:
            parse_items([to_item(value, Place(0))])
        except InputError:
            pass
        except Exception as error:
            other.append((value, error))
    assert other == []


# ------------------------------------------------------------------------------------------------------ videos

BASE64 = "AAAA"
VIDEOS: list[tuple[Any, Any]] = [
    ({"type": "video", "url": "https://example.org/a.mp4"}, "https://example.org/a.mp4"),
    ({"type": "video", "base64": BASE64, "mime_type": "video/mp4"}, "data:video/*;base64,AAAA"),
    ({"type": "video", "source_type": "base64", "data": BASE64, "mime_type": "video/mp4"}, "data:video/*;base64,AAAA"),
    ({"type": "video", "path": Path("a.mp4")}, "a.mp4"),
    ({"type": "video", "video": ["a.png", "b.png"]}, ["a.png", "b.png"]),
    ({"type": "video", "video": [{"url": "a.png"}]}, ["a.png"]),
    ({"type": "video", "source": {"type": "base64", "data": BASE64}}, "data:video/*;base64,AAAA"),
    ({"type": "video_url", "video_url": {"url": "https://example.org/a.mp4"}}, "https://example.org/a.mp4"),
    ({"type": "video_url", "video_url": "https://example.org/a.mp4"}, "https://example.org/a.mp4"),
    ({"video": {"format": "mp4", "source": {"bytes": b"abc"}}}, b"abc"),
    ({"type": "media", "mime_type": "video/mp4", "data": BASE64}, "data:video/*;base64,AAAA"),
    ({"inline_data": {"mime_type": "video/mp4", "data": BASE64}}, "data:video/*;base64,AAAA"),
]


@pytest.mark.parametrize(("block", "video"), VIDEOS)
def test_the_block_of_a_video_is_one(block: Any, video: Any) -> None:
    item = to_item(["a", block], PLACE)
    assert item[-1]["content"] == [{"type": "text", "text": "a"}, {"type": "video", "video": video}]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"video": "a.mp4"}, {"video": "a.mp4"}),
        ({"text": "a", "video": ["a.png", {"url": "b.png"}]}, {"text": "a", "video": ["a.png", "b.png"]}),
        ({"text": "a", "video": None}, {"text": "a", "video": None}),
        (Document("a", metadata={"video": "a.mp4"}), {"text": "a", "image": None, "video": "a.mp4"}),
        (Document("", metadata={"video": ["a.png"]}), {"text": None, "image": None, "video": ["a.png"]}),
        (Document("a", metadata={"video": ""}), {"text": "a", "image": None}),
        (Blob(data=b"abc", mimetype="video/mp4"), {"video": b"abc"}),
        (Blob(path="a.mp4", mimetype="video/mp4"), {"video": Path("a.mp4")}),
    ],
)
def test_a_video_of_an_item_a_document_and_a_blob(value: Any, expected: dict[str, Any]) -> None:
    assert to_item(value, PLACE) == expected


@pytest.mark.parametrize(
    ("value", "reference"),
    [
        ({"video": "a.mp4"}, "a.mp4"),
        ({"video": Path("a.mp4")}, "a.mp4"),
        ({"video": b"abc"}, None),
        ({"video": ["a.png"]}, None),
        ({"text": "a"}, None),
        ([{"type": "video", "url": "https://example.org/a.mp4"}], "https://example.org/a.mp4"),
        ([{"type": "video", "base64": "AAAA"}], None),
    ],
)
def test_a_reference_to_a_video_is_its_path_or_url(value: Any, reference: str | None) -> None:
    assert video_reference(to_item(value, PLACE)) == reference


def test_videos_are_embedded_stored_and_found(tmp_path: Path) -> None:
    pytest.importorskip("av")
    paths = [tmp_path / f"{seed}.mkv" for seed in range(2)]
    for seed, path in enumerate(paths):
        path.write_bytes(write_video(random_frames(9, seed=seed)))
    model = load_once("vlm2vec-v2", "sdpa")
    embeddings = GMEEmbeddings(model=model)
    expected = model.encode([{"video": path} for path in paths])
    blocks = [
        {"type": "video", "path": str(paths[0])},
        {"type": "video", "base64": base64.b64encode(paths[1].read_bytes()).decode(), "mime_type": "video/x-matroska"},
    ]
    assert np.abs(embeddings.embed_multimodal(blocks) - expected).max() <= 1e-5
    store = MultimodalStore(InMemoryVectorStore(embeddings))
    store.add_documents([Document("", metadata={"video": str(path)}) for path in paths])
    store.add_items([{"video": random_frames(3, seed=7)}])
    found = store.similarity_search({"video": paths[1]}, k=3)
    assert found[0].metadata == {"video": str(paths[1])}
    assert len({document.id for document in found}) == 3


def test_a_store_that_leaves_a_video_out_is_told_of() -> None:
    store = InMemoryVectorStore(GMEEmbeddings(model=load_once("vlm2vec-v2", "sdpa")))
    with pytest.warns(UserWarning, match="1 documents have pictures, which are left out"):
        store.add_documents([Document("a", metadata={"video": "a.mp4"})])


def test_metadata_that_names_a_video_is_metadata_to_a_model_without_videos() -> None:
    embeddings = GMEEmbeddings(model="tiny")
    plain = embeddings.embed_multimodal([Document("a red circle")])
    promoted = [Document("a red circle", metadata={"video": {"id": 3, "url": "https://example.org/promo.mp4"}})]
    assert embeddings.embed_multimodal(promoted) == plain
    store = InMemoryVectorStore(embeddings)
    store.add_documents(promoted)
    add_multimodal(store, promoted)
    metadata = [found.metadata for found in store.similarity_search("a red circle")]
    assert [each["video"] for each in metadata] == [promoted[0].metadata["video"]] * 2
    with pytest.raises(InputError, match="takes no video"):
        embeddings.embed_multimodal([{"video": ["a.png"]}])
