"""A folder of pictures as an index, searched by a text, by a picture, and by a picture with a change.

Run it with ``python examples/index_and_search.py``; it needs no network.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from drawings import QUERY, draw_pictures

from st_modules.index import Hit, Index, build

MODEL = "tiny"  # the one line to change: "gme-2b" for photographs, documents and text


def main() -> None:
    with TemporaryDirectory() as folder:
        pictures = draw_pictures(Path(folder))
        query = Path(folder) / QUERY
        place = Path(folder) / "my.index"
        print(f"{build(pictures, place, MODEL).added} pictures, and {build(pictures, place).embedded} the second time")
        index = Index.open(place)
        show("a large green star", index.search("a large green star in the center on a black background"))
        show("a red circle, as a picture", index.search({"image": query}))
        show("the same, and make it blue", index.search({"image": query, "text": "make it blue"}))


def show(question: str, found: list[Hit]) -> None:
    print(f"{question} → {Path(found[0].source).name}")


if __name__ == "__main__":
    main()
