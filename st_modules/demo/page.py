"""The demonstration's answers as one HTML page that needs no other file."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from st_modules.demo.run import CAPTION, COMPOSED, PICTURE, TEXT, Answer, Gallery, Question
from st_modules.demo.scoring import MOST, Result, Score, chance
from st_modules.demo.wording import caption

SHOWN = 6
"""Pictures or captions shown for each question."""

_TITLES = {
    TEXT: "Find a picture by its description",
    PICTURE: "Find another picture of the same scene",
    COMPOSED: "Find a picture that differs from this one as the words say",
    CAPTION: "Find the description of a picture",
}

_PARTS = {
    "totals": "How often it is right",
    "misses": "Where it goes wrong",
    "examples": "Examples",
    "similarities": "Every question against every right picture",
    "next": "Go on",
}
"""The parts of the page, by the fragments of their addresses."""

_TINY = """<div class="note">
<h2>What “tiny” is, and what it is not</h2>
<p>It is a model of 1.3 million parameters that comes with the package, so that nothing is downloaded here. It was
trained on nothing but drawings like these, though never on the scenes that you see, and on English sentences about
them. It shows the mechanics: what goes in, what comes out, what a query can be.</p>
<p>It is <strong>no judgement of the real models</strong>. None of them ran for this page. “tiny” never saw a
photograph; its scores on drawings say nothing about theirs on photographs or documents.</p>
</div>
"""

_ANOTHER = """<div class="note">
<h2>What this says of the model, and what it does not</h2>
<p>These are simple drawings made by code. They show how the model is used; how well it finds them says little about
photographs or documents.</p>
</div>
"""

REAL_COMMANDS = (
    'pip install "st-modules[index,serve]"',
    "st-modules index photos/ --to photos.index --model gme-2b",
    'st-modules search photos.index "a dog that runs through snow" --prompt-name t2i',
    "st-modules serve --index photos.index",
)
"""How to index and search a folder with a real model."""

REAL_MODELS = {
    "bge-vl-base": (0.28, "photographs by a few English words, by a picture, or by both; the smallest, also for a CPU"),
    "gme-2b": (4.11, "texts, photographs, and both together, in English and Chinese; for a GPU, as those below"),
    "qwen3-vl-embedding-2b": (3.96, "the same in many languages, and videos"),
    "qwen3-vl-embedding-8b": (15.17, "the same, the largest"),
    "vdr-2b-multi": (4.11, "screenshots of pages, as of PDFs, in five languages"),
}
"""What to take for what: GiB of the weights at bfloat16, as docs/models.md has them, and the use."""

_STOPS = ((38, 26, 84), (176, 52, 122), (255, 212, 96))
"""Colours of the heat map from least to most similar; light grows along it, so it also reads without colour."""


def render(
    model_name: str, gallery: Gallery, results: Sequence[Result], answers: Sequence[Answer], serving: str
) -> str:
    """Build the page.

    Args:
        model_name: The model that answered.
        gallery: What it searched.
        results: How often it was right.
        answers: Its answers to the gallery's own questions.
        serving: The command that serves the gallery.

    Returns:
        A complete HTML document; pictures are data URIs, there are no scripts and no links to other files.
    """
    name = escape(model_name)
    sections = "".join(_section(kind, gallery, answers) for kind in _TITLES)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>st-modules demo: {name}</title>
<style>
{Path(__file__).with_name("page.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<h1>One space for text, pictures, and both</h1>
<p>The model <strong>{name}</strong> made a vector of each of {len(gallery.pictures)} drawings. Words, a picture, or a
picture with a change in words became vectors of the same space, and the nearest drawings are the answers.</p>
{_TINY if model_name == "tiny" else _ANOTHER}<nav aria-label="On this page">
<ul>
{"".join(f'<li><a href="#{target}">{text}</a></li>' for target, text in _PARTS.items())}
</ul>
</nav>
</header>
<main>
{_totals(gallery, results)}{_misses(gallery, results)}<section id="examples">
<h2>{_PARTS["examples"]}</h2>
<p>{len(answers)} questions chosen at random, of which {sum(answer.rank == 1 for answer in answers)} have the right
answer first. Below each answer stand its rank and its similarity, the cosine of the two vectors.</p>
{sections}</section>
{_heat_map(gallery, answers)}{_next_steps(serving)}</main>
</body>
</html>
"""


def _totals(gallery: Gallery, results: Sequence[Result]) -> str:
    """A table: how often each way to ask finds the right drawing, and the baselines below it."""
    rows = "".join(
        _total(result.title, result.score, len(result.answers))
        + "".join(_total(name, score) for name, score in result.baselines.items())
        for result in results
    )
    rows += _total("Chance, whatever is asked", chance(gallery))
    return f"""<section id="totals">
<h2>{_PARTS["totals"]}</h2>
<p>Every question has one right answer among the {len(gallery.pictures)} drawings, and no question shows a drawing of
the gallery itself. Lighter rows are baselines: the same questions with a part left out, and chance.</p>
<table class="totals">
<caption>How far up the right drawing comes</caption>
<thead><tr><th scope="col">Asked with</th><th scope="col">Questions</th><th scope="col">Recall@1</th>
<th scope="col">Recall@5</th><th scope="col">MRR</th></tr></thead>
<tbody>
{rows}</tbody>
</table>
<p>Recall@1 and recall@5 are the shares of the questions whose right drawing is the first, or among the first five. MRR
is the mean of 1 / rank. “Just enough words” names attributes in a random order until no other drawing has them all. “A
picture and a change” is asked of every two drawings of the gallery that differ in one attribute; the unchanged one is
there too, and should come first for the picture alone. A row has {MOST} questions at most.</p>
</section>
"""


