"""Which files of a folder a model may be read from: regular ones inside it, whatever the folder's own files say."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from st_modules.checkpoints.json_files import read_json_value
from st_modules.errors import CheckpointError

_READ = (".json", ".txt", ".jinja", ".model", ".safetensors", ".bin", ".pth", ".pt", ".md")
"""What the files end with that a model, its card, its tokenizer, its image processor or an adapter is read from."""

_FOLDERS = frozenset({"adapters", "additional_chat_templates"})
"""Folders of a model that are read without being named in a file of it."""


def check_folder(folder: Path) -> None:
    """Make sure that reading a model from a folder reads nothing outside of it, and waits for nothing.

    Links are followed: those inside the folder are fine, and so are those of the Hub's cache to its own blobs. The
    folder may be a link itself.

    Raises:
        CheckpointError: Something that could be read is a link elsewhere, or no regular file.
    """
    roots = _roots(folder)
    try:
        with os.scandir(folder) as entries:
            # What a folder lists says which entries are regular files, so that most cost no look at the file.
            odd = [
                Path(entry.path)
                for entry in entries
                if (entry.name.endswith(_READ) and not entry.is_file(follow_symlinks=False))
                or (entry.name in _FOLDERS and not entry.is_dir(follow_symlinks=False))
            ]
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read ({error}).") from error
    for path in odd:
        _check_inside(path, roots, is_folder=path.name in _FOLDERS)


def find_inside(folder: Path, name: str, source: Path) -> Path:
    """Return the file of a folder that another file names.

    Args:
        folder: The folder.
        name: The file's name.
        source: The file that names it, for messages.

    Raises:
        CheckpointError: It is no plain name, or no regular file inside the folder has it.
    """
    if not is_plain(name):
        raise CheckpointError(
            f"{source}: it names the file {name[:100]!r}, and only files of its own folder are read, by their plain "
            "names. Download the files again, or move them into one folder."
        )
    path = folder / name
    if not os.path.lexists(path):
        raise CheckpointError(f"{source}: it names the file {name[:100]!r}, and {folder} has none. Copy it there.")
    _check_inside(path, _roots(folder))
    return path


def check_found(path: Path, folder: Path) -> None:
    """Make sure that a file which was found in a folder or in one of its own folders is a regular one inside of it.

    Raises:
        CheckpointError: It is a link elsewhere, or no regular file.
    """
    _check_inside(path, _roots(folder))


def check_subfolder(folder: Path, name: str, source: Path) -> None:
    """Make sure that a folder which a file names is inside the file's own folder; it need not be there.

    Raises:
        CheckpointError: It is elsewhere.
    """
    path = folder / name
    if "\0" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(
            f"{source}: it names the folder {name[:100]!r}, and only folders inside its own are read. Save the model "
            "again, or copy that folder into it."
        )
    if os.path.lexists(path):
        _check_inside(path, _roots(folder), is_folder=True)


def check_modules(folder: Path) -> None:
    """Make sure that the modules of a saved model, whose ``modules.json`` was checked, are read from inside its folder.

    Raises:
        CheckpointError: ``modules.json`` names a folder elsewhere, or one has files that may not be read.
    """
    path = folder / "modules.json"
    for name in [module["path"] for module in read_json_value(path)]:
        check_subfolder(folder, name, path)
        if (folder / name).is_dir():
            check_folder(folder / name)


def is_plain(name: str) -> bool:
    """Whether a name is that of an entry of a folder, on every system."""
    return name not in ("", ".", "..") and not any(character in name for character in "/\\\0:")


def _roots(folder: Path) -> Sequence[Path]:
    """Return where the files of a folder may be: in it, and for one of the Hub's cache among the cache's blobs."""
    real = folder.resolve()
    for snapshot in (real, *real.parents):
        repository = snapshot.parent.parent
        if snapshot.parent.name == "snapshots" and repository.name.startswith("models--"):
            # Blobs that several repositories have in common are beside these, and links in each of them.
            return real, repository / "blobs", repository.parent / "blobs"
    return (real,)


def _check_inside(path: Path, roots: Sequence[Path], *, is_folder: bool = False) -> None:
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a link to nothing that can be read ({error}). Copy the file there.") from error
    if not any(real.is_relative_to(root) for root in roots):
        raise CheckpointError(
            f"{path}: a link to {real}, outside of the folder. Copy the file there, or pass the folder that has it."
        )
    if not (stat.S_ISDIR(mode) if is_folder else stat.S_ISREG(mode)):
        kind = "folder" if is_folder else "regular file"
        raise CheckpointError(f"{path}: not a {kind}, which is needed under this name. Move it elsewhere.")
