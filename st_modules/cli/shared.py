"""What the commands share: options, one-line errors, loading a model, tables."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from st_modules.catalog import get_model
from st_modules.errors import STModulesError, UnknownNameError

if TYPE_CHECKING:
    from st_modules.model import SentenceTransformer

ModelName = Annotated[str, typer.Option("--model", "-m", help="A name that `st-modules list` shows.")]
Weights = Annotated[
    Path | None, typer.Option(help="Local folder with the model's files, used in the place of a download.")
]
BaseWeights = Annotated[
    Path | None, typer.Option(help="Local folder of what an adapter or a vision tower is built on, likewise.")
]
Device = Annotated[str | None, typer.Option(help="Where to run: cpu, cuda, mps … The best one there is by default.")]


@contextmanager
def one_line_errors() -> Generator[None, None, None]:
    """Say what the user can do about an error on stderr, without a traceback; 2 for a wrong call, 1 for the rest."""
    try:
        yield
    except STModulesError as error:
        stop(str(error), 2 if isinstance(error, UnknownNameError) else 1)
    except OSError as error:
        stop(first_line(error), 1)


def first_line(error: Exception) -> str:
    """What an error says, without the details that others put below."""
    return str(error).partition("\n")[0]


def stop(message: str, code: int) -> NoReturn:
    """End the command with a message on stderr; 2 for a wrong call, 1 for the rest."""
    for line in message.splitlines():
        tell(f"Error: {line}")
    raise typer.Exit(code)


def tell(line: str) -> None:
    """Print a line on stderr; control characters, which names from files may have, do not reach the terminal."""
    typer.echo("".join(char if char.isprintable() else ascii(char)[1:-1] for char in line), err=True)


def open_model(name: str, device: str | None, weights: Path | None, base_weights: Path | None) -> SentenceTransformer:
    """Load a model; what is wrong with its name or its options ends the command."""
    if not name:
        stop("--model: an empty name; `st-modules list` shows every model.", 2)
    if "/" not in name and not Path(name).exists():
        get_model(name)  # says what is wrong with the name before anything is imported or asked of the Hub

    from st_modules.model import SentenceTransformer

    check_device(device)
    only_download_bars()
    try:
        return SentenceTransformer(name, weights=weights, base_weights=base_weights, device=device)
    except STModulesError:
        raise
    except ValueError as error:
        stop(first_line(error), 2)


def only_download_bars() -> None:
    """Show progress of downloads, and no other of the libraries' bars."""
    import huggingface_hub.utils as hub
    from transformers.utils import logging

    # transformers switches the bar of loading weights and that of downloads off together; downloads keep theirs.
    logging.disable_progress_bar()
    hub.enable_progress_bars()
    hub.logging.set_verbosity_error()  # it would print every retry on a machine without network


def check_device(device: str | None) -> None:
    """End the command where torch has no such device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        stop(f"--device {device}: {first_line(error)}", 2)


def make_table(*columns: str) -> Table:
    """An empty table whose long cells go on in the next line."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def make_console() -> Console:
    """A console on stdout; where that is no terminal, wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
