"""What the adapters share: sides, plain floats, checked instructions, and a model that is never copied."""

from __future__ import annotations

import asyncio
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers

from st_modules import (
    CheckpointError,
    Embedder,
    ImageLimits,
    InputError,
    RemoteEmbedder,
    SentenceTransformer,
    UnknownModelError,
)
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE, reference

PICTURE = GOLDEN / "gme" / "images" / "square.png"
ITEMS: list[Any] = [
    {"text": "a red circle"},
    {"image": PICTURE},
    {"text": "make it blue", "image": PICTURE},
    {"role": "user", "content": "two green stars"},
]


@pytest.fixture(scope="module")
def model() -> SentenceTransformer:
    return SentenceTransformer("tiny", device="cpu")


@pytest.fixture(scope="module")
def embedder(model: SentenceTransformer) -> Embedder:
    return Embedder(model)


@pytest.fixture(scope="module", params=["local", "remote"])
def either(request: pytest.FixtureRequest, embedder: Embedder) -> Embedder | RemoteEmbedder:
    """The model in this process, or in a server."""
    return embedder if request.param == "local" else RemoteEmbedder(request.getfixturevalue("tiny_url"))


@pytest.mark.parametrize("side", ["query", "document"])
def test_each_side_is_the_models_own(either: Embedder, model: SentenceTransformer, side: Any) -> None:
    expected = [
        getattr(model, f"encode_{side}")([item] if "role" in item else item, prompt=model.prompts["it2i"])
        for item in ITEMS
    ]
    found = either.embed(ITEMS, side, prompt=model.prompts["it2i"])
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)
    assert asyncio.run(either.aembed(ITEMS, side, prompt=model.prompts["it2i"])) == found


def test_a_model_that_is_loaded_here_keeps_what_items_begin_with() -> None:
    loaded: Any = Embedder.load("tiny", device="cpu").model
    assert loaded.keep_prefixes
    asked: Any = Embedder.load("tiny", device="cpu", keep_prefixes=False).model
    assert not asked.keep_prefixes


def test_a_model_that_was_loaded_elsewhere_is_left_as_it_is(model: SentenceTransformer) -> None:
    assert not model.keep_prefixes
    Embedder.load(model)
    assert not model.keep_prefixes


def test_the_sides_of_the_model_differ_under_an_instruction(either: Embedder) -> None:
    query, document = (either.embed(ITEMS, side, prompt="Find the opposite.") for side in ("query", "document"))
    assert np.abs(np.array(query) - np.array(document)).max(axis=1).min() > 1e-2


@pytest.mark.parametrize("options", [{}, {"precision": "int8"}, {"convert_to_tensor": True}, {"truncate_dim": 16}])
def test_the_result_is_lists_of_floats(embedder: Embedder, options: dict[str, Any]) -> None:
    embeddings = embedder.embed(ITEMS * 2, "document", **options)
    assert type(embeddings) is list
    assert {type(embedding) for embedding in embeddings} == {list}
    assert {type(value) for embedding in embeddings for value in embedding} == {float}
    assert {len(embedding) for embedding in embeddings} == {options.get("truncate_dim", 128)}


def test_no_items_have_no_embeddings(either: Embedder) -> None:
    assert either.embed([], "query") == asyncio.run(either.aembed([], "query")) == []


def test_a_bad_item_among_gathered_calls_fails_alone_and_is_named(either: Embedder) -> None:
    async def together() -> list[Any]:
        calls: list[list[Any]] = [[ITEMS[0]], [ITEMS[0], {"image": "missing.png"}], [ITEMS[1]]]
        return await asyncio.gather(
            *(either.aembed(call, "query", delay=0.2) for call in calls), return_exceptions=True
        )

    first, error, last = asyncio.run(together())
    assert isinstance(error, InputError)
    assert str(error).startswith("item 1: missing.png: no such file")
    np.testing.assert_allclose([*first, *last], either.embed(ITEMS[:2], "query"), atol=TOLERANCE)


def test_threads_may_embed_at_the_same_time(either: Embedder, model: SentenceTransformer) -> None:
    calls: list[tuple[list[Any], Any]] = [
        ([{"text": f"{number} red circles"}, ITEMS[1 + number % 2]], ("query", "document")[number % 2])
        for number in range(16)
    ]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda call: either.embed(*call, prompt="Find an image."), calls))
    expected = [getattr(model, f"encode_{side}")(items, prompt="Find an image.") for items, side in calls]
    np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_errors_of_parsed_items_name_their_place_in_the_whole_list(either: Embedder) -> None:
    parsed = either.parse([*ITEMS[:2], {"image": "missing.png"}])
    assert either.embed(parsed[:2], "document") == either.embed(ITEMS[:2], "document")
    with pytest.raises(InputError, match=r"item 2: missing\.png: no such file"):
        either.embed(parsed[2:], "document")
    with pytest.raises(InputError, match="item 1: unknown keys"):
        either.parse([ITEMS[0], {"txt": "a"}])


