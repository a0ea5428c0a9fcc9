"""``st-modules demo``: a gallery of drawings, and a page that searches it."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from st_modules._imports import require
from st_modules.cli.shared import (
    BaseWeights,
    Device,
    ModelName,
    Weights,
    as_cells,
    make_console,
    make_table,
    one_line_errors,
    open_model,
    say,
)

if TYPE_CHECKING:
    from st_modules.demo.run import Answer, Gallery
    from st_modules.demo.scoring import Result, Score

app = typer.Typer()


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for index.html, the gallery and its index.")] = Path(
        "demo-out"
    ),
    model_name: ModelName = "tiny",
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
    pictures: Annotated[int, typer.Option(min=20, max=3000, help="Size of the gallery.")] = 300,
    seed: Annotated[int, typer.Option(help="Another seed draws another gallery.")] = 7,
) -> None:
    """Draw a gallery, index it, search it by text, by picture and by both, and write a page with the answers."""
    with one_line_errors():
        from st_modules.demo.page import render
        from st_modules.demo.run import answer, make_gallery, write_gallery
        from st_modules.demo.scoring import chance, make_question_sets, score
        from st_modules.index import Index, build

        for package in ("lancedb", "lance", "pyarrow"):
            require(package, "index")
        out.mkdir(parents=True, exist_ok=True)
        model = open_model(model_name, device, weights, base_weights)
        say(f"Drawing {pictures} pictures and indexing them with {model_name} …")
        gallery = make_gallery(pictures, seed)
        place = out / f"{re.sub(r'[^A-Za-z0-9.-]+', '-', model_name)}.index"
        build(write_gallery(gallery, out), place, model, prune=True, show_progress_bar=True)
        index = Index.open(place, model)
        answers = answer(index, gallery, model.prompts)
        console = make_console()
        console.print(_answer_table(gallery, answers))
        say("Asking many questions …")
        results = score(index, gallery, make_question_sets(gallery, seed), model)
        console.print(_score_table(results, chance(gallery)))
        options = {"--model": model_name, "--weights": weights, "--base-weights": base_weights, "--index": place}
        given = [str(part) for name, value in options.items() if value is not None for part in (name, value)]
        serving = shlex.join([_name_program(), "serve", *given])
        page = out / "index.html"
        page.write_text(render(model_name, gallery, results, answers, serving), encoding="utf-8")
        say(f"Wrote {page}: open it in a browser.")
        say(f"To search it by words and pictures of your own: {serving}")


def _name_program() -> str:
    """Return what this command was called as, which may not be on the path."""
    return sys.argv[0] if Path(sys.argv[0]).name == "st-modules" else "st-modules"


def _answer_table(gallery: Gallery, answers: list[Answer]) -> Table:
    from st_modules.demo.wording import caption

    table = make_table("Question", "First answer", "Score", "Right answer")
    for kind, group in groupby(answers, key=lambda found: found.question.kind):
        table.add_section()
        table.add_row(f"[bold]{kind}[/]")
        for found in group:
            first = found.ranking[0]
            rank = "[green]✓ first[/]" if found.rank == 1 else f"[red]rank {found.rank}[/]"
            asked = [f"({caption(found.question.scene)})"] if found.question.scene else []
            asked += [f"“{found.question.text}”"] if found.question.text else []
            table.add_row(*as_cells([" + ".join(asked), gallery.captions[first]]), f"{found.scores[first]:.3f}", rank)
    return table


def _score_table(results: Sequence[Result], chance: Score) -> Table:
    table = make_table("Asked with", "Questions", "Recall@1", "Recall@5", "MRR")

    def add(name: str, score: Score, questions: str = "") -> None:
        shares = (score.recall_at_1, score.recall_at_5, score.mrr)
        table.add_row(name, questions, *(f"{value:.3f}" for value in shares))

    for result in results:
        add(f"[bold]{result.title}[/]", result.score, str(len(result.answers)))
        for name, score in result.baselines.items():
            add(f"  {name}", score)
    add("Chance, whatever is asked", chance)
    return table
