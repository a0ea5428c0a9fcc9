"""``st-modules embed``: vectors of texts, images, and both, in a file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from st_modules.cli.shared import (
    BaseWeights,
    Device,
    ModelName,
    Weights,
    make_limits,
    name_path,
    one_line_errors,
    open_model,
    say,
    stop,
    tell,
)
from st_modules.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from st_modules.files.partial import Partial
    from st_modules.files.records import BadRecord, Reading, Record
    from st_modules.files.tables import Columns
    from st_modules.inputs.limits import ImageLimits

app = typer.Typer()


@app.command()
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.", show_default=False)] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            parser=name_path,
            metavar="PATH",
            help="A text file (one text a line), an image, a PDF (a page each), a folder of images and PDFs, a JSONL, "
            "CSV, TSV or Parquet file, or - for lines from standard input. May be given several times.",
            show_default=False,
        ),
    ] = None,
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text",
            metavar="COLUMN",
            help="The column of the texts in JSONL, CSV, TSV and Parquet files: by default text, where there is one; "
            "'' for none.",
            show_default=False,
        ),
    ] = None,
    image_column: Annotated[
        str | None,
        typer.Option(
            "--image",
            metavar="COLUMN",
            help="The column of the images, likewise; image by default.",
            show_default=False,
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="COLUMN", help="The column of the ids, likewise; id by default.", show_default=False
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Open only files in this folder for the images that tables name.",
            show_default=False,
        ),
    ] = None,
    local_files: Annotated[
        bool, typer.Option("--local-files/--no-local-files", help="Open files for the images that tables name.")
    ] = True,
    remote_images: Annotated[
        bool, typer.Option("--remote-images/--no-remote-images", help="Fetch the images that tables name.")
    ] = True,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File.npy (records go to file.jsonl beside it) or file.parquet.")
    ] = Path("vectors.npy"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on where a stopped run was, and keep what is done where this one stops."),
    ] = False,
    skip_bad: Annotated[
        bool,
        typer.Option("--skip-bad", help="Leave out records that cannot be embedded, and list them beside the output."),
    ] = False,
    model_name: ModelName = "tiny",
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
    query: Annotated[
        bool | None,
        typer.Option("--query/--document", help="Which side of a search the vectors are for.", show_default=False),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Instruction for the model.")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="Name of one of the model's own instructions.")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most items in a batch.")] = 32,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Embed texts, images, or both together, and write the vectors."""
    with one_line_errors(), TemporaryDirectory(prefix="st-modules-") as folder:
        from st_modules.files.partial import open_partial
        from st_modules.files.tables import Columns
        from st_modules.files.vectors import check_target, list_targets
        from st_modules.inputs.items import check_text

        if prompt is not None and prompt_name is not None:
            stop("--prompt and --prompt-name are two ways to say the same: pass one of them.", 2)
        check_text(prompt or "", "--prompt")
        check_target(out, inputs=files or [])
        with open_partial(list_targets(out), keep=resume) as partial:
            finished = _check_existing(out, partial, force, resume)
            columns, scratch = Columns(text_column, image_column, id_column), Path(folder)
            limits = make_limits(root, local_files=local_files, remote_images=remote_images)
            reading = _read(texts or [], files or [], columns, scratch, skip_bad, limits)
            model = open_model(model_name, device, weights, base_weights)
            if prompt_name is not None and prompt_name not in model.prompts:
                known = ", ".join(model.prompts) or "none"
                stop(f"{model_name} has no instruction named {prompt_name!r}. It has: {known}.", 2)

            from st_modules.cli.embedding import BATCHES_AT_ONCE, describe_run, embed_records

            encode = functools.partial(
                {None: model.encode, True: model.encode_query, False: model.encode_document}[query],
                prompt=prompt,
                prompt_name=prompt_name,
                batch_size=batch_size,
                show_progress_bar=False,
            )
            if finished:
                _check_finished(out, reading.records, encode)
                return
            how = {"side": query, "instruction": (prompt, prompt_name, model.prompts), "batch size": batch_size}
            partial.begin(describe_run(model, reading.records, scratch, how), resume)
            if not skip_bad:
                _refuse_left_out(partial)
            step = BATCHES_AT_ONCE * batch_size
            embed_records(
                model, encode, reading.records, partial, step=step, skip_bad=skip_bad, show_progress_bar=not quiet
            )
            _finish(out, partial, reading)


