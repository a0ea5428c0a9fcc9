"""Take the picture of the served page that the docs show, of the gallery of `st-modules demo`.

    python tools/page/screenshot.py docs/images/page.jpg

It needs the tools of development, and Chromium.
"""

from __future__ import annotations

import io
import shutil
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory

import uvicorn
from PIL import Image
from playwright.sync_api import sync_playwright

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw
from st_modules.demo.run import COMPOSED, make_gallery, write_gallery
from st_modules.index import build
from st_modules.serve import create_app

PORT = 8765
SIZE = {"width": 1120, "height": 920}


def main(target: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu", keep_prefixes=True)
    gallery = make_gallery(300, seed=7)
    question = next(each for each in gallery.questions if each.kind == COMPOSED and each.scene)
    assert question.scene
    assert question.text
    with TemporaryDirectory() as folder:
        query = Path(folder) / "query.png"
        draw(question.scene, 8).save(query)
        build(write_gallery(gallery, Path(folder)), Path(folder) / "my.index", model)
        server = uvicorn.Server(uvicorn.Config(create_app(model, index=Path(folder) / "my.index"), port=PORT))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            content = take(query, question.text)
        finally:
            server.should_exit = True
            thread.join()
    Image.open(io.BytesIO(content)).convert("RGB").save(target, quality=80, optimize=True)
    print(f"{target}: {target.stat().st_size} bytes")


def take(query: Path, text: str) -> bytes:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport=SIZE, color_scheme="light")  # type: ignore[arg-type]
        page.goto(f"http://127.0.0.1:{PORT}")
        page.get_by_label("choose a picture").set_input_files(query)
        page.get_by_label("Words", exact=True).fill(text)
        page.get_by_label("Instruction", exact=True).select_option("it2i")
        page.get_by_role("button", name="Search", exact=True).click()
        page.locator("#hits img").nth(7).wait_for()
        page.wait_for_load_state("networkidle")
        return page.screenshot()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
