"""``GMEEmbeddings``: what it embeds and how, compared with the model's own encode methods; and what it refuses."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sentence_transformers
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from PIL import Image
from pydantic import ValidationError

from langchain_gme import GMEEmbeddings
from st_modules import InputError, SentenceTransformer, UnknownModelError
from tests.helpers.gallery import CAPTIONS, CHANGE, RED_CIRCLE, Gallery
from tests.helpers.loopback import Server
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE, reference

CPU = {"device": "cpu"}


class TestStandardUnit(EmbeddingsUnitTests):
    """LangChain's own unit tests."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GMEEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "model_kwargs": CPU}


class TestStandardIntegration(EmbeddingsIntegrationTests):
    """LangChain's own integration tests."""

    @property
    def embeddings_class(self) -> type[Embeddings]:
        return GMEEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": "tiny", "model_kwargs": CPU}


class TestStandardUnitOfAServer(TestStandardUnit):
    """The same, of the model of a server."""

    @pytest.fixture(autouse=True)
    def _server(self, tiny_url: str) -> None:
        self.url = tiny_url

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url}


class TestStandardIntegrationOfAServer(TestStandardIntegration):
    """The same, of the model of a server."""

    @pytest.fixture(autouse=True)
    def _server(self, tiny_url: str) -> None:
        self.url = tiny_url

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"base_url": self.url}


Make = Callable[..., GMEEmbeddings]


@pytest.fixture(scope="module", params=["local", "remote"])
def make(request: pytest.FixtureRequest) -> Make:
    """What makes embeddings of "tiny": in this process, or of a server."""
    if request.param == "remote":
        return partial(GMEEmbeddings, base_url=request.getfixturevalue("tiny_url"))
    return lambda model_kwargs=CPU, **fields: GMEEmbeddings(
        model="tiny", model_kwargs={**CPU, **model_kwargs}, **fields
    )


@pytest.fixture(scope="module")
def embeddings(make: Make) -> GMEEmbeddings:
    return make()


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=TOLERANCE)


def test_documents_and_queries_get_their_own_side(
    make: Make, embeddings: GMEEmbeddings, tiny: SentenceTransformer
) -> None:
    asked = make(query_instruction="Find an image.")
    assert_same(asked.embed_documents(list(CAPTIONS)), tiny.encode_document(list(CAPTIONS)))
    assert_same(asked.embed_query(CAPTIONS[0]), tiny.encode_query(CAPTIONS[0], prompt="Find an image."))
    assert np.abs(np.array(asked.embed_query(CAPTIONS[0])) - embeddings.embed_query(CAPTIONS[0])).max() > 1e-2


def test_a_document_instruction_is_for_every_document_and_no_query() -> None:
    vlm2vec = reference("vlm2vec-qwen2vl-2b")
    plain = vlm2vec.load("vlm2vec-qwen2vl-2b")
    embeddings = GMEEmbeddings(
        model="vlm2vec-qwen2vl-2b",
        weights=vlm2vec.weights,
        base_weights=vlm2vec.base_weights,
        model_kwargs=CPU,
        document_instruction="Represent the text:",
    )
    assert_same(embeddings.embed_documents(["a"]), plain.encode_document(["a"], prompt="Represent the text:"))
    assert_same(embeddings.embed_query("a"), plain.encode_query("a"))


def test_encode_arguments_reach_the_model(
    make: Make, tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture
) -> None:
    short = make(encode_kwargs={"truncate_dim": 8}, query_encode_kwargs={"prompt_name": "t2i"})
    assert_same(short.embed_documents(["a red circle"]), tiny.encode_document(["a red circle"], truncate_dim=8))
    assert_same(short.embed_query("a red circle"), tiny.encode_query("a red circle", prompt_name="t2i"))
    documents_only = make(encode_kwargs={"truncate_dim": 8})
    assert len(documents_only.embed_query("a")) == 8
    both = make(encode_kwargs={"prompt_name": "t2i"}, query_instruction="For queries.")
    caplog.clear()
    assert_same(both.embed_query("a"), tiny.encode_query("a", prompt="For queries."))
    assert caplog.records == []


