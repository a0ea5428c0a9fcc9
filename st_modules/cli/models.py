"""``st-modules list`` and ``verify``: the models of the catalog."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.progress import track

from st_modules.catalog import get_model, list_models
from st_modules.cli.shared import (
    BaseWeights,
    Device,
    Weights,
    make_console,
    make_table,
    one_line_errors,
    open_model,
    say,
    stop,
)
from st_modules.errors import ImageError

app = typer.Typer()


@app.command("list")
def list_() -> None:
    """Show every model that this package knows."""
    with one_line_errors():
        table = make_table("Model", "Status", "Backbone", "Dim", "Licence", "Repository")
        for spec in list_models(None):
            status = f"[green]available[/], {'equals ' if spec.repo_id else ''}{spec.parity}"
            repository = spec.repo_id or "ships with st-modules"
            table.add_row(
                spec.name,
                status,
                spec.backbone,
                str(spec.dimension) if spec.task == "embed" else "score",
                spec.licence,
                repository,
            )
        make_console().print(table)


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A name that `st-modules list` shows.")],
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
) -> None:
    """Download a model's weights, and check the scores that its authors publish."""
    with one_line_errors():
        from st_modules.evaluate.published import INSTEAD, PUBLISHED, TOLERANCE, fetch_images, measure

        spec = get_model(name)
        if spec.name not in PUBLISHED:
            instead = INSTEAD.get(spec.name)
            advice = (
                f'Compare `st-modules evaluate {spec.name} --benchmark "{instead.benchmark}"` with {instead.published}.'
                if instead
                else f"{', '.join(PUBLISHED)} have."
            )
            stop(f"{spec.name} has no published scores to check, since no page prints similarities of it. {advice}", 1)
        published = PUBLISHED[spec.name]
        try:
            images = fetch_images(published.scores)
        except ImageError as error:
            stop(f"{spec.name} was not verified: that needs the network. {error}", 1)
        model = open_model(spec.name, device, weights, base_weights)
        console = make_console()
        got = [measure(model, score, images) for score in track(published.scores, "Scoring", console=console)]
        close = [abs(value - score.published) <= TOLERANCE for value, score in zip(got, published.scores, strict=True)]
        table = make_table("Score", "Published", "Here", "Within " + str(TOLERANCE))
        for score, value, is_close in zip(published.scores, got, close, strict=True):
            verdict = "[green]✓[/]" if is_close else "[red]no[/]"
            table.add_row(score.label, f"{score.published:.4f}", f"{value:.4f}", verdict)
        console.print(table)
        say(f"Published in {published.source}.")
        if not all(close):
            stop(f"{close.count(False)} of {len(close)} scores of {spec.name} differ from the published ones.", 1)
