"""Searching an index, against a comparison with every vector in numpy."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

from st_modules import InputError, SentenceTransformer
from st_modules.errors import ArgumentError
from st_modules.index import Index, IndexMismatchError, build
from st_modules.index.model_facts import ModelFacts, fingerprint
from st_modules.index.problems import name_column
from st_modules.index.text_index import ensure_text_index
from tests.helpers.gallery import CAPTIONS, CHANGE, Gallery
from tests.helpers.index_tables import Columns, draw_clusters, draw_vectors, make_index, make_rows

TEXTS = ["a red circle", None, "红色的圆圈在白色背景上", "Ein Überraschungsei", "two blue circles", "C++ (quoted)"]


def rank(vectors: np.ndarray, query: int, allowed: Sequence[int] | None = None) -> list[tuple[str, float]]:
    """What is nearest to one of some vectors, the vector itself left out, equal ones by their ids."""
    exact = vectors.astype(np.float64)
    exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    scores = exact @ exact[query]
    places = [place for place in (range(len(vectors)) if allowed is None else allowed) if place != query]
    places.sort(key=lambda place: (-round(scores[place], 12), place))
    return [(f"i{place:05d}", scores[place]) for place in places]


def open_index(path: Path, vectors: np.ndarray, dtype: str = "float32", **columns: Any) -> Index:
    make_index(path, vectors, dtype, **columns)
    return Index.open(path)


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory, gallery: Gallery, tiny: SentenceTransformer) -> Path:
    """An index of the gallery's pictures with their captions, embedded by the model that ships with the package."""
    path = tmp_path_factory.mktemp("drawings") / "my.index"
    paths = [str(each) for each in gallery.paths]
    vectors = tiny.encode_document([{"image": each} for each in paths])
    facts = ModelFacts("tiny", fingerprint(tiny), vectors.shape[1])
    make_index(path, vectors, facts=facts, id=list("abcde"), text=CAPTIONS, image=paths, source=paths)
    return path


# -------------------------------------------------------------------------------------------------- by vector


@pytest.mark.parametrize("query", [0, 17, 399])
def test_hits_and_scores_are_those_of_every_vector(tmp_path: Path, query: int) -> None:
    vectors = draw_vectors(400)
    hits = open_index(tmp_path / "my.index", vectors).search_like(f"i{query:05d}", 25)
    expected = rank(vectors, query)[:25]
    assert [hit.id for hit in hits] == [name for name, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-5)


def test_float16_changes_scores_by_a_thousandth_at_most(tmp_path: Path) -> None:
    vectors = draw_vectors(400)
    hits = open_index(tmp_path / "my.index", vectors, "float16").search_like("i00003", 399)
    assert [hit.id for hit in hits] == [name for name, _ in rank(vectors.astype(np.float16), 3)]
    assert {hit.id: hit.score for hit in hits} == pytest.approx(dict(rank(vectors, 3)), abs=1e-3)


def test_vectors_need_not_have_length_one(tmp_path: Path) -> None:
    vectors = draw_vectors(50) * np.linspace(0.1, 9, 50, dtype=np.float32)[:, None]
    hits = open_index(tmp_path / "my.index", vectors).search_like("i00003", 5)
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in rank(vectors, 3)[:5]], abs=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_equal_vectors_come_in_the_order_of_their_ids(tmp_path: Path, dtype: str) -> None:
    vectors = draw_vectors(300)
    vectors[40:290] = vectors[7]
    ids = [f"i{row:05d}" for row in range(300)]
    shuffled = np.random.default_rng(1).permutation(300)
    index = open_index(tmp_path / "my.index", vectors[shuffled], dtype, id=[ids[row] for row in shuffled])
    assert [hit.id for hit in index.search_like("i00007", 5)] == ids[40:45]


def test_k_larger_than_the_table_finds_all(tmp_path: Path) -> None:
    assert len(open_index(tmp_path / "my.index", draw_vectors(30)).search_like("i00000", 10**9)) == 29


def test_empty_index_has_no_answers(tmp_path: Path, tiny: SentenceTransformer) -> None:
    facts = ModelFacts("tiny", fingerprint(tiny), 128)
    make_index(tmp_path / "my.index", np.zeros((0, 128), np.float32), facts=facts)
    index = Index.open(tmp_path / "my.index", tiny)
    assert len(index) == 0
    assert [index.search("a circle", mode=mode) for mode in ("vector", "text", "hybrid")] == [[], [], []]


