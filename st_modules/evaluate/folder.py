"""A benchmark of one's own: queries, a corpus and the right answers, from the tables of a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData

from st_modules.arguments import check_choice
from st_modules.errors import ArgumentError, InputError, shorten
from st_modules.evaluate.files import BenchmarkDataError, content_revision, has_control_characters, rows
from st_modules.evaluate.local_task import LocalTask, local_metadata
from st_modules.files.tables import list_columns, name_cells, open_csv, quote
from st_modules.inputs.local_files import may_open

_TABLES = ("queries.csv", "corpus.csv", "qrels.csv")
_LONGEST_SHOWN = 100
_LONGEST_NAME = 200  # files may have names of 255 bytes, which have the model's name or an ending too
_SCORES = ("ndcg", "map", "recall", "precision", "mrr", "hit_rate")
_MISNAMED = {
    "text": {"text", "texts", "txt", "txts"},
    "image": {
        *("image", "images", "img", "imgs", "pic", "pics", "picture", "pictures", "photo", "photos"),
        *("image_path", "img_path", "picture_path", "photo_path", "image_file", "img_file"),
    },
}
"""What columns are called, in any case, that are meant to be read as texts or pictures."""


@dataclass(frozen=True)
class Side:
    """The rows of one of the two tables of texts and pictures.

    Attributes:
        table: Its file.
        places: Where each row stands, by its id.
        texts: One a row, the empty string for none.
        images: One a row, ``None`` for none; none of them was opened.
    """

    table: Path
    places: Mapping[str, str]
    texts: Sequence[str]
    images: Sequence[Path | None]

    @property
    def kinds(self) -> list[str]:
        """What there is in any of the rows: ``image``, ``text``, or both."""
        return [kind for kind, cells in (("image", self.images), ("text", self.texts)) if any(cells)]


@dataclass(frozen=True)
class FolderData:
    """What the tables of a folder say.

    Attributes:
        queries: What is asked.
        corpus: What is searched.
        right: The score of each document that is listed for a query.
    """

    queries: Side
    corpus: Side
    right: Mapping[str, Mapping[str, int]]


class FolderTask(LocalTask):
    """Retrieval on data of one's own, which are three tables in UTF-8 whose first line names their columns.

    - ``queries.csv`` and ``corpus.csv``: ``id``, and ``text``, ``image`` or both. A row has a text, a picture, or both;
      an empty cell is none. A picture is a path in the folder.
    - ``qrels.csv``: ``query-id``, ``corpus-id``, ``score``. The score of a right answer is 1, or more where it is
      better than others. What is not listed is wrong.

    Other columns are not read. What the columns have says what looks for what (``t2i``, ``it2i``, ``t2it`` …), and so
    which of its own instructions the model gets. Results are filed under a hash of the tables and of the pictures that
    they name, and under the main score.

    Args:
        folder: Where the tables are. They are read at once, the pictures when they are embedded.
        name: What the task and its results are called; the folder's name by default.
        main_score: The score that counts for mteb, such as ``recall_at_1``.

    Raises:
        BenchmarkDataError: A table or a picture is missing, or a row is wrong; the message names its line and column.
        ArgumentError: Another argument is wrong.
    """

    metadata = local_metadata(
        "Folder", description="Tables of a folder; each instance has its own.", category="t2i", main_score="ndcg_at_10"
    )

    def __init__(
        self, folder: str | os.PathLike[str], name: str | None = None, *, main_score: str = "ndcg_at_10"
    ) -> None:
        folder = Path(folder)
        name = folder.resolve().name if name is None else name
        check_task_name(name)
        check_choice("main_score", main_score, [f"{score}_at_{k}" for score in _SCORES for k in self.k_values])
        tables = [folder / table for table in _TABLES]
        before = _states(tables)
        self.data = read_folder(folder)
        sides = (self.data.queries, self.data.corpus)
        self.metadata = local_metadata(
            name,
            description=f"Queries, a corpus and right answers of {name}.",
            category="2".join("".join(kind[0] for kind in side.kinds) for side in sides),
            modalities=sorted({kind for side in sides for kind in side.kinds}),
            main_score=main_score,
        )
        pictures = dict.fromkeys(path for side in sides for path in side.images if path is not None)
        self._read = {**before, **_states(pictures)}
        # mteb's results say what the main score is, and are not those of the same task with another one.
        super().__init__(f"{content_revision([*tables, *pictures])}-{main_score}")

    def subsets(self) -> Mapping[str, RetrievalSplitData]:
        """Lay the rows out as mteb has them.

        Raises:
            BenchmarkDataError: A file is another one than when the tables were read.
        """
        self._check_unchanged()
        queries, corpus = (
            rows(
                list(side.places),
                texts=side.texts if "text" in side.kinds else None,
                images=side.images if "image" in side.kinds else None,
            )
            for side in (self.data.queries, self.data.corpus)
        )
        right = {query: dict(scores) for query, scores in self.data.right.items()}
        return {"default": RetrievalSplitData(corpus=corpus, queries=queries, relevant_docs=right, top_ranked=None)}

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task as mteb does.

        Raises:
            BenchmarkDataError: A file was changed meanwhile; the scores would be filed under the hash of another one.
        """
        scores = super().evaluate(*args, **kwargs)
        self._check_unchanged()
        return scores

    def _check_unchanged(self) -> None:
        now = _states(self._read)
        for path, state in self._read.items():
            if now[path] != state:
                raise BenchmarkDataError(
                    f"{path}: was changed or removed after the task was made; make it again when the files are at rest."
                )


