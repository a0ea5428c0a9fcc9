"""Folders: their images and PDFs are read, and what else there is in them is told."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from st_modules.errors import InputError
from st_modules.files.kinds import describe_unread, find_kind, kind_by_content, kind_by_name, read_head
from st_modules.files.pages import read_pdf
from st_modules.files.records import NamedImage, Problems, Reading, Record, check_name, make_record

_NAMED = 5
_OTHERS = ("file that is neither image nor PDF", "files that are neither images nor PDFs")


@dataclass
class _Contents:
    """The files of a folder.

    Attributes:
        wanted: Images and PDFs.
        others: Files that are neither image nor PDF.
        unreadable: Files of which that is not known.
    """

    wanted: list[Path] = field(default_factory=list[Path])
    others: list[Path] = field(default_factory=list[Path])
    unreadable: list[Path] = field(default_factory=list[Path])


def read_image(path: Path) -> Record:
    """Turn an image file into a record.

    Raises:
        InputError: Its header cannot be read.
    """
    return make_record(str(path), image=NamedImage(str(path), path))


def read_folder(folder: Path, scratch: Path, problems: Problems) -> Reading:
    """Read the images and the PDFs in a folder and the folders in it, sorted by path.

    Hidden files, those whose name begins with a dot, are read too; those that are neither are left out without a note.

    Args:
        folder: The folder.
        scratch: A folder for the pages of PDFs.
        problems: Takes note of images, PDFs and pages that cannot be read.

    Raises:
        InputError: Folders, images or PDFs cannot be read: one line for each. Or there is nothing to embed.
        MissingExtraError: There is a PDF, and pypdfium2 is not installed.
    """
    files, links = list_tree(folder, problems)
    contents = _Contents()
    for path in files:
        with problems.collect_record(str(path)):
            _sort_file(path, contents)
    records: list[Record] = []
    for path in sorted(contents.wanted):
        with problems.collect_record(str(path)):
            check_name(path)
            records += read_pdf(path, scratch, problems) if path.suffix.lower() == ".pdf" else [read_image(path)]
    problems.raise_all()
    notes = _describe_rest(folder, contents, links)
    if not records and not problems.bad:
        raise InputError("\n".join([f"{folder}: nothing to embed in it.", *notes]))
    return Reading(records, notes)


def list_tree(folder: Path, problems: Problems) -> tuple[list[Path], list[Path]]:
    """List what is in a folder and in the folders in it.

    Args:
        folder: The folder.
        problems: Takes note of folders that cannot be read.

    Returns:
        The files, and the folders behind symbolic links, which are not gone into: a link may lead in a circle.
    """
    files: list[Path] = []
    links: list[Path] = []
    folders = [folder]
    while folders:
        with problems.collect():
            for path in _list_folder(folders.pop()):
                if not os.path.isdir(path):
                    files.append(path)
                else:
                    (links if path.is_symlink() else folders).append(path)
    return files, links


def _list_folder(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror}); what is in it would be missing.", str(folder)) from error


def _sort_file(path: Path, contents: _Contents) -> None:
    named, hidden = kind_by_name(path), path.name.startswith(".")
    try:
        head = read_head(path)
    except InputError:
        if named in ("image", "pdf"):
            raise
        if not hidden:
            contents.unreadable.append(path)
        return
    found = kind_by_content(head)
    if found == "pdf" and named == "text":
        raise InputError("its content is a PDF, whatever its name says; rename it to .pdf", str(path))
    if find_kind(path, head) in ("image", "pdf") and (found or not hidden):
        contents.wanted.append(path)
    elif not hidden:
        contents.others.append(path)


def _describe_rest(folder: Path, contents: _Contents, links: list[Path]) -> list[str]:
    """What was left out, a line for each reason."""
    left_out: dict[tuple[str, str], list[Path]] = {}
    for path in contents.others:
        left_out.setdefault(describe_unread(path) or _OTHERS, []).append(path)
    left_out["file that cannot be read", "files that cannot be read"] = contents.unreadable
    left_out["folder behind a symbolic link", "folders behind symbolic links"] = links
    return [
        f"{folder}: left out {len(paths)} {what[len(paths) > 1]}: {_list_names(folder, paths)}"
        for what, paths in left_out.items()
        if paths
    ]


def _list_names(folder: Path, paths: list[Path]) -> str:
    names = [str(path.relative_to(folder)) for path in sorted(paths)]
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