def test_hit_has_the_columns_of_its_row(tmp_path: Path) -> None:
    index = open_index(
        tmp_path / "my.index",
        draw_vectors(2),
        text=["one", None],
        image=["1.png", None],
        page=[None, 7],
        source=["a", "b"],
        thumbnail=[None, b"small"],
        price=[1.5, None],
        **Columns({"Odd name": ["x", "y"]}),
    )
    (hit,) = index.search_like("i00000")
    assert hit.to_record() == {
        **{"id": "i00001", "score": hit.score, "source": "b", "page": 7, "text": None, "image": None},
        "metadata": {"price": None, "Odd name": "y"},
    }
    assert hit.thumbnail == b"small"
    assert index.columns == ["id", "source", "page", "text", "image", "price", "Odd name"]


def test_rows_that_are_written_meanwhile_are_found(tmp_path: Path) -> None:
    vectors = draw_vectors(60)
    table = make_index(tmp_path / "my.index", vectors[:50])
    index = Index.open(tmp_path / "my.index")
    table.add(make_rows(vectors, id=[f"i{row:05d}" for row in range(60)]).slice(50))
    assert len(index) == 60
    assert [hit.id for hit in index.search_like("i00001", 59)] == [name for name, _ in rank(vectors, 1)]


def test_index_that_was_built_anew_is_to_be_opened_again(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(5))
    index = Index.open(tmp_path / "my.index")
    lancedb.connect(str(tmp_path / "my.index")).drop_table("items")
    make_index(tmp_path / "my.index", draw_vectors(5), facts=ModelFacts("other", "1" * 32, 16))
    with pytest.raises(InputError, match="open it again|damaged"):
        index.search_like("i00000")


def test_unknown_id(tmp_path: Path) -> None:
    index = open_index(tmp_path / "my.index", draw_vectors(5))
    with pytest.raises(InputError, match="no item has the id 'nobody''s'|no item has the id \"nobody's\""):
        index.search_like("nobody's")


def test_get_returns_items_in_the_order_of_the_ids(tmp_path: Path) -> None:
    vectors = draw_vectors(9)
    found = open_index(tmp_path / "my.index", vectors, price=list(range(9))).get(["i00005", "i00002"])
    assert [(row["id"], row["price"]) for row in found] == [("i00005", 5), ("i00002", 2)]
    np.testing.assert_array_equal(found[1]["vector"], vectors[2])


def test_get_of_no_ids(tmp_path: Path) -> None:
    assert open_index(tmp_path / "my.index", draw_vectors(3)).get([]) == []


# --------------------------------------------------------------------------------------------------- conditions


@pytest.mark.parametrize(
    ("where", "allowed"),
    [
        ("price < 20", range(20)),
        ("price = 3 OR price = 9", [3, 9]),
        ("`Odd name` LIKE 'x%' -- a comment", range(0, 100, 2)),
        ("größe = 'ä''?'", [50]),
        ("price < 0", []),
        (f"price IN ({', '.join(map(str, range(-1000, 2)))})", [0, 1]),
        (" OR ".join(["price = 7"] * 1000), [7]),
        ("source = 'made' AND page IS NULL AND id <> 'i00004'", [row for row in range(100) if row != 4]),
    ],
)
def test_condition_leaves_the_rest_out(tmp_path: Path, where: str, allowed: Sequence[int]) -> None:
    vectors = draw_vectors(100)
    columns: Columns = {"Odd name": ["x1", "y1"] * 50, "größe": ["ä'?" if row == 50 else "b" for row in range(100)]}
    index = open_index(tmp_path / "my.index", vectors, price=list(range(100)), **columns)
    hits = index.search_like("i00011", 200, where=where)
    assert [hit.id for hit in hits] == [name for name, _ in rank(vectors, 11, allowed)]
    assert index.count(where) == len(allowed)


@pytest.mark.parametrize(
    "where",
    [
        *(
            "nope = 3",
            "price = ",
            "price",
            "price = 'x'",
            "1 = 1; drop table items",
            "price = ?",
            "price = $1",
            "price > :price",
            "id = 'x' /* ' */ OR price = ?",
            "1 = 1) OR (1 = 1",
            " ",
            "",
        ),
        *("nope(price)", "cast(id as int) = 1", "id = '\ud800'", "(" * 5000, "NOT " * 9000, "price = 1) OR (1 = 1) OR"),
        # They overflow the stack of LanceDB's planner.
        *("price = 1" + "+1" * 900, "price = 1" + " - 1" * 900, "price = 1" + "::int" * 1200),
        *("id = " + "||".join(["id"] * 900), "price = 1" + " IS NULL" * 1500),
    ],
)
def test_wrong_condition_is_named_with_the_columns(tmp_path: Path, where: str) -> None:
    index = open_index(tmp_path / "my.index", draw_vectors(20), price=list(range(20)))
    for search in (lambda: index.search_like("i00000", where=where), lambda: index.count(where)):
        with pytest.raises(InputError, match="where") as caught:
            search()
        assert len(str(caught.value)) < 600
        assert "\n" not in str(caught.value)