def _total(name: str, score: Score, questions: int | None = None) -> str:
    kind = ' class="baseline"' if questions is None else ""
    shares = "".join(f"<td>{value:.3f}</td>" for value in (score.recall_at_1, score.recall_at_5, score.mrr))
    return f'<tr{kind}><th scope="row">{name}</th><td>{questions or ""}</td>{shares}</tr>\n'


def _misses(gallery: Gallery, results: Sequence[Result]) -> str:
    """The answer of each set in which the right drawing comes last."""
    parts = "".join(
        f"<h3>{result.title}</h3>\n"
        + (_card(gallery, result.worst) if result.worst.rank > 1 else "<p>None is missed.</p>\n")
        for result in results
    )
    return f"""<section id="misses">
<h2>{_PARTS["misses"]}</h2>
<p>Of each row of the table, the question whose right drawing comes last.</p>
{parts}</section>
"""


def _next_steps(serving: str) -> str:
    models = "".join(
        f"<dt><code>{name}</code></dt><dd>{use} ({size:.1f} GiB of weights)</dd>\n"
        for name, (size, use) in REAL_MODELS.items()
    )
    return f"""<section id="next">
<h2>{_PARTS["next"]}</h2>
<h3>Your own words, on these drawings</h3>
<p>In the folder that the demo ran in; open the address that it prints. Words, pictures, and both, as here; you can drop
files of your own too.</p>
{_commands(serving)}<h3>Your own pictures, with a real model</h3>
<p><code>index</code> downloads the model when it runs first. Run again, it embeds what has changed.</p>
{_commands(*REAL_COMMANDS)}<h3>Which model for what</h3>
<dl>
{models}</dl>
<p><code>st-modules list</code> shows them all; docs/models.md has their memory, languages and licences, and what was
verified of each. <code>st-modules verify gme-2b</code> compares a downloaded model with the scores on its card, and
<code>st-modules evaluate gme-2b</code> measures it on benchmarks.</p>
</section>
"""


def _commands(*lines: str) -> str:
    return f"<pre><code>{escape(chr(10).join(lines))}</code></pre>\n"


def _section(kind: str, gallery: Gallery, answers: Sequence[Answer]) -> str:
    cards = "".join(_card(gallery, answer) for answer in answers if answer.question.kind == kind)
    return f"<h3>{_TITLES[kind]}</h3>\n{cards}"


def _card(gallery: Gallery, answer: Answer) -> str:
    ranks = list(range(1, SHOWN + 1))
    if answer.rank > SHOWN:  # the right one takes the last place
        ranks[-1] = answer.rank
    hits = "".join(_hit(gallery, answer, rank) for rank in ranks)
    query = f'<div class="query">{_query(answer.question)}</div>'
    if answer.rank == 1:
        return f"<article>\n{query}\n<ol>\n{hits}</ol>\n</article>\n"
    note = f'<p class="miss">✗ Missed: the right one comes at rank {answer.rank} of {len(answer.ranking)}.</p>'
    return f"<article>\n{query}\n<div>\n{note}\n<ol>\n{hits}</ol>\n</div>\n</article>\n"


def _query(question: Question) -> str:
    picture = _image(question.picture, caption(question.scene)) if question.picture and question.scene else ""
    text = f"<p>“{escape(question.text)}”</p>" if question.text else ""
    return picture + text


def _hit(gallery: Gallery, answer: Answer, rank: int) -> str:
    place = answer.ranking[rank - 1]
    is_right = place == answer.question.answer
    mark = '<span class="mark">✓ right</span>' if is_right else ""
    score = f'<div class="score"><span>{rank}.</span><span>{answer.scores[place]:.3f}</span>{mark}</div>'
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
    return f"""<section id="similarities">
<h2>{_PARTS["similarities"]}</h2>
<p id="map">Questions are the rows; the picture that answers each is in the same place among the columns, so the right
answers lie on the outlined diagonal. Brighter is more similar.</p>
<div class="legend" aria-hidden="true"><span>{low:.2f}</span>{_legend()}<span>{high:.2f}</span></div>
<div class="scroll" tabindex="0" role="region" aria-labelledby="map">
<table class="map" aria-describedby="map">
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
    colour = _heat(warmth)
    rounded = round(score, 2) + 0.0  # adding zero turns -0.0 into 0.0
    style = f"background:{colour};color:{_ink(colour)}"
    return f'<td{" class=right" if is_right else ""} style="{style}">{rounded:.2f}</td>'


def _ink(ground: str) -> str:
    """Black or white, whichever has more contrast on a colour, by the luminance that WCAG defines."""
    channels = [int(ground[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return "#000" if 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 else "#fff"


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
