"""``st-modules train``: fine-tuning as a YAML file says."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_modules.cli.shared import one_line_errors, only_download_bars, say

app = typer.Typer()


@app.command()
def train(
    config: Annotated[Path, typer.Argument(help="A YAML file; docs/training.md says what is in it.")],
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the latest checkpoint in the output folder.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress bar.")] = False,
) -> None:
    """Fine-tune a model on texts, images, and both together, and write the adapter and the model."""
    with one_line_errors():
        from accelerate import PartialState

        from st_modules.train import read_config, run

        only_download_bars()
        result = run(read_config(config), resume=resume, quiet=quiet)
        is_main = PartialState().is_main_process
        # Its threads would be cut off by the end of the process, which aborts it.
        PartialState().destroy_process_group()
        if not is_main:
            return
        say(
            f"Trained {result.trained:,} of {result.parameters:,} parameters for {result.steps} steps; the loss ended "
            f"at {result.loss:.4f}."
        )
        for what, folder in (("adapter", result.adapter), ("model", result.model), ("logs", result.logs)):
            if folder:
                say(f"Wrote the {what} to {folder}.")
