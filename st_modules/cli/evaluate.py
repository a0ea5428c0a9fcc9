"""``st-modules evaluate``: benchmarks through mteb."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_modules.cli.shared import (
    BaseWeights,
    Device,
    Weights,
    as_cells,
    make_console,
    make_table,
    one_line_errors,
    open_model,
    say,
    stop,
)

app = typer.Typer()


@app.command()
def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A name that `st-modules list` shows, or a saved model's folder."),
    ] = None,
    benchmark: Annotated[
        str,
        typer.Option(
            "--benchmark",
            "-b",
            help="drawings, umrb, mmeb, circo, cirr, fashioniq, a folder of your own, or one of mteb's.",
        ),
    ] = "drawings",
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--tasks",
            "-t",
            help="Tasks or groups of the benchmark, with commas between; all that have scores by default.",
        ),
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
    with one_line_errors():
        from st_modules.evaluate.command import open_tasks, read_instructions, run_tasks, task_rows

        suite, entries = open_tasks(benchmark, data, tasks or [])
        if list_tasks:
            table = make_table("Task", "Group", "Scores")
            for row in task_rows(entries if tasks else suite.entries):
                table.add_row(*as_cells(row))
            make_console().print(table)
            return
        if name is None:
            stop("Name a model; `st-modules list` shows them.", 2)
        overrides = read_instructions(instructions, suite) if instructions else None
        model = open_model(name, device, weights, base_weights)
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
            table = make_table(*header)
            for row in rows:
                table.add_row(*as_cells(row))
            make_console().print(table)
        say(f"Wrote {' and '.join(map(str, report.write(out)))}.")
        for task, path in report.submissions.items():
            say(f"{task}, for its server: {path}")
        if report.errors:
            stop(f"{len(report.errors)} of {len(entries)} tasks failed.", 1)
