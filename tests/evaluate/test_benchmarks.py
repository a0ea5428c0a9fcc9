"""The list of benchmarks, UMRB's tasks among mteb's, reports, and the command."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import mteb
import pytest
from typer.testing import CliRunner, Result

from st_modules import cli, list_models
from st_modules.errors import ArgumentError
from st_modules.evaluate import (
    BENCHMARKS,
    UMRB,
    BenchmarkDataError,
    Outcome,
    Report,
    Suite,
    UnknownBenchmarkError,
    compare,
    open_benchmark,
    published,
)
from st_modules.evaluate.umrb import AUTHOR, PUBLISHED, SETTINGS, missing, umrb_benchmark
from tests.helpers.paths import GOLDEN, ROOT

COUNTS = {"T→T": 16, "I→I": 1, "T→I": 4, "T→VD": 10, "I→T": 4, "T→IT": 2, "IT→T": 5, "IT→I": 2, "IT→IT": 3}
CATEGORIES = {
    "T→T": "t2t",
    "I→I": "i2i",
    "T→I": "t2i",
    "T→VD": "t2i",
    "I→T": "i2t",
    "T→IT": "t2it",
    "IT→T": "it2t",
    "IT→I": "it2i",
    "IT→IT": "it2it",
}


# ----------------------------------------------------------------------------------------------------- UMRB


def test_umrb_has_47_tasks_in_nine_settings() -> None:
    assert dict(Counter(task.setting for task in UMRB)) == COUNTS
    assert len({task.name for task in UMRB}) == 47


@pytest.mark.parametrize("model", list(PUBLISHED))
def test_the_counts_of_the_settings_give_the_published_average(model: str) -> None:
    published = PUBLISHED[model]
    average = sum(published[setting] * COUNTS[setting] for setting in SETTINGS) / 47
    assert average == pytest.approx(published["Average"], abs=0.02)


def test_mteb_has_every_task_of_umrb() -> None:
    assert missing() == []


@pytest.mark.parametrize("task", UMRB, ids=lambda task: task.name)
def test_a_task_of_umrb_asks_for_what_its_setting_says(task: Any) -> None:
    metadata = mteb.get_task(task.name).metadata
    assert metadata.category == CATEGORIES[task.setting]
    assert (metadata.type == "DocumentUnderstanding") == (task.setting == "T→VD")


DATASETS = {
    "T→T": "ArguAna, Climate-FEVER, CQADupStack, DBPedia, FEVER, FiQA2018, HotpotQA, MSMARCO, NFCorpus, NQ, Quora, "
    "SCIDOCS, SciFact, Touche2020, TRECCOVID, WebQA",
    "I→I": "Nights",
    "T→I": "VisualNews, Fashion200k, MSCOCO, Flickr30k",
    "T→VD": "TAT-DQA, ArxivQA, DocVQA, InfoVQA, Shift Project, AI, Government Reports, Healthcare Industry, Energy, "
    "TabFQuad",
    "I→T": "VisualNews, Fashion200k, MSCOCO, Flickr30k",
    "T→IT": "WebQA, EDIS",
    "IT→T": "OVEN, INFOSEEK, ReMuQ, OKVQA, LLaVA",
    "IT→I": "FashionIQ, CIRR",
    "IT→IT": "OVEN, EVQA, INFOSEEK",
}
"""UMRB's datasets as the rendering of the paper lists them."""


def dataset_of(name: str) -> str:
    """What is left of a task's name in mteb without what mteb adds to the dataset's."""
    plain = re.sub(r"^Vidore(SyntheticDocQA)?|([IT]+2[IT]+)?(Retrieval)?$", "", name).lower()
    return {"encyclopediavqa": "evqa"}.get(plain, plain)


def test_umrb_has_the_datasets_that_the_rendering_of_the_paper_lists() -> None:
    listed = {
        setting: sorted(re.sub(r"\W", "", name).lower() for name in names.split(","))
        for setting, names in DATASETS.items()
    }
    ours = {setting: sorted(dataset_of(task.name) for task in UMRB if task.setting == setting) for setting in SETTINGS}
    assert ours == listed


@pytest.mark.parametrize("task", UMRB, ids=lambda task: task.name)
def test_a_task_of_umrb_has_the_metric_that_the_rendering_of_the_paper_states(task: Any) -> None:
    dataset = dataset_of(task.name)
    if task.setting == "T→T" and dataset != "webqa":
        assert task.metric == "ndcg_at_10"
    elif task.setting == "T→VD":
        assert task.metric == "ndcg_at_5"
    else:
        assert task.metric == f"hit_rate_at_{10 if dataset in ('fashion200k', 'fashioniq', 'okvqa') else 5}"