def _states(paths: Iterable[Path]) -> dict[Path, tuple[int, ...] | None]:
    """Return what tells, without reading a file, that it was written since; ``None`` for one that is not there."""
    states: dict[Path, tuple[int, ...] | None] = {}
    for path in paths:
        try:
            status = path.stat()
            states[path] = (status.st_ino, status.st_size, status.st_mtime_ns)
        except (OSError, ValueError):
            states[path] = None
    return states


def check_task_name(name: str) -> None:
    """Make sure that results can be kept under a task's name.

    Raises:
        ArgumentError: No file can be called so, or mteb calls another one so.
    """
    if not name or Path(name).name != name or name == ".." or has_control_characters(name):
        raise ArgumentError(f"name={shorten(name)}: pass a name that a file can have; results are kept under it.")
    if len(name.encode("utf-8", "surrogatepass")) > _LONGEST_NAME:
        raise ArgumentError(f"name={shorten(name)}: longer than {_LONGEST_NAME} bytes; results are kept in such files.")
    if name.casefold() == "model_meta":
        raise ArgumentError(f"name={shorten(name)}: mteb has a file of its own of that name; pass another one.")


def read_folder(folder: Path) -> FolderData:
    """Read the three tables, and see that the pictures are there.

    Raises:
        BenchmarkDataError: As of :class:`FolderTask`.
    """
    if folder.is_file():
        raise BenchmarkDataError(f"{folder}: a file; pass the folder that has {', '.join(_TABLES)}.")
    if not folder.is_dir():
        raise BenchmarkDataError(f"{folder}: no such folder.")
    if missing := [name for name in _TABLES if not (folder / name).is_file()]:
        raise BenchmarkDataError(f"{folder}: no {missing[0]} in it; a benchmark is a folder with {', '.join(_TABLES)}.")
    queries, corpus, right = (folder / name for name in _TABLES)
    sides = _read_side(queries), _read_side(corpus)
    return FolderData(*sides, _read_right(right, *sides))


