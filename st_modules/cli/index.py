"""``st-modules index``: a collection into a table that is searched."""

from __future__ import annotations

import functools
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from st_modules.cli.shared import (
    BaseWeights,
    Device,
    EngineName,
    Stopped,
    Weights,
    check_model,
    first_line,
    make_limits,
    name_path,
    one_line_errors,
    say,
    stop,
    tell,
)
from st_modules.errors import STModulesError

if TYPE_CHECKING:
    from st_modules.index import RayOptions, Report

app = typer.Typer()


class DtypeName(StrEnum):
    """How vectors are kept."""

    float32 = "float32"
    float16 = "float16"


class VectorIndexName(StrEnum):
    """Which index the vectors get."""

    auto = "auto"
    none = "none"
    hnsw = "hnsw"
    ivf_pq = "ivf_pq"


@app.command()
def index(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders of pictures, texts and PDFs (a page each), such files, patterns, and JSONL, CSV, TSV and "
            "Parquet files, dataset folders and tar archives; local, or URLs such as s3://bucket/photos."
        ),
    ],
    to: Annotated[
        str, typer.Option("--to", "-t", metavar="INDEX", help="The index: a folder, which is made, or a URL.")
    ],
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="A name that `st-modules list` shows: by default the index's own, and tiny for a new one.",
            show_default=False,
        ),
    ] = None,
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
    engine: Annotated[EngineName, typer.Option(help="Embed in this process, or on a Ray cluster.")] = EngineName.local,
    address: Annotated[
        str | None, typer.Option(help="The Ray cluster; one on this machine by default.", show_default=False)
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="How many models Ray loads.")] = 1,
    gpus_per_worker: Annotated[float, typer.Option(min=0, help="GPUs that Ray gives each of them.")] = 0,
    text_column: Annotated[
        str | None,
        typer.Option(
            "--text",
            metavar="COLUMN",
            help="The column of the texts in tables: by default text, where there is one; '' for none.",
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
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="A column to keep beside them; all others by default. May be given several times.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        DtypeName | None,
        typer.Option(
            help="How vectors are kept; float32 by default. Decided when the index is made.", show_default=False
        ),
    ] = None,
    truncate_dim: Annotated[
        int | None, typer.Option(min=1, help="Keep so many dimensions of a vector. Likewise.", show_default=False)
    ] = None,
    thumbnails: Annotated[
        int | None, typer.Option(min=1, metavar="PIXELS", help="Keep small pictures of this size.", show_default=False)
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Instruction for the model, for the items.")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="Name of one of the model's own instructions.")] = None,
    prune: Annotated[bool, typer.Option("--prune", help="Delete the rows of files that are gone.")] = False,
    max_errors: Annotated[
        int | None,
        typer.Option(min=0, help="Stop when more items than this fail; never by default.", show_default=False),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most items in a batch.")] = 32,
    vectors: Annotated[
        Path | None,
        typer.Option(
            parser=name_path,
            metavar="FILE.npy",
            help="Vectors that `st-modules embed` wrote, with the .jsonl beside them as the source.",
            show_default=False,
        ),
    ] = None,
    vector_index: Annotated[
        VectorIndexName, typer.Option(help="The index over the vectors; auto makes one of a large table.")
    ] = VectorIndexName.auto,
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
    wait: Annotated[bool, typer.Option("--wait", help="Wait for another run that writes to the index.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Embed a collection into an index, or bring the index up to date; run again, it goes on where it was stopped."""
    with one_line_errors():
        if not to or not all(sources):
            stop("An empty path; pass . for the current folder.", 2)
        limits = make_limits(root, local_files=local_files, remote_images=remote_images)
        check_model("tiny" if model_name is None else model_name, device)

        from st_modules.index import build

        run = functools.partial(
            build,
            sources,
            to,
            model_name,
            weights=weights,
            base_weights=base_weights,
            device=device,
            engine=_describe_ray(address, workers, gpus_per_worker) if engine is EngineName.ray else "local",
            text=text_column,
            image=image_column,
            id=id_column,
            metadata=metadata,
            dtype=None if dtype is None else dtype.value,
            truncate_dim=truncate_dim,
            thumbnails=thumbnails,
            instruction=prompt,
            prompt_name=prompt_name,
            prune=prune,
            max_errors=max_errors,
            batch_size=batch_size,
            image_limits=limits,
            vector_index=None if vector_index is VectorIndexName.none else vector_index.value,
            vectors=vectors,
            show_progress_bar=not quiet,
            wait=wait,
        )
        try:
            report = run()
        except STModulesError:
            raise
        except ValueError as error:
            stop(first_line(error), 2)
        except (KeyboardInterrupt, Stopped):
            tell(f"What is done is in {to}; the same command goes on from there.")
            raise
        _tell_report(to, report)


def _describe_ray(address: str | None, workers: int, gpus_per_worker: float) -> RayOptions:
    from st_modules.index import RayOptions

    return RayOptions(address, workers, gpus_per_worker)


def _tell_report(to: str, report: Report) -> None:
    for note in report.notes:
        tell(note)
    counts = {name: getattr(report, name) for name in ("added", "updated", "unchanged", "removed", "repeated")}
    say(f"{to}: {', '.join(f'{count} {name}' for name, count in counts.items())}.")
    if report.recall is not None:
        say(f"The vector index finds {report.recall:.1%} of what an exact search finds.")
    if report.failed:
        for error in report.errors:
            tell(f"{error.place}: {error.reason}")
        tell(f"{report.failed} could not be embedded; `st-modules errors {to}` lists them all.")
