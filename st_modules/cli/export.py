"""``st-modules export``: an index as a Parquet file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_modules.cli.shared import name_path, one_line_errors, say

app = typer.Typer()


@app.command()
def export(
    index: Annotated[str, typer.Argument(help="The index: a folder, or a URL.", metavar="INDEX")],
    to: Annotated[Path, typer.Option("--to", parser=name_path, metavar="FILE", help="The file: FILE.parquet.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that exists.")] = False,
) -> None:
    """Write the ids, vectors, sources, texts and metadata of an index, for another database to read."""
    with one_line_errors():
        from st_modules.index.index import Index

        rows = Index.open(index).export(to, force=force)
        say(f"Wrote {rows} items to {to}.")
