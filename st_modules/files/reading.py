"""From a path to records: what it holds, and who reads it."""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path

from st_modules.errors import InputError
from st_modules.files.atomic import name_file
from st_modules.files.folders import read_folder, read_image
from st_modules.files.kinds import check_content, find_kind, kind_by_name, read_head
from st_modules.files.pages import read_pdf
from st_modules.files.parquet import read_parquet
from st_modules.files.records import Problems, Reading, check_name
from st_modules.files.tables import Columns, read_csv, read_jsonl
from st_modules.files.texts import read_texts
from st_modules.inputs.limits import ImageLimits

STANDARD_INPUT = Path("-")


def is_file_name(text: str) -> bool:
    """Whether a text of the command line is more likely a file or a folder that was meant to be read."""
    known = kind_by_name(Path(text)) != "text" or text.lower().endswith(".txt")
    return (known and os.path.isfile(text)) or (text.endswith(("/", os.sep)) and os.path.isdir(text))


def is_table(path: Path) -> bool:
    """Whether a file has columns, by its name."""
    return kind_by_name(path) in ("jsonl", "csv", "parquet")


def read_file(
    path: Path, asked: Columns, scratch: Path, *, skip_bad: bool = False, limits: ImageLimits | None = None
) -> Reading:
    """Read what a path holds.

    Args:
        path: A folder (its images and PDFs, recursively), an image, a PDF, a JSONL, CSV, TSV or Parquet file, any other
            file (one text a line; empty lines are left out), or ``-`` (texts from standard input).
        asked: Which columns of a table to embed.
        scratch: A folder for images that are in no file of their own, until they are embedded.
        skip_bad: Whether records that cannot be read are left out. What keeps others from being read, such as a folder
            that cannot be listed, is an error in any case.
        limits: What images that a table names may cost, and where they may come from.

    Returns:
        The records, in the file's order; a folder's are sorted by path. There is at least one, or a bad one.

    Raises:
        InputError: The path is missing or holds nothing, or is not what its name says, or some of its records are
            wrong: one line for each.
        MissingExtraError: What reads such files is not installed.
    """
    problems = Problems(skip_bad)
    if path == STANDARD_INPUT:
        if sys.stdin is None:
            raise InputError("stdin: it is closed; pass a file.")
        with name_file(Path("stdin")):
            reading = Reading(read_texts(sys.stdin.buffer, "stdin", problems))
    else:
        check_name(path)
        with name_file(path):
            reading = _read_path(path, asked, scratch, problems, limits)
    problems.raise_all()
    if not reading.records and not problems.bad:
        raise InputError(f"{path}: nothing to embed in it.")
    return dataclasses.replace(reading, bad=problems.bad)


def _read_path(path: Path, asked: Columns, scratch: Path, problems: Problems, limits: ImageLimits | None) -> Reading:
    if os.path.isdir(path):
        return read_folder(path, scratch, problems)
    head = read_head(path)
    kind = find_kind(path, head)
    check_content(path, kind, head)
    if kind == "parquet":
        return read_parquet(path, asked, scratch, problems, limits)
    if kind == "jsonl":
        return Reading(read_jsonl(path, asked, problems, limits))
    if kind == "csv":
        return Reading(read_csv(path, asked, problems, limits))
    if kind == "text":
        with path.open("rb") as stream:
            return Reading(read_texts(stream, str(path), problems))
    with problems.collect_record(str(path)):
        return Reading(read_pdf(path, scratch, problems) if kind == "pdf" else [read_image(path)])
    return Reading([])