def _check_existing(out: Path, partial: Partial, force: bool, resume: bool) -> bool:
    """Raise where the output is there and may not be written over; return whether it may be what is asked for."""
    from st_modules.files.vectors import list_existing

    existing = list_existing(out)
    # What a run was killed at putting in its place is what this call asked for, with --force too.
    if existing and resume and not partial.done and (partial.completed or not force):
        return True
    if existing and not force:
        raise InputError(f"{' and '.join(existing)} already there: pass --force to overwrite.")
    if partial.done and not resume:
        tell(f"{partial.folder}: a stopped run has embedded {partial.done} records; --resume would go on with them.")
    return False


def _check_finished(out: Path, records: Sequence[Record], encode: Callable[[list[Any]], np.ndarray]) -> None:
    """Say that the output is what is asked for, or raise."""
    from st_modules.cli.embedding import is_of_model
    from st_modules.files.vectors import find_rows, read_first

    rows = find_rows(out, records)
    first = read_first(out, len(rows)) if rows else None
    if first is None or not is_of_model(first, rows[0], encode):
        raise InputError(f"{out}: already there, with other records or vectors; pass --force to overwrite.")
    say(f"{out} is finished already: {len(rows)} vectors.")


def _finish(out: Path, partial: Partial, reading: Reading) -> None:
    """Write the output and put it in its place."""
    from st_modules.files.vectors import list_targets, write_output

    *targets, skipped = list_targets(out)
    failed = partial.read_bad()
    bad = [*reading.bad, *failed.values()]
    records = [record for number, record in enumerate(reading.records) if number not in failed]
    if not records:
        raise _nothing_left(bad)
    vectors = partial.read_vectors()
    with partial.finish() as folder:
        write_output(folder, out, vectors, records, bad)
    say(f"Wrote {len(records)} vectors of {vectors.shape[1]} to {' and '.join(map(str, targets))}.")
    if bad:
        tell(f"Skipped {len(bad)} of {len(bad) + len(records)} records; see {skipped}.")


def _refuse_left_out(partial: Partial) -> None:
    """Raise where a stopped run has left records out, which this one is not to."""
    for each in partial.read_bad().values():
        raise InputError(f"{each.place}: {each.problem}; a stopped run left it out: pass --skip-bad to go on.")


def _nothing_left(bad: Sequence[BadRecord]) -> InputError:
    first = bad[0]
    return InputError(f"None of {len(bad)} records can be embedded. The first is {first.place}: {first.problem}")


def _read(
    texts: Sequence[str], files: Sequence[Path], columns: Columns, scratch: Path, skip_bad: bool, limits: ImageLimits
) -> Reading:
    from st_modules.files.reading import is_file_name, is_table, read_file
    from st_modules.files.records import Problems, Reading
    from st_modules.files.texts import read_arguments

    for text in texts:
        if is_file_name(text):
            stop(f"{text!r} is a file or a folder: pass it as --file {text}", 2)
    if any(name is not None for name in vars(columns).values()) and not any(map(is_table, files)):
        stop("--text, --image and --id name columns of a JSONL, CSV, TSV or Parquet file, and there is none.", 2)
    readings: list[Reading] = []
    problems = Problems()
    with problems.collect():
        readings.append(read_arguments(texts, skip_bad))
    for path in files:
        with problems.collect():
            readings.append(read_file(path, columns, scratch, skip_bad=skip_bad, limits=limits))
            for note in readings[-1].notes:
                tell(note)
    problems.raise_all()
    records = [record for reading in readings for record in reading.records]
    bad = [each for reading in readings for each in reading.bad]
    if not records and not bad:
        stop("Nothing to embed: pass texts, or --file.", 2)
    if not records:
        raise _nothing_left(bad)
    return Reading(records, bad=bad)
