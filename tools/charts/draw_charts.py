"""Draw the pictures of the documentation from what is in the repository.

    python tools/charts/draw_charts.py

writes them to docs/images, in seconds and without network. The embedded model is asked for the cosines; the sizes are
those of the table in docs/models.md, times and memory those of the tables in docs/performance.md.
"""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from svg import ACCENT, FAINT, INK, SECOND, Picture

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw, sketch
from st_modules.demo.scenes import Scene, random_scenes
from st_modules.demo.wording import caption

ROOT = Path(__file__).parents[2]

WAY = (
    ("what the user passes", "a text, a picture, both, a message, a video", "inputs"),
    ("Item", "text and pictures; nothing is opened", "prompts"),
    ("Row", "token ids and exact lengths; a text never becomes a control token", "encode"),
    ("batches", "unique rows under a budget of tokens, what they share run once", "inputs.images"),
    ("pixels", "read in several threads, within limits", "backbones"),
    ("features", "one vector a row, pooling included", "Normalize"),
    ("vectors", "of length 1, in the caller's order", ""),
)

WORKLOADS = {
    "W1": "short texts under an instruction",
    "W2": "texts of 10 to 1500 tokens",
    "W3": "pictures",
    "W4": "texts, pictures, and both together",
    "W5": "one short query a call",
    "W6": "JPEG files of 1 to 24 megapixels",
}


def draw_way() -> str:
    """Draw the way of an input through the package."""
    step, left, width = 62, 190, 470
    picture = Picture(
        700,
        step * len(WAY) + 10,
        "The way of an input: parsed, rendered, batched, read, run, and normalised, in this order",
    )
    for number, (name, about, module) in enumerate(WAY):
        y = 12 + number * step
        picture.rectangle(left, y, width, 38, "#eef0fb", ACCENT)
        picture.text(left + 12, y + 16, name, bold=True)
        picture.text(left + 12, y + 31, about, FAINT, size=12)
        if module:
            picture.arrow(left + 40, y + 40, step - 42)
            picture.text(left + 28, y + 54, module, ACCENT, anchor="end")
    return picture.write()


def draw_prompts(model: SentenceTransformer) -> str:
    """Draw the cosines of one query with pictures and texts, under two instructions."""
    wanted = Scene("star", "blue", "large", 1, "left", "yellow")
    scenes = [wanted, replace(wanted, colour="red"), replace(wanted, shape="heart")]
    found = model.encode_document([*map(draw, scenes), *map(caption, scenes)])
    query = caption(wanted)
    names = ("t2i", "t2t")
    cosines = [np.round(model.encode_query(query, prompt_name=name) @ found.T, 2).tolist() for name in names]

    picture = Picture(760, 420, "Cosines of one query with three pictures and three texts, under two instructions")
    picture.text(20, 26, f"“{query}”", bold=True)
    for number, (name, colour) in enumerate(zip(names, (ACCENT, SECOND), strict=True)):
        picture.rectangle(20, 40 + 20 * number, 12, 12, colour)
        picture.text(40, 51 + 20 * number, f"{name}: {model.prompts[name]}", FAINT)
    for place in range(2 * len(scenes)):
        y = 88 + place * 54
        scene = scenes[place % len(scenes)]
        if place < len(scenes):
            picture.sketch(322, y, 44, sketch(scene))
        else:
            picture.text(366, y + 26, caption(scene), anchor="end", size=12)
        for number, colour in enumerate((ACCENT, SECOND)):
            cosine = cosines[number][place]
            picture.rectangle(380, y + 2 + 21 * number, 300 * cosine, 18, colour)
            picture.text(386 + 300 * cosine, y + 15 + 21 * number, f"{cosine:.2f}", size=12)
    return picture.write()


def draw_similarity_map(model: SentenceTransformer) -> str:
    """Draw the cosines of six descriptions with six drawings, none of which the model was trained on."""
    scenes = random_scenes(seed=0, n=6, held_out=True)
    texts = model.encode_query([caption(scene) for scene in scenes], prompt_name="t2i")
    # Adding zero makes a zero of what is rounded to a negative one.
    cosines = np.round(texts @ model.encode_document([draw(scene) for scene in scenes]).T, 2) + 0.0

    side, left, top = 58, 400, 84
    picture = Picture(
        left + side * len(scenes) + 20, top + side * len(scenes) + 20, "Cosines of six descriptions with six drawings"
    )
    for column, scene in enumerate(scenes):
        picture.sketch(left + side * column + 5, 18, side - 10, sketch(scene))
    for row, scene in enumerate(scenes):
        y = top + side * row
        picture.text(left - 12, y + side / 2 + 4, caption(scene), anchor="end", size=12)
        for column in range(len(scenes)):
            cosine = float(cosines[row, column])
            picture.rectangle(left + side * column, y, side - 2, side - 2, _shade(cosine))
            colour = "white" if cosine > 0.5 else INK
            picture.text(left + side * column + side / 2 - 1, y + side / 2 + 4, f"{cosine:.2f}", colour, "middle", 12)
    return picture.write()


