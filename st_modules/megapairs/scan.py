"""A first look at every picture: whether it can be read, and whether another file is equal to it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from st_modules.errors import ImageError, STModulesError
from st_modules.files.lines import LineFile
from st_modules.inputs.images import ImageSource
from st_modules.megapairs.pictures import Collection

_AT_ONCE = 256


@dataclass(frozen=True)
class ScannedPicture:
    """What a scan at a picture gave.

    Attributes:
        digest: A hash of the file; empty where it cannot be read.
        problem: Why it cannot be read.
    """

    digest: str = ""
    problem: str = ""


def scan_pictures(
    collection: Collection, file: LineFile, report: Callable[[int], object] = int
) -> list[ScannedPicture]:
    """Read and decode every picture, or those that a stopped run has left.

    Args:
        collection: The pictures.
        file: Where the results go, or are.
        report: Called with the number of pictures that are done, again and again.

    Returns:
        One result for each picture.
    """
    numbers = iter(range(file.count, len(collection)))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while some := list(islice(numbers, _AT_ONCE)):
            for content in pool.map(_scan, map(collection.path, some)):
                file.append(json.dumps(vars(content), ensure_ascii=False))
            report(some[-1] + 1)
    return list(_read(file))


def _scan(path: Path) -> ScannedPicture:
    source = ImageSource(path)
    try:
        source.load()
        return ScannedPicture(digest=source.digest().hex()[:32])
    except ImageError as error:
        return ScannedPicture(problem=error.problem)


def _read(file: LineFile) -> Iterator[ScannedPicture]:
    for number, line in enumerate(file.lines(), start=1):
        try:
            yield ScannedPicture(**json.loads(line))
        except (ValueError, TypeError, RecursionError) as error:
            raise STModulesError(
                f"{file.path}: line {number} is damaged. Delete the file, and it is made anew."
            ) from error
