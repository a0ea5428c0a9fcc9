"""The page at ``/`` in a browser: what it finds, what it says, and that it asks nobody else."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from st_modules import SentenceTransformer
from st_modules.index import Index
from st_modules.serve import create_app
from tests.helpers.browser import open_browser
from tests.helpers.gallery import BLUE_CIRCLE, CAPTIONS, CHANGE, RED_CIRCLE, Gallery
from tests.helpers.searchable import HOSTILE, HOSTILE_ID
from tests.helpers.serving import answer

KEY = "sésame"
# Hands a picture to an element as a drop, or to the page as what the clipboard has.
_GIVE = """([target, kind, data]) => {
    const bytes = Uint8Array.from(atob(data), (char) => char.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], "given.png", {type: "image/png"}));
    const event = kind === "drop"
        ? new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true})
        : new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true});
    document.querySelector(target).dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def url(collection: Path, tiny: SentenceTransformer) -> Iterator[str]:
    with answer(create_app(tiny, index=collection, api_key=KEY)) as found:
        yield found


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as found:
        yield found


@pytest.fixture(scope="module")
def index(collection: Path, tiny: SentenceTransformer) -> Index:
    return Index.open(collection, tiny)


@pytest.fixture
def stranger(browser: Browser) -> Iterator[Page]:
    """The page in a tab that has no key yet; at its end, whom it asked and what went wrong in it are looked at."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    hosts: set[str | None] = set()
    problems: list[str] = []
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: problems.append(str(error)))
    # The browser itself logs each answer that is an error, as those that tests ask for.
    page.on("console", lambda said: problems.append(said.text))
    yield page
    assert hosts - {None} == {"127.0.0.1"}  # blobs have none
    assert [each for each in problems if not each.startswith("Failed to load resource")] == []
    page.close()


@pytest.fixture
def page(stranger: Page, url: str) -> Page:
    stranger.add_init_script(f"sessionStorage.setItem('st-modules-key', {KEY!r})")
    stranger.goto(url)
    expect(stranger.locator("#search-form")).to_be_visible()
    return stranger


def follow(page: Page, link: str) -> None:
    """Go to another view. The browser changes it after the click, and what was said before it is gone then."""
    page.get_by_role("link", name=link, exact=True).click()
    view = page.evaluate("location.hash").removeprefix("#")
    expect(page.locator(f"#{view}-title")).to_be_focused()


def search(page: Page, text: str | None = None) -> None:
    if text is not None:
        page.get_by_label("Words", exact=True).fill(text)
    page.get_by_role("button", name="Search", exact=True).click()
    expect(page.get_by_role("status")).to_have_text(re.compile("^[0-9]+ results?[.]$|^Nothing was found[.]$"))


def found(page: Page) -> list[tuple[str, str]]:
    """The sources and the scores of what is shown."""
    cards = page.locator("#hits > li")
    sources = [each.rpartition("/")[2] for each in cards.locator(".source").all_inner_texts()]
    return list(zip(sources, cards.locator(".score span:last-child").all_inner_texts(), strict=True))


def expected(hits: Any) -> list[tuple[str, str]]:
    names = [hit.source if hit.page is None else f"{hit.source}, page {hit.page}" for hit in hits]
    return [(name.rpartition("/")[2], f"{hit.score:.4f}") for name, hit in zip(names, hits, strict=True)]


def assert_same(shown: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> None:
    assert [name for name, _ in shown] == [name for name, _ in wanted]
    assert [float(score) for _, score in shown] == pytest.approx([float(score) for _, score in wanted], abs=2e-4)


def give(page: Page, kind: str, target: str, path: Path) -> None:
    page.evaluate(_GIVE, [target, kind, base64.b64encode(path.read_bytes()).decode()])


def complaint(page: Page) -> Locator:
    return page.get_by_role("alert")


# ------------------------------------------------------------------------------------------------------ searching


def test_a_text_finds_what_the_index_finds_with_its_pictures(page: Page, index: Index) -> None:
    page.get_by_label("Instruction", exact=True).select_option("t2i")
    page.get_by_role("spinbutton", name="Results").fill("6")
    search(page, CAPTIONS[2])
    hits = index.search(CAPTIONS[2], 6, prompt_name="t2i")
    assert_same(found(page), expected(hits))
    expect(page.locator("#hits img")).to_have_count(sum(hit.image is not None for hit in hits))
    assert page.evaluate("""async () => {
        const pictures = [...document.querySelectorAll("#hits img")];
        await Promise.all(pictures.map((each) => each.decode()));
        return pictures.every((each) => each.naturalWidth > 50 && each.alt);
    }""")


def test_own_words_are_an_instruction(page: Page, index: Index) -> None:
    page.get_by_label("Instruction", exact=True).select_option(label="in your own words …")
    page.get_by_label("Instruction in your own words").fill("Find drawings.")
    search(page, CAPTIONS[0])
    assert_same(found(page), expected(index.search(CAPTIONS[0], 12, instruction="Find drawings.")))


@pytest.mark.parametrize("kind", ["drop", "paste", "choose"])
def test_a_picture_finds_what_the_index_finds(page: Page, index: Index, gallery: Gallery, kind: str) -> None:
    if kind == "choose":
        page.get_by_label("choose a picture").set_input_files(gallery.query)
    else:
        give(page, kind, "#query-zone", gallery.query)
    expect(page.locator("#query-preview")).to_be_visible()
    search(page)
    assert_same(found(page), expected(index.search({"image": gallery.query}, 12)))


def test_a_picture_and_words_are_one_query(page: Page, index: Index, gallery: Gallery) -> None:
    give(page, "drop", "#query-zone", gallery.query)
    page.get_by_label("Instruction", exact=True).select_option("it2i")
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Condition in SQL").fill("image IS NOT NULL")
    search(page, CHANGE)
    item = {"text": CHANGE, "image": gallery.query}
    assert_same(found(page), expected(index.search(item, 12, prompt_name="it2i", where="image IS NOT NULL")))
    assert found(page)[0][0] == f"{BLUE_CIRCLE}.png"
    page.get_by_role("button", name="Remove the picture").click()
    search(page)
    assert_same(found(page), expected(index.search(CHANGE, 12, prompt_name="it2i", where="image IS NOT NULL")))


def test_more_like_a_result(page: Page, index: Index) -> None:
    search(page, CAPTIONS[0])
    first = index.search(CAPTIONS[0], 1)[0]
    page.get_by_role("button", name="More like this: result 1", exact=True).click()
    heading = page.get_by_role("heading", name=re.compile("^More like"))
    expect(heading).to_be_focused()
    assert_same(found(page), expected(index.search_like(first.id, 12)))


def test_words_and_both_are_modes(page: Page, index: Index) -> None:
    for label, mode in (("words", "text"), ("both", "hybrid")):
        page.get_by_label("Search by", exact=True).select_option(label)
        search(page, "blue star")
        assert_same(found(page), expected(index.search("blue star", 12, mode=mode)))  # type: ignore[arg-type]


def test_what_is_wrong_with_a_filter_is_a_sentence(page: Page) -> None:
    page.get_by_text("Filter", exact=True).click()
    expect(page.locator("#where-help")).to_contain_text("price (float)")
    page.get_by_label("Condition in SQL").fill("prize > 3")
    page.get_by_label("Words", exact=True).fill("a star")
    page.get_by_role("button", name="Search", exact=True).click()
    expect(complaint(page)).to_contain_text("where='prize > 3'")
    expect(complaint(page)).to_contain_text("The columns are id, source")
    page.get_by_label("Condition in SQL").fill("price > 3")
    search(page)
    expect(complaint(page)).to_be_empty()
    assert len(found(page)) == 2


def test_nothing_to_look_for_is_a_sentence(page: Page) -> None:
    page.get_by_role("button", name="Search", exact=True).click()
    expect(complaint(page)).to_have_text("Write what to look for, or choose a picture.")


def test_hostile_texts_are_texts(page: Page) -> None:
    page.get_by_text("Filter", exact=True).click()
    page.get_by_label("Condition in SQL").fill(f"id = '{HOSTILE_ID}'")
    search(page, "a star")
    card = page.locator("#hits > li")
    expect(card.locator(".text")).to_have_text(HOSTILE)
    card.get_by_text("Details").click()
    expect(card.locator("dd").first).to_have_text(HOSTILE_ID)
    expect(card.locator("dd").last).to_have_text(HOSTILE)
    assert page.locator("#hits img, #hits script, #hits b").count() == 0
    assert page.title() == "Search · st-modules"


def test_a_server_that_is_busy_is_asked_again(page: Page) -> None:
    page.route(
        "**/v1/search",
        lambda route: route.fulfill(status=429, headers={"Retry-After": "0"}, json={"error": {"message": "Later."}}),
        times=1,
    )
    search(page, "a star")
    assert len(found(page)) == 12


# ------------------------------------------------------------------------------------------------------------ key


def test_the_key_is_asked_for_and_kept_in_the_tab(stranger: Page, url: str) -> None:
    stranger.goto(url)
    expect(stranger.get_by_role("heading", name="The server asks for a key")).to_be_visible()
    expect(stranger.get_by_role("textbox", name="Key")).to_be_focused()
    expect(stranger.locator("#search-form")).to_be_hidden()
    stranger.get_by_role("textbox", name="Key").fill("another")
    stranger.keyboard.press("Enter")
    expect(complaint(stranger)).to_have_text("This is not the server's key.")
    stranger.get_by_role("textbox", name="Key").fill(KEY)
    stranger.get_by_role("button", name="Use this key").click()
    expect(stranger.locator("#search-form")).to_be_visible()
    expect(stranger.locator("#key-form")).to_be_hidden()
    search(stranger, "a star")
    assert len(found(stranger)) == 12
    assert stranger.evaluate("localStorage.length") == 0
    stranger.reload()
    expect(stranger.locator("#search-form")).to_be_visible()


# ------------------------------------------------------------------------------------------------------ comparing


def test_the_map_has_the_cosines_of_what_encode_makes(page: Page, tiny: SentenceTransformer, gallery: Gallery) -> None:
    follow(page, "Compare")
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(complaint(page)).to_contain_text("Add 2 to 10")
    for text in (CAPTIONS[2], HOSTILE):
        page.get_by_label("A text", exact=True).fill(text)
        page.get_by_role("button", name="Add the text").click()
    page.get_by_label("choose pictures").set_input_files([gallery.paths[1], gallery.query])
    expect(page.locator("#compared > li")).to_have_count(4)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("status")).to_have_text("The map of similarities is below.")
    vectors = tiny.encode([CAPTIONS[2], {"text": HOSTILE}, {"image": gallery.paths[1]}, {"image": gallery.query}])
    shown = [[float(cell) for cell in row.locator("td").all_inner_texts()] for row in page.locator("tbody tr").all()]
    assert np.array(shown) == pytest.approx(vectors @ vectors.T, abs=1e-3)
    colours = page.evaluate(
        "[...document.querySelectorAll('td')].map((cell) => getComputedStyle(cell).backgroundColor)"
    )
    assert colours[1] == colours[6] == colours[11] == colours[16]  # the diagonal; the corner is a cell too
    assert len(set(colours)) > 4
    expect(page.get_by_role("columnheader")).to_have_count(4)
    expect(page.get_by_role("rowheader")).to_have_count(4)
    assert page.title() == "Search · st-modules"


def test_at_most_ten_are_compared(page: Page, gallery: Gallery) -> None:
    follow(page, "Compare")
    for paths in (gallery.paths, gallery.paths):
        page.get_by_label("choose pictures").set_input_files(list(paths))
        expect(page.get_by_role("status")).to_contain_text("to be compared")
    expect(page.locator("#compared > li")).to_have_count(10)
    page.get_by_label("A text", exact=True).fill("one more")
    page.get_by_role("button", name="Add the text").click()
    expect(complaint(page)).to_contain_text("At most 10")
    page.get_by_role("button", name=re.compile("^Remove 1:")).click()
    expect(page.locator("#compared > li")).to_have_count(9)


# ------------------------------------------------------------------------------------------------------ own files


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, gallery: Gallery) -> Path:
    """Five drawings, a text, a picture that is none, and a file of another kind."""
    folder = tmp_path_factory.mktemp("own") / "mine"
    folder.mkdir()
    for number, path in enumerate(gallery.paths):
        (folder / f"{number}.png").write_bytes(path.read_bytes())
    (folder / "note.txt").write_text(CAPTIONS[2])
    (folder / "bad.png").write_bytes(b"no picture")
    (folder / "table.xlsx").write_bytes(b"no text")
    return folder


def load(page: Page, folder: Path) -> None:
    follow(page, "Your files")
    page.get_by_label("choose a folder").set_input_files(folder)
    expect(page.get_by_role("status")).to_have_text("6 files are ready to be searched.")


def test_a_folder_is_searched_and_bad_files_are_listed(
    page: Page, folder: Path, tiny: SentenceTransformer, gallery: Gallery, collection: Path
) -> None:
    before = sorted(path.name for path in collection.rglob("*"))
    sides: list[str] = []
    page.on("request", lambda request: sides.append((request.post_data_json or {}).get("side", "")))
    load(page, folder)
    expect(page.locator("#failures-title")).to_have_text("2 files could not be read")
    page.locator("#failures-title").click()
    failed = sorted(page.locator("#failed li").all_inner_texts())
    assert failed[0].startswith("mine/bad.png: not an image that can be read")
    assert failed[1] == "mine/table.xlsx: no picture and no text file"
    follow(page, "Search them")
    expect(page.get_by_label("Your files (6 items)")).to_be_checked()
    expect(page.locator("#filter-field")).to_be_hidden()
    give(page, "drop", "#query-zone", gallery.query)
    page.get_by_label("Instruction", exact=True).select_option("it2i")
    search(page, CHANGE)
    names = [*(f"{number}.png" for number in range(5)), "note.txt"]
    items: list[Any] = [*({"image": path} for path in gallery.paths), {"text": CAPTIONS[2]}]
    query = tiny.encode_query({"text": CHANGE, "image": gallery.query}, prompt_name="it2i")
    scores = tiny.encode_document(items) @ query
    assert_same(found(page), [(names[place], f"{scores[place]:.4f}") for place in np.argsort(-scores)])
    assert found(page)[0][0] == f"{BLUE_CIRCLE}.png"
    assert [side for side in sides if side] == ["document", "document", "query"]  # again without the bad one
    assert sorted(path.name for path in collection.rglob("*")) == before


def test_more_like_an_own_file_and_back_to_the_index(page: Page, folder: Path, index: Index) -> None:
    load(page, folder)
    follow(page, "Search them")
    search(page, CAPTIONS[RED_CIRCLE])
    page.get_by_role("button", name="More like this: result 1", exact=True).click()
    expect(page.locator("#hits > li")).to_have_count(5)
    page.get_by_label("The index (13 items)").check()
    search(page, CAPTIONS[RED_CIRCLE])
    assert_same(found(page), expected(index.search(CAPTIONS[RED_CIRCLE], 12)))
    follow(page, "Your files")
    page.get_by_role("button", name="Close them").click()
    expect(page.get_by_role("status")).to_have_text("The files are closed.")
    follow(page, "Search")
    expect(page.locator("#places")).to_be_hidden()


def test_reading_can_be_cancelled(page: Page, folder: Path) -> None:
    page.route("**/v1/embeddings", lambda route: None)
    follow(page, "Your files")
    page.get_by_label("choose a folder").set_input_files(folder)
    expect(page.locator("#loaded")).to_contain_text("of 8 files read")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("status")).to_have_text("Cancelled. 0 files are ready to be searched.")
    expect(page.locator("#loading")).to_be_hidden()


def test_too_many_files_are_refused_in_words(page: Page) -> None:
    follow(page, "Your files")
    page.evaluate("""() => {
        const transfer = new DataTransfer();
        for (let number = 0; number < 2001; number += 1) transfer.items.add(new File([], `${number}.png`));
        document.querySelector("#files-zone").dispatchEvent(new DragEvent("drop", {dataTransfer: transfer}));
    }""")
    expect(complaint(page)).to_contain_text("2,001 files: this page holds at most 2,000.")


def test_without_an_index_own_files_are_searched(stranger: Page, tiny: SentenceTransformer, folder: Path) -> None:
    with answer(create_app(tiny)) as url:
        stranger.goto(url)
        expect(stranger.locator("#nothing")).to_be_visible()
        expect(stranger.locator("#search-form")).to_be_hidden()
        load(stranger, folder)
        follow(stranger, "Search them")
        search(stranger, CAPTIONS[2])
        assert len(found(stranger)) == 6


# --------------------------------------------------------------------------------------------------- for everybody


def test_the_keyboard_is_enough(page: Page) -> None:
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "text":
            break
    page.keyboard.type("a star")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("12 results.")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "More like this":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^More like"))).to_be_focused()


def _show_search(page: Page, folder: Path) -> None:
    page.get_by_text("Filter", exact=True).click()
    search(page, "a star")
    for each in page.get_by_text("Details", exact=True).all():
        each.click()


def _show_files(page: Page, folder: Path) -> None:
    load(page, folder)
    page.locator("#failures-title").click()


def _show_map(page: Page, folder: Path) -> None:
    follow(page, "Compare")
    page.get_by_label("choose pictures").set_input_files([folder / f"{number}.png" for number in (0, 1, 2, 3, 4)])
    page.get_by_label("A text", exact=True).fill("word" * 60)
    page.get_by_role("button", name="Add the text").click()
    expect(page.locator("#compared > li")).to_have_count(6)
    page.get_by_role("button", name="Compare", exact=True).click()
    expect(page.get_by_role("table")).to_be_visible()


@pytest.mark.parametrize("act", [_show_search, _show_files, _show_map], ids=["search", "files", "compare"])
def test_nothing_scrolls_sideways_on_a_telephone(page: Page, folder: Path, act: Callable[[Page, Path], None]) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    act(page, folder)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