def draw_sizes() -> str:
    """Draw the memory of every model's weights."""
    page = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    sizes = sorted(
        (
            (float(size), name)
            for name, size in re.findall(r"^\| `(\S+)` \| [\d.]+ [BM] \| ([\d.]+) \|", page, re.MULTILINE)
        )
    )
    step = 19
    picture = Picture(700, 54 + step * len(sizes), "GiB that the weights of each model take at bfloat16")
    picture.text(190, 24, "GiB at bfloat16, the weights alone", FAINT)
    for place, (size, name) in enumerate(sizes):
        y = 40 + place * step
        picture.text(182, y + 11, name, anchor="end", size=12)
        picture.rectangle(190, y, 28 * size, 14, ACCENT)
        picture.text(196 + 28 * size, y + 11, f"{size:.2f}", size=12)
    return picture.write()


def draw_speeds() -> str:
    """Draw how many times as fast as the authors' code ours is, on a scale on which every doubling is as wide."""
    found = _read_measured(r"(\S+) \([\d.–]+\)")
    names = list(dict.fromkeys(name for name, _, _ in found))
    left, step, gap, doubling = 190, 16, 34, 88
    height = 44 + len(WORKLOADS) * (len(names) * step + gap)
    picture = Picture(700, height, "Times of the authors' code over ours, for each family of models and each workload")
    for times in (1, 2, 4, 8, 16):
        x = left + doubling * float(np.log2(times))
        picture.text(x, 20, f"{times} ×", FAINT, "middle", 12)
        picture.rectangle(x, 28, 1, height - 36, "#d8d8d8")
    for group, (workload, about) in enumerate(WORKLOADS.items()):
        y = 40 + group * (len(names) * step + gap)
        picture.text(20, y + 4, f"{workload}: {about}", bold=True, size=12)
        times = {name: float(value) for name, of, value in found if of == workload}
        for place, name in enumerate(names):
            top = y + 12 + place * step
            width = doubling * float(np.log2(times[name]))
            picture.text(left - 8, top + 10, name, anchor="end", size=12)
            picture.rectangle(left, top, width, step - 4, ACCENT)
            picture.text(left + width + 6, top + 10, f"{times[name]:.1f}", size=12)
    return picture.write()


def draw_memory() -> str:
    """Draw the memory above the model that ours and the authors' code take."""
    ours, theirs = (_read_measured(cell) for cell in (r"(\d+) MiB \| \d+ MiB", r"\d+ MiB \| (\d+) MiB"))
    step, left = 15, 250
    picture = Picture(700, 60 + step * 2 * len(ours), "Peak memory above the model in MiB, ours and the authors' code")
    for place, (name, colour) in enumerate((("ours", ACCENT), ("the authors' code", SECOND))):
        picture.rectangle(left + 90 * place, 12, 12, 12, colour)
        picture.text(left + 18 + 90 * place, 23, name, FAINT)
    for place, ((name, workload, own), (_, _, other)) in enumerate(zip(ours, theirs, strict=True)):
        y = 44 + place * 2 * step
        picture.text(left - 8, y + 18, f"{name}, {workload}", anchor="end", size=12)
        for number, (value, colour) in enumerate(((own, ACCENT), (other, SECOND))):
            width = 0.37 * int(value)
            picture.rectangle(left, y + number * (step - 2), width, step - 4, colour)
            picture.text(left + width + 6, y + 10 + number * (step - 2), value, size=11)
    return picture.write()


def _read_measured(cell: str) -> list[tuple[str, str, str]]:
    """Return family, workload and a cell of each row of a table in docs/performance.md."""
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    return re.findall(rf"^\| ([^|]+) \| (W\d) \| (?:\d+ \| )?{cell} \|", page, re.MULTILINE)


def draw_all() -> dict[str, str]:
    """Draw every picture; returns the files by their names."""
    model = SentenceTransformer("tiny", device="cpu")
    return {
        "way-of-an-input.svg": draw_way(),
        "prompts.svg": draw_prompts(model),
        "similarity-map.svg": draw_similarity_map(model),
        "model-sizes.svg": draw_sizes(),
        "speeds.svg": draw_speeds(),
        "memory.svg": draw_memory(),
    }


def _shade(cosine: float) -> str:
    part = float(np.clip(cosine, 0, 1))
    red, green, blue = (round(255 + part * (full - 255)) for full in (63, 81, 181))
    return f"#{red:02x}{green:02x}{blue:02x}"


def main() -> None:
    """Write them."""
    for name, content in draw_all().items():
        (ROOT / "docs" / "images" / name).write_text(content, encoding="utf-8")
        print(f"docs/images/{name}", file=sys.stderr)


if __name__ == "__main__":
    main()
