"""The command line: ``st-modules demo``, ``list``, ``embed`` and ``verify``.

What needs torch is imported inside the commands, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

import st_modules
from st_modules.catalog import get_model, list_models
from st_modules.errors import ImageError, InputError, STModulesError, UnknownModelError

if TYPE_CHECKING:
    from st_modules.demo.run import Answer, Gallery
    from st_modules.model import SentenceTransformer
    from st_modules.records import Record

app = typer.Typer(
    no_args_is_help=True, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)

ModelName = Annotated[str, typer.Option("--model", "-m", help="A name that `st-modules list` shows.")]
Weights = Annotated[
    Path | None, typer.Option(help="Local folder with the model's files, used in the place of a download.")
]
BaseWeights = Annotated[
    Path | None, typer.Option(help="Local folder of what an adapter or a vision tower is built on, likewise.")
]
Device = Annotated[str | None, typer.Option(help="Where to run: cpu, cuda, mps … The best one there is by default.")]


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Say what the user can do about an error on stderr, without a traceback; 2 for a wrong call, 1 for the rest."""
    try:
        yield
    except STModulesError as error:
        _stop(str(error), 2 if isinstance(error, UnknownModelError) else 1)
    except OSError as error:
        _stop(_first_line(error), 1)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _stop(message: str, code: int) -> NoReturn:
    for line in message.splitlines():
        typer.echo(f"Error: {line}", err=True)
    raise typer.Exit(code)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"st-modules {st_modules.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Embed text, images, and both together."""


@app.command("list")
def list_() -> None:
    """Show every model that this package knows."""
    table = _table("Model", "Status", "Backbone", "Dim", "Licence", "Repository")
    for spec in list_models():
        status = f"[green]available[/], {'equals ' if spec.repo_id else ''}{spec.parity}"
        repository = spec.repo_id or "ships with st-modules"
        table.add_row(spec.name, status, spec.backbone, str(spec.dimension), spec.licence, repository)
    _console().print(table)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for index.html.")] = Path("demo-out"),
    model_name: ModelName = "tiny",
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
    pictures: Annotated[int, typer.Option(min=20, max=3000, help="Size of the gallery.")] = 300,
    seed: Annotated[int, typer.Option(help="Another seed draws another gallery.")] = 7,
) -> None:
    """Draw a gallery, search it by text, by picture and by both, and write a page with the answers."""
    with _one_line_errors():
        from st_modules.demo.page import render
        from st_modules.demo.run import answer, make_gallery

        out.mkdir(parents=True, exist_ok=True)
        model = _load(model_name, device, weights, base_weights)
        typer.echo(f"Drawing {pictures} pictures and embedding them with {model_name} …")
        gallery = make_gallery(pictures, seed)
        answers = answer(model, gallery)
        _console().print(_answer_table(gallery, answers))
        page = out / "index.html"
        page.write_text(render(model_name, gallery, answers), encoding="utf-8")
        typer.echo(f"Wrote {page}: open it in a browser.")


def _answer_table(gallery: Gallery, answers: list[Answer]) -> Table:
    from st_modules.demo.wording import caption

    table = _table("Question", "First answer", "Score", "Right answer")
    for kind, group in groupby(answers, key=lambda found: found.question.kind):
        table.add_section()
        table.add_row(f"[bold]{kind}[/]")
        for found in group:
            first = found.ranking[0]
            rank = "[green]✓ first[/]" if found.rank == 1 else f"[red]rank {found.rank}[/]"
            asked = [f"({caption(found.question.scene)})"] if found.question.scene else []
            asked += [f"“{found.question.text}”"] if found.question.text else []
            table.add_row(" + ".join(asked), gallery.captions[first], f"{found.scores[first]:.3f}", rank)
    return table