def _read_side(table: Path) -> Side:
    places: dict[str, str] = {}
    texts: list[str] = []
    images: list[Path | None] = []
    for place, cells in _read_table(table, ("id",), ("text", "image")):
        _add_id(places, cells["id"], place)
        text, image = (cells.get(name, "") for name in ("text", "image"))
        if not text.strip() and not image:
            raise BenchmarkDataError(f"{place}: neither a text nor an image; fill one of them, or leave the row out.")
        texts.append(text if text.strip() else "")
        images.append(_find_picture(table.parent, image, place) if image else None)
    if not places:
        raise BenchmarkDataError(f"{table}: no rows below the names of its columns.")
    return Side(table, places, texts, images)


def _add_id(places: dict[str, str], id_: str, place: str) -> None:
    if not id_:
        raise BenchmarkDataError(f"{place}: an empty id.")
    if has_control_characters(id_):
        raise BenchmarkDataError(f"{place}: the id {_show(id_)} has a control character; take it out of the column.")
    if id_ in places:
        raise BenchmarkDataError(f"{place}: the id {_show(id_)} is that of {places[id_]} too.")
    places[id_] = place


def _find_picture(folder: Path, image: str, place: str) -> Path:
    path = folder / image
    if not may_open(str(path), os.path.abspath(folder)):
        raise BenchmarkDataError(
            f"{place}: the image {_show(image)} is not within {folder}; put it there, and write its path from there."
        )
    if not path.is_file():
        raise BenchmarkDataError(f"{place}: the image {_show(image)} is no file in {folder}.")
    return path


def _read_right(table: Path, queries: Side, corpus: Side) -> dict[str, dict[str, int]]:
    right: dict[str, dict[str, int]] = {query: {} for query in queries.places}
    for place, cells in _read_table(table, ("query-id", "corpus-id", "score")):
        query, document, score = cells["query-id"], cells["corpus-id"], cells["score"]
        for column, side in (("query-id", queries), ("corpus-id", corpus)):
            if cells[column] not in side.places:
                raise BenchmarkDataError(f"{place}: the {column} {_show(cells[column])} is not in {side.table}.")
        if document in right[query]:
            raise BenchmarkDataError(f"{place}: {_show(query)} and {_show(document)} are in an earlier line too.")
        if not re.fullmatch("[0-9]{1,6}", score):
            raise BenchmarkDataError(
                f"{place}: the score {_show(score)} is no whole number from 0 to 999999; write 1 for a right answer."
            )
        right[query][document] = int(score)
    for query, scores in right.items():
        if not any(scores.values()):
            raise BenchmarkDataError(
                f"{queries.places[query]}: the query {_show(query)} has no right answer in {table}; add one, or leave "
                "the query out."
            )
    return right


def _show(cell: str) -> str:
    return quote(cell if len(cell) <= _LONGEST_SHOWN else f"{cell[:_LONGEST_SHOWN]}…")


def _read_table(path: Path, needed: Sequence[str], either: Sequence[str] = ()) -> list[tuple[str, dict[str, str]]]:
    """Return the rows of a table: each its place, and its cells by column.

    Args:
        path: The file.
        needed: Columns that it must have.
        either: Columns of which it must have one.
    """
    try:
        with open_csv(path) as (names, table):
            _check_columns(path, names, needed, either)
            return [(place, name_cells(names, cells, place)) for place, cells in table]
    except InputError as error:
        raise BenchmarkDataError(str(error)) from error
    except OSError as error:
        raise BenchmarkDataError(f"{path}: cannot be read ({error.strerror}).") from error


def _check_columns(path: Path, names: Sequence[str], needed: Sequence[str], either: Sequence[str]) -> None:
    missing = [name for name in needed if name not in names]
    missing = missing or (list(either) if either and not set(either) & set(names) else [])
    if missing:
        there = list_columns(names)
        raise BenchmarkDataError(f"{path}: no column {' or '.join(map(quote, missing))}; there are {there}.")
    for name in either:
        misnamed = [other for other in names if other.strip().casefold() in _MISNAMED[name] and other not in either]
        if name not in names and misnamed:
            raise BenchmarkDataError(
                f"{path}: the column {quote(misnamed[0])} is not read; call it {quote(name)}, or take it out."
            )
