"""``st-modules errors``: what an index could not embed."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from st_modules.cli.shared import as_cells, make_console, make_table, one_line_errors, say, tell

app = typer.Typer()


@app.command()
def errors(
    index: Annotated[str, typer.Argument(help="The index: a folder, or a URL.", metavar="INDEX")],
    as_json: Annotated[bool, typer.Option("--json", help="Write an object of JSON for each.")] = False,
) -> None:
    """List what could not be embedded when its sources were last read, and why."""
    with one_line_errors():
        from st_modules.index.index import Index

        found = Index.open(index).errors()
        if as_json:
            for error in found:
                say(json.dumps(error))
        elif found:
            table = make_table("Place", "Reason")
            for error in found:
                table.add_row(*as_cells([error["place"], error["reason"]]))
            make_console().print(table)
        else:
            tell("Everything could be embedded.")
