"""Benchmarks that are read from published files: small ones in their formats, their scores, and broken ones."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import pytrec_eval
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner

from st_modules import SentenceTransformer
from st_modules.cli import app
from st_modules.evaluate import BenchmarkDataError, Entry, collect, evaluate, open_benchmark, wrap_model
from st_modules.evaluate.circo import CIRCO, CIRCOTest
from st_modules.evaluate.cirr import CIRR, CIRRSubset, CIRRSubsetTest, CIRRTest
from st_modules.evaluate.fashioniq import FashionIQ
from st_modules.evaluate.local_task import LocalTask
from st_modules.evaluate.metrics import average_precision, is_best, rank
from st_modules.evaluate.mmeb import META_TASKS, MMEB
from tests.helpers.evaluation import draw_pictures, items, ranks, similarities

CHANGES = ("make it blue", "two of them", "move it to the left", "on a black background")
ASPECTS = (["compare_change"], ["cardinality", "compare_change"], ["negation", "cardinality"], ["compare_change"])


def write(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def edit(path: Path, change: Callable[[Any], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    write(path, change(content) or content)


def scores_of(model: SentenceTransformer, task: LocalTask, folder: Path, *metrics: str) -> dict[str, float]:
    entry = Entry(task.metadata.name, "", metrics, lambda: task)
    outcome = evaluate(wrap_model(model, "tiny"), [entry], folder, show_progress_bar=False)
    assert outcome.errors == {}
    return outcome.scores[task.metadata.name]


# -------------------------------------------------------------------------------------------------- metrics


def random_ranking(seed: int) -> tuple[dict[str, float], dict[str, int]]:
    rng = random.Random(seed)
    scores = {f"doc{number}": round(rng.random(), 2) for number in range(rng.randint(2, 40))}
    relevant = rng.sample(sorted(scores), rng.randint(1, len(scores)))
    return scores, dict.fromkeys(relevant, 1)


@pytest.mark.parametrize("k", [1, 5, 10, 25])
@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_that_of_trec_eval_but_for_the_divisor(seed: int, k: int) -> None:
    scores, relevant = random_ranking(seed)
    evaluator = pytrec_eval.RelevanceEvaluator({"q": relevant}, {f"map_cut.{k}"})
    theirs = evaluator.evaluate({"q": scores})["q"][f"map_cut_{k}"]
    ours = average_precision(rank(scores), relevant, k)
    assert ours == pytest.approx(theirs * len(relevant) / min(k, len(relevant)))


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_of_a_whole_ranking_is_that_of_scikit_learn(seed: int) -> None:
    scores, relevant = random_ranking(seed)
    distinct = {name: place for place, name in enumerate(reversed(rank(scores)))}
    labels = [name in relevant for name in distinct]
    theirs = average_precision_score(labels, list(distinct.values()))
    assert average_precision(rank(distinct), relevant, len(distinct)) == pytest.approx(theirs)


@pytest.mark.parametrize("seed", range(20))
def test_the_answer_is_best_where_numpy_finds_it_first(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 3, size=rng.integers(1, 6))
    scores = {str(number): float(value) for number, value in enumerate(values)}
    assert is_best(scores, "0") == (int(np.argmax(values)) == 0)


# ---------------------------------------------------------------------------------------------------- CIRCO


@pytest.fixture
def circo(tmp_path: Path) -> Path:
    folder = tmp_path / "CIRCO"
    ids = [int(f"{number}27") for number in range(1, 10)]
    names = [f"{number:012d}.jpg" for number in ids]
    draw_pictures(folder / "COCO2017_unlabeled" / "unlabeled2017", names)
    write(
        folder / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json",
        {"info": {}, "images": [{"id": i, "file_name": name} for i, name in zip(ids, names, strict=True)]},
    )
    write(
        folder / "annotations" / "val.json",
        [
            {
                "reference_img_id": ids[number],
                "target_img_id": ids[number + 1],
                "gt_img_ids": ids[number + 1 : number + 2 + 2 * number],
                "relative_caption": change,
                "shared_concept": "a shape",
                "semantic_aspects": ASPECTS[number],
                "id": number,
            }
            for number, change in enumerate(CHANGES)
        ],
    )
    return folder


def test_circo_scores_are_those_of_the_published_definition(
    tiny: SentenceTransformer, circo: Path, tmp_path: Path
) -> None:
    metrics = [f"circo_{score}_at_{k}" for score in ("map", "recall") for k in (5, 10, 25, 50)]
    found = scores_of(tiny, CIRCO(circo), tmp_path / "out", *metrics)
    data = CIRCO(circo).subsets()["default"]
    cosines = similarities(tiny, data["queries"], data["corpus"], tiny.prompts["it2i"])
    records = json.loads((circo / "annotations" / "val.json").read_text(encoding="utf-8"))
    defined: dict[str, Any] = {}
    for k in (5, 10, 25, 50):
        precisions, recalls = [], []
        for record in records:
            ranking = sorted(cosines[str(record["id"])].items(), key=lambda pair: -pair[1])
            hits = np.isin([int(name) for name, _ in ranking], record["gt_img_ids"])
            precision = np.cumsum(hits) * hits / np.arange(1, len(hits) + 1)
            precisions.append(precision[:k].sum() / min(len(record["gt_img_ids"]), k))
            recalls.append(str(record["target_img_id"]) in [name for name, _ in ranking[:k]])
        defined |= {f"circo_map_at_{k}": np.mean(precisions), f"circo_recall_at_{k}": np.mean(recalls)}
    assert found == pytest.approx(defined)
    assert 0 < found["circo_map_at_5"] < 1


def test_circo_has_a_score_for_each_semantic_aspect(tiny: SentenceTransformer, circo: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (entry,) = open_benchmark("circo", circo).entries
    found = evaluate(wrap_model(tiny, "tiny"), [entry], out, show_progress_bar=False).scores["CIRCO"]
    data = CIRCO(circo).subsets()["default"]
    cosines = similarities(tiny, data["queries"], data["corpus"], tiny.prompts["it2i"])
    precisions: dict[str, list[float]] = {"cardinality": [], "compare_change": [], "negation": []}
    for record in json.loads((circo / "annotations" / "val.json").read_text(encoding="utf-8")):
        ranking = sorted(cosines[str(record["id"])].items(), key=lambda pair: -pair[1])[:10]
        hits = np.isin([int(name) for name, _ in ranking], record["gt_img_ids"])
        precision = (np.cumsum(hits) * hits / np.arange(1, len(hits) + 1)).sum() / min(len(record["gt_img_ids"]), 10)
        for aspect in record["semantic_aspects"]:
            precisions[aspect].append(precision)
    expected = {f"circo_map_at_10_{aspect}": np.mean(values) for aspect, values in precisions.items()}
    assert len(set(expected.values())) == 3
    assert {name: score for name, score in found.items() if name in expected} == pytest.approx(expected)
    assert len(found) == 8 + 3


def test_circo_without_semantic_aspects_has_its_other_scores(
    tiny: SentenceTransformer, circo: Path, tmp_path: Path
) -> None:
    edit(circo / "annotations" / "val.json", lambda records: [record.pop("semantic_aspects") for record in records][:0])
    outcome = evaluate(
        wrap_model(tiny, "tiny"), open_benchmark("circo", circo).entries, tmp_path / "out", show_progress_bar=False
    )
    assert outcome.errors == {}
    assert list(outcome.scores["CIRCO"]) == [
        f"circo_{score}_at_{k}" for score in ("map", "recall") for k in (5, 10, 25, 50)
    ]


def test_a_query_is_the_reference_with_the_caption(circo: Path) -> None:
    queries = items(CIRCO(circo).subsets()["default"]["queries"])
    assert [query["text"] for query in queries] == list(CHANGES)
    assert [query["text"] for query in queries if query["image"] is None] == []


# ----------------------------------------------------------------------------------------------------- CIRR


@pytest.fixture
def cirr(tmp_path: Path) -> Path:
    folder = tmp_path / "CIRR"
    names = [f"dev-{number}-0-img0" for number in range(12)]
    draw_pictures(folder / "dev", [f"{name}.png" for name in names])
    write(folder / "cirr" / "image_splits" / "split.rc2.val.json", {name: f"./dev/{name}.png" for name in names})
    write(
        folder / "cirr" / "captions" / "cap.rc2.val.json",
        [
            {
                "pairid": 100 + number,
                "reference": names[number],
                "target_hard": names[number + 1],
                "target_soft": {names[number + 1]: 1.0},
                "caption": change,
                "img_set": {"id": number, "members": names[number : number + 6]},
            }
            for number, change in enumerate(CHANGES)
        ],
    )
    return folder


@pytest.mark.parametrize("task", [CIRR, CIRRSubset])
def test_cirr_leaves_the_reference_out_of_the_ranking(
    tiny: SentenceTransformer, cirr: Path, tmp_path: Path, task: type[CIRR]
) -> None:
    found = scores_of(tiny, task(cirr), tmp_path / "out", *(f"recall_at_{k}" for k in task.k_values))
    data = task(cirr).subsets()["default"]
    cosines = similarities(tiny, data["queries"], data["corpus"], tiny.prompts["it2i"])
    records = {
        str(record["pairid"]): record
        for record in json.loads((cirr / "cirr" / "captions" / "cap.rc2.val.json").read_text(encoding="utf-8"))
    }
    references_first = 0
    for query, record in records.items():
        references_first += max(cosines[query], key=lambda name: cosines[query][name]) == record["reference"]
        among = set(record["img_set"]["members"]) if task is CIRRSubset else set(cosines[query])
        cosines[query] = {name: cosines[query][name] for name in among - {record["reference"]}}
    assert references_first
    places = ranks(cosines, {query: record["target_hard"] for query, record in records.items()})
    assert found == pytest.approx({f"recall_at_{k}": np.mean(places < k) for k in task.k_values}, abs=1e-5)


# ---------------------------------------------------------------------------------------- files for servers


@pytest.fixture
def circo_test(circo: Path) -> Path:
    """CIRCO with its test split, whose records have no answers."""
    records = json.loads((circo / "annotations" / "val.json").read_text(encoding="utf-8"))
    public = ("reference_img_id", "relative_caption", "shared_concept")
    tests = [{**{key: record[key] for key in public}, "id": 3 - record["id"]} for record in records]
    write(circo / "annotations" / "test.json", tests)
    return circo


@pytest.fixture
def cirr_test(cirr: Path) -> Path:
    """CIRR with its test split, whose records have no answers and whose pictures are others."""
    names = [f"test1-{number}-0-img0" for number in range(10)]
    draw_pictures(cirr / "test1", [f"{name}.png" for name in names], seed=6)
    write(cirr / "cirr" / "image_splits" / "split.rc2.test1.json", {name: f"./test1/{name}.png" for name in names})
    write(
        cirr / "cirr" / "captions" / "cap.rc2.test1.json",
        [
            {
                "pairid": 12063 + number,
                "reference": names[number],
                "caption": change,
                "img_set": {"id": number, "members": names[number : number + 6], "reference_rank": 0},
            }
            for number, change in enumerate(CHANGES)
        ],
    )
    return cirr


def file_of(model: SentenceTransformer, task: LocalTask, folder: Path, **options: Any) -> Path:
    entry = Entry(task.metadata.name, "", (), lambda: task)
    outcome = evaluate(wrap_model(model, "tiny"), [entry], folder, show_progress_bar=False, **options)
    assert outcome.errors == outcome.scores == {}
    return outcome.submissions[task.metadata.name]


def content_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_circos_server_gets_the_ids_of_the_first_pictures_of_each_query(
    tiny: SentenceTransformer, circo_test: Path, tmp_path: Path
) -> None:
    found = content_of(file_of(tiny, CIRCOTest(circo_test), tmp_path / "out"))
    data = CIRCOTest(circo_test).subsets()["default"]
    cosines = similarities(tiny, data["queries"], data["corpus"], tiny.prompts["it2i"])
    assert found == {
        query: [int(name) for name in sorted(scores, key=scores.__getitem__, reverse=True)]
        for query, scores in cosines.items()
    }
    records = content_of(circo_test / "annotations" / "test.json")
    assert list(found) == [str(record["id"]) for record in records] == ["3", "2", "1", "0"]
    assert data["queries"]["text"] == list(CHANGES)


@pytest.mark.parametrize(("task", "metric", "places"), [(CIRRTest, "recall", 50), (CIRRSubsetTest, "recall_subset", 3)])
def test_cirrs_server_gets_the_names_of_the_first_pictures_but_the_reference(
    tiny: SentenceTransformer, cirr_test: Path, tmp_path: Path, task: type[CIRRTest], metric: str, places: int
) -> None:
    found = content_of(file_of(tiny, task(cirr_test), tmp_path / "out"))
    data = task(cirr_test).subsets()["default"]
    cosines = similarities(tiny, data["queries"], data["corpus"], tiny.prompts["it2i"])
    expected: dict[str, Any] = {"version": "rc2", "metric": metric}
    for record in content_of(cirr_test / "cirr" / "captions" / "cap.rc2.test1.json"):
        scores = cosines[str(record["pairid"])]
        among = set(record["img_set"]["members"]) if task is CIRRSubsetTest else set(scores)
        best = sorted(among - {record["reference"]}, key=scores.__getitem__, reverse=True)
        expected[str(record["pairid"])] = best[:places]
    assert found == expected
    assert [name for name in found["12063"] if not name.startswith("test1-")] == []


def test_the_server_gets_fifty_pictures_of_circo_and_cirr_and_three_of_a_set(circo_test: Path, cirr_test: Path) -> None:
    ranking = [str(number) for number in range(60)]
    assert CIRCOTest(circo_test).submission({"7": ranking})["7"] == list(range(50))
    assert CIRRTest(cirr_test).submission({"7": ranking})["7"] == ranking[:50]
    assert CIRRSubsetTest(cirr_test).submission({"7": ranking})["7"] == ["0", "1", "2"]


def test_a_file_for_a_server_stands_beside_the_results_and_nothing_else_does(
    tiny: SentenceTransformer, circo_test: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    model = wrap_model(tiny, "tiny")
    outcome = evaluate(model, open_benchmark("circo", circo_test).entries, out, show_progress_bar=False)
    (result,) = out.rglob("CIRCO.json")
    revision = CIRCOTest(circo_test).metadata.revision
    expected = out / "submissions" / result.parent.relative_to(out / "results") / f"CIRCOTest-{revision}.json"
    assert outcome.submissions == {"CIRCOTest": expected}
    assert [path for path in (out / "submissions").rglob("*") if path.is_file()] == [expected]
    assert collect(model, open_benchmark("circo", circo_test).entries, out).submissions == outcome.submissions


def test_a_file_for_a_server_is_written_again_for_other_data_or_when_asked(
    tiny: SentenceTransformer, circo_test: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    path = file_of(tiny, CIRCOTest(circo_test), out)
    whole = path.read_text(encoding="utf-8")
    write(path, "kept")
    assert file_of(tiny, CIRCOTest(circo_test), out) == path
    assert path.read_text(encoding="utf-8") == "kept"
    assert file_of(tiny, CIRCOTest(circo_test), out, overwrite=True) == path
    assert path.read_text(encoding="utf-8") == whole
    edit(circo_test / "annotations" / "test.json", lambda records: records[:2])
    other = file_of(tiny, CIRCOTest(circo_test), out)
    assert (other != path, len(content_of(other))) == (True, 2)


def test_a_file_for_a_server_is_not_collected_where_it_or_the_data_are_gone(
    tiny: SentenceTransformer, circo_test: Path, tmp_path: Path
) -> None:
    model, entries, out = wrap_model(tiny, "tiny"), open_benchmark("circo", circo_test).entries[1:], tmp_path / "out"
    assert collect(model, entries, out).submissions == {}
    evaluate(model, entries, out, show_progress_bar=False)
    (circo_test / "annotations" / "test.json").unlink()
    assert collect(model, entries, out).submissions == {}


@pytest.mark.parametrize(("name", "tests"), [("circo", ["CIRCOTest"]), ("cirr", ["CIRRTest", "CIRRSubsetTest"])])
def test_a_test_split_is_a_task_where_its_file_is_there(
    name: str, tests: list[str], request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(name)
    before = [entry.name for entry in open_benchmark(name, folder).entries]
    request.getfixturevalue(f"{name}_test")
    suite = open_benchmark(name, folder)
    assert [entry.name for entry in suite.entries] == [*before, *tests]
    assert [entry.name for entry in suite.select(["test split"])] == tests
    assert [entry.name for entry in suite.select([])] == before


def test_mteb_is_told_that_a_test_split_has_no_scores(tiny: SentenceTransformer, circo_test: Path) -> None:
    model: Any = wrap_model(tiny, "tiny")
    with pytest.raises(BenchmarkDataError, match="CIRCOTest has no public answers"):
        mteb.evaluate(model, CIRCOTest(circo_test), cache=None, show_progress_bar=False)


def test_the_command_says_where_the_file_for_a_server_is(circo_test: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--benchmark", "circo", "--data", str(circo_test), "--out", str(out), "--quiet"]
    result = CliRunner().invoke(app, ["evaluate", "tiny", *options, "--tasks", "CIRCO,test split"])
    assert result.exit_code == 0, result.output
    (path,) = (out / "submissions").rglob("*.json")
    report = (out / "circo-tiny.md").read_text(encoding="utf-8")
    assert f"| CIRCOTest | test split | file for the server | {path} |" in report
    assert "1 of 1 tasks have one" in report
    groups = report.split("\n\n")[2].splitlines()[2:]
    assert [row.split(" | ")[:2] for row in groups] == [["| CIRCO", "1"], ["| Average", "1"]]
    assert f"CIRCOTest, for its server: {path}\n" in result.stdout
    listed = CliRunner().invoke(app, ["evaluate", "--list", *options])
    assert re.search(r"CIRCOTest +test split +file for the server", listed.stdout)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.pop("pairid"), "it has no 'pairid'"),
        (lambda record: record.update(reference="nobody"), "its image 'nobody' is not in"),
        (lambda record: record["img_set"].update(members=["nobody"]), "its image 'nobody' is not in"),
    ],
)
def test_a_mistake_in_a_test_split_is_named_with_its_record(
    cirr_test: Path, change: Callable[[Any], Any], problem: str
) -> None:
    def second(records: Any) -> None:
        change(records[1])

    edit(cirr_test / "cirr" / "captions" / "cap.rc2.test1.json", second)
    fails(lambda: CIRRSubsetTest(cirr_test), "cap.rc2.test1.json: record 1", problem)


# ------------------------------------------------------------------------------------------------ FashionIQ


@pytest.fixture
def fashioniq(tmp_path: Path) -> Path:
    folder = tmp_path / "FashionIQ"
    for seed, kind in enumerate(("dress", "shirt", "toptee")):
        names = [f"B{seed}{number:03d}" for number in range(12 - seed)]
        draw_pictures(folder / "images", [f"{name}.{'png' if seed else 'jpg'}" for name in names], seed=seed)
        write(folder / "image_splits" / f"split.{kind}.val.json", names)
        write(
            folder / "captions" / f"cap.{kind}.val.json",
            [
                {"candidate": names[number], "target": names[-1 - number], "captions": [f"{change}.", "it is bigger"]}
                for number, change in enumerate(CHANGES)
            ],
        )
    return folder


def test_fashioniq_scores_are_means_over_the_kinds_of_clothes(
    tiny: SentenceTransformer, fashioniq: Path, tmp_path: Path
) -> None:
    found = scores_of(tiny, FashionIQ(fashioniq), tmp_path / "out", "recall_at_5", "recall_at_10")
    places = []
    for data in FashionIQ(fashioniq).subsets().values():
        right = {query: next(iter(names)) for query, names in data["relevant_docs"].items()}
        places.append(ranks(similarities(tiny, data["queries"], data["corpus"], tiny.prompts["it2i"]), right))
    assert found["recall_at_5"] == pytest.approx(np.mean([np.mean(kind < 5) for kind in places]), abs=1e-5)
    assert found["recall_at_10"] == pytest.approx(np.mean([np.mean(kind < 10) for kind in places]), abs=1e-5)


def test_both_captions_are_joined_without_their_stops(fashioniq: Path) -> None:
    queries = FashionIQ(fashioniq).subsets()["dress"]["queries"]
    assert queries["text"][0] == "make it blue and it is bigger"


def test_results_of_a_part_of_the_kinds_are_not_collected(
    tiny: SentenceTransformer, fashioniq: Path, tmp_path: Path
) -> None:
    model, entries = wrap_model(tiny, "tiny"), open_benchmark("fashioniq", fashioniq).entries
    evaluate(model, entries, tmp_path / "out", show_progress_bar=False)
    assert set(collect(model, entries, tmp_path / "out").scores) == {"FashionIQ"}
    (path,) = (tmp_path / "out").rglob("FashionIQ.json")
    edit(path, lambda result: result["scores"]["val"].pop() and None)
    assert collect(model, entries, tmp_path / "out").scores == {}


def test_results_are_not_collected_where_the_files_are_gone(
    tiny: SentenceTransformer, mmeb: Path, tmp_path: Path
) -> None:
    model, entries = wrap_model(tiny, "tiny"), open_benchmark("mmeb", mmeb).select(["MMEB-ImageNet-1K"])
    evaluate(model, entries, tmp_path / "out", show_progress_bar=False)
    (mmeb / "ImageNet-1K" / "test-00000-of-00001.parquet").unlink()
    assert collect(model, entries, tmp_path / "out").scores == {}


# ----------------------------------------------------------------------------------------------------- MMEB


def write_mmeb(folder: Path, dataset: str, rows: list[dict[str, Any]]) -> None:
    path = folder / dataset / "test-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)


def mmeb_row(**fields: Any) -> dict[str, Any]:
    return {
        "qry_text": "<|image_1|>\nRepresent the given image for classification\n",
        "qry_img_path": "ImageNet-1K/0.png",
        "tgt_text": ["circle", "star", "heart"],
        "tgt_img_path": ["", "", ""],
        **fields,
    }


@pytest.fixture
def mmeb(tmp_path: Path) -> Path:
    folder = tmp_path / "MMEB-eval"
    draw_pictures(folder / "eval_images" / "ImageNet-1K", [f"{number}.png" for number in range(6)])
    texts = ["a circle", "a star", "a heart", "a square", "a moon"]
    rows = [
        mmeb_row(qry_img_path=f"ImageNet-1K/{number}.png", tgt_text=[texts[number], *texts], tgt_img_path=[""] * 6)
        for number in range(5)
    ]
    rows.append(
        mmeb_row(
            qry_text="a picture like this",
            qry_img_path="",
            tgt_text=["<|image_1|>\nRepresent the given image.", "<|image_1|>\nRepresent the given image.", "a star"],
            tgt_img_path=["ImageNet-1K/1.png", "ImageNet-1K/2.png", ""],
        )
    )
    write_mmeb(folder, "ImageNet-1K", rows)
    return folder


def test_mmeb_scores_are_how_often_the_first_candidate_is_best(
    tiny: SentenceTransformer, mmeb: Path, tmp_path: Path
) -> None:
    found = scores_of(tiny, MMEB(mmeb, "ImageNet-1K"), tmp_path / "out", "accuracy")
    right = 0
    table = pyarrow.parquet.read_table(mmeb / "ImageNet-1K").to_pylist()
    for row in table:
        query = tiny.encode_query(_item(mmeb, row["qry_text"], row["qry_img_path"]))
        pairs = zip(row["tgt_text"], row["tgt_img_path"], strict=True)
        candidates = tiny.encode_document([_item(mmeb, text, image) for text, image in pairs])
        scores = candidates @ query
        # The first candidate is there twice, and wins the tie however a machine rounds its two products.
        right += int(scores[0] >= scores.max() - 1e-6)
    assert found["accuracy"] == pytest.approx(right / len(table))
    assert 0 < right < len(table)


def _item(folder: Path, text: str, image: str) -> dict[str, Any]:
    item = {"text": text.replace("<|image_1|>\n", "")}
    return item | ({"image": folder / "eval_images" / image} if image else {})


def test_the_instruction_in_a_text_stays_and_no_other_is_added(mmeb: Path) -> None:
    task = MMEB(mmeb, "ImageNet-1K")
    assert task.subsets()["default"]["queries"]["text"][0] == "Represent the given image for classification\n"
    assert task.metadata.prompt == {"query": "", "document": ""}


def test_mmeb_has_36_datasets_of_four_kinds(mmeb: Path) -> None:
    assert [len(names) for names in META_TASKS.values()] == [10, 10, 12, 4]
    suite = open_benchmark("mmeb", mmeb)
    assert len({entry.name for entry in suite.entries}) == 36


def test_a_dataset_that_is_not_there_fails_by_itself(tiny: SentenceTransformer, mmeb: Path, tmp_path: Path) -> None:
    entries = open_benchmark("mmeb", mmeb).select(["MMEB-ImageNet-1K", "MMEB-GQA"])
    outcome = evaluate(wrap_model(tiny, "tiny"), entries, tmp_path / "out", show_progress_bar=False)
    assert set(outcome.scores) == {"MMEB-ImageNet-1K"}
    assert outcome.errors == {"MMEB-GQA": f"{mmeb / 'GQA'}: no Parquet file of MMEB-eval in it."}


# ------------------------------------------------------------------------------------------- changed files


def test_other_answers_are_other_data(circo: Path) -> None:
    before, same = (CIRCO(circo).metadata.revision for _ in range(2))
    edit(circo / "annotations" / "val.json", lambda records: records[:-1])
    assert before == same != CIRCO(circo).metadata.revision


# -------------------------------------------------------------------------------------------- broken files


def fails(make: Callable[[], LocalTask], *words: str) -> None:
    with pytest.raises(BenchmarkDataError) as caught:
        make().subsets()
    assert [word for word in words if word not in str(caught.value)] == []


def test_a_missing_file_is_named(circo: Path) -> None:
    (circo / "annotations" / "val.json").unlink()
    fails(lambda: CIRCO(circo), "annotations/val.json", "cannot be read")


@pytest.mark.parametrize("content", ["[{]", "[" * 9999], ids=["cut", "deep"])
def test_a_file_that_is_no_json_is_named(circo: Path, content: str) -> None:
    write(circo / "annotations" / "val.json", content)
    fails(lambda: CIRCO(circo), "annotations/val.json", "not a JSON file")


CIRCO_MISTAKES: list[tuple[Callable[[Any], Any], str]] = [
    (lambda records: records[2].pop("relative_caption"), "it has no 'relative_caption'"),
    (lambda records: records[2].update(relative_caption=3), "'relative_caption' must be a string"),
    (lambda records: records[2].update(gt_img_ids=[]), "'gt_img_ids' must be a list of ids"),
    (lambda records: records[2].update(gt_img_ids=[None]), "'gt_img_ids' must be an id"),
    (lambda records: records[2].update(id="2\0"), "'id' must be an id without control characters"),
    (lambda records: records[2].update(reference_img_id=5), "its image '5' is not in"),
    (lambda records: records[2].update(target_img_id=5), "its image '5' is not in"),
    (lambda records: records[2].update(gt_img_ids=[127, 5]), "its image '5' is not in"),
    (lambda records: records[2].update(id=0), "its 'id' 0 is that of an earlier record too"),
    (lambda records: records[2].pop("semantic_aspects"), "it has no 'semantic_aspects'"),
    (lambda records: records[2].update(semantic_aspects=["colour"]), "'colour' is none of CIRCO's semantic aspects"),
]


@pytest.mark.parametrize(("change", "problem"), CIRCO_MISTAKES, ids=[problem for _, problem in CIRCO_MISTAKES])
def test_a_mistake_in_circo_is_named_with_its_record(circo: Path, change: Callable[[Any], Any], problem: str) -> None:
    def once(records: Any) -> None:
        change(records)

    edit(circo / "annotations" / "val.json", once)
    fails(lambda: CIRCO(circo), "val.json: record 2", problem)


@pytest.mark.parametrize("content", [[], {}, [3]], ids=str)
def test_a_file_of_another_shape_is_named(circo: Path, content: Any) -> None:
    write(circo / "annotations" / "val.json", content)
    fails(lambda: CIRCO(circo), "val.json")


def test_a_picture_that_is_not_there_is_named_with_its_record(circo: Path) -> None:
    missing = sorted((circo / "COCO2017_unlabeled" / "unlabeled2017").iterdir())[3]
    missing.unlink()
    fails(lambda: CIRCO(circo), "image 3", str(missing), "does not exist")


def test_a_gallery_without_images_is_named(circo: Path) -> None:
    path = circo / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    write(path, {"info": {}})
    fails(lambda: CIRCO(circo), str(path), "'images'")


def test_a_picture_in_the_gallery_has_a_number(circo: Path) -> None:
    path = circo / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    edit(path, lambda content: content["images"][4].update(id="527"))
    fails(lambda: CIRCO(circo), f"{path}: image 4", "'id' must be a whole number")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.update(reference="nobody"), "its image 'nobody' is not in"),
        (lambda record: record.update(target_hard="nobody"), "its image 'nobody' is not in"),
        (lambda record: record.update(img_set=[]), "'img_set' must be an object"),
        (lambda record: record["img_set"].update(members=["nobody"]), "its image 'nobody' is not in"),
        (lambda record: record["img_set"].update(members=record["img_set"]["members"][2:]), "not among the 'members'"),
    ],
)
def test_a_mistake_in_cirr_is_named_with_its_record(cirr: Path, change: Callable[[Any], Any], problem: str) -> None:
    def second(records: Any) -> None:
        change(records[1])

    edit(cirr / "cirr" / "captions" / "cap.rc2.val.json", second)
    fails(lambda: CIRRSubset(cirr), "cap.rc2.val.json: record 1", problem)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda record: record.update(candidate="nobody"), "its image 'nobody' is not in"),
        (lambda record: record.update(captions="text"), "'captions' must be a list of strings"),
        (lambda record: record.update(captions=["", " "]), "its 'captions' say nothing"),
    ],
)
def test_a_mistake_in_fashioniq_is_named_with_its_record(
    fashioniq: Path, change: Callable[[Any], Any], problem: str
) -> None:
    def third(records: Any) -> None:
        change(records[2])

    edit(fashioniq / "captions" / "cap.shirt.val.json", third)
    fails(lambda: FashionIQ(fashioniq), "cap.shirt.val.json: record 2", problem)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"tgt_text": ["circle"]}, "1 'tgt_text' and 3 'tgt_img_path'"),
        ({"tgt_text": "circle"}, "'tgt_text' must be a list of strings"),
        ({"qry_img_path": "nowhere.png"}, "nowhere.png does not exist"),
        ({"qry_img_path": ""}, "is about an image, and none is given"),
        ({"tgt_text": ["circle", "", "star"]}, "neither text nor image"),
        ({"qry_text": None}, "'qry_text' must be a string"),
    ],
)
def test_a_mistake_in_mmeb_is_named_with_its_row(mmeb: Path, fields: dict[str, Any], problem: str) -> None:
    rows = [mmeb_row(), mmeb_row(**fields)] if not isinstance(fields.get("tgt_text"), str) else [mmeb_row(**fields)]
    write_mmeb(mmeb, "VOC2007", rows)
    fails(lambda: MMEB(mmeb, "VOC2007"), f"test-00000-of-00001.parquet: row {len(rows) - 1}", problem)


def test_a_file_that_is_no_parquet_is_named(mmeb: Path) -> None:
    write(mmeb / "VOC2007" / "test.parquet", "no parquet")
    fails(lambda: MMEB(mmeb, "VOC2007"), "test.parquet", "not a Parquet file")
