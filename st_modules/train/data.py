"""From a source of the configuration to a data set whose columns are items: texts, images, and both."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, load_dataset, load_from_disk

from st_modules.errors import InputError
from st_modules.files.kinds import DELIMITERS
from st_modules.files.tables import check_csv, list_columns, quote
from st_modules.train.config import ColumnSettings, ItemSettings, SourceSettings
from st_modules.train.validation import ConfigError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://|data:", re.IGNORECASE)
_READERS = {".jsonl": "json", ".ndjson": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}
_ROWS_AT_ONCE = 1000
_MOST_PROBLEMS = 20


def load_source(settings: SourceSettings) -> Dataset:
    """Load a source and check every row of it, without opening an image.

    Args:
        settings: What the source is, and which columns its items are made of.

    Returns:
        A data set with the columns ``anchor``, ``positive``, ``negative_1`` …, whose values are what ``encode`` takes.
        Images are read when a batch is made.

    Raises:
        ConfigError: The source cannot be read, or has no such column.
        InputError: Rows lack a text or an image, or an image file is missing: one line for each, up to twenty. Or a CSV
            file is damaged: one line for each row that is.
    """
    if settings.megapairs is not None:
        rows = _limit(_megapairs(settings), settings.limit)
        _raise_all(_missing_files(rows, settings.name))
        return rows
    assert settings.columns is not None
    rows = _leave_encoded(_limit(_read(settings), settings.limit))
    used = _used_columns(settings.columns)
    if unknown := sorted(used - set(rows.column_names)):
        raise ConfigError(
            f"{settings.name}: no column {quote(unknown[0])}; there are {list_columns(rows.column_names)}."
        )
    rows = rows.select_columns(sorted(used))
    if not len(rows):
        raise ConfigError(f"{settings.name}: there are no rows in it.")
    columns, root = _items_of(settings.columns), _root(settings)
    _raise_all(_row_problems(rows, columns, root, settings.name))
    return rows.with_transform(partial(_to_items, columns=columns, root=root))


def _read(settings: SourceSettings) -> Dataset:
    source = settings.file or settings.folder or settings.dataset
    if isinstance(source, Path) and not source.exists():
        raise ConfigError(f"{settings.name}: {source}: no such file or folder.")
    if settings.file and settings.file.suffix.lower() not in _READERS:
        raise ConfigError(f"{settings.name}: {source}: known are {', '.join(_READERS)}.")
    try:
        if settings.file:
            return _read_file(settings.file)
        if settings.folder and (settings.folder / "state.json").is_file():
            return load_from_disk(str(settings.folder))  # type: ignore[return-value]
        return load_dataset(str(source), settings.subset, split=settings.split)
    except InputError:
        raise
    except Exception as error:  # every reader raises its own
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ConfigError(f"{settings.name}: {source} cannot be read: {reason}") from error


def _read_file(file: Path) -> Dataset:
    suffix = file.suffix.lower()
    options = _csv_options(file) if suffix in DELIMITERS else {}
    return load_dataset(_READERS[suffix], data_files=str(file), split="train", **options)


def _csv_options(file: Path) -> dict[str, Any]:
    """Have every cell read as it is written: "NA" and "007" are texts, and only an empty cell is none."""
    features = datasets.Features({name: datasets.Value("string") for name in check_csv(file)})
    return {
        "sep": DELIMITERS[file.suffix.lower()],
        "features": features,
        "keep_default_na": False,
        "na_values": [""],
    }


def _megapairs(settings: SourceSettings) -> Dataset:
    from st_modules.megapairs.training import training_dataset

    assert settings.megapairs is not None
    return training_dataset(settings.megapairs, _root(settings), settings.negatives)


def _limit(rows: Dataset, limit: int | None) -> Dataset:
    return rows.select(range(min(limit, len(rows)))) if limit else rows


def _leave_encoded(rows: Dataset) -> Dataset:
    """Leave images as bytes or paths: this package reads them, under its own limits, when a batch is made."""
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
    return rows


def _root(settings: SourceSettings) -> Path:
    beside = settings.file or settings.megapairs
    return settings.images or (beside.parent if beside else settings.folder) or Path()


def _items_of(columns: ColumnSettings) -> dict[str, ItemSettings]:
    negatives = {f"negative_{number}": item for number, item in enumerate(columns.negatives, 1)}
    return {"anchor": columns.anchor, "positive": columns.positive, **negatives}


def _used_columns(columns: ColumnSettings) -> set[str]:
    items = _items_of(columns).values()
    return {name for item in items for name in (item.text, item.image) if name is not None}


def _to_items(
    batch: dict[str, list[Any]], columns: dict[str, ItemSettings], root: Path
) -> dict[str, list[dict[str, Any]]]:
    rows = len(next(iter(batch.values())))
    return {
        name: [_item(item, {column: batch[column][row] for column in batch}, root) for row in range(rows)]
        for name, item in columns.items()
    }


def _item(settings: ItemSettings, row: dict[str, Any], root: Path) -> dict[str, Any]:
    text = row[settings.text] if settings.text else None
    image = _image(row[settings.image], root) if settings.image else None
    return {name: value for name, value in (("text", text), ("image", image)) if value is not None}


def _image(value: Any, root: Path) -> Any:
    """An image as ``encode`` takes it: an address or a path as a string, or the encoded bytes."""
    if isinstance(value, dict):
        return value["bytes"] if value.get("bytes") is not None else _image(value.get("path"), root)
    if not isinstance(value, str) or _ADDRESS.match(value):
        return value
    return os.path.abspath(root / value) if value else None


def _row_problems(rows: Dataset, columns: dict[str, ItemSettings], root: Path, source: str) -> Iterator[str]:
    for number, row in enumerate(_plain_rows(rows)):
        for name, settings in columns.items():
            if problem := _item_problem(_item(settings, row, root)):
                yield f"{source}, row {number}, {name}: {problem}"


def _missing_files(rows: Dataset, source: str) -> Iterator[str]:
    for number, row in enumerate(_plain_rows(rows)):
        for name, item in row.items():
            if problem := _item_problem(item):
                yield f"{source}, row {number}, {name}: {problem}"


def _plain_rows(rows: Dataset) -> Iterator[dict[str, Any]]:
    for batch in rows.iter(_ROWS_AT_ONCE):
        assert isinstance(batch, dict)
        names = list(batch)
        yield from (dict(zip(names, values, strict=True)) for values in zip(*batch.values(), strict=True))


def _item_problem(item: dict[str, Any]) -> str | None:
    """What is wrong with an item, as far as can be told without opening its image."""
    text, image = item.get("text"), item.get("image")
    if text is None and image is None:
        return "neither a text nor an image"
    if text is not None and not isinstance(text, str):
        return f"a text must be a string, not {text!r:.60}"
    if image is not None and not isinstance(image, (str, bytes)):
        return f"an image must be a path, a URL or an encoded image, not {image!r:.60}"
    if isinstance(image, str) and not _ADDRESS.match(image) and not os.path.isfile(image):
        return f"{image}: no such file"
    return None


def _raise_all(problems: Iterator[str]) -> None:
    shown: list[str] = []
    for problem in problems:
        if len(shown) == _MOST_PROBLEMS:
            shown.append("… and more.")
            break
        shown.append(problem)
    if shown:
        raise InputError("\n".join(shown))
