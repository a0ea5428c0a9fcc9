"""A small collection of every kind, indexed with "tiny", for the tests of the server and of its page."""

from __future__ import annotations

import json
from pathlib import Path

from st_modules import SentenceTransformer
from st_modules.index import build
from tests.helpers.files import write_pdf
from tests.helpers.gallery import CAPTIONS, Gallery

HOSTILE = "<img src=x onerror=\"document.title='stolen'\"><script>document.title='stolen'</script> & \"'\u202e"
HOSTILE_ID = "../a b?&#%/ü<b>"


def index_collection(folder: Path, gallery: Gallery, model: SentenceTransformer) -> Path:
    """Index five drawings, their captions with metadata, a hostile row, and a PDF of two pages."""
    photos = folder / "photos"
    photos.mkdir()
    for number, path in enumerate(gallery.paths):
        (photos / f"{number}.png").write_bytes(path.read_bytes())
    rows = [
        {"id": f"caption-{number}", "text": text, "price": number + 0.5, "colour": text.split()[2]}
        for number, text in enumerate(CAPTIONS)
    ]
    rows.append({"id": HOSTILE_ID, "text": HOSTILE, "price": None, "colour": HOSTILE})
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    write_pdf(folder / "pages.pdf", ["red", "blue"], (600, 400))
    target = folder / "my.index"
    build([photos, folder / "rows.jsonl", folder / "pages.pdf"], target, model)
    return target