@app.command()
def embed(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to embed.", show_default=False)] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            help="A text file (one text a line), an image, a folder of images, a JSONL file with text and/or image "
            "fields, or - for lines from standard input. May be given several times.",
            show_default=False,
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
    with _one_line_errors():
        from st_modules.vector_files import check_target, write_vectors

        if prompt is not None and prompt_name is not None:
            _stop("--prompt and --prompt-name are two ways to say the same: pass one of them.", 2)
        check_target(out, overwrite=force)
        records = _records(texts or [], files or [])
        model = _load(model_name, device, weights, base_weights)
        if prompt_name is not None and prompt_name not in model.prompts:
            known = ", ".join(model.prompts) or "none"
            _stop(f"{model_name} has no instruction named {prompt_name!r}. It has: {known}.", 2)
        encode = {None: model.encode, True: model.encode_query, False: model.encode_document}[query]
        with _places_named(records):
            vectors = encode(
                [record.item for record in records],
                prompt=prompt,
                prompt_name=prompt_name,
                batch_size=batch_size,
                show_progress_bar=not quiet,
            )
        written = write_vectors(out, vectors, records)
        typer.echo(f"Wrote {len(vectors)} vectors of {vectors.shape[1]} to {' and '.join(map(str, written))}.")


def _records(texts: Sequence[str], files: Sequence[Path]) -> list[Record]:
    from st_modules.records import is_file_name, read_file, read_texts

    for text in texts:
        if is_file_name(text):
            _stop(f"{text!r} is a file: pass it as --file {text}", 2)
    records = [*read_texts(texts), *(record for path in files for record in read_file(path))]
    if not records:
        _stop("Nothing to embed: pass texts, or --file.", 2)
    return records


@contextmanager
def _places_named(records: Sequence[Record]) -> Iterator[None]:
    """Say where an item was read instead of its number in the list."""
    try:
        yield
    except InputError as error:
        message = re.sub(r"^item (\d+)", lambda match: records[int(match[1])].place, str(error))
        raise InputError(message) from error


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A name that `st-modules list` shows.")],
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
) -> None:
    """Download a model's weights, and check the scores that its authors publish."""
    with _one_line_errors():
        from st_modules.verify import PUBLISHED, TOLERANCE, fetch_images, measure

        spec = get_model(name)
        if spec.name not in PUBLISHED:
            _stop(f"{spec.name} has no published scores to check. {', '.join(PUBLISHED)} have.", 1)
        published = PUBLISHED[spec.name]
        try:
            images = fetch_images(published.scores)
        except ImageError as error:
            _stop(f"{spec.name} was not verified: that needs the network. {error}", 1)
        model = _load(spec.name, device, weights, base_weights)
        console = _console()
        got = [measure(model, score, images) for score in track(published.scores, "Scoring", console=console)]
        close = [abs(value - score.published) <= TOLERANCE for value, score in zip(got, published.scores, strict=True)]
        table = _table("Score", "Published", "Here", "Within " + str(TOLERANCE))
        for score, value, is_close in zip(published.scores, got, close, strict=True):
            verdict = "[green]✓[/]" if is_close else "[red]no[/]"
            table.add_row(score.label, f"{score.published:.4f}", f"{value:.4f}", verdict)
        console.print(table)
        typer.echo(f"Published in {published.source}.")
        if not all(close):
            _stop(f"{close.count(False)} of {len(close)} scores of {spec.name} differ from the published ones.", 1)


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; docs/training.md says what is in it.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the latest checkpoint in the output folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Fine-tune a model on texts, images, and both together, and write the adapter and the model."""
    with _one_line_errors():
        from st_modules.train import read_config, run

        _only_download_bars()
        result = run(read_config(config), resume=resume, quiet=quiet)
        typer.echo(
            f"Trained {result.trained:,} of {result.parameters:,} parameters for {result.steps} steps; the loss ended "
            f"at {result.loss:.4f}."
        )
        for what, folder in (("adapter", result.adapter), ("model", result.model), ("logs", result.logs)):
            if folder:
                typer.echo(f"Wrote the {what} to {folder}.")


@app.command()
def megapairs(
    source: Annotated[
        Path,
        typer.Argument(
            help="A folder of pictures, maybe with a metadata.jsonl (file_name, caption), or a JSONL or Parquet file "
            "that lists pictures."
        ),
    ],
    encoders: Annotated[
        list[str],
        typer.Option(
            "--encoder",
            "-e",
            metavar="MODEL:READS:LOWER:UPPER",
            help="A model, what it reads (visual, caption or fused), and the band of cosines of a pair, as in "
            "tiny:visual:0.6:0.95. May be given several times.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File.jsonl or file.parquet.")] = Path("triplets.jsonl"),
    chat_model: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:NAME",
            help="A LangChain chat model, or a function that makes one, to write the instructions. Without it they "
            "come from the captions' differences.",
        ),
    ] = None,
    instructions: Annotated[int, typer.Option(min=1, help="Instructions of a pair.")] = 3,
    neighbours: Annotated[int, typer.Option(min=1, help="Most pictures that an encoder finds for a query.")] = 20,
    pairs: Annotated[int, typer.Option(min=1, help="Most targets of a query, for each encoder.")] = 1,
    negatives: Annotated[int, typer.Option(min=1, help="Most hard negatives, the query's picture included.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed draws other targets and negatives.")] = 0,
    max_failures: Annotated[int, typer.Option(min=0, help="Pairs that the chat model may fail at.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Pairs that the chat model is asked for at a time.")] = 4,
    float16: Annotated[bool, typer.Option("--float16", help="Keep vectors in half the space.")] = False,
    work: Annotated[
        Path | None, typer.Option(help="Folder for vectors and what is unfinished. OUT.work by default.")
    ] = None,
    device: Device = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite files that exist.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Mine training triplets from pictures: query, instruction, target and hard negatives."""
    with _one_line_errors():
        from st_modules.megapairs import CaptionTemplates, ChatInstructions, Encoder, Recipe, make_triplets

        _check_device(device)
        _only_download_bars()
        recipe = Recipe([Encoder.parse(text) for text in encoders], neighbours, pairs, negatives, seed, float16)
        if chat_model is None:
            writer = CaptionTemplates(instructions, seed)
        else:
            from st_modules.megapairs.chat_models import import_chat_model

            model = import_chat_model(chat_model)
            writer = ChatInstructions(model, instructions, max_failures=max_failures, concurrency=concurrency)
        made = make_triplets(
            source, out, recipe, writer, work=work, device=device, overwrite=force, show_progress_bar=not quiet
        )
        typer.echo(f"Wrote {made.triplets} triplets of {made.pictures} pictures to {made.files[0]}.")
        if made.short:
            typer.echo(f"{made.short} of them have fewer than {negatives} hard negatives.")
        for reason, count in made.skipped.items():
            typer.echo(f"Left out: {count} ({reason}); see {made.files[-1]}.")


