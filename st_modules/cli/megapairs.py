"""``st-modules megapairs``: training triplets from pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from st_modules.cli.shared import Device, check_device, name_path, one_line_errors, only_download_bars, say

app = typer.Typer()


@app.command()
def megapairs(
    source: Annotated[
        Path,
        typer.Argument(
            parser=name_path,
            metavar="SOURCE",
            help="A folder of pictures, maybe with a metadata.jsonl (file_name, caption), or a JSONL, CSV or Parquet "
            "file that lists pictures.",
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
    with one_line_errors():
        from st_modules.megapairs import CaptionTemplates, ChatInstructions, Encoder, Recipe, make_triplets

        check_device(device)
        only_download_bars()
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
        say(f"Wrote {made.triplets} triplets of {made.pictures} pictures to {made.files[0]}.")
        if made.short:
            say(f"{made.short} of them have fewer than {negatives} hard negatives.")
        for reason, count in made.skipped.items():
            say(f"Left out: {count} ({reason}); see {made.files[-1]}.")
