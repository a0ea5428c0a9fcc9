"""``st-modules embed``: vectors of texts, images, and both, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer

from st_modules.cli.shared import BaseWeights, Device, ModelName, Weights, one_line_errors, open_model, stop, tell
from st_modules.errors import InputError, name_inputs

if TYPE_CHECKING:
    from st_modules.files.records import Record
    from st_modules.files.tables import Columns

app = typer.Typer()


@app.command()
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.", show_default=False)] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
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
    out: Annotated[
        Path, typer.Option("--out", "-o", help="File.npy (records go to file.jsonl beside it) or file.parquet.")
    ] = Path("vectors.npy"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
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
    with one_line_errors(), TemporaryDirectory(prefix="st-modules-") as scratch:
        from st_modules.files.tables import Columns
        from st_modules.files.vectors import check_target, write_vectors

        if prompt is not None and prompt_name is not None:
            stop("--prompt and --prompt-name are two ways to say the same: pass one of them.", 2)
        check_target(out, overwrite=force, inputs=files or [])
        records = _records(texts or [], files or [], Columns(text_column, image_column, id_column), Path(scratch))
        model = open_model(model_name, device, weights, base_weights)
        if prompt_name is not None and prompt_name not in model.prompts:
            known = ", ".join(model.prompts) or "none"
            stop(f"{model_name} has no instruction named {prompt_name!r}. It has: {known}.", 2)
        encode = {None: model.encode, True: model.encode_query, False: model.encode_document}[query]
        with name_inputs(lambda index: records[index].place):
            vectors = encode(
                [record.item for record in records],
                prompt=prompt,
                prompt_name=prompt_name,
                batch_size=batch_size,
                show_progress_bar=not quiet,
            )
        written = write_vectors(out, vectors, records)
        typer.echo(f"Wrote {len(vectors)} vectors of {vectors.shape[1]} to {' and '.join(map(str, written))}.")


def _records(texts: Sequence[str], files: Sequence[Path], columns: Columns, scratch: Path) -> list[Record]:
    from st_modules.files.reading import is_file_name, is_table, read_file
    from st_modules.files.texts import read_arguments

    for text in texts:
        if is_file_name(text):
            stop(f"{text!r} is a file or a folder: pass it as --file {text}", 2)
    if any(name is not None for name in vars(columns).values()) and not any(map(is_table, files)):
        stop("--text, --image and --id name columns of a JSONL, CSV, TSV or Parquet file, and there is none.", 2)
    records = read_arguments(texts)
    problems: list[str] = []
    for path in files:
        try:
            reading = read_file(path, columns, scratch)
        except InputError as error:
            problems.append(str(error))
            continue
        records += reading.records
        for note in reading.notes:
            tell(note)
    if problems:
        raise InputError("\n".join(problems))
    if not records:
        stop("Nothing to embed: pass texts, or --file.", 2)
    return records
