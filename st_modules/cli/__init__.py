"""The command line: ``st-modules list``, ``demo``, ``embed``, ``index``, ``search``, ``serve`` and others.

What needs torch is imported inside the commands, so that ``--help`` and ``list`` answer at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

import st_modules
from st_modules.cli import demo, embed, errors, evaluate, export, index, megapairs, models, search, serve, train

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    # In a terminal of 80 columns the names of options would be cut.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for group in (models, demo, embed, index, errors, search, export, serve, train, megapairs, evaluate):
    app.add_typer(group.app)


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