def test_an_author_calls_four_datasets_umrb() -> None:
    ours = {task.name for task in UMRB if task.source == AUTHOR}
    paths = {task.name: mteb.get_task(task.name).metadata.dataset.get("path", "") for task in UMRB}
    theirs = {name for name, path in paths.items() if path.startswith("izhx/UMRB-")}
    assert ours == theirs
    assert len(ours) == 4


@pytest.mark.parametrize("task", [task for task in UMRB if task.source == AUTHOR], ids=lambda task: task.name)
def test_the_author_states_the_same_metric(task: Any) -> None:
    assert mteb.get_task(task.name).metadata.main_score == task.metric


def test_umrb_is_a_benchmark_of_mteb() -> None:
    benchmark = umrb_benchmark()
    (grouping,) = (each for each in benchmark.aggregations if not isinstance(each, str))
    assert {group.label: len(group.tasks) for group in grouping.groups} == COUNTS
    assert len(benchmark) == 47


# ------------------------------------------------------------------------------------------------- look-up


def test_tasks_are_chosen_by_name_and_by_group() -> None:
    suite = open_benchmark("umrb")
    chosen = suite.select(["IT->I", "NFCorpus"])
    assert chosen == suite.select(["IT→I", "NFCorpus"])
    assert [entry.name for entry in chosen] == ["NFCorpus", "FashionIQIT2IRetrieval", "CIRRIT2IRetrieval"]


def test_a_misspelt_task_gets_a_hint() -> None:
    with pytest.raises(UnknownBenchmarkError, match="'NFCorpus'"):
        open_benchmark("umrb").select(["NFcorpus"])


def test_a_misspelt_benchmark_gets_a_hint() -> None:
    with pytest.raises(UnknownBenchmarkError, match="Did you mean 'circo'"):
        open_benchmark("circus")


def test_benchmarks_of_mteb_are_known() -> None:
    suite = open_benchmark("MIEB(lite)")
    assert len(suite.entries) == len(mteb.get_benchmark("MIEB(lite)").tasks)


@pytest.mark.parametrize("name", ["mmeb", "circo", "cirr", "fashioniq"])
def test_a_benchmark_of_files_needs_their_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(BenchmarkDataError, match="--data"):
        open_benchmark(name)
    with pytest.raises(BenchmarkDataError, match="no such folder"):
        open_benchmark(name, tmp_path / "nowhere")


def test_a_folder_for_a_benchmark_that_reads_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UnknownBenchmarkError, match="leave --data out"):
        open_benchmark("umrb", tmp_path)


# -------------------------------------------------------------------------------------------------- reports


def report(model: str = "gme-2b", published_for: str | None = "gme-2b") -> Report:
    scores = {
        "FashionIQIT2IRetrieval": {"hit_rate_at_10": 0.25},
        "CIRRIT2IRetrieval": {"hit_rate_at_5": 0.5},
        "NFCorpus": {"ndcg_at_10": 0.4},
    }
    return Report(open_benchmark("umrb"), model, scores, {"NIGHTSI2IRetrieval": "no | network"}, published_for)


def test_a_report_has_the_means_of_the_groups_beside_the_published_ones() -> None:
    rows = {row[0]: row[1:] for row in report().groups()}
    assert rows["IT→I"] == ("2", "37.50", "37.02")
    assert rows["T→T"] == ("1 of 16", "40.00", "55.93")
    assert rows["I→I"] == ("0 of 1", "–", "29.86")
    assert rows["Average"] == ("3 of 47", "38.33", "64.45")


def test_a_model_without_published_scores_stands_beside_those_of_others() -> None:
    assert report("tiny", None).groups_header[-2:] == ("gme-2b, published", "gme-7b, published")


def test_a_benchmark_without_published_scores_has_no_such_column() -> None:
    suite = Suite("drawings", open_benchmark("drawings").entries)
    assert Report(suite, "tiny", {}, {}, "tiny").groups_header == ("Group", "Tasks", "tiny")


def test_a_report_of_runs_has_the_last_score_of_each_task() -> None:
    first = Outcome("gme-2b", "gme-2b", {"NFCorpus": {"ndcg_at_10": 0.1}, "SciFact": {"ndcg_at_10": 0.2}})
    last = Outcome("gme-2b", "gme-2b", {"NFCorpus": {"ndcg_at_10": 0.3}}, {"FiQA2018": "no network"})
    made = Report.of(open_benchmark("umrb"), first, last)
    assert made.groups_header == ("Group", "Tasks", "gme-2b", "gme-2b, published")
    assert made.scores == {"NFCorpus": {"ndcg_at_10": 0.3}, "SciFact": {"ndcg_at_10": 0.2}}
    assert made.errors == {"FiQA2018": "no network"}


