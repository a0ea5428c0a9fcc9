"""Records of the MegaPairs dataset: read in its published form, written, and trained on."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from st_modules import ImageError, InputError, SentenceTransformer
from st_modules.megapairs import (
    Triplet,
    read_triplets,
    training_dataset,
    training_rows,
    triplets,
    write_parquet,
)
from tests.helpers.paths import GOLDEN

GOLDEN_GME = GOLDEN / "gme"
RECORDS: list[dict[str, Any]] = [
    {"q_img": "a/1.jpg", "q_text": ["in blue", "make it blue"], "t_img": "b/2.jpg", "hns": ["a/1.jpg", "c/3.jpg"]},
    {"q_img": "b/2.jpg", "q_text": ["with a “hat”\u2028"], "t_img": "a/1.jpg", "hns": ["b/2.jpg", "d.jpg", "e.jpg"]},
]
TRIPLETS = [Triplet(row["q_img"], tuple(row["q_text"]), row["t_img"], tuple(row["hns"])) for row in RECORDS]


def jsonl(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(texts), encoding="utf-8")
    return path


def test_lines_of_the_published_form_are_read(tmp_path: Path) -> None:
    assert list(read_triplets(jsonl(tmp_path / "megapairs.jsonl", *RECORDS))) == TRIPLETS


def test_parquet_that_another_program_wrote_is_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), tmp_path / "pairs.parquet")
    assert list(read_triplets(tmp_path / "pairs.parquet")) == TRIPLETS


def test_parquet_that_is_written_is_read_by_datasets(tmp_path: Path) -> None:
    import datasets

    write_parquet(TRIPLETS, tmp_path / "pairs.parquet")
    files = str(tmp_path / "pairs.parquet")
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert list(rows) == RECORDS


def test_a_line_that_is_written_is_the_published_form() -> None:
    assert [json.loads(triplet.to_json()) for triplet in TRIPLETS] == RECORDS


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("instructions", [{"q_texts": ["in blue"]}, {"q_text": "in blue"}], ids=["q_texts", "q_text"])
def test_other_spellings_of_the_instructions_are_read(
    tmp_path: Path, instructions: dict[str, Any], suffix: str
) -> None:
    path, record = tmp_path / f"pairs{suffix}", {"q_img": "1.jpg", "t_img": "2.jpg", "hns": [], **instructions}
    if suffix == ".jsonl":
        jsonl(path, record)
    else:
        pq.write_table(pa.Table.from_pylist([record | {"hns": ["1.jpg"], "more": 3}]), path)
    (triplet,) = read_triplets(path)
    assert triplet.q_text == ("in blue",)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "not a record"),
        ({**RECORDS[0], "q_img": None}, '"q_img" must be the path'),
        ({**RECORDS[0], "t_img": ""}, '"t_img" must be the path'),
        ({**RECORDS[0], "q_text": []}, '"q_text" is empty'),
        ({**RECORDS[0], "q_text": [1]}, '"q_text" must be a list'),
        ({**RECORDS[0], "q_text": [""]}, '"q_text" must be a list of strings that are not empty'),
        ({**RECORDS[0], "hns": "a.jpg"}, '"hns" must be a list'),
    ],
)
def test_a_wrong_line_is_an_error_that_names_it(tmp_path: Path, line: object, words: str) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", RECORDS[0], "", line)
    with pytest.raises(InputError) as error:
        list(read_triplets(path))
    assert f"{path}:3: " in str(error.value)
    assert words in str(error.value)


def test_a_wrong_row_of_parquet_is_an_error_that_names_it(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist([RECORDS[0], {**RECORDS[1], "t_img": ""}]), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match='row 2: "t_img"'):
        list(read_triplets(tmp_path / "pairs.parquet"))


@pytest.mark.parametrize(("name", "words"), [("no.jsonl", "no such file"), ("x.csv", ".jsonl or a .parquet")])
def test_a_file_of_another_kind_is_an_error(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "x.csv").write_text("")
    with pytest.raises(InputError, match=words):
        read_triplets(tmp_path / name)


@pytest.mark.parametrize(
    "damage",
    [lambda whole: b"PAR1 and nothing else PAR1", lambda whole: whole[:8] + bytes(40) + whole[48:]],
    ids=["no footer", "zeros"],
)
def test_a_damaged_parquet_file_is_an_error(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "pairs.parquet"
    pq.write_table(pa.Table.from_pylist(RECORDS), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="pairs.parquet: cannot be read as Parquet"):
        list(read_triplets(path))


def test_a_byte_order_mark_is_no_part_of_the_first_record(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.JSONL", *RECORDS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert list(read_triplets(path)) == TRIPLETS


def test_parquet_is_written_and_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triplets, "_ROWS_AT_ONCE", 2)
    write_parquet(TRIPLETS + TRIPLETS[:1], tmp_path / "pairs.parquet")
    assert pq.ParquetFile(tmp_path / "pairs.parquet").num_row_groups == 2
    assert list(read_triplets(tmp_path / "pairs.parquet")) == TRIPLETS + TRIPLETS[:1]


# ------------------------------------------------------------------------------------------------ training rows


def test_rows_have_anchor_positive_and_negatives_in_their_order() -> None:
    (row,) = training_rows(RECORDS[:1], "root", negatives=2, seed=3)
    assert row["anchor"].pop("text") in RECORDS[0]["q_text"]
    root = Path("root")
    assert list(row.items()) == [
        ("anchor", {"image": root / "a/1.jpg"}),
        ("positive", root / "b/2.jpg"),
        ("negative_1", root / "a/1.jpg"),
        ("negative_2", root / "c/3.jpg"),
    ]


def test_the_seed_chooses_the_instructions() -> None:
    def texts(seed: int) -> list[str]:
        return [row["anchor"]["text"] for row in training_rows(RECORDS[:1] * 20, "", seed=seed)]

    assert texts(1) == texts(1)
    assert texts(1) != texts(2)
    assert set(texts(1)) == set(RECORDS[0]["q_text"])


def test_rows_are_the_same_from_a_file_and_from_its_records(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "pairs.jsonl", *RECORDS)
    expected = list(training_rows(RECORDS, tmp_path, negatives=2))
    assert list(training_rows(path, tmp_path, negatives=2)) == expected
    assert list(training_rows(TRIPLETS, tmp_path, negatives=2)) == expected


def test_triplets_with_too_few_negatives_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        rows = list(training_rows(RECORDS, "", negatives=3))
    assert [row["positive"] for row in rows] == [Path("a/1.jpg")]
    assert "1 of 2 triplets have fewer than 3 hard negatives" in caplog.text


def test_a_file_where_no_triplet_has_enough_negatives_is_an_error() -> None:
    with pytest.raises(InputError, match="All 2 triplets have fewer than 4"):
        list(training_rows(RECORDS, "", negatives=4))


def test_a_wrong_record_is_an_error_that_has_its_place() -> None:
    with pytest.raises(InputError, match='record 1: "t_img"'):
        list(training_rows([RECORDS[0], {**RECORDS[1], "t_img": 2}], ""))


def test_a_negative_count_is_an_error() -> None:
    with pytest.raises(ValueError, match="negatives=-1"):
        training_rows(RECORDS, "", negatives=-1)


# --------------------------------------------------------------------------------------------- training dataset


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    for number, name in enumerate(("a/1.jpg", "b/2.jpg", "c/3.jpg", "d.jpg", "e.jpg")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (56, 56), (40 * number, 90, 200 - 30 * number)).save(path)
    return tmp_path


@pytest.fixture
def model() -> SentenceTransformer:
    weights = GOLDEN_GME / "checkpoint"
    return SentenceTransformer("gme-2b", weights=weights, device="cpu", min_image_tokens=4, max_image_tokens=16)


def test_a_dataset_has_the_rows(pictures: Path) -> None:
    dataset = training_dataset(RECORDS, pictures, negatives=2, seed=5)
    assert dataset.column_names == ["anchor", "positive", "negative_1", "negative_2"]
    expected = [
        {name: {key: str(value) for key, value in (item if isinstance(item, dict) else {"image": item}).items()}
         for name, item in row.items()}
        for row in training_rows(RECORDS, pictures, negatives=2, seed=5)
    ]  # fmt: skip
    assert list(dataset) == expected


def test_the_trainer_takes_a_step_on_a_dataset(pictures: Path, model: SentenceTransformer) -> None:
    from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    arguments = SentenceTransformerTrainingArguments(
        output_dir=str(pictures / "out"), max_steps=1, per_device_train_batch_size=2, learning_rate=1e-3,
        lr_scheduler_type="constant", use_cpu=True, save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    dataset = training_dataset(RECORDS, pictures, negatives=2)
    loss = MultipleNegativesRankingLoss(model)
    SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss).train()
    unchanged = [name for name, weight in model.named_parameters() if weight.equal(before[name])]
    assert unchanged == []


def test_a_missing_picture_is_an_error_and_never_embedded_as_its_path(
    pictures: Path, model: SentenceTransformer
) -> None:
    (pictures / "b/2.jpg").unlink()
    rows: Any = training_dataset(RECORDS[:1], pictures)
    (row,) = rows
    with pytest.raises(ImageError, match="2.jpg"):
        model.preprocess([row["positive"]])


def test_a_dataset_of_nothing_is_an_error() -> None:
    with pytest.raises(InputError, match="no triplet"):
        training_dataset([], "")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, st_modules.megapairs as m; m.training_rows, m.CaptionTemplates, m.Encoder, m.InstructionError;"
        "heavy = {'torch', 'numpy', 'faiss', 'pyarrow', 'datasets', 'langchain_core'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("package", ["faiss", "langchain_core", "pyarrow", "datasets"])
def test_a_missing_extra_is_named(package: str) -> None:
    code = f"""
import sys
sys.modules[{package!r}] = None
from st_modules.errors import MissingExtraError
from st_modules._imports import require
from tests.helpers.paths import GOLDEN
try:
    require({package!r}, extra="megapairs")
except MissingExtraError as error:
    assert 'pip install "st-modules[megapairs]"' in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True)
