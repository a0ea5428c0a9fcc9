"""What a run has come across: on the disk, so that memory is bounded whatever the collection."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from st_modules.errors import STModulesError

_TABLES = """
CREATE TABLE items (mark TEXT PRIMARY KEY, id TEXT NOT NULL UNIQUE, place TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (source TEXT PRIMARY KEY, finished INTEGER NOT NULL, new INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE errors (source TEXT, place TEXT, PRIMARY KEY (source, place)) WITHOUT ROWID;
"""
# It is thrown away with the run: nothing has to survive a crash.
_SETTINGS = ("PRAGMA journal_mode = OFF", "PRAGMA synchronous = OFF", "PRAGMA cache_size = -65536")
# SQLite's own bound on values in a condition is 32,766.
_VALUES_AT_ONCE = 8192


@dataclass(frozen=True)
class SeenItem:
    """An item that the run has come across.

    Attributes:
        mark: Digest of everything that tells that it is the same as before.
        id: Its id.
        place: Where it was read.
    """

    mark: str
    id: str
    place: str


class Seen:
    """The items, sources and errors of a run.

    Args:
        database: An empty database.
    """

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        for setting in _SETTINGS:
            database.execute(setting)
        database.executescript(_TABLES)
        database.execute("BEGIN")  # one transaction: nothing is written for each statement

    def __len__(self) -> int:
        return self._database.execute("SELECT count(*) FROM items").fetchone()[0]

    def add(self, items: Iterable[SeenItem]) -> None:
        """Take note of items, of which neither the mark nor the id has been seen."""
        rows = [(each.mark, each.id, each.place) for each in items]
        self._database.executemany("INSERT INTO items VALUES (?, ?, ?)", rows)

    def find_marks(self, marks: Sequence[str]) -> dict[str, SeenItem]:
        """Return the items with some marks, by mark."""
        return {each.mark: each for each in self._find("mark", marks)}

    def find_ids(self, ids: Sequence[str]) -> dict[str, SeenItem]:
        """Return the items with some ids, by id."""
        return {each.id: each for each in self._find("id", ids)}

    def meet(self, sources: Iterable[str]) -> None:
        """Take note of sources of which something was read."""
        self._database.executemany("INSERT OR IGNORE INTO sources VALUES (?, 0, 0)", [(each,) for each in sources])

    def finish(self, sources: Iterable[str]) -> None:
        """Take note of sources that have been read to their ends."""
        rows = [(each,) for each in sources]
        upsert = "INSERT INTO sources VALUES (?, 1, 0) ON CONFLICT (source) DO UPDATE SET finished = 1"
        self._database.executemany(upsert, rows)

    def find_sources(self, sources: Iterable[str]) -> dict[str, bool]:
        """Return which of some sources were met, and for each whether it was read to its end."""
        found: dict[str, bool] = {}
        for part, marks in _parts(sources):
            query = f"SELECT source, finished FROM sources WHERE source IN ({marks})"
            found.update((source, bool(finished)) for source, finished in self._database.execute(query, part))
        return found

    def count_new(self, sources: Iterable[str]) -> None:
        """Take note that each of some sources has got a new row; one comes as often as it has."""
        upsert = "INSERT INTO sources VALUES (?, 0, 1) ON CONFLICT (source) DO UPDATE SET new = new + 1"
        self._database.executemany(upsert, [(each,) for each in sources])

    def take_new(self, source: str) -> bool:
        """Whether a source has got a new row that no other call with it has taken."""
        update = "UPDATE sources SET new = new - 1 WHERE source = ? AND new > 0"
        return self._database.execute(update, (source,)).rowcount > 0

    def add_errors(self, keys: Iterable[tuple[str, str]]) -> None:
        """Take note of the sources and places of errors."""
        self._database.executemany("INSERT OR IGNORE INTO errors VALUES (?, ?)", list(keys))

    def has_error(self, source: str, place: str) -> bool:
        """Whether there was an error at a place of a source."""
        query = "SELECT 1 FROM errors WHERE source = ? AND place = ?"
        return self._database.execute(query, (source, place)).fetchone() is not None

    def _find(self, column: str, values: Iterable[str]) -> Generator[SeenItem, None, None]:
        for part, marks in _parts(values):
            query = f"SELECT mark, id, place FROM items WHERE {column} IN ({marks})"
            yield from (SeenItem(*row) for row in self._database.execute(query, part))


@contextmanager
def open_seen() -> Generator[Seen, None, None]:
    """Take notes in a temporary file, which is deleted in the end.

    Raises:
        STModulesError: It cannot be written, as on a full disk.
    """
    with (
        TemporaryDirectory(prefix="st-modules-") as folder,
        closing(sqlite3.connect(Path(folder) / "seen.sqlite", isolation_level=None)) as database,
    ):
        try:
            yield Seen(database)
        except sqlite3.Error as error:
            raise STModulesError(
                f"{Path(folder).parent}: a temporary file there cannot be read or written: {error}. Free space, or set "
                "TMPDIR to another folder, and run again: it goes on."
            ) from error


def _parts(values: Iterable[str]) -> Generator[tuple[list[str], str], None, None]:
    wanted = list(dict.fromkeys(values))
    for start in range(0, len(wanted), _VALUES_AT_ONCE):
        part = wanted[start : start + _VALUES_AT_ONCE]
        yield part, ", ".join("?" * len(part))