def test_a_report_says_which_weights_it_is_of() -> None:
    outcome = Outcome("gme-2b", "gme-2b", {"NFCorpus": {"ndcg_at_10": 0.1}}, version="weights-1/max_image_tokens_<64>")
    made = Report.of(open_benchmark("umrb"), outcome)
    assert " Weights and options: weights-1/max_image_tokens_<64>.\n\n" in made.markdown()
    assert " Weights and options: weights-1/max_image_tokens_&lt;64&gt;.</p>" in made.html()
    assert "Weights and options" not in report().markdown()


@pytest.mark.parametrize(
    "other",
    [Outcome("vlm2vec-v2", "vlm2vec-v2"), Outcome("gme-2b", "gme-2b", version="weights-2")],
    ids=["another model", "other weights"],
)
def test_a_report_refuses_outcomes_of_different_models(other: Outcome) -> None:
    first = Outcome("gme-2b", "gme-2b", {"NFCorpus": {"ndcg_at_10": 0.1}}, version="weights-1")
    with pytest.raises(ArgumentError, match=r"gme-2b weights-1, .*compare\(suite, \{"):
        Report.of(open_benchmark("umrb"), first, other)


def test_outcomes_are_compared_side_by_side() -> None:
    before = Outcome("mine", None, {"NFCorpus": {"ndcg_at_10": 0.1}, "SciFact": {"ndcg_at_10": 0.2}})
    after = Outcome("mine", None, {"NFCorpus": {"ndcg_at_10": 0.345, "recall_at_1": 1.0}}, {"FiQA2018": "no network"})
    assert compare(open_benchmark("umrb"), {"before": before, "after": after}).splitlines() == [
        "| Task | Group | Score | before | after |",
        "| --- | --- | --- | --- | --- |",
        "| FiQA2018 | T→T | ndcg_at_10 | – | failed |",
        "| NFCorpus | T→T | ndcg_at_10 | 10.00 | 34.50 |",
        "| NFCorpus | T→T | recall_at_1 | – | 100.00 |",
        "| SciFact | T→T | ndcg_at_10 | 20.00 | – |",
    ]


def test_a_report_of_a_long_path_is_named_by_its_end(tmp_path: Path) -> None:
    suite = Suite("drawings", open_benchmark("drawings").entries)
    (page, _), (other, _) = (Report(suite, "é" * 300 + name, {}, {}).write(tmp_path) for name in ("/a", "/b"))
    assert page.name.endswith("__a.md")
    assert other.name.endswith("__b.md")


def test_markdown_and_html_have_the_same_cells() -> None:
    made = report()
    lines = [line for line in made.markdown().splitlines() if line.startswith("|") and "---" not in line]
    markdown = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    page = [re.findall(r"<t[dh]>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", made.html())]
    assert [[cell.replace("\\|", "|") for cell in row] for row in markdown] == page
    assert ["NIGHTSI2IRetrieval", "I→I", "–", "failed: no | network"] in page


# -------------------------------------------------------------------------------------------------- command


def command(*args: str | Path) -> Result:
    return CliRunner().invoke(cli.app, ["evaluate", *map(str, args)])