def test_line_breaks_are_kept(embeddings: GMEEmbeddings, tiny: SentenceTransformer) -> None:
    assert_same(embeddings.embed_documents(["a red\ncircle"]), tiny.encode_document(["a red\ncircle"]))
    assert embeddings.embed_query("a red\ncircle") != embeddings.embed_query("a red circle")


def test_images_of_every_form_have_the_embedding_of_their_file(
    make: Make, tiny: SentenceTransformer, gallery: Gallery, server: Server
) -> None:
    path = gallery.paths[RED_CIRCLE]
    server.routes["/red.png"] = lambda handler: handler.answer(path.read_bytes())
    local = make(model_kwargs={"allow_private_hosts": True})
    uris = [str(path), path.as_uri(), f"data:image/png;base64,{gallery.base64(RED_CIRCLE)}", server.url("/red.png")]
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    images = [*uris, path, path.read_bytes(), io.BytesIO(path.read_bytes()), picture, np.asarray(picture)]
    expected = tiny.encode_document([path])
    assert_same(local.embed_image(uris), np.repeat(expected, len(uris), axis=0))
    assert_same(local.embed_images(images), np.repeat(expected, len(images), axis=0))


def fused_forms(gallery: Gallery) -> dict[str, Any]:
    path, encoded = str(gallery.query), gallery.query.read_bytes()
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    data = base64.b64encode(encoded).decode()
    text = {"type": "text", "text": CHANGE}
    blocks = {
        "standard base64": {"type": "image", "base64": data, "mime_type": "image/png"},
        "standard url": {"type": "image", "url": gallery.query.as_uri(), "id": "1", "extras": {"detail": "low"}},
        "standard data url": {"type": "image", "url": f"data:image/png;base64,{data}"},
        "version 0": {"type": "image", "source_type": "base64", "data": data, "mime_type": "image/png"},
        "openai": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}", "detail": "low"}},
        "openai, bare": {"type": "image_url", "image_url": f"data:image/png;base64,{data}"},
        "anthropic": {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}},
        "path": {"type": "image", "path": path},
        "picture": {"type": "image", "image": picture},
    }
    return {
        "dict": {"text": CHANGE, "image": path},
        "dict, picture": {"text": CHANGE, "image": picture},
        "document": Document(CHANGE, metadata={"image": path}),
        "document, image_path": Document(CHANGE, metadata={"image_path": path, "page": 3}),
        "document, image_url": Document(CHANGE, metadata={"image": None, "image_url": gallery.query.as_uri()}),
        "document, bytes": Document(CHANGE, metadata={"image": encoded}),
        "role": {"role": "user", "content": [text, blocks["path"]]},
        "text first": [text, blocks["standard base64"]],
        "string in the list": [CHANGE, blocks["standard base64"]],
        "human message": HumanMessage([text, blocks["standard base64"]]),
        "ai message": AIMessage([text, blocks["standard base64"]]),
        "conversation": [HumanMessage([text, blocks["standard base64"]])],
        **{name: [block, text] for name, block in blocks.items()},
    }


FUSED = list(fused_forms(Gallery((), GOLDEN / "gme" / "images" / "square.png")))


@pytest.mark.parametrize("form", FUSED)
def test_every_form_of_an_image_with_a_text_is_the_same_item(
    embeddings: GMEEmbeddings, tiny: SentenceTransformer, gallery: Gallery, form: str
) -> None:
    item = fused_forms(gallery)[form]
    plain = {"text": CHANGE, "image": gallery.query}
    assert_same(embeddings.embed_multimodal([item]), tiny.encode_document([plain]))
    assert_same(embeddings.embed_query_multimodal(item), tiny.encode_query(plain))