def test_parsing_keeps_the_models_own_limits() -> None:
    strict = Embedder.load("tiny", device="cpu", remote_images=False)
    (item,) = strict.parse([{"image": "http://127.0.0.1:9/a.png"}])
    with pytest.raises(InputError, match="remote_images=False"):
        strict.embed([item], "document")


def truncated(folder: Path) -> Path:
    """A picture whose header is whole and whose pixels are not."""
    path = folder / "truncated.png"
    path.write_bytes(PICTURE.read_bytes()[:-100])
    return path


def bad_items(folder: Path) -> list[Any]:
    (folder / "page.png").write_text("<html>")
    return [
        {"image": "missing.png"},
        {"image": truncated(folder)},
        {"image": folder / "page.png"},
        {"image": folder},
        {"image": "data:image/png;base64,!"},
        {"image": [PICTURE, truncated(folder)], "text": "a"},
        {"image": "http://127.0.0.1:9/a.png"},
        {"text": "\ud83d"},
        {"txt": "a"},
        {"text": None},
        None,
        3,
        {"role": "assistant", "content": "a"},
    ]


def test_what_cannot_be_embedded_is_told_apart_from_what_can(either: Embedder, tmp_path: Path) -> None:
    bad = bad_items(tmp_path)
    items = [each for number, item in enumerate(bad) for each in (item, ITEMS[number % len(ITEMS)])]
    found, errors = either.embed_valid(items, "document")
    assert [place for place, embedding in enumerate(found) if embedding is None] == list(range(0, len(items), 2))
    assert [error.index for error in errors] == list(range(0, len(items), 2))
    good = [embedding for embedding in found if embedding is not None]
    np.testing.assert_allclose(good, either.embed(items[1::2], "document"), atol=TOLERANCE)
    for item, error in zip(bad, errors, strict=True):
        with pytest.raises(InputError) as alone:
            either.embed([item], "document")
        assert type(error) is type(alone.value)
        assert error.problem == alone.value.problem
        assert str(error) == str(alone.value.shift(error.index or 0))
    again, same = asyncio.run(either.aembed_valid(items, "document"))
    assert [str(error) for error in same] == [str(error) for error in errors]
    assert [embedding is None for embedding in again] == [embedding is None for embedding in found]
    np.testing.assert_allclose([each for each in again if each is not None], good, atol=TOLERANCE)


def test_options_and_sides_reach_the_items_that_can_be_embedded(either: Embedder) -> None:
    options: dict[str, Any] = {"prompt": "Find the opposite.", "truncate_dim": 16}
    expected = either.embed(ITEMS, "query", **options)
    found, _ = either.embed_valid([*ITEMS, None], "query", **options)
    np.testing.assert_allclose(found[:-1], expected, atol=TOLERANCE)  # type: ignore[arg-type]
    assert either.embed_valid([], "query") == asyncio.run(either.aembed_valid([], "query")) == ([], [])
    with pytest.raises(ValueError, match="truncate_dim"):
        either.embed_valid(ITEMS, "query", truncate_dim=0)


@pytest.mark.parametrize(("bad", "most"), [(range(0), 1.0), ([5], 2.0), ([5, 299], 2.0), (range(300), 9.0)])
def test_a_bad_item_costs_little_of_the_others_again(
    embedder: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: Any, most: float
) -> None:
    items = [{"image": truncated(tmp_path)} if place in bad else {"text": "a"} for place in range(300)]
    sizes: list[int] = []
    encode = embedder.model.encode_document
    monkeypatch.setattr(
        embedder.model, "encode_document", lambda each, **options: sizes.append(len(each)) or encode(each, **options)
    )
    found, errors = embedder.embed_valid(items, "document")
    assert [error.index for error in errors] == list(bad)
    assert [place for place, embedding in enumerate(found) if embedding is None] == list(bad)
    assert sum(sizes) <= most * len(items)


def test_images_that_are_missing_cost_no_call_of_the_model(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedder.model, "encode_document", lambda *_, **__: pytest.fail("nothing can be embedded"))
    found, errors = embedder.embed_valid([{"image": "missing.png"}] * 600, "document")
    assert found == [None] * 600
    assert [error.index for error in errors] == list(range(600))