def test_the_command_writes_results_and_tables(tmp_path: Path) -> None:
    result = command("tiny", "--tasks", "DrawingsT2I,it2i", "--quiet", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    kept = sorted(path.stem for path in tmp_path.rglob("Drawings*.json"))
    assert kept == ["DrawingsIT2I", "DrawingsT2I"]
    table = (tmp_path / "drawings-tiny.md").read_text(encoding="utf-8")
    (path,) = tmp_path.rglob("DrawingsT2I.json")
    score = json.loads(path.read_text(encoding="utf-8"))["scores"]["test"][0]["ndcg_at_10"]
    assert f"| DrawingsT2I | t2i | ndcg_at_10 | {100 * score:.2f} |" in table
    assert (tmp_path / "drawings-tiny.html").is_file()


def test_a_benchmark_can_be_run_in_parts(tmp_path: Path) -> None:
    command("tiny", "--tasks", "DrawingsT2I", "--quiet", "--out", tmp_path)
    result = command("tiny", "--tasks", "DrawingsI2T", "--quiet", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    table = (tmp_path / "drawings-tiny.md").read_text(encoding="utf-8")
    assert {"DrawingsT2I", "DrawingsI2T"} == set(re.findall(r"Drawings\w+", table))


def test_the_command_files_results_of_local_weights_apart(tmp_path: Path) -> None:
    weights = GOLDEN / "gme" / "checkpoint"
    result = command("gme-2b", "--weights", weights, "--tasks", "DrawingsT2I", "--quiet", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.rglob("DrawingsT2I.json")
    assert path.parent.parent.name == "Alibaba-NLP__gme-Qwen2-VL-2B-Instruct"
    assert path.parent.name.startswith("weights-")


def test_the_command_lists_tasks_without_a_model() -> None:
    result = command("--list", "--benchmark", "umrb", "--tasks", "IT→IT")
    assert result.exit_code == 0
    assert len([line for line in result.stdout.splitlines() if "IT→IT" in line]) == 3


def test_the_command_needs_a_model() -> None:
    result = command("--benchmark", "drawings")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--benchmark", "drawing"], "Unknown benchmark 'drawing'. Did you mean 'drawings'?"),
        (["--tasks", "DrawingT2I"], "drawings has no task 'DrawingT2I'. Did you mean 'DrawingsT2I'?"),
        (["--data", "."], "'drawings' reads no folder"),
    ],
)
def test_a_wrong_name_is_one_line_and_a_wrong_call(options: list[str], message: str) -> None:
    result = command("tiny", *options)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1


def test_a_failed_task_is_in_the_table_and_in_the_exit_code(tmp_path: Path) -> None:
    result = command(
        "tiny", "--benchmark", "mmeb", "--data", tmp_path, "--tasks", "MMEB-GQA", "--quiet", "--out", tmp_path
    )
    assert result.exit_code == 1
    assert "Error: 1 of 1 tasks failed." in result.stderr
    assert "no Parquet file" in (tmp_path / "mmeb-tiny.md").read_text(encoding="utf-8")


def instructed(tmp_path: Path, instructions: Any) -> Result:
    path = tmp_path / "instructions.json"
    path.write_text(json.dumps(instructions), encoding="utf-8")
    return command("tiny", "--tasks", "DrawingsT2I", "--quiet", "--out", tmp_path, "--instructions", path)


def test_instructions_are_read_from_a_file(tmp_path: Path) -> None:
    assert instructed(tmp_path, {"DrawingsT2I-query": "Find it.", "document": ""}).exit_code == 0
    (path,) = tmp_path.rglob("DrawingsT2I.json")
    assert path.parent.parent.name == "experiments"


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"DrawingsT3I": "Find it."}, 2),
        ({"DrawingsT2I-qurey": "Find it."}, 2),
        ({"DrawingsT2I-document-query": "Find it."}, 2),
        ({"query-document": "Find it."}, 2),
        ({"query": 3}, 1),
        (["Find it."], 1),
    ],
    ids=str,
)
def test_instructions_that_would_not_be_used_are_an_error(tmp_path: Path, content: Any, code: int) -> None:
    result = instructed(tmp_path, content)
    assert result.exit_code == code
    assert result.stderr.startswith(f"Error: {tmp_path / 'instructions.json'}: ")


# --------------------------------------------------------------------------------------------------- manual

MANUAL = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_manual_lists_the_tasks_of_each_setting(setting: Any) -> None:
    (row,) = (line for line in MANUAL.splitlines() if line.startswith(f"| {setting} |"))
    tasks = [task for task in UMRB if task.setting == setting]
    assert sorted(re.findall(r"`(\w+)`", row)) == sorted(task.name for task in tasks)
    published = " | ".join(str(PUBLISHED[model][setting]) for model in ("gme-2b", "gme-7b"))
    assert row.startswith(f"| {setting} | {len(tasks)} | {published} |")


def test_the_python_of_the_manual_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", MANUAL, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["results"].task_results[0].get_score() == names["outcome"].scores["DrawingsT2I"]["ndcg_at_10"]


def test_the_scores_in_the_manual_are_those_that_the_command_prints(tmp_path: Path) -> None:
    assert command("tiny", "--quiet", "--out", tmp_path).exit_code == 0
    printed = [
        line for line in (tmp_path / "drawings-tiny.md").read_text(encoding="utf-8").splitlines() if "_at_" in line
    ]
    assert len(printed) == 8
    assert [line for line in printed if line not in MANUAL] == []


# ------------------------------------------------------------------------------------- scores to compare


@pytest.mark.parametrize("name", [spec.name for spec in list_models() if spec.repo_id])
def test_every_model_has_similarities_to_check_or_a_benchmark_to_compare(name: str) -> None:
    assert (name in published.PUBLISHED) != (name in published.INSTEAD)


@pytest.mark.parametrize("suite", sorted({instead.benchmark for instead in published.INSTEAD.values()}))
def test_there_is_every_benchmark_that_is_named(suite: str) -> None:
    assert suite in BENCHMARKS or mteb.get_benchmark(suite).name == suite
