"""``st-modules search``: what an index has that is nearest to a text, a picture, or both."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from st_modules.cli.shared import (
    BaseWeights,
    Device,
    Weights,
    as_cells,
    make_console,
    make_table,
    name_path,
    one_line_errors,
    open_model,
    say,
    stop,
    tell,
)
from st_modules.errors import STModulesError, in_one_line

if TYPE_CHECKING:
    from st_modules.index.hits import Hit
    from st_modules.index.index import Index

app = typer.Typer()

_LONGEST_TEXT = 160


class ModeName(StrEnum):
    """How what is near is found."""

    vector = "vector"
    text = "text"
    hybrid = "hybrid"


@app.command()
def search(
    index: Annotated[str, typer.Argument(help="The index: a folder, or a URL.", metavar="INDEX")],
    text: Annotated[str | None, typer.Argument(help="What to look for.", show_default=False)] = None,
    image: Annotated[
        str | None,
        typer.Option("--image", metavar="PATH", help="Picture to look for: a file, or a URL.", show_default=False),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option("--like", metavar="ID", help="Look for more like this item of the index.", show_default=False),
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many answers.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(help='Condition in SQL on the columns, such as "year > 2020".', show_default=False),
    ] = None,
    mode: Annotated[
        ModeName, typer.Option(help="Search by vectors, by the words of the texts, or by both.")
    ] = ModeName.vector,
    exact: Annotated[bool, typer.Option("--exact", help="Use no vector index.")] = False,
    prompt: Annotated[str | None, typer.Option(help="Instruction for the model.")] = None,
    prompt_name: Annotated[str | None, typer.Option(help="Name of one of the model's own instructions.")] = None,
    rerank: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="A CrossEncoder that puts the first 50 in order.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Write an object of JSON for each answer.")] = False,
    html: Annotated[
        Path | None,
        typer.Option(parser=name_path, metavar="FILE", help="Write a page with the answers.", show_default=False),
    ] = None,
    model_name: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="What loads the model; by default as the index was made.", show_default=False
        ),
    ] = None,
    weights: Weights = None,
    base_weights: BaseWeights = None,
    device: Device = None,
) -> None:
    """Search an index by a text, a picture, both, or an item of it."""
    with one_line_errors():
        item = _make_item(text, image)
        _check_call(item, like, mode.value, prompt, prompt_name, rerank, html)

        from st_modules.index.index import Index

        opened = Index.open(index)
        if like is not None:
            hits = _search_like(opened, like, k, where)
        else:
            if mode is not ModeName.text and image is None and text is not None and _looks_like_picture(text):
                tell(f"{text!r} is looked for as a text. To look for a picture: --image {shlex.quote(text)}")
            if mode is not ModeName.text:
                model = open_model(model_name or opened.model_name, device, weights, base_weights)
                if prompt_name is not None and prompt_name not in model.prompts:
                    known = ", ".join(model.prompts) or "none"
                    stop(f"{opened.model_name} has no instruction named {prompt_name!r}. It has: {known}.", 2)
                opened = Index.open(index, model)
            options: dict[str, Any] = {"where": where, "instruction": prompt, "prompt_name": prompt_name}
            reranker = _open_reranker(rerank, device)
            hits = opened.search(item, k, **options, mode=mode.value, exact=exact, rerank=reranker)
        if as_json:
            for hit in hits:
                say(json.dumps(hit.to_record()))
        elif hits:
            make_console().print(_make_hits_table(hits))
        else:
            tell("Nothing was found.")
        if html is not None:
            _write_page(html, opened, text, image, like, where, hits)


def _make_item(text: str | None, image: str | None) -> dict[str, str]:
    # As a mapping, so that a text that is the name of a file is a text.
    return {name: value for name, value in (("text", text), ("image", image)) if value is not None}


def _looks_like_picture(text: str) -> bool:
    from st_modules.inputs.formats import has_image_suffix, is_image_file, is_regular_file
    from st_modules.inputs.limits import ImageLimits

    return has_image_suffix(text) or (is_regular_file(text) and is_image_file(text, ImageLimits()))


def _search_like(index: Index, id: str, k: int, where: str | None) -> list[Hit]:
    from st_modules.index.problems import UnknownItemError

    try:
        return index.search_like(id, k, where)
    except UnknownItemError as error:
        picture = f" To look for a picture: --image {shlex.quote(id)}" if _looks_like_picture(id) else ""
        stop(f"{error} --like takes an id as a search prints it.{picture}", 1)


def _check_call(
    item: dict[str, str],
    like: str | None,
    mode: str,
    prompt: str | None,
    prompt_name: str | None,
    rerank: str | None,
    html: Path | None,
) -> None:
    if not item and like is None:
        stop("Nothing to look for: pass a text, --image or --like.", 2)
    if prompt is not None and prompt_name is not None:
        stop("--prompt and --prompt-name are two ways to say the same: pass one of them.", 2)
    others = {"a text or --image": bool(item), "--prompt": prompt, "--prompt-name": prompt_name, "--rerank": rerank}
    others["--mode"] = mode != "vector"
    if like is not None and (given := [name for name, value in others.items() if value]):
        stop(f"--like looks for the vector of an item, without {given[0]}.", 2)
    if mode == "text" and (prompt or prompt_name or "image" in item):
        stop("--mode text looks for words alone: leave --image, --prompt and --prompt-name out.", 2)
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        stop(f"--html {html}: pass a file that ends with .html.", 2)


def _open_reranker(name: str | None, device: str | None) -> Any:
    if name is None:
        return None
    from st_modules.integrations.reranker import Reranker

    try:
        return Reranker.load(name, device=device).model
    except STModulesError:
        raise
    except (OSError, ValueError) as error:
        stop(f"--rerank {name}: {in_one_line(error)}", 1)


def _make_hits_table(hits: Sequence[Hit]) -> Table:
    table = make_table("", "Score", "Source", "Text", "Id")
    for rank, hit in enumerate(hits, 1):
        source = hit.source if hit.page is None else f"{hit.source}, page {hit.page}"
        words = " ".join((hit.text or "").split())
        shown = words if len(words) <= _LONGEST_TEXT else f"{words[: _LONGEST_TEXT - 1]}…"
        table.add_row(str(rank), f"{hit.score:.4f}", *as_cells([source, shown, hit.id]))
    return table


def _write_page(
    path: Path,
    index: Index,
    text: str | None,
    image: str | None,
    like: str | None,
    where: str | None,
    hits: Sequence[Hit],
) -> None:
    from st_modules.files.atomic import write_atomically
    from st_modules.index.page import render
    from st_modules.inputs.limits import ImageLimits

    title = text or (f"More like {like}" if like is not None else f"Pictures like {image}")
    notes = [f"{len(hits)} of {len(index)} items of {index.path}", f"by {index.model_name}"]
    notes += [] if where is None else [f"where {where}"]
    # An address that does not answer holds a page up no longer than a reader waits.
    limits = ImageLimits(total_timeout=10.0)
    with write_atomically([path]) as (part,):
        part.write_text(render(title, image, notes, hits, limits), encoding="utf-8")
    tell(f"Wrote {path}: open it in a browser.")
