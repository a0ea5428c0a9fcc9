"""About how many entries a file has, for a bar of progress."""

from __future__ import annotations

from contextlib import closing

from st_modules._imports import import_extra
from st_modules.errors import InputError
from st_modules.files import pages
from st_modules.files.parquet import name_errors
from st_modules.index.sources.kinds import Kind
from st_modules.index.sources.stored import StoredFile

_BEGINNING = 1024 * 1024  # of lines, as long on the whole as those after it


def count_entries(file: StoredFile, kind: Kind) -> int | None:
    """Return about how many entries a file has.

    Args:
        file: The file.
        kind: What it is read as.

    Returns:
        The number, one for a file that cannot be read; ``None`` where all of it would have to be read.
    """
    try:
        if kind in ("picture", "text"):
            return 1
        if kind == "pdf":
            return _count_pages(file)
        if kind == "parquet":
            return _count_rows(file)
        return _count_lines(file, header=kind == "csv") if kind in ("jsonl", "csv") else None
    except InputError:
        return 1


def _count_pages(file: StoredFile) -> int:
    with file.open() as stream, pages.PDFIUM, closing(pages.open_pdf(stream, file.source)) as document:
        return len(document)


def _count_rows(file: StoredFile) -> int:
    pa, pq = (import_extra(module, extra="parquet") for module in ("pyarrow", "pyarrow.parquet"))
    with file.open() as stream, name_errors(pa, file.source, "Parquet"):
        return int(pq.read_metadata(stream).num_rows)


def _count_lines(file: StoredFile, *, header: bool) -> int | None:
    with file.open() as stream:
        beginning = stream.read(_BEGINNING)
    lines = beginning.count(b"\n")
    if len(beginning) < _BEGINNING:
        # The last line may be without an end.
        lines += not beginning.endswith(b"\n")
        return max(lines - header, 1)
    return None if file.size is None else round(file.size / len(beginning) * lines) - header