def test_items_of_every_kind_mix(embeddings: GMEEmbeddings, tiny: SentenceTransformer, gallery: Gallery) -> None:
    path = gallery.paths[0]
    items = [
        "a red circle",
        path,
        {"type": "text", "text": "a blue star"},
        {"type": "image", "path": str(path)},
        HumanMessage("two hearts"),
        {"role": "user", "content": "two stars"},
        Document("a page"),
        Document("", metadata={"image": str(path)}),
        [{"type": "text", "text": "first"}, {"type": "text", "text": "second"}],
    ]
    texts = {0: "a red circle", 2: "a blue star", 4: "two hearts", 5: "two stars", 6: "a page", 8: "first\nsecond"}
    expected = [{"text": texts[place]} if place in texts else path for place in range(len(items))]
    assert_same(embeddings.embed_multimodal(items), tiny.encode_document(expected))


def test_a_system_message_is_the_instruction(
    embeddings: GMEEmbeddings, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    item = [SystemMessage("Find the opposite."), HumanMessage([{"type": "image", "path": str(gallery.query)}])]
    assert_same(
        embeddings.embed_query_multimodal(item), tiny.encode_query([gallery.query], prompt="Find the opposite.")[0]
    )


def test_a_conversation_of_dictionaries_is_one_item(
    embeddings: GMEEmbeddings, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    item = [
        {"role": "system", "content": "Find the opposite."},
        {"role": "user", "content": [{"type": "image", "path": str(gallery.query)}]},
    ]
    expected = tiny.encode_query([gallery.query], prompt="Find the opposite.")[0]
    assert_same(embeddings.embed_query_multimodal(item), expected)


def test_text_that_reads_like_an_address_or_a_path_is_never_opened(
    make: Make, tiny: SentenceTransformer, gallery: Gallery, server: Server
) -> None:
    local = make(model_kwargs={"allow_private_hosts": True})
    texts = [server.url(), str(gallery.query), f"data:image/png;base64,{gallery.base64(0)}", gallery.query.as_uri()]
    expected = tiny.encode_document([{"text": text} for text in texts])
    assert_same(local.embed_documents(texts), expected)
    assert_same([local.embed_query(text) for text in texts], expected)
    assert_same(local.embed_multimodal(texts), expected)
    assert_same(local.embed_multimodal([Document(text) for text in texts]), expected)
    assert_same(local.embed_multimodal([HumanMessage(text) for text in texts]), expected)
    assert_same([local.embed_query_multimodal(text) for text in texts], expected)
    assert_same(asyncio.run(local.aembed_documents(texts)), expected)
    assert server.requests == []
    local.embed_image([server.url()])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "make_item",
    [lambda url: Document("", metadata={"image": url}), lambda url: [{"type": "image", "url": url}]],
    ids=["document", "block"],
)
def test_images_are_fetched_from_public_addresses_only(
    embeddings: GMEEmbeddings, server: Server, make_item: Callable[[str], Any]
) -> None:
    with pytest.raises(InputError, match="not public"):
        embeddings.embed_multimodal([make_item(server.url())])
    assert server.requests == []


async def test_every_method_has_an_async_twin(embeddings: GMEEmbeddings, gallery: Gallery) -> None:
    uris = [str(path) for path in gallery.paths]
    item = {"text": CHANGE, "image": gallery.query}
    assert_same(await embeddings.aembed_documents(list(CAPTIONS)), embeddings.embed_documents(list(CAPTIONS)))
    assert_same(await embeddings.aembed_query(CHANGE), embeddings.embed_query(CHANGE))
    assert_same(await embeddings.aembed_image(uris), embeddings.embed_image(uris))
    assert_same(await embeddings.aembed_images(gallery.paths), embeddings.embed_images(gallery.paths))
    assert_same(await embeddings.aembed_multimodal([item]), embeddings.embed_multimodal([item]))
    assert_same(await embeddings.aembed_query_multimodal(item), embeddings.embed_query_multimodal(item))


async def test_the_event_loop_goes_on_while_many_documents_are_embedded(embeddings: GMEEmbeddings) -> None:
    call = asyncio.create_task(embeddings.aembed_documents([f"{text} {n}" for text in CAPTIONS for n in range(40)]))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20
    assert len(await call) == 5 * 40


async def test_concurrent_queries_are_embedded_in_few_batches_and_each_gets_its_own(
    tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    embeddings = GMEEmbeddings(model="tiny", model_kwargs=CPU, batch_delay=1.0)
    sizes: list[int] = []
    encode = embeddings.client.encode_query
    monkeypatch.setattr(
        embeddings.client, "encode_query", lambda items, **options: sizes.append(len(items)) or encode(items, **options)
    )
    queries = [f"{CAPTIONS[number % 5]}, number {number}" for number in range(64)]
    found = await asyncio.gather(*(embeddings.aembed_query(query) for query in queries))
    assert_same(found, tiny.encode_query(queries))
    assert sum(sizes) == 64
    assert len(sizes) <= 3


async def test_one_bad_query_among_concurrent_ones_fails_alone(
    embeddings: GMEEmbeddings, tiny: SentenceTransformer
) -> None:
    queries: list[Any] = [*CAPTIONS, {"image": "missing.png"}, "damaged \ud83d", None, *CAPTIONS]
    found = await asyncio.gather(
        *(embeddings.aembed_query_multimodal(query) for query in queries), return_exceptions=True
    )
    bad = [str(error) for error in found if isinstance(error, InputError)]
    assert [message.split(":")[0] for message in bad] == ["query"] * 3
    assert "missing.png: no such file" in bad[0]
    assert "surrogate" in bad[1]
    assert "None" in bad[2]
    good = [vector for vector in found if not isinstance(vector, BaseException)]
    assert_same(good, tiny.encode_query([*CAPTIONS, *CAPTIONS]))


async def test_a_cancelled_query_leaves_the_others_and_later_ones_alone(
    embeddings: GMEEmbeddings, tiny: SentenceTransformer
) -> None:
    tasks = [asyncio.create_task(embeddings.aembed_query(text)) for text in CAPTIONS]
    await asyncio.sleep(0)
    tasks[2].cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found.pop(2), asyncio.CancelledError)
    assert_same(found, tiny.encode_query([text for place, text in enumerate(CAPTIONS) if place != 2]))
    assert_same(await embeddings.aembed_query("later"), tiny.encode_query("later"))


@pytest.mark.parametrize(
    ("method", "argument", "problem"),
    [
        ("embed_documents", ["a", b"b"], r"texts\[1\]: of type bytes; pass a string"),
        ("embed_documents", ["a", None], r"texts\[1\]: of type NoneType; pass a string"),
        ("embed_documents", ["a", "b", 3], r"texts\[2\]: of type int; pass a string"),
        ("embed_documents", "a", "texts: of type str; pass a list"),
        ("embed_documents", None, "texts: of type NoneType; pass a list"),
        ("embed_documents", ["a", "\ud83d"], "item 1: character 0 of the text is a lone surrogate"),
        ("embed_query", None, "text: of type NoneType; pass a string, or use embed_query_multimodal"),
        ("embed_query", ["a"], "text: of type list"),
        ("embed_image", ["{good}", "missing.png"], r"item 1: missing\.png: no such file"),
        ("embed_image", ["{good}", "{corrupt}"], r"item 1: .*corrupt\.png: damaged or not readable"),
        ("embed_image", ["{good}", "{text}"], r"item 1: .*notes\.txt: not an image"),
        ("embed_image", ["{good}", None], r"uris\[1\]: None is not an image"),
        ("embed_image", ["{good}", ""], "item 1: .*an empty string names no image"),
        ("embed_image", "{good}", "uris: of type str; pass a list"),
        ("embed_images", ["{good}", 3], "item 1: .*not an image"),
        ("embed_images", None, "images: of type NoneType; pass a list"),
        ("embed_images", np.zeros((2, 8, 8, 3), np.uint8), r"images: of type ndarray; pass a list: list\(images\)"),
        ("embed_images", {"{good}"}, r"images: of type set; pass a list, in an order .* sorted\(images\)"),
        ("embed_images", memoryview(b"ab"), r"images: of type memoryview; pass a list, for a single one as \[image\]"),
        ("embed_documents", pd.Series(["a"]), r"texts: of type Series; pass a list: list\(texts\)"),
        ("embed_documents", pd.DataFrame({"a": ["b"]}), r"texts: of type DataFrame; .* list\(frame\['text'\]\)"),
        ("embed_documents", (text for text in "ab"), r"texts: of type generator; pass a list: list\(texts\)"),
        ("embed_multimodal", Document("a"), r"items: of type Document; pass a list, for a single one as \[item\]"),
        ("embed_multimodal", ["a", None], "item 1: None has nothing to embed"),
        (
            "embed_multimodal",
            ["a", {"txt": "b"}],
            r"item 1: unknown keys \['txt'\]; known are \['image', 'text'\]",
        ),
        ("embed_multimodal", ["a", {"text": "b", "image": "{good}", "id": 3}], r"item 1: unknown keys \['id'\]"),
        ("embed_multimodal", ["a", {}], "item 1: it has neither text nor image"),
        ("embed_multimodal", ["a", []], "item 1: it has neither text nor image"),
        ("embed_multimodal", ["a", [3]], "item 1, block 0: of type int; pass a content block"),
        (
            "embed_multimodal",
            ["a", {"type": "video", "url": "b"}],
            "item 1.*: this model takes no video; .* and vlm2vec-v2 do",
        ),
        ("embed_multimodal", ["a", {"type": "image", "file_id": "b"}], "item 1, block 0: a file that the pro"),
        ("embed_multimodal", ["a", {"type": "image"}], "item 1, block 0: an image block needs exactly one"),
        ("embed_multimodal", ["a", {"type": "text", "txt": "b"}], r"item 1, block 0: unknown keys \['txt'\]"),
        ("embed_multimodal", ["a", {"type": "image", "base64": "!"}], "item 1.*its base64 is damaged"),
        ("embed_multimodal", ["a", [{"kind": "text"}]], r"item 1, block 0: .* keys \['kind'\], without a type"),
        ("embed_multimodal", "a", "items: of type str; pass a list"),
        ("embed_multimodal", {"text": "a"}, "items: of type dict; pass a list"),
        ("embed_query_multimodal", None, "query: None has nothing to embed"),
        ("embed_query_multimodal", {"text": "a", "img": "b"}, r"query: unknown keys \['img'\]"),
    ],
)
def test_bad_input_is_named(
    embeddings: GMEEmbeddings, gallery: Gallery, tmp_path: Path, method: str, argument: Any, problem: str
) -> None:
    (tmp_path / "corrupt.png").write_bytes(gallery.query.read_bytes()[:90])
    (tmp_path / "notes.txt").write_text("no picture")
    names = {"{good}": gallery.query, "{corrupt}": tmp_path / "corrupt.png", "{text}": tmp_path / "notes.txt"}

    def filled(value: Any) -> Any:
        if isinstance(value, list):
            return [filled(part) for part in value]
        if isinstance(value, dict):
            return {key: filled(part) for key, part in value.items()}
        return str(names.get(value, value)) if isinstance(value, str) else value

    with pytest.raises(InputError, match=problem) as caught:
        getattr(embeddings, method)(filled(argument))
    assert isinstance(caught.value, ValueError)
    with pytest.raises(InputError, match=problem):
        asyncio.run(getattr(embeddings, f"a{method}")(filled(argument)))


@pytest.mark.parametrize("method", ["embed_documents", "embed_image", "embed_images", "embed_multimodal"])
def test_nothing_to_embed_is_no_error(embeddings: GMEEmbeddings, method: str) -> None:
    assert getattr(embeddings, method)([]) == []
    assert asyncio.run(getattr(embeddings, f"a{method}")([])) == []


def test_the_fields_have_the_names_of_hugging_face_embeddings() -> None:
    by_alias = GMEEmbeddings(model="tiny", model_kwargs=CPU)
    by_name = GMEEmbeddings(model_name="tiny", model_kwargs=CPU, cache_folder=None, show_progress=False)
    assert by_alias.model_dump() == by_name.model_dump()
    assert GMEEmbeddings.model_fields["model_name"].default == "gme-2b"
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        GMEEmbeddings(model="tiny", colour="red")


@pytest.mark.parametrize("name", ["model", "model_name"])
def test_a_loaded_model_is_used_as_it_is(tiny: SentenceTransformer, name: str) -> None:
    embeddings = GMEEmbeddings(**{name: tiny})
    assert embeddings.client is tiny
    assert_same(embeddings.embed_query(CHANGE), tiny.encode_query(CHANGE))


def test_what_a_loaded_model_would_ignore_is_refused(tiny: SentenceTransformer) -> None:
    with pytest.raises(ValueError, match="device: the model is loaded already"):
        GMEEmbeddings(model=tiny, model_kwargs=CPU)
    with pytest.raises(TypeError, match="type int: pass the name of a model, or a loaded SentenceTransformer"):
        GMEEmbeddings(model=3)


def test_a_saved_model_of_the_plain_class_is_used_too(tiny: SentenceTransformer, tmp_path: Path) -> None:
    tiny.save_pretrained(str(tmp_path))
    plain = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    assert_same(GMEEmbeddings(model=plain).embed_query(CHANGE), tiny.encode_query(CHANGE))
    assert_same(GMEEmbeddings(model=str(tmp_path), model_kwargs=CPU).embed_query(CHANGE), tiny.encode_query(CHANGE))


def test_pickles_and_dumps_are_without_weights(make: Make) -> None:
    embeddings = make(query_instruction="Find an image.")
    pickled = pickle.dumps(embeddings)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert again.model_dump() == embeddings.model_dump()
    assert again.embed_query(CHANGE) == embeddings.embed_query(CHANGE)
    assert again.embedder is not embeddings.embedder
    dumped = embeddings.model_dump()
    assert len(str(dumped)) < 2000
    assert GMEEmbeddings(**dumped).model_dump() == dumped
    assert len(embeddings.model_dump_json()) < 2000


@pytest.mark.parametrize(
    "make_copy",
    [copy.copy, copy.deepcopy, lambda each: each.model_copy(deep=True)],
    ids=["copy", "deepcopy", "pydantic"],
)
def test_copies_share_the_model(embeddings: GMEEmbeddings, make_copy: Callable[[GMEEmbeddings], GMEEmbeddings]) -> None:
    assert make_copy(embeddings).embedder is embeddings.embedder


def test_a_loaded_model_cannot_be_pickled(tiny: SentenceTransformer) -> None:
    with pytest.raises(TypeError, match="of a loaded model cannot be pickled"):
        pickle.dumps(GMEEmbeddings(model=tiny))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"document_instruction": "Find."}, "no instruction on the document side, so 'Find.' would change nothing"),
        ({"query_instruction": "Find.", "query_encode_kwargs": {"prompt_name": "t2i"}}, "prompt_name and query_instr"),
        ({"query_instruction": "Find.", "query_encode_kwargs": {"prompt": "Find."}}, "prompt and query_instruction"),
        ({"model": "tinny"}, "Did you mean 'tiny'"),
        ({"batch_delay": -1}, "greater than or equal to 0"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        GMEEmbeddings(**{"model": "tiny", "model_kwargs": CPU, **arguments})


def test_unknown_models_are_errors_of_this_package() -> None:
    with pytest.raises(UnknownModelError):
        GMEEmbeddings(model="gme-3b")


@pytest.mark.parametrize(
    ("query", "is_told"),
    [
        ("query.png", True),
        (" /a folder/query.JPG ", True),
        ("data:image/png;base64,AAAA", True),
        ("what is a.png", False),
        ("a red circle", False),
        ({"text": "query.png"}, False),
    ],
)
def test_a_query_that_looks_like_an_image_is_a_text_and_told(
    embeddings: GMEEmbeddings, tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture, query: Any, is_told: bool
) -> None:
    found = [embeddings.embed_query_multimodal(query), asyncio.run(embeddings.aembed_query_multimodal(query))]
    if isinstance(query, str):
        found += [embeddings.embed_query(query), asyncio.run(embeddings.aembed_query(query))]
    expected = tiny.encode_query({"text": query} if isinstance(query, str) else query)
    np.testing.assert_allclose(found, [expected] * len(found), atol=TOLERANCE)
    assert len(caplog.records) == (len(found) if is_told else 0)