def test_items_that_were_parsed_elsewhere_are_told_apart_too(either: Embedder, tmp_path: Path) -> None:
    parsed = either.parse([*ITEMS, {"image": truncated(tmp_path)}, {"image": "missing.png"}, ITEMS[0]])
    found, errors = either.embed_valid([*parsed[3:], *parsed[3:]], "document")
    assert [embedding is None for embedding in found] == [False, True, True, False] * 2
    assert [error.index for error in errors] == [1, 2, 5, 6]


@pytest.mark.parametrize(
    ("name", "side", "reads"),
    [
        ("gme-2b", "query", True),
        ("gme-2b", "document", False),
        ("ops-mm-v1-2b", "document", True),
        ("rzen-embed", "document", True),
        ("unite-qwen2vl-2b", "query", False),
        ("vdr-2b-multi", "query", False),
        ("vlm2vec-qwen2vl-2b", "document", True),
        ("bge-vl-mllm-s1", "document", False),
        ("bge-vl-base", "document", True),
        ("bge-visualized-base", "query", True),
    ],
)
def test_an_instruction_that_would_change_nothing_is_refused(name: str, side: Any, reads: bool) -> None:
    embedder = Embedder(reference(name).load(name))
    embedder.check_instruction(side, None)
    if reads:
        embedder.check_instruction(side, "Find a picture.")
    else:
        with pytest.raises(ValueError, match=f"no instruction on the {side} side, so 'Find a picture.' would change"):
            embedder.check_instruction(side, "Find a picture.")


def test_a_model_without_any_place_for_an_instruction_says_so() -> None:
    with pytest.raises(ValueError, match="reads no instruction on the query side"):
        Embedder(reference("e5-v").load("e5-v")).check_instruction("query", "Find a picture.")


def test_copies_share_the_model(embedder: Embedder) -> None:
    assert copy.copy(embedder).model is copy.deepcopy(embedder).model is embedder.model


def test_it_is_not_pickled(embedder: Embedder) -> None:
    with pytest.raises(TypeError, match="is not pickled; pickle what names it"):
        pickle.dumps(embedder)


def test_a_loaded_model_is_taken_as_it_is(model: SentenceTransformer) -> None:
    assert Embedder.load(model).model is model
    with pytest.raises(ValueError, match=r"device, weights: the model is loaded already"):
        Embedder.load(model, weights="somewhere", device="cpu")
    with pytest.raises(TypeError, match="A model of type int"):
        Embedder(3)  # type: ignore[arg-type]


def test_a_plain_sentence_transformer_works_too(tmp_path: Path, model: SentenceTransformer) -> None:
    model.save_pretrained(str(tmp_path))
    plain = sentence_transformers.SentenceTransformer(str(tmp_path), device="cpu", trust_remote_code=True)
    expected = Embedder(model).embed(ITEMS[:3], "query")
    np.testing.assert_allclose(Embedder(plain).embed(ITEMS[:3], "query"), expected, atol=TOLERANCE)
    items = [{"image": "missing.png"}, *ITEMS[:2], {"image": truncated(tmp_path)}, ITEMS[2]]
    found, errors = Embedder(plain).embed_valid(items, "query")
    np.testing.assert_allclose([each for each in found if each is not None], expected, atol=TOLERANCE)
    assert [error.index for error in errors] == [0, 3]


def test_files_in_the_place_of_the_repository() -> None:
    gme = reference("gme-2b")
    case = next(iter(gme.cases.values()))
    embedder = Embedder.load("gme-2b", weights=gme.weights, device="cpu")
    found = embedder.embed(case.items, "query" if case.side == "encode_query" else "document", prompt=case.prompt or "")
    np.testing.assert_allclose(found, case.expected, atol=TOLERANCE)
    assert Path(embedder.name) == gme.weights


def test_what_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownModelError, match="Did you mean 'gme-2b'"):
        Embedder.load("gme-2")
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        Embedder.load("gme-2b", weights=tmp_path)


def test_the_limits_of_a_model_count_where_it_is_a_plain_one(model: SentenceTransformer, tmp_path: Path) -> None:
    picture = GOLDEN / "gme" / "images" / "square.png"
    plain = sentence_transformers.SentenceTransformer(modules=[copy.copy(model[0]), model[1]], device="cpu")
    backbone: Any = plain[0]
    backbone.image_limits = ImageLimits(local_files=False)
    assert Embedder(plain).image_limits == backbone.image_limits
    for ask in (Embedder(plain).identify, lambda items: Embedder(plain).embed(items, "document")):
        with pytest.raises(InputError, match="opening files is turned off"):
            ask([{"image": picture}])
    assert Embedder(model).image_limits == ImageLimits()
