"""What the commands share: options, one-line errors, loading a model, tables."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from st_modules.catalog import get_model
from st_modules.errors import STModulesError, UnknownNameError, printable
from st_modules.files.atomic import name_file

if TYPE_CHECKING:
    from st_modules.inputs.limits import ImageLimits
    from st_modules.model import SentenceTransformer


def name_path(text: str) -> Path:
    """Take a path from the command line; an empty one, which would be the current folder, is a wrong call."""
    if not text:
        stop("An empty path; pass . for the current folder.", 2)
    return Path(text)


ModelName = Annotated[str, typer.Option("--model", "-m", help="A name that `st-modules list` shows.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        parser=name_path, metavar="PATH", help="Local folder with the model's files, used in the place of a download."
    ),
]
BaseWeights = Annotated[
    Path | None,
    typer.Option(
        parser=name_path,
        metavar="PATH",
        help="Local folder of what an adapter or a vision tower is built on, likewise.",
    ),
]
Device = Annotated[str | None, typer.Option(help="Where to run: cpu, cuda, mps … The best one there is by default.")]


class EngineName(StrEnum):
    """Where items are embedded."""

    local = "local"
    ray = "ray"


class Stopped(BaseException):
    """The process was asked to end."""


@contextmanager
def one_line_errors() -> Generator[None, None, None]:
    """Say what the user can do about an error on stderr, without a traceback; 2 for a wrong call, 1 for the rest.

    What is under way is cleaned up also where the process is asked to end: the exit code is that of the signal then.
    """
    try:
        with _raise_signals(), _printable_logs():
            yield
    except STModulesError as error:
        stop(str(error), 2 if isinstance(error, UnknownNameError) else 1)
    except OSError as error:
        _give_up_stdout()
        parts = [str(part) for part in (error.strerror, error.filename) if part is not None]
        stop(": ".join(parts) or first_line(error), 1)
    except UnicodeError as error:
        stop(f"A text that cannot be written or read: {first_line(error)}", 1)
    except RecursionError:
        stop("Something is nested too deeply.", 1)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not _lacks_memory(error):
            raise
        stop(f"Not enough memory: {first_line(error) or 'none is left'}", 1)
    except KeyboardInterrupt:
        stop("Stopped by Ctrl-C.", 128 + signal.SIGINT)
    except Stopped as error:
        (number,) = error.args
        stop(f"Stopped by {signal.Signals(number).name}.", 128 + number)


@contextmanager
def _raise_signals() -> Generator[None, None, None]:
    """Have signals that end the process raise, so that what is temporary is deleted."""

    def end(number: int, _: object) -> NoReturn:
        raise Stopped(number)

    known = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    main = threading.current_thread() is threading.main_thread()
    # One that is ignored, as under nohup, stays so.
    taken = [each for each in known if main and signal.getsignal(each) == signal.SIG_DFL]
    for each in taken:
        signal.signal(each, end)
    try:
        yield
    finally:
        for each in taken:
            signal.signal(each, signal.SIG_DFL)


@contextmanager
def _printable_logs() -> Generator[None, None, None]:
    """Have what libraries log say names as ``tell`` does."""

    class PrintableRecord(logging.LogRecord):
        def getMessage(self) -> str:
            return "\n".join(map(printable, super().getMessage().splitlines()))

    usual = logging.getLogRecordFactory()
    logging.setLogRecordFactory(PrintableRecord)
    try:
        yield
    finally:
        logging.setLogRecordFactory(usual)


def _lacks_memory(error: Exception) -> bool:
    """Whether an error is that of memory, which torch and the system's loader have no exception for."""
    told = ("allocate memory", "out of memory", "failed to map segment", "can't start new thread", "std::bad_alloc")
    return isinstance(error, MemoryError) or any(words in str(error) for words in told)


def _give_up_stdout() -> None:
    """Where nobody reads standard output, or its file is full, have Python not try again at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def first_line(error: Exception) -> str:
    """What an error says, without the details that others put below."""
    return str(error).strip().partition("\n")[0]


def stop(message: str, code: int) -> NoReturn:
    """End the command with a message on stderr; 2 for a wrong call, 1 for the rest."""
    for line in message.splitlines():
        tell(f"Error: {line}")
    raise typer.Exit(code)


def tell(line: str) -> None:
    """Print a line on stderr, printable."""
    typer.echo(printable(line), err=True)


def say(line: str) -> None:
    """Print a line on stdout, printable."""
    encoding = sys.stdout.encoding or "utf-8"
    with name_file(Path("standard output")):
        typer.echo(printable(line).encode(encoding, "backslashreplace").decode(encoding))


def check_model(name: str, device: str | None) -> None:
    """Before a model is loaded: what is wrong with its name or with the device ends the command."""
    if not name:
        stop("--model: an empty name; `st-modules list` shows every model.", 2)
    if "/" not in name and not Path(name).exists():
        get_model(name)  # says what is wrong with the name before anything is imported or asked of the Hub
    check_device(device)
    only_download_bars()


def open_model(name: str, device: str | None, weights: Path | None, base_weights: Path | None) -> SentenceTransformer:
    """Load a model; what is wrong with its name or its options ends the command."""
    check_model(name, device)

    from st_modules.model import SentenceTransformer

    try:
        return SentenceTransformer(name, weights=weights, base_weights=base_weights, device=device)
    except STModulesError:
        raise
    except ValueError as error:
        stop(first_line(error), 2)


def make_limits(root: Path | None, *, local_files: bool, remote_images: bool) -> ImageLimits:
    """What the images that tables name may cost, and where they may come from."""
    from st_modules.inputs.limits import ImageLimits

    if root is not None and not local_files:
        stop("--root opens the files of a folder, and --no-local-files none: pass one of them.", 2)
    if root is not None and not root.is_dir():
        stop(f"--root {root}: no such folder.", 2)
    return ImageLimits(local_files=local_files if root is None else root, remote_images=remote_images)


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


def as_cells(texts: Iterable[str]) -> list[str]:
    """Write texts out for a table, without markup and control characters."""
    return [escape(printable(text)) for text in texts]


def make_console() -> Console:
    """A console on stdout; where that is no terminal, wide enough for every table."""
    console = Console()
    return console if console.is_terminal else Console(width=160)
