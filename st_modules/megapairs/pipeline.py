"""From pictures to a file of triplets, in stages; a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import numpy as np
from tqdm.autonotebook import tqdm

from st_modules._imports import require
from st_modules.errors import InputError
from st_modules.files.arrays import ArrayFile
from st_modules.files.atomic import write_atomically
from st_modules.files.kinds import JSONL_SUFFIXES
from st_modules.files.lines import LineFile
from st_modules.files.locks import lock_folder
from st_modules.megapairs.encoders import Encoder
from st_modules.megapairs.instructions import CaptionTemplates, InstructionWriter, PicturePair
from st_modules.megapairs.mining import Duplicates, Miner, Pair
from st_modules.megapairs.neighbours import block_rows, neighbours_in_band
from st_modules.megapairs.pictures import Collection, read_collection
from st_modules.megapairs.scan import scan_pictures
from st_modules.megapairs.triplets import Triplet, read_triplets, write_parquet
from st_modules.megapairs.vectors import embed, find_readable, is_complete

Report: TypeAlias = Callable[[int], object]
_PAIRS_AT_ONCE = 32


@dataclass(frozen=True)
class Recipe:
    """How triplets are mined.

    Args:
        encoders: What finds similar pictures.
        neighbours: How many pictures within its band each encoder finds for a query, at most.
        pairs: How many of them become targets, each with a triplet of its own, at most.
        negatives: How many hard negatives a triplet has, the query's own picture included, at most.
        seed: Draws the targets and the negatives.
        float16: Whether vectors are stored as float16: half the disk, and cosines with an error of about 0.001.

    Raises:
        InputError: There is no encoder, or two that are the same.
        ValueError: A number is out of its range.
    """

    encoders: Sequence[Encoder]
    neighbours: int = 20
    pairs: int = 1
    negatives: int = 5
    seed: int = 0
    float16: bool = False

    def __post_init__(self) -> None:
        if not self.encoders:
            raise InputError("No encoder: pass at least one, as in Encoder('tiny', 'visual', 0.6, 0.95).")
        labels = Counter(encoder.label for encoder in self.encoders)
        if twice := [label for label, count in labels.items() if count > 1]:
            raise InputError(f"{twice[0]} is there twice: give one of the two another name.")
        for name in ("neighbours", "pairs", "negatives"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: pass 1 or more.")


@dataclass(frozen=True)
class Summary:
    """What a run made.

    Attributes:
        triplets: How many triplets are in the file.
        pictures: How many pictures they were mined from.
        skipped: How many pictures and pairs were left out, by reason.
        short: How many triplets have fewer hard negatives than were asked for.
        files: The files written: the triplets, and what was left out, if anything was.
    """

    triplets: int
    pictures: int
    skipped: dict[str, int]
    short: int
    files: tuple[Path, ...]


def make_triplets(
    source: str | Path,
    out: str | Path,
    recipe: Recipe,
    writer: InstructionWriter,
    *,
    work: str | Path | None = None,
    device: str | None = None,
    overwrite: bool = False,
    show_progress_bar: bool = False,
) -> Summary:
    """Mine triplets from pictures, and write them.

    Everything on the way (vectors, neighbours, triplets) is kept in a folder. A stopped run that is started again goes
    on there and writes the same bytes as one that was not stopped; another recipe for the same pictures takes from it
    what has not changed. Delete it when no more is to come.

    Args:
        source: The pictures; see ``read_collection``. Those that cannot be read are left out and recorded.
        out: A ``.jsonl`` or ``.parquet`` file for the triplets. Pictures and pairs that were left out go to
            ``NAME.skipped.jsonl`` beside it, each with the reason.
        recipe: How triplets are mined.
        writer: What writes the instructions: ``CaptionTemplates`` or ``ChatInstructions``.
        work: The folder in between; ``out`` with ``.work`` behind it where it is left out.
        device: Where models run that are not loaded yet.
        overwrite: Whether ``out`` may be there already.
        show_progress_bar: Whether to show progress.

    Returns:
        What was made.

    Raises:
        InputError: The source, or where the triplets are to go, is not usable, or another run is in ``work``.
        UnknownModelError: An encoder's name is misspelled, or its folder is not there; this is told before pictures
            are read.
        InstructionError: The chat model failed too often.
        MissingExtraError: A package of the extra ``megapairs`` is not installed.
    """
    out = Path(out)
    _check_target(out, overwrite)
    require("faiss", extra="megapairs")
    work = Path(work) if work is not None else out.with_name(f"{out.name}.work")
    everything = read_collection(source)
    _check_captions(everything, recipe, writer)
    work.mkdir(parents=True, exist_ok=True)
    with lock_folder(work):
        return _Run(everything, out, work, recipe, writer, device, show_progress_bar).run()


def _check_target(out: Path, overwrite: bool) -> None:
    if out.suffix.lower() not in {*JSONL_SUFFIXES, ".parquet"}:
        raise InputError(f"{out}: triplets are written to a .jsonl or a .parquet file.")
    if out.suffix.lower() == ".parquet":
        require("pyarrow", extra="megapairs")
    if not out.parent.is_dir():
        raise InputError(f"{out.parent}: no such folder; make it first.")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{out.parent}: no permission to write in this folder.")
    if out.is_dir():
        raise InputError(f"{out}: a folder; pass the name of a file.")
    if out.exists() and not overwrite:
        raise InputError(f"{out} is already there: allow overwriting, or write to another file.")


def _check_captions(collection: Collection, recipe: Recipe, writer: InstructionWriter) -> None:
    if any(picture.caption for picture in collection.pictures):
        return
    for encoder in recipe.encoders:
        if encoder.reads == "caption":
            raise InputError(f"{encoder.label}: no picture has a caption; leave this encoder out.")
    if isinstance(writer, CaptionTemplates):
        raise InputError("No picture has a caption, and templates need two for a pair: pass a chat model.")


@dataclass
class _Run:
    """One run: the stages, and what one needs of the one before."""

    everything: Collection
    out: Path
    work: Path
    recipe: Recipe
    writer: InstructionWriter
    device: str | None
    show_progress_bar: bool
    skipped: list[dict[str, str]] = field(default_factory=list)

    def run(self) -> Summary:
        collection, digests = self._scan()
        encoders = self.recipe.encoders
        paths = [self._vectors_path(collection, digests, encoder) for encoder in encoders]
        _check_names(encoder for encoder, path in zip(encoders, paths, strict=True) if not is_complete(path))
        vectors = [self._embed(collection, *pair) for pair in zip(encoders, paths, strict=True)]
        found = [self._neighbours(collection, *pair) for pair in zip(encoders, vectors, strict=True)]
        visual = [
            (file.rows, encoder.upper)
            for encoder, file in zip(encoders, vectors, strict=True)
            if encoder.reads == "visual"
        ]
        _, classes = np.unique(digests, return_inverse=True)
        miner = Miner(
            [picture.name for picture in collection.pictures],
            [file.rows for file in found],
            Duplicates(classes, visual),
            self.recipe.pairs,
            self.recipe.negatives,
            self.recipe.seed,
        )
        return self._write_all(collection, miner, [Path(str(file.rows.filename)).name for file in found])

    def _scan(self) -> tuple[Collection, list[str]]:
        """The pictures that can be read, and the digests of their files."""
        everything = self.everything
        states = (f"{picture.name} {_state(everything.path(n))}" for n, picture in enumerate(everything.pictures))
        key = _key(str(everything.root.resolve()), *states)
        file = LineFile(self.work / f"contents-{key}.jsonl")
        if file.count < len(everything):
            _check_names(self.recipe.encoders)
        with self._bar("Reading", len(everything)) as report:
            scanned = scan_pictures(everything, file, report)
        good = [number for number, picture in enumerate(scanned) if not picture.problem]
        self.skipped = [
            {"picture": picture.name, "reason": "unreadable", "detail": found.problem}
            for picture, found in zip(everything.pictures, scanned, strict=True)
            if found.problem
        ]
        if len(good) < 2:
            raise InputError(f"{everything.root}: {len(good)} of {len(scanned)} pictures can be read; pairs need two.")
        collection = Collection(everything.root, tuple(everything.pictures[number] for number in good))
        return collection, [scanned[number].digest for number in good]

    def _vectors_path(self, collection: Collection, digests: Sequence[str], encoder: Encoder) -> Path:
        rows = (f"{digest} {picture.caption}" for digest, picture in zip(digests, collection.pictures, strict=True))
        key = _key(encoder.label, str(self.recipe.float16), *rows)
        return self.work / f"vectors-{_slug(encoder)}-{key}.npy"

    def _embed(self, collection: Collection, encoder: Encoder, path: Path) -> ArrayFile:
        float16, device = self.recipe.float16, self.device
        with self._bar(f"Embedding: {encoder.label}", len(collection)) as report:
            return embed(collection, encoder, path, float16=float16, device=device, report=report)

    def _neighbours(self, collection: Collection, encoder: Encoder, vectors: ArrayFile) -> ArrayFile:
        depth = min(self.recipe.neighbours, len(collection) - 1)
        key = _key(Path(str(vectors.rows.filename)).name, str(depth), repr((encoder.lower, encoder.upper)))
        path = self.work / f"neighbours-{_slug(encoder)}-{key}.npy"
        file = ArrayFile(path) if ArrayFile.exists(path) else ArrayFile.create(path, (len(collection), depth), np.int32)
        usable = find_readable(collection, encoder)
        step = block_rows(vectors.rows.shape[1])
        with self._bar(f"Searching: {encoder.label}", len(collection)) as report:
            while not file.complete:
                queries = range(file.filled, min(file.filled + step, len(collection)))
                file.append(neighbours_in_band(vectors.rows, queries, usable, depth, encoder.lower, encoder.upper))
                report(file.filled)
        return file

    def _write_all(self, collection: Collection, miner: Miner, found: Sequence[str]) -> Summary:
        recipe = self.recipe
        captions = (f"{picture.name} {picture.caption}" for picture in collection.pictures)
        numbers = (recipe.pairs, recipe.negatives, recipe.seed)
        key = _key(self.writer.identity, repr(numbers), *found, *captions)
        triplets, left_out = (LineFile(self.work / f"{kind}-{key}.jsonl") for kind in ("triplets", "skipped"))
        with self._bar("Writing", len(collection)) as report:
            self._write(collection, miner, triplets, left_out, report)
        files = self._finish(triplets, left_out)
        short = sum(len(triplet.hns) < recipe.negatives for triplet in read_triplets(triplets.path))
        reasons = Counter(row["reason"] for row in self.skipped)
        reasons.update(json.loads(line)["reason"] for line in left_out.lines())
        return Summary(triplets.count, len(collection), dict(reasons), short, files)

    def _write(
        self, collection: Collection, miner: Miner, triplets: LineFile, left_out: LineFile, report: Report
    ) -> None:
        """Append one line for each pair to one of the files; their lines together say where a stopped run was."""
        pairs = islice(iter(miner), triplets.count + left_out.count, None)
        while some := list(islice(pairs, _PAIRS_AT_ONCE)):
            asked = [_show(collection, pair) for pair in some]
            for pair, shown, written in zip(some, asked, self.writer.write(asked), strict=True):
                if written.problem:
                    left_out.append(_line({"pair": shown.label, "reason": written.problem, "detail": written.detail}))
                else:
                    triplets.append(_triplet(collection, pair, written.texts).to_json())
                report(pair.query)
        report(len(collection))

    def _finish(self, triplets: LineFile, left_out: LineFile) -> tuple[Path, ...]:
        """Put the files where they belong, each complete or not at all."""
        if not triplets.count:
            raise InputError(
                f"{self.everything.root}: no triplets. {left_out.count} pairs were left out (the reasons are in "
                f"{left_out.path}); where there are none, no two pictures are within a band: widen the bands."
            )
        report = self.out.with_name(f"{self.out.stem}.skipped.jsonl")
        lines = [*map(_line, self.skipped), *left_out.lines()]
        if not lines:
            report.unlink(missing_ok=True)
        files = (self.out, report) if lines else (self.out,)
        with write_atomically(files) as (part, *report_parts):
            if self.out.suffix.lower() == ".parquet":
                write_parquet(read_triplets(triplets.path), part)
            else:
                shutil.copyfile(triplets.path, part)
            for report_part in report_parts:
                report_part.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return files

    @contextmanager
    def _bar(self, title: str, total: int) -> Generator[Report, None, None]:
        with tqdm(total=total, desc=title, disable=not self.show_progress_bar) as bar:
            yield lambda done: bar.update(done - bar.n)


def _check_names(encoders: Iterable[Encoder]) -> None:
    for encoder in encoders:
        encoder.check_name()


def _show(collection: Collection, pair: Pair) -> PicturePair:
    return PicturePair(collection.pictures[pair.query], collection.pictures[pair.target], collection.root)


def _triplet(collection: Collection, pair: Pair, texts: tuple[str, ...]) -> Triplet:
    names = [collection.pictures[number].name for number in (pair.query, pair.target, *pair.negatives)]
    return Triplet(names[0], texts, names[1], tuple(names[2:]))


def _line(row: dict[str, str]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _key(*parts: str) -> str:
    """A short name for what a file was made from."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass") + b"\0")
    return digest.hexdigest()


def _state(file: Path) -> str:
    """What tells that a file was not changed."""
    try:
        at = file.stat()
    except OSError as error:
        return type(error).__name__
    return f"{at.st_size} {at.st_mtime_ns}"


def _slug(encoder: Encoder) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", f"{encoder.reads}-{encoder.name}")[-60:]
