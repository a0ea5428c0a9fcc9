"""``GMEEmbedding``: texts, queries, images and nodes, compared with the model's own encode methods; what it refuses."""

from __future__ import annotations

import asyncio
import copy
import io
import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    Node,
    QueryBundle,
    TextNode,
)
from llama_index.core.storage.kvstore import SimpleKVStore
from PIL import Image
from pydantic import AnyUrl, ValidationError

from llamaindex_gme import GMEEmbedding, MultimodalNodeParser, identify_images
from st_modules import Embedder, InputError, SentenceTransformer
from tests.helpers.gallery import CAPTIONS, CHANGE, HEART, RED_CIRCLE, STAR, Gallery
from tests.helpers.loopback import Server
from tests.helpers.paths import GOLDEN
from tests.helpers.recorder import Recorder
from tests.helpers.references import TOLERANCE, load_once, reference
from tests.helpers.videos import random_frames, write_video

Make = Callable[..., GMEEmbedding]


@pytest.fixture(scope="module", params=["local", "remote"])
def make(request: pytest.FixtureRequest) -> Make:
    """What makes embeddings of "tiny": in this process, or of a server."""
    if request.param == "remote":
        return partial(GMEEmbedding, base_url=request.getfixturevalue("tiny_url"))
    return partial(GMEEmbedding, "tiny", device="cpu")


@pytest.fixture(scope="module")
def embedding(make: Make) -> GMEEmbedding:
    return make()


def assert_same(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), atol=TOLERANCE)


def test_texts_and_queries_get_their_own_side(make: Make, embedding: GMEEmbedding, tiny: SentenceTransformer) -> None:
    asked = make(query_instruction="Find an image.")
    assert_same(asked.get_text_embedding(CAPTIONS[0]), tiny.encode_document(CAPTIONS[0]))
    assert_same(asked.get_query_embedding(CAPTIONS[0]), tiny.encode_query(CAPTIONS[0], prompt="Find an image."))
    assert np.abs(np.array(asked.get_query_embedding("a")) - embedding.get_query_embedding("a")).max() > 1e-2


def test_a_text_instruction_is_for_texts_images_and_nodes_alone(gallery: Gallery) -> None:
    vlm2vec = reference("vlm2vec-qwen2vl-2b")
    plain = vlm2vec.load("vlm2vec-qwen2vl-2b")
    embedding = GMEEmbedding(
        "vlm2vec-qwen2vl-2b",
        weights=vlm2vec.weights,
        base_weights=vlm2vec.base_weights,
        device="cpu",
        text_instruction="Represent it:",
    )
    (text,) = plain.encode_document(["a"], prompt="Represent it:")
    (image,) = plain.encode_document([gallery.query], prompt="Represent it:")
    assert_same([embedding.get_text_embedding("a"), embedding([TextNode(text="a")])[0].embedding], [text, text])
    assert_same(embedding.get_image_embedding(gallery.query), image)
    assert_same(embedding.get_query_embedding("a"), plain.encode_query("a"))


async def test_every_method_has_an_async_twin(embedding: GMEEmbedding, gallery: Gallery) -> None:
    texts: list[str] = list(CAPTIONS)
    paths: list[Any] = [str(path) for path in gallery.paths]
    bundle = QueryBundle(CHANGE, image_path=str(gallery.query))
    assert_same(await embedding.aget_text_embedding("a"), embedding.get_text_embedding("a"))
    assert_same(await embedding.aget_text_embedding_batch(texts), embedding.get_text_embedding_batch(texts))
    assert_same(await embedding.aget_query_embedding("a"), embedding.get_query_embedding("a"))
    assert_same(await embedding.aget_agg_embedding_from_queries(texts), embedding.get_agg_embedding_from_queries(texts))
    assert_same(await embedding.aget_image_embedding(paths[0]), embedding.get_image_embedding(paths[0]))
    assert_same(await embedding.aget_image_embedding_batch(paths), embedding.get_image_embedding_batch(paths))
    assert_same(
        await embedding.aget_multimodal_query_embedding(bundle), embedding.get_multimodal_query_embedding(bundle)
    )
    assert_same(await embedding._aget_image_embeddings(paths), embedding._get_image_embeddings(paths))