@app.command()
def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A name that `st-modules list` shows, or a saved model's folder."),
    ] = None,
    benchmark: Annotated[
        str, typer.Option("--benchmark", "-b", help="drawings, umrb, mmeb, circo, cirr, fashioniq, or one of mteb's.")
    ] = "drawings",
    tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", "-t", help="Tasks or groups of the benchmark, with commas between; all by default."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder with the benchmark's published files.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for mteb's results and the tables.")] = Path(
        "evaluation"
    ),
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
    instructions: Annotated[
        Path | None,
        typer.Option(help='JSON object of instructions by task, type or side, as {"NFCorpus-query": "Find …"}.'),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Most items in a batch.")] = 32,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Run tasks again that have results.")] = False,
    list_tasks: Annotated[bool, typer.Option("--list", help="Show the benchmark's tasks, and run nothing.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bars.")] = False,
) -> None:
    """Run a benchmark through mteb, or go on with one, and write a table beside the published scores."""
    with _one_line_errors():
        from st_modules.evaluate.command import open_tasks, read_instructions, run_tasks, task_rows

        suite, entries = open_tasks(benchmark, data, tasks or [])
        if list_tasks:
            table = _table("Task", "Group", "Scores")
            for row in task_rows(entries):
                table.add_row(*row)
            _console().print(table)
            return
        if name is None:
            _stop("Name a model; `st-modules list` shows them.", 2)
        overrides = read_instructions(instructions, suite) if instructions else None
        model = _load(name, device, weights, base_weights)
        report = run_tasks(
            model,
            name,
            suite,
            entries,
            out,
            weights=weights,
            base_weights=base_weights,
            instructions=overrides,
            batch_size=batch_size,
            overwrite=overwrite,
            show_progress_bar=not quiet,
        )
        for header, rows in ((report.groups_header, report.groups()), (report.tasks_header, report.tasks())):
            table = _table(*header)
            for row in rows:
                table.add_row(*map(escape, row))
            _console().print(table)
        typer.echo(f"Wrote {' and '.join(map(str, report.write(out)))}.")
        if report.errors:
            _stop(f"{len(report.errors)} of {len(entries)} tasks failed.", 1)


def _load(name: str, device: str | None, weights: Path | None, base_weights: Path | None) -> SentenceTransformer:
    if "/" not in name and not Path(name).exists():
        get_model(name)  # says what is wrong with the name before anything is imported or asked of the Hub

    from st_modules.model import SentenceTransformer

    _check_device(device)
    _only_download_bars()
    try:
        return SentenceTransformer(name, weights=weights, base_weights=base_weights, device=device)
    except STModulesError:
        raise
    except ValueError as error:
        _stop(_first_line(error), 2)


def _only_download_bars() -> None:
    import huggingface_hub.utils as hub
    from transformers.utils import logging

    # transformers switches the bar of loading weights and that of downloads off together; downloads keep theirs.
    logging.disable_progress_bar()
    hub.enable_progress_bars()
    hub.logging.set_verbosity_error()  # it would print every retry on a machine without network


def _check_device(device: str | None) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        _stop(f"--device {device}: {_first_line(error)}", 2)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _console() -> Console:
    """A console on stdout; where that is no terminal, wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