def test_wrong_column_is_told_with_the_right_ones(tmp_path: Path) -> None:
    index = open_index(tmp_path / "my.index", draw_vectors(20), **Columns({"Odd name": list(range(20))}))
    with pytest.raises(InputError) as caught:
        index.count("nope = 3")
    assert str(caught.value) == (
        "where='nope = 3': No field named nope. The columns are id, source, page, text, image, `Odd name`."
    )


@pytest.mark.parametrize(
    ("name", "written"), [("price", "price"), ("Price", "`Price`"), ("a b", "`a b`"), ("select", "`select`")]
)
def test_columns_are_shown_as_conditions_have_to_write_them(tmp_path: Path, name: str, written: str) -> None:
    index = open_index(tmp_path / "my.index", draw_vectors(3), **Columns({name: [1, 2, 3]}))
    assert name_column(name) == written
    assert index.count(f"{written} > 1") == 2


# ---------------------------------------------------------------------------------------------------- by words


@pytest.fixture
def worded(tmp_path: Path) -> Index:
    table = make_index(tmp_path / "my.index", draw_vectors(6), text=TEXTS)
    ensure_text_index(table)
    ensure_text_index(table)
    return Index.open(tmp_path / "my.index")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("circle", {0, 4}),
        ("圆圈", {2}),
        ("uberraschungsei", {3}),
        ('"quoted', {5}),
        ("nothing here", set()),
        ("*", set()),
        ("AND OR (", set()),
    ],
)
def test_words_are_found(worded: Index, text: str, found: set[int]) -> None:
    assert {hit.id for hit in worded.search(text, mode="text")} == {f"i{row:05d}" for row in found}


def test_words_are_found_without_an_index_of_them(tmp_path: Path) -> None:
    index = open_index(tmp_path / "my.index", draw_vectors(6), text=TEXTS)
    assert [hit.id for hit in index.search({"text": "blue circles"}, mode="text")][0] == "i00004"


def test_what_is_no_unicode_is_told_as_such(worded: Index) -> None:
    for search in (lambda: worded.search("\udcff", mode="text"), lambda: worded.search_like("\ud800")):
        with pytest.raises(InputError, match="no Unicode"):
            search()


def test_more_than_there_are_may_be_wanted(worded: Index, drawings: Path, tiny: SentenceTransformer) -> None:
    assert len(worded.search("circle", 2**63 - 1, mode="text")) == 2
    assert len(Index.open(drawings, tiny).search("circle", 5 * 10**9, mode="hybrid")) == 5


def test_a_name_of_no_instruction_is_an_error(drawings: Path, tiny: SentenceTransformer) -> None:
    with pytest.raises(ArgumentError, match="prompt_name='nope': .* no such instruction, but .*t2i"):
        Index.open(drawings, tiny).search("a", prompt_name="nope")


def test_items_of_any_id_are_looked_for_by(tmp_path: Path) -> None:
    vectors = draw_vectors(3)
    index = open_index(tmp_path / "my.index", vectors, id=["x" * 30_000, "'", "c"])
    for row, each in enumerate(index.get(["x" * 30_000, "'", "c"])):
        others = np.argsort(-(vectors @ vectors[row]))[1:]
        assert [hit.id for hit in index.search_like(each["id"], 3)] == [["x" * 30_000, "'", "c"][n] for n in others]


def test_a_damaged_index_of_words_is_mended_by_the_next_run(tmp_path: Path, tiny: SentenceTransformer) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a red circle")
    build(tmp_path / "notes", tmp_path / "my.index", tiny)
    for file in (tmp_path / "my.index" / "items.lance" / "_indices").rglob("*.lance"):
        file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(InputError, match="Index its sources again"):
        Index.open(tmp_path / "my.index").search("circle", mode="text")
    assert build(tmp_path / "notes", tmp_path / "my.index", tiny).unchanged == 1
    assert len(Index.open(tmp_path / "my.index").search("circle", mode="text")) == 1


def test_condition_counts_for_words_too(worded: Index) -> None:
    assert [hit.id for hit in worded.search("circle", mode="text", where="id <> 'i00000'")] == ["i00004"]


@pytest.mark.parametrize("item", [{"image": "x.png"}, {"text": "a", "image": "x.png"}, " ", 7])
def test_words_need_a_text_alone(worded: Index, item: object) -> None:
    with pytest.raises(InputError, match="words"):
        worded.search(item, mode="text")