@pytest.mark.parametrize("show_progress", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
async def test_batches_keep_the_order(
    make: Make, tiny: SentenceTransformer, gallery: Gallery, batch_size: int, show_progress: bool
) -> None:
    embedding = make(embed_batch_size=batch_size, num_workers=2)
    texts, paths = tiny.encode_document(list(CAPTIONS)), tiny.encode_document(list(gallery.paths))
    assert_same(embedding.get_text_embedding_batch(list(CAPTIONS), show_progress), texts)
    assert_same(await embedding.aget_text_embedding_batch(list(CAPTIONS), show_progress), texts)
    assert_same(embedding.get_image_embedding_batch(gallery.paths, show_progress), paths)
    assert_same(await embedding.aget_image_embedding_batch(gallery.paths, show_progress), paths)


async def test_nothing_to_embed_is_no_error(embedding: GMEEmbedding) -> None:
    assert embedding([]) == await embedding.acall([]) == []
    assert embedding.get_text_embedding_batch([]) == await embedding.aget_text_embedding_batch([]) == []
    assert embedding.get_image_embedding_batch([]) == await embedding.aget_image_embedding_batch([]) == []


@pytest.mark.parametrize("kind", ["text", "image"])
def test_results_are_lists_of_floats(embedding: GMEEmbedding, gallery: Gallery, kind: str) -> None:
    found = embedding.get_text_embedding("a") if kind == "text" else embedding.get_image_embedding(gallery.query)
    assert type(found) is list
    assert {type(value) for value in found} == {float}


def test_images_of_every_form_have_the_embedding_of_their_file(
    make: Make, tiny: SentenceTransformer, gallery: Gallery, server: Server
) -> None:
    path = gallery.paths[RED_CIRCLE]
    data = path.read_bytes()
    server.routes["/red.png"] = lambda handler: handler.answer(data)
    embedding = make(model_kwargs={"allow_private_hosts": True})
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    data_uri = f"data:image/png;base64,{gallery.base64(RED_CIRCLE)}"
    forms = [str(path), path, path.as_uri(), server.url("/red.png"), data_uri, io.BytesIO(data), data, picture]
    (expected,) = tiny.encode_document([path])
    assert_same([embedding.get_image_embedding(form) for form in forms], [expected] * len(forms))
    assert_same(embedding.get_image_embedding_batch(forms), [expected] * len(forms))


async def test_the_event_loop_goes_on_while_nodes_are_embedded(embedding: GMEEmbedding) -> None:
    nodes = [TextNode(text=f"{text} {number}") for text in CAPTIONS for number in range(40)]
    call = asyncio.create_task(embedding.acall(nodes))
    turns = 0
    while not call.done():
        await asyncio.sleep(0.001)
        turns += 1
    assert turns > 20
    assert [node.get_content() for node in await call if not node.embedding] == []


async def test_concurrent_queries_are_embedded_together_and_each_gets_its_own(
    tiny: SentenceTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedding = GMEEmbedding("tiny", device="cpu", batch_delay=1.0)
    embedder: Any = embedding._embedder
    model = embedder.model
    sizes: list[int] = []
    encode = model.encode_query
    monkeypatch.setattr(
        model, "encode_query", lambda items, **options: sizes.append(len(items)) or encode(items, **options)
    )
    queries = [f"{CAPTIONS[number % 5]}, number {number}" for number in range(64)]
    found = await asyncio.gather(*(embedding.aget_query_embedding(query) for query in queries))
    assert_same(found, tiny.encode_query(queries))
    assert sum(sizes) == 64
    assert len(sizes) <= 3


def test_text_that_reads_like_an_address_or_a_path_is_never_opened(
    make: Make, tiny: SentenceTransformer, gallery: Gallery, server: Server
) -> None:
    embedding = make(model_kwargs={"allow_private_hosts": True})
    texts = [server.url(), str(gallery.query), f"data:image/png;base64,{gallery.base64(0)}", gallery.query.as_uri()]
    expected = tiny.encode_document([{"text": text} for text in texts])
    assert_same(embedding.get_text_embedding_batch(texts), expected)
    assert_same([embedding.get_text_embedding(text) for text in texts], expected)
    assert_same([embedding.get_query_embedding(text) for text in texts], expected)
    assert_same([embedding.get_multimodal_query_embedding(QueryBundle(text)) for text in texts], expected)
    assert_same([node.embedding for node in embedding([TextNode(text=text) for text in texts])], expected)
    assert server.requests == []


Nodes = dict[str, tuple[BaseNode, dict[str, Any]]]


def nodes_of_every_kind(gallery: Gallery) -> Nodes:
    path, data = gallery.paths[STAR], gallery.paths[STAR].read_bytes()
    text, encoded = CAPTIONS[HEART], gallery.base64(STAR)
    image, fused = {"image": path}, {"image": path, "text": text}
    words = MediaResource(text=text)
    page: dict[str, Any] = {"metadata": {"page": 7}}
    return {
        "text": (TextNode(text=text), {"text": text}),
        "text, empty, metadata": (TextNode(text="", metadata={"page": 7}), {"text": "page: 7"}),
        "text with metadata": (TextNode(text=text, metadata={"page": 7}), {"text": f"page: 7\n\n{text}"}),
        "index": (IndexNode(text=text, index_id="a"), {"text": text}),
        "document": (Document(text=text), {"text": text}),
        "node with text": (Node(text_resource=words), {"text": text}),
        "image by path": (ImageNode(image_path=str(path)), image),
        "image by url": (ImageNode(image_url=path.as_uri()), image),
        "image as base64": (ImageNode(image=encoded), image),
        "image as data URI": (ImageNode(image=f"data:image/png;base64,{encoded}"), image),
        "image, blank text": (ImageNode(image_path=str(path), text="  \n"), image),
        "image with metadata": (ImageNode(image_path=str(path), metadata={"page": 7}), image),
        "image, text": (ImageNode(image_path=str(path), text=text), fused),
        "image, text, metadata": (
            ImageNode(image_path=str(path), text=text, metadata={"page": 7}),
            {"image": path, "text": f"page: 7\n\n{text}"},
        ),
        "image, metadata kept out": (
            ImageNode(image_path=str(path), text=text, metadata={"page": 7}, excluded_embed_metadata_keys=["page"]),
            fused,
        ),
        "image node without one": (ImageNode(text=text), {"text": text}),
        "resource by path": (Node(image_resource=MediaResource(path=path)), image),
        "resource by url": (Node(image_resource=MediaResource(url=AnyUrl(path.as_uri()))), image),
        "resource of bytes": (Node(image_resource=MediaResource(data=data)), image),
        "resource as base64": (Node(image_resource=MediaResource(data=encoded.encode())), image),
        "resource, text": (Node(image_resource=MediaResource(path=path), text_resource=words), fused),
        "resource, metadata": (Node(image_resource=MediaResource(path=path), **page), image),
        "image document": (ImageDocument(image_path=str(path)), image),
        "image document as base64": (ImageDocument(image=encoded), image),
        "image document, text": (ImageDocument(image=encoded, text=text), fused),
    }


KINDS = list(nodes_of_every_kind(Gallery((GOLDEN / "gme" / "images" / "square.png",) * 5, Path())))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_node_is_embedded_with_all_that_it_holds(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery, kind: str
) -> None:
    node, item = nodes_of_every_kind(gallery)[kind]
    expected = tiny.encode_document(item)
    (same,) = embedding([node])
    assert same is node
    assert_same(node.embedding, expected)
    node.embedding = None
    await embedding.acall([node])
    assert_same(node.embedding, expected)


PAGE: dict[str, Any] = {"metadata": {"page": 7}}
NOTHING: dict[str, BaseNode] = {
    "image node": ImageNode(id_="n"),
    "image node with metadata": ImageNode(id_="n", metadata={"page": 7}),
    "image node of empty strings": ImageNode(id_="n", image="", image_path="", image_url=""),
    "node": Node(id_="n"),
    "node without an image in its resource": Node(id_="n", image_resource=MediaResource(), **PAGE),
    "node of a blank text": Node(id_="n", text_resource=MediaResource(text=" "), **PAGE),
    "document": Document(id_="n"),
    "text": TextNode(id_="n", text=""),
    "blank text": TextNode(id_="n", text=" \n"),
}


@pytest.mark.parametrize("kind", NOTHING)
async def test_a_node_with_nothing_in_it_is_named(embedding: GMEEmbedding, kind: str) -> None:
    nodes = [TextNode(text="a"), NOTHING[kind]]
    with pytest.raises(InputError, match="item 1, node n: it has neither text nor image; leave it out") as caught:
        embedding(nodes)
    assert caught.value.index == 1
    with pytest.raises(InputError, match="item 1, node n: it has neither"):
        await embedding.acall(nodes)
    with pytest.raises(InputError, match="item 1, node n: it has neither"):
        GMEEmbedding("tiny", device="cpu", fuse=False)(nodes)


def test_a_picture_without_text_is_refused_where_texts_alone_are_embedded(gallery: Gallery) -> None:
    (picture,) = identify_images([ImageNode(id_="n", image_path=str(gallery.query))])
    with pytest.raises(InputError, match="item 0, node n: it has no text, and fuse=False embeds texts alone"):
        GMEEmbedding("tiny", device="cpu", fuse=False)([picture])


def addresses(url: str) -> dict[str, BaseNode]:
    return {
        "ImageNode": ImageNode(image_path=url),
        "Node": Node(image_resource=MediaResource(path=Path(url))),
        "image_url": ImageNode(image_url=url),
        "Document": Document(image_resource=MediaResource(path=Path(url))),
    }


@pytest.mark.parametrize("kind", addresses(""))
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_an_address_in_the_place_of_a_path_stays_whole(
    make: Make, tiny: SentenceTransformer, gallery: Gallery, server: Server, scheme: str, kind: str
) -> None:
    path = gallery.paths[STAR]
    server.routes["/a//star.png"] = server.routes["/a/star.png"] = lambda handler: handler.answer(path.read_bytes())
    url = server.url("/a/star.png") if scheme == "http" else path.as_uri()
    embedding = make(model_kwargs={"allow_private_hosts": True})
    (expected,) = tiny.encode_document([path])
    assert_same(embedding([addresses(url)[kind]])[0].embedding, expected)
    (chunk,) = embedding(MultimodalNodeParser()([addresses(url)[kind]]))
    assert_same(chunk.embedding, expected)
    assert_same(embedding.get_multimodal_query_embedding(QueryBundle("", image_path=url)), tiny.encode_query(path))


def left_out(gallery: Gallery, folder: Path) -> list[BaseNode]:
    (folder / "damaged.png").write_bytes(gallery.query.read_bytes()[:-40])
    return [
        ImageNode(id_="missing", image_path="missing.png"),
        ImageNode(id_="damaged", image_path=str(folder / "damaged.png"), text="a"),
        ImageNode(id_="empty"),
        TextNode(id_="surrogate", text="\ud83d"),
        Node(id_="sound", audio_resource=MediaResource(data=b"a")),
    ]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("batch_size", [1, 2, 32])
async def test_nodes_that_cannot_be_embedded_are_left_out_and_logged_once(
    make: Make,
    tiny: SentenceTransformer,
    gallery: Gallery,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    batch_size: int,
    fuse: bool,
) -> None:
    embedding = make(on_error="skip", embed_batch_size=batch_size, fuse=fuse)
    bad = left_out(gallery, tmp_path)
    good = [TextNode(text=CAPTIONS[0]), *(ImageNode(image_path=str(path), text="a") for path in gallery.paths[:4])]
    nodes = [node for pair in zip(bad, good, strict=True) for node in pair]
    items: list[Any] = [CAPTIONS[0], *({"image": path, "text": "a"} if fuse else "a" for path in gallery.paths[:4])]
    with caplog.at_level("WARNING", "llamaindex_gme"):
        found = list(embedding(nodes))
    if not fuse:  # the text of a picture that is damaged is embedded
        assert [node.node_id for node in found if node in bad] == ["damaged"]
        found = [node for node in found if node in good]
        bad = [node for node in bad if node.node_id != "damaged"]
    assert all(one is other for one, other in zip(found, good, strict=True))
    assert_same([node.embedding for node in found], tiny.encode_document(items))
    (record,) = caplog.records
    message = record.getMessage()
    assert message.startswith(f"{len(bad)} of 10 nodes are left out")
    assert [f"item {nodes.index(node)}, node {node.node_id}: " in message for node in bad] == [True] * len(bad)
    assert [node.embedding for node in bad] == [None] * len(bad)
    again = await embedding.acall(nodes, show_progress=True)
    assert [node.node_id for node in again if node in good] == [node.node_id for node in good]
    assert len(caplog.records) == 2


def test_what_is_left_out_is_counted_in_full_and_listed_in_part(
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedding = GMEEmbedding("tiny", device="cpu", on_error="skip")
    assert embedding([ImageNode(image_path=f"{'x' * 100}{number}.png") for number in range(3000)]) == []
    message = caplog.records[-1].getMessage()
    assert message.startswith("3000 of 3000 nodes are left out")
    assert len(message) < 30_000
    listed = message.count("no such file")
    assert message.endswith(f"; and {3000 - listed} more")


def test_nothing_is_logged_where_nothing_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    nodes = [TextNode(text="a")]
    assert GMEEmbedding("tiny", device="cpu", on_error="skip")(nodes) is nodes
    assert caplog.records == []


def test_events_report_what_was_embedded_alone(gallery: Gallery, recorder: Recorder) -> None:
    embedding = GMEEmbedding("tiny", device="cpu", on_error="skip")
    embedding([ImageNode(image_path="missing.png"), ImageNode(image_path=str(gallery.query))])
    assert [chunk for event in recorder.of(EmbeddingEndEvent) for chunk in event.chunks] == [str(gallery.query)]


async def test_nodes_of_every_kind_mix(make: Make, tiny: SentenceTransformer, gallery: Gallery) -> None:
    embedding = make(embed_batch_size=3)
    nodes, items = zip(*nodes_of_every_kind(gallery).values(), strict=True)
    expected = tiny.encode_document(list(items))
    assert_same([node.embedding for node in embedding(list(nodes), show_progress=False)], expected)
    assert_same([node.embedding for node in await embedding.acall(list(nodes), show_progress=True)], expected)


async def test_without_fusing_it_embeds_what_core_embeds(tiny: SentenceTransformer, gallery: Gallery) -> None:
    embedding = GMEEmbedding("tiny", device="cpu", fuse=False)
    node = ImageNode(image_path=str(gallery.query), text=CAPTIONS[STAR])
    expected = tiny.encode_document({"text": CAPTIONS[STAR]})
    assert_same(embedding([node])[0].embedding, expected)
    assert_same((await embedding.acall([node]))[0].embedding, expected)
    assert_same(BaseEmbedding.__call__(embedding, [node])[0].embedding, expected)


@pytest.mark.parametrize(
    ("text", "other_texts", "has_image"),
    [(CHANGE, None, True), ("", None, True), (CHANGE, None, False), ("other", [CHANGE], True)],
    ids=["text and image", "image", "text", "another text and image"],
)
def test_a_query_bundle_of_text_and_image_is_one_vector(
    embedding: GMEEmbedding,
    tiny: SentenceTransformer,
    gallery: Gallery,
    text: str,
    other_texts: list[str] | None,
    has_image: bool,
) -> None:
    path = str(gallery.query)
    bundle = QueryBundle(text, image_path=path if has_image else None, custom_embedding_strs=other_texts)
    item = {**({"text": CHANGE} if text else {}), **({"image": path} if has_image else {})}
    assert_same(embedding.get_multimodal_query_embedding(bundle), tiny.encode_query(item))


def test_a_query_bundle_of_several_texts_and_an_image_is_their_mean(
    embedding: GMEEmbedding, tiny: SentenceTransformer, gallery: Gallery
) -> None:
    path = str(gallery.query)
    several = QueryBundle("other", image_path=path, custom_embedding_strs=list(CAPTIONS))
    items = [{"text": text, "image": path} for text in CAPTIONS]
    assert_same(embedding.get_multimodal_query_embedding(several), tiny.encode_query(items).mean(axis=0))


Call = Callable[[GMEEmbedding, Gallery], Any]
CALLS: dict[str, tuple[Call, list[int]]] = {
    "text": (lambda embedding, gallery: embedding.get_text_embedding("a"), [1]),
    "query": (lambda embedding, gallery: embedding.get_query_embedding("a"), [1]),
    "texts": (lambda embedding, gallery: embedding.get_text_embedding_batch(list(CAPTIONS)), [2, 2, 1]),
    "image": (lambda embedding, gallery: embedding.get_image_embedding(str(gallery.query)), [1]),
    "images": (lambda embedding, gallery: embedding.get_image_embedding_batch(gallery.paths), [2, 2, 1]),
    "nodes": (
        lambda embedding, gallery: embedding([ImageNode(image_path=str(path), text="a") for path in gallery.paths]),
        [2, 2, 1],
    ),
    "composed query": (
        lambda embedding, gallery: embedding.get_multimodal_query_embedding(
            QueryBundle(CHANGE, image_path=str(gallery.query))
        ),
        [1],
    ),
    "async texts": (
        lambda embedding, gallery: asyncio.run(embedding.aget_text_embedding_batch(list(CAPTIONS))),
        [2, 2, 1],
    ),
    "async images": (
        lambda embedding, gallery: asyncio.run(embedding.aget_image_embedding_batch(gallery.paths)),
        [2, 2, 1],
    ),
    "async composed query": (
        lambda embedding, gallery: asyncio.run(
            embedding.aget_multimodal_query_embedding(QueryBundle(CHANGE, image_path=str(gallery.query)))
        ),
        [1],
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_every_batch_is_an_event_of_callbacks_and_dispatcher(
    make: Make, gallery: Gallery, recorder: Recorder, name: str
) -> None:
    call, sizes = CALLS[name]
    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = make(embed_batch_size=2, callback_manager=CallbackManager([debug]))
    call(embedding, gallery)
    payloads = [end.payload or {} for _, end in debug.get_event_pairs(CBEventType.EMBEDDING)]
    assert sorted(len(payload[EventPayload.EMBEDDINGS]) for payload in payloads) == sorted(sizes)
    assert sorted(len(payload[EventPayload.CHUNKS]) for payload in payloads) == sorted(sizes)
    starts, ends = recorder.of(EmbeddingStartEvent), recorder.of(EmbeddingEndEvent)
    assert sorted(len(event.embeddings) for event in ends) == sorted(len(event.chunks) for event in ends)
    assert sorted(len(event.embeddings) for event in ends) == sorted(sizes)
    assert [event.model_dict["model_name"] for event in starts] == ["tiny"] * len(sizes)


def test_events_name_what_was_embedded(gallery: Gallery, recorder: Recorder) -> None:
    GMEEmbedding("tiny", device="cpu").get_multimodal_query_embedding(
        QueryBundle(CHANGE, image_path=str(gallery.query))
    )
    (chunk,) = recorder.of(EmbeddingEndEvent)[-1].chunks
    assert CHANGE in chunk
    assert str(gallery.query) in chunk


def test_the_cache_is_for_texts_and_never_answers_a_query(tiny: SentenceTransformer, gallery: Gallery) -> None:
    cache = SimpleKVStore()
    embedding = GMEEmbedding("tiny", device="cpu", embeddings_cache=cache, query_instruction="Find an image.")
    assert_same(embedding.get_text_embedding("a"), tiny.encode_document("a"))
    assert set(cache.get_all("embeddings")) == {"a"}
    expected = tiny.encode_query("a", prompt="Find an image.")
    assert_same(embedding.get_query_embedding("a"), expected)
    assert_same(asyncio.run(embedding.aget_query_embedding("a")), expected)
    embedding([TextNode(text="b"), ImageNode(image_path=str(gallery.query), text="a")])
    assert set(cache.get_all("embeddings")) == {"a", "b"}
    assert embedding.embeddings_cache is cache


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda e: e.get_text_embedding_batch(["a", None]), "item 1: it has neither text nor image"),
        (lambda e: e.get_text_embedding_batch(["a"] * 40 + [3]), 'item 40, "text": of type int; pass a string'),
        (lambda e: e.get_text_embedding_batch(["a"] * 40 + ["\ud83d"]), "item 40: character 0.*surrogate"),
        (lambda e: e.get_text_embedding_batch("a"), "A str where a list belongs"),
        (lambda e: e.get_text_embedding(None), "it has neither text nor image"),
        (lambda e: e.get_query_embedding(3), '"text": of type int'),
        (lambda e: e.get_image_embedding("missing.png"), r"missing\.png: no such file"),
        (lambda e: e.get_image_embedding(None), "it has neither text nor image"),
        (lambda e: e.get_image_embedding(""), "an empty string names no image"),
        (lambda e: e.get_image_embedding_batch(["{good}"] * 40 + ["missing.png"]), r"item 40: missing\.png: no such"),
        (lambda e: e.get_image_embedding_batch(["{good}"] * 40 + ["{corrupt}"]), r"item 40: .*corrupt\.png: damaged"),
        (lambda e: e.get_image_embedding_batch("{good}"), "A str where a list belongs"),
        (lambda e: e.get_multimodal_query_embedding(QueryBundle("")), "it has neither text nor image"),
        (lambda e: e.get_multimodal_query_embedding(QueryBundle("a", image_path="missing.png")), r"missing\.png"),
        (
            lambda e: e([TextNode(text="a"), ImageNode(image_path="missing.png")]),
            r"item 1, node \S+: missing\.png: no such file",
        ),
        (lambda e: e([TextNode(text="a"), ImageNode(id_="n", image="!")]), "item 1, node n: .*base64 is damaged"),
        (lambda e: e([TextNode(text="a"), TextNode(id_="n", text="\ud83d")]), "item 1, node n: character 0"),
        (lambda e: e([Node(id_="n", audio_resource=MediaResource(data=b"a"))]), "item 0, node n: it holds audio"),
        (
            lambda e: e([Node(id_="n", video_resource=MediaResource(data=b"a"))]),
            "item 0.*: this model takes no video; .* and vlm2vec-v2 do",
        ),
        (lambda e: asyncio.run(e.aget_text_embedding_batch(["a", None])), "item 1: it has neither text nor image"),
        (lambda e: asyncio.run(e.aget_image_embedding_batch(["{good}"] * 40 + ["missing.png"])), "item 40: missing"),
        (
            lambda e: asyncio.run(e.acall([TextNode(text="a"), ImageNode(image_path="missing.png")])),
            "item 1, node .*: miss",
        ),
        (lambda e: asyncio.run(e.aget_query_embedding(3)), '"text": of type int'),
    ],
)
def test_bad_input_is_named(
    embedding: GMEEmbedding, gallery: Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Any, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("{good}").write_bytes(gallery.query.read_bytes())
    Path("{corrupt}").write_bytes(gallery.query.read_bytes()[:90])
    with pytest.raises(InputError, match=problem.replace(r".*corrupt\.png", r"\{corrupt\}")):
        call(embedding)


def test_one_damaged_node_leaves_the_others_unembedded(embedding: GMEEmbedding, gallery: Gallery) -> None:
    nodes = [ImageNode(image_path=str(gallery.query)), ImageNode(image_path="missing.png")]
    with pytest.raises(InputError, match="item 1"):
        embedding(nodes)
    assert [node.embedding for node in nodes] == [None, None]


@pytest.mark.parametrize(
    "embed",
    [GMEEmbedding.get_image_embedding, lambda embedding, url: embedding([ImageNode(image_url=url)])],
    ids=["image", "node"],
)
def test_images_are_fetched_from_public_addresses_only(
    embedding: GMEEmbedding, server: Server, embed: Callable[[GMEEmbedding, str], Any]
) -> None:
    with pytest.raises(InputError, match="not public"):
        embed(embedding, server.url())
    assert server.requests == []


def test_it_is_an_embedding_that_settings_take(embedding: GMEEmbedding, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)
    Settings.embed_model = embedding
    assert Settings.embed_model is embedding
    assert embedding.class_name() == "GMEEmbedding"
    assert embedding.to_payload() == {"class_name": "GMEEmbedding", "model_name": "tiny", "embed_batch_size": 32}


def test_pickles_and_dumps_are_without_weights(make: Make, tiny: SentenceTransformer) -> None:
    embedding = make(query_instruction="Find an image.")
    pickled = pickle.dumps(embedding)
    assert len(pickled) < 3000
    again = pickle.loads(pickled)
    assert again.to_dict() == embedding.to_dict()
    assert again.get_query_embedding(CHANGE) == embedding.get_query_embedding(CHANGE)
    assert len(embedding.to_json()) < 3000
    assert GMEEmbedding.from_json(embedding.to_json()).to_dict() == embedding.to_dict()
    with pytest.raises(TypeError, match="of a loaded model cannot be pickled"):
        pickle.dumps(GMEEmbedding(tiny))


@pytest.mark.parametrize(
    "make_copy",
    [copy.copy, copy.deepcopy, lambda each: each.model_copy(deep=True)],
    ids=["copy", "deepcopy", "pydantic"],
)
def test_copies_share_the_weights(embedding: GMEEmbedding, make_copy: Callable[[GMEEmbedding], GMEEmbedding]) -> None:
    assert make_copy(embedding)._embedder is embedding._embedder


def test_a_loaded_model_is_used_as_it_is(tiny: SentenceTransformer) -> None:
    embedding = GMEEmbedding(tiny)
    assert isinstance(embedding._embedder, Embedder)
    assert embedding._embedder.model is tiny
    assert_same(embedding.get_text_embedding("a"), tiny.encode_document("a"))
    with pytest.raises(ValueError, match="device: the model is loaded already"):
        GMEEmbedding(tiny, device="cpu")
    with pytest.raises(TypeError, match="type int: pass the name of a model"):
        GMEEmbedding(3)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "problem"),
    [
        ({"text_instruction": "Find."}, ValueError, "no instruction on the document side, so 'Find.' would change"),
        ({"model_name": "tinny"}, ValueError, "Did you mean 'tiny'"),
        ({"embed_batch_size": 0}, ValidationError, "greater than 0"),
        ({"colour": "red"}, ValidationError, "Extra inputs are not permitted"),
    ],
)
def test_arguments_that_would_be_ignored_are_refused(
    arguments: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        GMEEmbedding(**{"model_name": "tiny", "device": "cpu", **arguments})


def test_the_default_model_is_gme(monkeypatch: pytest.MonkeyPatch, tiny: SentenceTransformer) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(Embedder, "load", lambda name, **loading: asked.append(name) or Embedder(tiny))
    assert GMEEmbedding().model_name == "gme-2b"
    assert asked == ["gme-2b"]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("call", ["__call__", "acall", "identify_images"])
async def test_what_is_no_list_of_nodes_is_named(on_error: Any, call: str) -> None:
    embedding = GMEEmbedding("tiny", device="cpu", on_error=on_error)

    async def run(nodes: Any) -> Any:
        if call == "acall":
            return await embedding.acall(nodes)
        return embedding(nodes) if call == "__call__" else identify_images(nodes)

    for wrong in (TextNode(text="a"), "a.png", b"a", 3, Path("a.png")):
        with pytest.raises(InputError, match=f"A {type(wrong).__name__} where a list of nodes belongs: pass"):
            await run(wrong)
    for wrong in ("a.png", Path("a.png"), None, {"text": "a"}):
        with pytest.raises(InputError, match=f"item 1: a {type(wrong).__name__}, which is no node; a text goes into"):
            await run([TextNode(text="a"), wrong])
    assert len(await run(iter([TextNode(text="a")]))) == 1


async def test_several_images_are_not_embedded_as_one(embedding: GMEEmbedding, gallery: Gallery) -> None:
    several = [str(path) for path in gallery.paths[:2]]
    for wrong in (several, tuple(several)):
        message = (
            f"a {type(wrong).__name__} of images where one belongs; for an embedding each, pass them to get_image_"
        )
        with pytest.raises(InputError, match=f"item 0: {message}"):
            embedding.get_image_embedding(wrong)
        with pytest.raises(InputError, match=f"item 0: {message}"):
            await embedding.aget_image_embedding(wrong)
        with pytest.raises(InputError, match=f"item 1: {message}"):
            embedding.get_image_embedding_batch([several[0], wrong])
    assert len(embedding.get_image_embedding_batch(several)) == 2


async def test_a_text_in_the_place_of_several_is_named(embedding: GMEEmbedding) -> None:
    with pytest.raises(InputError, match="A str where a list belongs"):
        embedding.get_agg_embedding_from_queries("ab")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="A str where a list belongs"):
        await embedding.aget_agg_embedding_from_queries("ab")  # type: ignore[arg-type]


LOOKALIKES = [
    "query.png",
    "/a b/query.JPG",
    "C:\\a b.webp",
    "https://example.org/a.png",
    f"data:image/png;base64,{'A' * 2000}",
]
WORDS = ["a picture named query.png", "a red disc", "st.modules", "a\nb.png", "", "x" * 2000 + ".png"]


@pytest.mark.parametrize("query", [*LOOKALIKES, *WORDS])
async def test_queries_that_look_like_images_are_texts_and_told(
    embedding: GMEEmbedding, tiny: SentenceTransformer, caplog: pytest.LogCaptureFixture, query: str
) -> None:
    expected = tiny.encode_query({"text": query or "a"})
    ways: list[Callable[[], Any]] = [
        lambda: embedding.get_query_embedding(query or "a"),
        lambda: asyncio.run(embedding.aget_query_embedding(query or "a")),
        lambda: embedding.get_multimodal_query_embedding(QueryBundle(query or "a")),
    ]
    for way in ways:
        caplog.clear()
        assert_same(await asyncio.to_thread(way), expected)
        told = [record.getMessage() for record in caplog.records if record.name.startswith("llamaindex_gme")]
        assert [f"{query[:20]!r}"[:-1] in each for each in told] == [True] * (query in LOOKALIKES)


def test_the_text_beside_an_image_is_not_told(
    embedding: GMEEmbedding, gallery: Gallery, caplog: pytest.LogCaptureFixture
) -> None:
    embedding.get_multimodal_query_embedding(QueryBundle("query.png", image_path=str(gallery.query)))
    embedding.get_text_embedding("query.png")
    assert not caplog.records


def test_the_video_of_a_node_is_embedded_with_its_text(tmp_path: Path) -> None:
    pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    path.write_bytes(write_video(random_frames(9)))
    model = load_once("vlm2vec-v2", "sdpa")
    embedding = GMEEmbedding(model)
    nodes = [
        Node(video_resource=MediaResource(path=path)),
        Node(video_resource=MediaResource(data=path.read_bytes())),
        Node(video_resource=MediaResource(path=path), text_resource=MediaResource(text="a cat")),
    ]
    expected = model.encode([{"video": path}, {"video": path}, {"video": path, "text": "a cat"}])
    assert np.abs(np.array([node.embedding for node in embedding(nodes)]) - expected).max() <= TOLERANCE
    with pytest.raises(InputError, match="item 0, node n: its video is lost"):
        embedding([Node(id_="n", video_resource=MediaResource())])
    with pytest.raises(InputError, match="item 0, node n: it has no text, and fuse=False"):
        GMEEmbedding(model, fuse=False)([Node(id_="n", video_resource=MediaResource(path=path))])
