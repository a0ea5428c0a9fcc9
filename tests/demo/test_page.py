"""The demonstration's page: what it says, and how it looks in a browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect

from st_modules import SentenceTransformer
from st_modules.catalog import list_models
from st_modules.demo.page import REAL_COMMANDS, REAL_MODELS, SHOWN, render
from st_modules.demo.run import CAPTION, PICTURE, TEXT, Answer, Gallery, Question, make_gallery
from st_modules.demo.scoring import Result, Score
from tests.helpers.browser import open_browser

ROOT = Path(__file__).parents[2]
SERVING = "st-modules serve --model tiny --index 'a folder/tiny.index'"


class Tags(HTMLParser):
    """Collects the page's tags, and insists that they are closed in order."""

    VOID = {"meta", "img"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def gallery() -> Gallery:
    return make_gallery(40, seed=3)


def answer_at(question: Question, rank: int) -> Answer:
    """An answer that has the right one at a rank."""
    order = [place for place in range(40) if place != question.answer]
    order.insert(rank - 1, question.answer)
    scores = np.empty(40)
    scores[order] = np.linspace(0.9, -0.3, 40)
    return Answer(question, scores, order)


@pytest.fixture(scope="module")
def results(gallery: Gallery) -> list[Result]:
    texts = [Question(TEXT, place, text=f"<b>{place}</b>") for place in range(4)]
    pictures = [Question(PICTURE, 5, scene=gallery.scenes[5], picture=gallery.pictures[5])]
    return [
        Result("Many words", [answer_at(*each) for each in zip(texts, (1, 23, 2, 23), strict=True)], {}),
        Result("A picture", [answer_at(pictures[0], 1)], {"nothing": Score(0.125, 0.25, 0.375)}),
    ]


@pytest.fixture(scope="module")
def html(gallery: Gallery, results: list[Result]) -> str:
    answers = [answer_at(question, 1) for question in gallery.questions]
    return render("a <model>", gallery, results, answers, SERVING)


def test_page_needs_nothing_but_itself(html: str) -> None:
    page = Tags(html)
    sources = [image["src"] or "" for image in page.all("img")]
    assert [source for source in sources if not source.startswith("data:image/png;base64,")] == []
    assert not {"script", "link", "iframe"} & {tag for tag, _ in page.tags}
    assert not re.search(r"https?://|url\(|@import", html)


def test_page_escapes_what_it_is_told(html: str) -> None:
    assert "a &lt;model&gt;" in html
    assert "<model>" not in html
    assert "<b>1</b>" not in html


def test_every_picture_has_an_alt_text(html: str) -> None:
    assert [image for image in Tags(html).all("img") if not image["alt"]] == []


def test_links_lead_to_parts_of_the_page(html: str) -> None:
    page = Tags(html)
    links = [link["href"] for link in page.all("a")]
    assert links == [f"#{part['id']}" for part in page.all("section")]
    assert len(set(links)) == len(links) > 0


def test_what_tiny_is_comes_first(gallery: Gallery, results: list[Result], tiny: SentenceTransformer) -> None:
    html = render("tiny", gallery, results, [answer_at(each, 1) for each in gallery.questions], SERVING)
    assert html.index("What “tiny” is, and what it is not") < html.index("Recall@1")
    size = sum(each.numel() for each in tiny.parameters())
    assert f"{size / 1e6:.1f} million parameters" in html


def test_another_model_is_not_called_tiny(html: str) -> None:
    assert "“tiny”" not in html


def test_totals_have_a_row_each_with_baselines_and_chance(html: str) -> None:
    table = html[html.index("<tbody>") : html.index("</tbody>")]
    rows = [re.sub("<[^>]+>", " ", row).split() for row in table.splitlines()[1:]]
    assert rows == [
        ["Many", "words", "4", "0.250", "0.500", f"{(1 + 1 / 2 + 2 / 23) / 4:.3f}"],
        ["A", "picture", "1", "1.000", "1.000", "1.000"],
        ["nothing", "0.125", "0.250", "0.375"],
        ["Chance,", "whatever", "is", "asked", "0.025", "0.125", f"{sum(1 / rank for rank in range(1, 41)) / 40:.3f}"],
    ]


def test_the_worst_of_each_set_is_shown_as_a_miss_with_the_right_one(html: str) -> None:
    misses = html[html.index('<section id="misses">') : html.index('<section id="examples">')]
    assert re.findall("Missed: [^<]*", misses) == ["Missed: the right one comes at rank 23 of 40."]
    assert "“<b>1</b>”" in unescape(misses)
    ranks = re.findall(r"<span>(\d+)[.]</span>", misses)
    assert ranks == [str(rank) for rank in [*range(1, SHOWN), 23]]
    assert misses.count("✓ right") == 1
    assert misses.count("None is missed.") == 1


def test_each_question_shows_the_best_pictures_and_marks_the_right_one(html: str, gallery: Gallery) -> None:
    examples = html[html.index('<section id="examples">') : html.index('<section id="similarities">')]
    assert examples.count("<li") == SHOWN * len(gallery.questions)
    assert examples.count("<li class=right>") == len(gallery.questions)


def test_heat_map_has_a_cell_for_every_pair_and_marks_the_diagonal(html: str, gallery: Gallery) -> None:
    cells = [cell for cell in Tags(html).all("td") if "style" in cell]
    n = sum(question.kind != CAPTION for question in gallery.questions)
    marked = [place for place, cell in enumerate(cells) if cell.get("class") == "right"]
    assert len(cells) == n * n
    assert set(range(0, n * n, n + 1)) <= set(marked)


def test_commands_are_there_to_be_copied(html: str) -> None:
    blocks = [unescape(block) for block in re.findall("<pre><code>(.*?)</code></pre>", html, re.DOTALL)]
    assert blocks == [SERVING, "\n".join(REAL_COMMANDS)]


def test_models_that_are_named_exist_and_have_the_size_that_the_docs_have() -> None:
    names = {spec.name for spec in list_models()}
    table = (ROOT / "docs/models.md").read_text(encoding="utf-8").partition("## Size")[2]
    sizes = {name: float(size) for name, size in re.findall(r"^\| `(\S+)` \| [^|]+ \| ([\d.]+) \|", table, re.M)}
    assert set(REAL_MODELS) <= names
    assert {name: size for name, (size, _) in REAL_MODELS.items()} == {name: sizes[name] for name in REAL_MODELS}


# ------------------------------------------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture
def page(browser: Browser, html: str, tmp_path: Path) -> Iterator[Page]:
    place = tmp_path / "index.html"
    place.write_text(html, encoding="utf-8")
    page = browser.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(place.as_uri())
    yield page
    assert [url for url in asked if not url.startswith("data:")] == [place.as_uri()]
    page.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_scrolls_sideways(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
    cut = "(each) => each.scrollWidth > each.clientWidth"
    assert page.evaluate(f"[...document.querySelectorAll('pre, .query, article li, .totals')].some({cut})") is False


def test_the_map_is_scrolled_by_keyboard_on_a_telephone(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    region = page.get_by_role("region", name=re.compile("^Questions are the rows"))
    region.focus()
    expect(region).to_be_focused()
    assert region.evaluate("(each) => each.scrollWidth > each.clientWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_told_from_their_ground(page: Page, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    contrasts = page.evaluate(_CONTRASTS)
    assert min(contrasts.values()) >= 4.5, contrasts


_CONTRASTS = """() => {
    const light = (colour) => {
        const parts = colour.match(/[0-9.]+/g).slice(0, 3).map((each) => each / 255);
        const [r, g, b] = parts.map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = (element) => {
        for (let each = element; each; each = each.parentElement) {
            const colour = getComputedStyle(each).backgroundColor;
            if (!/, 0[)]$/.test(colour)) return colour;
        }
    };
    const found = {};
    for (const each of document.querySelectorAll("p, a, h1, h2, h3, th, td, li span, dd, dt, code, caption")) {
        if (!each.textContent.trim()) continue;
        const values = [light(getComputedStyle(each).color), light(ground(each))].sort((a, b) => b - a);
        const key = each.tagName + "." + each.className + " " + each.textContent.trim().slice(0, 20);
        found[key] = (values[0] + 0.05) / (values[1] + 0.05);
    }
    return found;
}"""