def test_both_ways_together_put_first_what_both_find(drawings: Path, tiny: SentenceTransformer) -> None:
    index = Index.open(drawings, tiny)
    hits = index.search(CAPTIONS[0], 5, mode="hybrid")
    assert len(hits) == 5
    assert (hits[0].id, hits[0].score) == ("a", pytest.approx(2 / 61))  # first of both: 1/(60 + 1) each
    assert [hit.id for hit in index.search("circle", mode="hybrid", where="id = 'b'")] == ["b"]


# ---------------------------------------------------------------------------------------------------- by a model


def test_text_finds_the_picture(drawings: Path) -> None:
    index = Index.open(drawings, device="cpu")
    assert [index.search(caption, 1, prompt_name="t2i")[0].id for caption in CAPTIONS] == list("abcde")


def test_picture_and_words_together(drawings: Path, tiny: SentenceTransformer, gallery: Gallery) -> None:
    index = Index.open(drawings, tiny)
    item = {"text": CHANGE, "image": gallery.query}
    assert index.search(item, 1, prompt_name="it2i")[0].id == "b"
    assert index.search({"image": gallery.query}, 1)[0].id == "a"


def test_scores_are_those_of_encode_query(drawings: Path, tiny: SentenceTransformer) -> None:
    index = Index.open(drawings, tiny)
    vectors = np.stack([row["vector"] for row in index.get(list("abcde"))])
    told = {"default": {}, "named": {"prompt_name": "t2i"}, "own": {"instruction": "Find drawings."}}
    own = {"default": {}, "named": {"prompt_name": "t2i"}, "own": {"prompt": "Find drawings."}}
    for name, options in told.items():
        expected = vectors @ tiny.encode_query("a star", **own[name])
        scores = {hit.id: hit.score for hit in index.search("a star", **options)}
        assert [scores[each] for each in "abcde"] == pytest.approx(expected.tolist(), abs=1e-5)


def test_queries_have_the_dimensions_of_the_index(tmp_path: Path, tiny: SentenceTransformer) -> None:
    vectors = tiny.encode_document(list(CAPTIONS), truncate_dim=32)
    make_index(tmp_path / "my.index", vectors, facts=ModelFacts("tiny", fingerprint(tiny), 32, truncate_dim=32))
    hits = Index.open(tmp_path / "my.index", tiny).search(CAPTIONS[2], 1)
    assert hits[0].id == "i00002"


def test_query_by_another_model_is_refused(tmp_path: Path, tiny: SentenceTransformer) -> None:
    make_index(tmp_path / "my.index", draw_vectors(5, 128), facts=ModelFacts("gme-2b", "1" * 32, 128))
    with pytest.raises(IndexMismatchError, match=r"gme-2b .*tiny .*another index"):
        Index.open(tmp_path / "my.index", tiny)


def test_a_model_by_another_name_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(5, 128), facts=ModelFacts("tiny", "1" * 32, 128))
    with pytest.raises(IndexMismatchError, match="of tiny, and the model gme-2b is asked for"):
        Index.open(tmp_path / "my.index", "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct")


@pytest.mark.parametrize(
    "options",
    [
        {"k": 0},
        {"k": True},
        {"mode": "words"},
        {"exact": 1},
        {"rerank_k": 0},
        {"instruction": "a", "prompt_name": "t2i"},
        {"instruction": "a", "mode": "text"},
    ],
)
def test_wrong_argument_is_named(worded: Index, options: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match="|".join(options)):
        worded.search("a circle", **options)  # type: ignore[arg-type]


def test_without_a_query_to_embed_torch_is_not_imported(tmp_path: Path) -> None:
    make_index(tmp_path / "my.index", draw_vectors(30), text=["red"] * 30)
    code = f"""
import sys
from st_modules import index
assert not {{"lancedb", "pyarrow", "torch"}} & sys.modules.keys()
opened = index.Index.open({str(tmp_path / "my.index")!r})
assert len(opened.search_like("i00003", 4)) == 4 and len(opened.search("red", 5, mode="text")) == 5
assert opened.count("id < 'i00003'") == 3 and opened.errors() == []
assert opened.export({str(tmp_path / "x.parquet")!r}) == 30
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_clustered_vectors_are_ranked_as_in_numpy(tmp_path: Path) -> None:
    vectors = draw_clusters(1000)
    hits = open_index(tmp_path / "my.index", vectors).search_like("i00500", 50)
    assert [hit.id for hit in hits] == [name for name, _ in rank(vectors, 500)[:50]]
