"""The demonstration's answers as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from st_modules.demo.run import CAPTION, COMPOSED, PICTURE, TEXT, Answer, Gallery, Question
from st_modules.demo.wording import caption

SHOWN = 6
"""Pictures or captions shown for each question."""

_TITLES = {
    TEXT: "Find a picture by its description",
    PICTURE: "Find another picture of the same scene",
    COMPOSED: "Find a picture that differs from this one as the words say",
    CAPTION: "Find the description of a picture",
}

_STOPS = ((38, 26, 84), (176, 52, 122), (255, 212, 96))
"""Colours of the heat map from least to most similar; light grows along it, so it also reads without colour."""


def render(model_name: str, gallery: Gallery, answers: Sequence[Answer]) -> str:
    """Build the page.

    Args:
        model_name: The model that answered.
        gallery: What it searched.
        answers: Its answers.

    Returns:
        A complete HTML document; pictures are data URIs, there are no scripts and no links to other files.
    """
    right = sum(answer.rank == 1 for answer in answers)
    sections = "".join(_section(kind, gallery, answers) for kind in _TITLES)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>st-modules demo: {escape(model_name)}</title>
<style>
{Path(__file__).with_name("page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>One space for text, pictures, and both</h1>
<p>The model <strong>{escape(model_name)}</strong> embedded {len(gallery.pictures)} drawings with their descriptions
and answered {len(answers)} questions about them. <strong>{right} of {len(answers)}</strong> right answers came first.
Similarity is the cosine of the two vectors.</p>
</header>
<main>
{sections}{_heat_map(gallery, answers)}</main>
</body>
</html>
"""


def _section(kind: str, gallery: Gallery, answers: Sequence[Answer]) -> str:
    cards = "".join(_card(gallery, answer) for answer in answers if answer.question.kind == kind)
    return f"<section>\n<h2>{_TITLES[kind]}</h2>\n{cards}</section>\n"


def _card(gallery: Gallery, answer: Answer) -> str:
    hits = "".join(_hit(gallery, answer, rank) for rank in range(1, min(SHOWN, len(answer.ranking)) + 1))
    missed = answer.rank > SHOWN
    note = f'<p class="missed">The right one came at rank {answer.rank}.</p>' if missed else ""
    query = f'<div class="query">{_query(answer.question)}</div>'
    return f"<article>\n{query}\n<div>\n<ol>\n{hits}</ol>{note}\n</div>\n</article>\n"


def _query(question: Question) -> str:
    picture = _image(question.picture, caption(question.scene)) if question.picture and question.scene else ""
    text = f"<p>“{escape(question.text)}”</p>" if question.text else ""
    return picture + text


def _hit(gallery: Gallery, answer: Answer, rank: int) -> str:
    place = answer.ranking[rank - 1]
    is_right = place == answer.question.answer
    mark = '<span class="mark">✓ right</span>' if is_right else ""
    score = f'<div class="score"><span>{answer.scores[place]:.3f}</span>{mark}</div>'
    return f"<li{' class=right' if is_right else ''}>{_found(gallery, answer.question.kind, place)}{score}</li>\n"


def _found(gallery: Gallery, kind: str, place: int) -> str:
    if kind == CAPTION:
        return f"<p>{escape(gallery.captions[place])}</p>"
    return _image(gallery.pictures[place], gallery.captions[place])


def _heat_map(gallery: Gallery, answers: Sequence[Answer]) -> str:
    """A table: the questions down, their right pictures across."""
    answers = [answer for answer in answers if answer.question.kind != CAPTION]
    places = [answer.question.answer for answer in answers]
    shown = [float(answer.scores[place]) for answer in answers for place in places]
    low, high = min(shown), max(shown)
    head = "".join(
        f'<th scope="col">{_image(gallery.pictures[place], gallery.captions[place])}</th>' for place in places
    )
    rows = "".join(
        f'<tr><th scope="row"><div>{_query(answer.question)}</div></th>{_cells(answer, places, low, high)}</tr>\n'
        for answer in answers
    )
    return f"""<section>
<h2>Every question against every right picture</h2>
<p id="map">Questions are the rows; the picture that answers each is in the same place among the columns, so the right
answers lie on the outlined diagonal. Brighter is more similar.</p>
<div class="legend" aria-hidden="true"><span>{low:.2f}</span>{_legend()}<span>{high:.2f}</span></div>
<div class="scroll" tabindex="0" role="region" aria-labelledby="map">
<table aria-describedby="map">
<thead><tr><th scope="col" class="corner">question ↓ &nbsp; picture →</th>{head}</tr></thead>
<tbody>
{rows}</tbody>
</table>
</div>
</section>
"""


def _cells(answer: Answer, places: Iterable[int], low: float, high: float) -> str:
    return "".join(_cell(float(answer.scores[place]), place == answer.question.answer, low, high) for place in places)


def _cell(score: float, is_right: bool, low: float, high: float) -> str:
    warmth = (score - low) / (high - low) if high > low else 1.0
    style = f"background:{_heat(warmth)};color:{'#000' if warmth > 0.6 else '#fff'}"
    rounded = round(score, 2) + 0.0  # adding zero turns -0.0 into 0.0
    return f'<td{" class=right" if is_right else ""} style="{style}">{rounded:.2f}</td>'


def _legend() -> str:
    stops = ",".join(_heat(place / (len(_STOPS) - 1)) for place in range(len(_STOPS)))
    return f'<i style="background:linear-gradient(to right,{stops})"></i>'


def _heat(warmth: float) -> str:
    """The colour between the stops of the map's legend, for a place from 0 to 1."""
    below = min(int(warmth * (len(_STOPS) - 1)), len(_STOPS) - 2)
    share = warmth * (len(_STOPS) - 1) - below
    mixed = (round(a + (b - a) * share) for a, b in zip(_STOPS[below], _STOPS[below + 1], strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _image(picture: Image.Image, alt: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return (
        f'<img src="data:image/png;base64,{data}" width="{picture.width}" height="{picture.height}"'
        f' alt="{escape(alt, quote=True)}">'
    )
