"""Sources of rows: files, folders and MegaPairs records become the same items, and bad rows are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, Value
from PIL import Image as PILImage

from st_modules import InputError
from st_modules.train import ConfigError, SourceSettings, load_source
from st_modules.train.config import ColumnSettings, ItemSettings
from tests.helpers.gallery import Gallery

COLUMNS = ColumnSettings(
    anchor=ItemSettings(text="caption", image="query"),
    positive=ItemSettings(image="image"),
    negatives=(ItemSettings(text="other"),),
)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def table(gallery: Gallery) -> dict[str, list[Any]]:
    return {
        "id": [1, 2],
        "caption": ["make it blue", "grün, 猫"],
        "query": [gallery.query.name, None],
        "image": [path.name for path in gallery.paths[:2]],
        "other": ["a", "b"],
    }


def write_jsonl(rows: Dataset, folder: Path) -> dict[str, Any]:
    rows.to_json(folder / "rows.jsonl", force_ascii=False)
    return {"file": folder / "rows.jsonl"}


def write_csv(rows: Dataset, folder: Path) -> dict[str, Any]:
    rows.to_csv(folder / "rows.csv", index=False)
    return {"file": folder / "rows.csv"}


def write_tsv(rows: Dataset, folder: Path) -> dict[str, Any]:
    rows.to_csv(folder / "rows.tsv", index=False, sep="\t")
    return {"file": folder / "rows.tsv"}


def write_parquet(rows: Dataset, folder: Path) -> dict[str, Any]:
    rows.to_parquet(folder / "rows.parquet")
    return {"file": folder / "rows.parquet"}


def write_folder(rows: Dataset, folder: Path) -> dict[str, Any]:
    (folder / "parts").mkdir()
    rows.to_parquet(folder / "parts" / "train-00000.parquet")
    return {"folder": folder / "parts"}


def write_saved(rows: Dataset, folder: Path) -> dict[str, Any]:
    rows.save_to_disk(folder / "saved")
    return {"folder": folder / "saved"}


WRITERS = [write_jsonl, write_csv, write_tsv, write_parquet, write_folder, write_saved]


@pytest.mark.parametrize("write", WRITERS)
def test_every_kind_of_source_gives_the_same_items(
    write: Callable[[Dataset, Path], dict[str, Any]], gallery: Gallery, tmp_path: Path
) -> None:
    source = write(Dataset.from_dict(table(gallery)), tmp_path)
    rows = load_source(SourceSettings("rows", **source, columns=COLUMNS, images=gallery.query.parent))
    assert list(rows) == [
        {
            "anchor": {"text": "make it blue", "image": str(gallery.query)},
            "positive": {"image": str(gallery.paths[0])},
            "negative_1": {"text": "a"},
        },
        {
            "anchor": {"text": "grün, 猫"},
            "positive": {"image": str(gallery.paths[1])},
            "negative_1": {"text": "b"},
        },
    ]


CSV_COLUMNS = ColumnSettings(anchor=ItemSettings(text="query", image="image"), positive=ItemSettings(text="answer"))


@pytest.mark.parametrize("text", ["NA", "null", "nan", "007", "1.50", "true"])
def test_cells_of_csv_are_the_texts_that_are_written(tmp_path: Path, gallery: Gallery, text: str) -> None:
    picture = gallery.paths[0]
    (tmp_path / "rows.csv").write_text("query,image,answer\n" + f"{text},{picture},{text}\n,{picture},a\n")
    source = SourceSettings("rows", file=tmp_path / "rows.csv", columns=CSV_COLUMNS)
    assert load_source(source)[0] == {"anchor": {"text": text, "image": str(picture)}, "positive": {"text": text}}
    assert load_source(source)[1]["anchor"] == {"image": str(picture)}


@pytest.mark.parametrize(
    ("content", "places"),
    [
        ("query,image,answer\na,,b\na,\n\na,,b,c\n", ["3", "5"]),
        ("query,image,answer,answer\na,,b,c\n", ["1"]),
        ('query,image,answer\na,,"b\n', ["2"]),
    ],
    ids=["ragged", "twice", "quote"],
)
def test_damaged_csv_is_told_by_its_lines(tmp_path: Path, content: str, places: list[str]) -> None:
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(InputError) as caught:
        load_source(SourceSettings("rows", file=tmp_path / "rows.csv", columns=CSV_COLUMNS))
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{tmp_path / 'rows.csv'}:{place}" for place in places]


def test_paths_are_relative_to_the_folder_of_the_file(gallery: Gallery, tmp_path: Path) -> None:
    PILImage.new("RGB", (30, 30)).save(tmp_path / "a.png")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"caption": "a", "image": "a.png"}))
    columns = ColumnSettings(ItemSettings(text="caption"), ItemSettings(image="image"))
    rows = load_source(SourceSettings("rows", file=tmp_path / "rows.jsonl", columns=columns))
    assert rows[0]["positive"] == {"image": str(tmp_path / "a.png")}


def test_images_that_are_in_the_data_stay_encoded_until_they_are_read(
    gallery: Gallery, tmp_path: Path, tiny: Any
) -> None:
    paths = [str(path) for path in gallery.paths[:2]]
    encoded = [{"bytes": Path(path).read_bytes(), "path": None} for path in paths]
    features = Features({"caption": Value("string"), "image": Image()})
    Dataset.from_dict({"caption": ["a", "b"], "image": encoded}, features).to_parquet(tmp_path / "rows.parquet")
    columns = ColumnSettings(ItemSettings(text="caption"), ItemSettings(image="image"))
    found: Any = load_source(SourceSettings("rows", file=tmp_path / "rows.parquet", columns=columns))
    assert [row["positive"]["image"] for row in found] == [Path(path).read_bytes() for path in paths]
    vectors = tiny.encode([row["positive"] for row in found])
    assert vectors == pytest.approx(tiny.encode([{"image": path} for path in paths]), abs=1e-6)


def test_megapairs_records_are_rows_without_a_mapping(gallery: Gallery, tmp_path: Path) -> None:
    first, second, third, *_ = (path.name for path in gallery.paths)
    record = {"q_img": first, "q_text": ["make it blue"], "t_img": second, "hns": [first, third]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(record) + "\n")
    settings = SourceSettings("pairs", megapairs=tmp_path / "pairs.jsonl", images=gallery.query.parent, negatives=2)
    rows: Any = load_source(settings)
    (row,) = rows
    assert row["anchor"] == {"text": "make it blue", "image": str(gallery.paths[0])}
    assert [row[name] for name in settings.column_names[1:]] == [
        {"image": str(gallery.paths[number])} for number in (1, 0, 2)
    ]


def test_only_the_first_rows_are_used_where_there_is_a_limit(gallery: Gallery, tmp_path: Path) -> None:
    source = write_jsonl(Dataset.from_dict(table(gallery)), tmp_path)
    settings = SourceSettings("rows", **source, columns=COLUMNS, images=gallery.query.parent, limit=1)
    assert len(load_source(settings)) == 1


def test_bad_rows_are_named_together(gallery: Gallery, tmp_path: Path) -> None:
    spoiled = table(gallery)
    spoiled["image"][1], spoiled["caption"][1], spoiled["other"][0] = "missing.png", None, None
    source = write_jsonl(Dataset.from_dict(spoiled), tmp_path)
    with pytest.raises(InputError) as caught:
        load_source(SourceSettings("rows", **source, columns=COLUMNS, images=gallery.query.parent))
    assert str(caught.value).splitlines() == [
        "rows, row 0, negative_1: neither a text nor an image",
        "rows, row 1, anchor: neither a text nor an image",
        f"rows, row 1, positive: {gallery.query.parent / 'missing.png'}: no such file",
    ]


def test_a_megapairs_picture_that_is_missing_is_named(gallery: Gallery, tmp_path: Path) -> None:
    record = {"q_img": gallery.query.name, "q_text": ["a"], "t_img": "missing.png", "hns": [gallery.query.name]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(InputError, match=r"pairs, row 0, positive: .*missing\.png: no such file"):
        load_source(SourceSettings("pairs", megapairs=tmp_path / "pairs.jsonl", images=gallery.query.parent))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ('{"caption": "a"}', "rows.jsonl", 'no column "image"; there are "caption"'),
        ("caption;image\na b;c.png", "rows.csv", "cells are separated by commas"),
        ('{"caption": ', "rows.jsonl", "cannot be read"),
        ("", "rows.jsonl", "rows"),
        ("not parquet", "rows.parquet", "cannot be read"),
        ("a", "rows.txt", "known are .jsonl"),
        (None, "rows.jsonl", "no such file or folder"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_read_is_named(content: str | None, name: str, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    columns = ColumnSettings(ItemSettings(text="caption"), ItemSettings(image="image"))
    with pytest.raises(ConfigError, match="rows: ") as caught:
        load_source(SourceSettings("rows", file=tmp_path / name, columns=columns))
    assert message in str(caught.value)
