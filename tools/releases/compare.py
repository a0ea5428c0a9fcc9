"""What an old release of transformers and this package make of the same pictures and texts, family by family.

    python tools/releases/compare.py 4.45.2
    python tools/releases/compare.py 4.45.2 --python path/to/python

prints how many results differ, of how many that were compared, and the first inputs of these. The first command makes
an environment with that release in the root of the repository, .venv-transformers-4.45.2, once; the second takes one
that is there. The checkpoints are those of tests/golden. "Later texts" have characters that Unicode 3.2 does not have,
of which each library's table knows others.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
import unicodedata
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from release_inputs import FOLDERS, INSTRUCTION, LAYOUTS, make_batches, make_pictures, make_texts

from st_modules import SentenceTransformer
from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource
from st_modules.inputs.items import parse_items
from st_modules.prompts.segments import Image
from st_modules.prompts.templates import TEMPLATES

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden"
# By family: a name of the catalog, and its weights where they stand apart from the other files.
MODELS = {
    "gme": ("gme-2b", None),
    "vlm2vec": ("vlm2vec-qwen2vl-2b", "vlm2vec/checkpoint"),
    "dse": ("dse-qwen2-2b", None),
    "bge_vl_clip": ("bge-vl-base", None),
    "bge_vl_mllm": ("bge-vl-mllm-s1", None),
    "bge_visualized_base": ("bge-visualized-base", "bge_visualized_base/Visualized_base_en_v1.5.pth"),
    "bge_visualized_m3": ("bge-visualized-m3", "bge_visualized_m3/Visualized_m3.pth"),
}
COLUMNS = ("pixels", "token counts", "texts", "later texts", "positions")
_SHOWN = 5


@dataclass
class Comparison:
    """One cell of the table.

    Attributes:
        family: The row.
        what: What is compared, which is the column.
        compared: How many inputs both sides take, or both refuse.
        differing: Those of them whose results differ.
        largest: The largest difference of a value; infinite where shapes differ.
        refused_there: Inputs that the old release alone refuses.
        refused_here: Inputs that this package alone refuses.
    """

    family: str
    what: str
    compared: int = 0
    differing: list[str] = field(default_factory=list)
    largest: float = 0
    refused_there: list[str] = field(default_factory=list)
    refused_here: list[str] = field(default_factory=list)

    def add(self, name: str, old: Any, new: Any) -> None:
        """Compare the two results of an input."""
        self.compared += 1
        old, new = np.asarray(old), np.asarray(new)
        if old.shape != new.shape:
            self.differing.append(name)
            self.largest = math.inf
        elif not np.array_equal(old, new):
            self.differing.append(name)
            self.largest = max(self.largest, float(np.abs(old - new).max()))

    def cell(self) -> str:
        """Return how many differ, and by how much where that says something, which it does not for ids."""
        cell = f"{len(self.differing)} of {self.compared}"
        if self.differing and "texts" not in self.what:
            cell += f", by {self.largest:.3g}"
        for side, names in (("there", self.refused_there), ("here", self.refused_here)):
            cell += f"; {len(names)} refused {side}" if names else ""
        return cell


def compare(version: str, run_old: Callable[[Path], object], every: int = 1) -> list[Comparison]:
    """Compare what a release makes of every n-th input with what this package makes of it.

    Args:
        version: The release.
        run_old: Writes what the release makes of them into a folder; see old_release.py.
        every: The n.

    Returns:
        The cells of the table.
    """
    with tempfile.TemporaryDirectory() as folder:
        run_old(out := Path(folder))
        old = json.loads((out / "release.json").read_text(encoding="utf-8"))
        if old["versions"] != (wanted := {"transformers": version, "pillow": PIL.__version__}):
            raise SystemExit(f"The environment has {old['versions']}, and {wanted} is needed.")
        cells: list[Comparison] = []
        for family, (name, weights) in MODELS.items():
            files = GOLDEN / FOLDERS[family]
            kwargs: dict[str, Any] = (
                {"weights": GOLDEN / weights, "base_weights": files} if weights else {"weights": files}
            )
            module: Any = SentenceTransformer(name, device="cpu", **kwargs)[0]
            if family in old["tokens"]:
                cells += _compare_pictures(family, module, old["tokens"][family], out, every)
            cells += _compare_texts(family, module, old["ids"][family], every)
            if getattr(module, "multimodal_positions", False):
                cells.append(_compare_positions(family, module, old["positions"], every))
        return cells


def _compare_pictures(
    family: str, module: Any, tokens: Sequence[int | None], folder: Path, every: int
) -> list[Comparison]:
    pixels, counts = Comparison(family, "pixels"), Comparison(family, "token counts")
    for number, (name, picture) in enumerate(make_pictures(every)):
        file = folder / f"{family}_{number}.npy"
        try:
            image = ImageSource(picture)
            new, count = module.pixel_features(image)["pixel_values"], module.image_tokens(image)
        except ImageError:
            if file.exists():
                pixels.refused_here.append(name)
            else:
                pixels.compared += 1
            continue
        if not file.exists():
            pixels.refused_there.append(name)
            continue
        pixels.add(name, np.load(file), new)
        if tokens[number] is not None:
            counts.add(name, tokens[number], count)
    return [pixels, counts] if counts.compared else [pixels]


def _compare_texts(family: str, module: Any, ids: Sequence[Sequence[int]], every: int) -> list[Comparison]:
    texts, later = Comparison(family, "texts"), Comparison(family, "later texts")
    instruction = INSTRUCTION if INSTRUCTION in LAYOUTS[family]("") else None
    render = TEMPLATES[module.template].render
    rows = [render(item, instruction, "query") for item in parse_items(make_texts(every))]
    images = [[module.image_tokens(part.source) for part in row if isinstance(part, Image)] for row in rows]
    # Nothing is cut: the old tokenizers are asked for the whole of a text too.
    tokenized = module.segment_tokenizer(rows, images, ["text"] * len(rows), [10**7] * len(rows))
    for text, old, new in zip(make_texts(every), ids, tokenized, strict=True):
        is_later = any(unicodedata.ucd_3_2_0.category(character) == "Cn" for character in text)
        (later if is_later else texts).add(ascii(text), old, new.ids)
    return [texts, later]


def _compare_positions(family: str, module: Any, positions: Sequence[Any], every: int) -> Comparison:
    comparison, rows = Comparison(family, "positions"), iter(positions)
    for ids, grids in make_batches(module.model.config.to_dict(), every):
        tokens, mask = torch.tensor(ids).clamp(min=0), torch.tensor(ids >= 0).long()
        new = module.position_ids({"input_ids": tokens, "attention_mask": mask, "image_grid_thw": torch.tensor(grids)})
        for row, grid in enumerate(grids):
            comparison.add(f"grid {grid.tolist()}", next(rows), new[:, row, mask[row].bool()])
    return comparison


def make_environment(version: str) -> Path:
    """Make an environment with a release of transformers beside the torch, NumPy and Pillow of constraints.txt."""
    folder = ROOT / f".venv-transformers-{version}"
    python = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pins = dict(re.findall(r"^(\w+)==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
    needed = [f"{name}=={pins[name]}" for name in ("numpy", "pillow")]
    # The slow tokenizers of the old releases need sentencepiece and protobuf.
    needed += [f"transformers=={version}", "sentencepiece", "protobuf"]
    if not python.exists():
        venv.create(folder, with_pip=True)
    for packages in ([f"torch=={pins['torch']}"], needed):  # torch first, as in the Makefile
        subprocess.run([python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages], check=True)
    return python


def print_table(cells: Sequence[Comparison]) -> None:
    """Print a row a family, and then some of the inputs that differ or that one side refuses."""
    print(f"| family | {' | '.join(COLUMNS)} |\n|{'---|' * (1 + len(COLUMNS))}")
    found = {(cell.family, cell.what): cell.cell() for cell in cells}
    for family in MODELS:
        print(f"| `{family}` | {' | '.join(found.get((family, what), '') for what in COLUMNS)} |")
    for cell in cells:
        for what in ("differing", "refused_there", "refused_here"):
            if names := getattr(cell, what):
                print(f"{cell.family}, {cell.what}, {what.replace('_', ' ')}: {'; '.join(names[:_SHOWN])}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", help="the release of transformers, such as 4.45.2")
    parser.add_argument("--python", help="the interpreter of an environment that has it")
    arguments = parser.parse_args()
    command = [
        arguments.python or make_environment(arguments.version),
        Path(__file__).with_name("old_release.py"),
        GOLDEN,
    ]
    print_table(compare(arguments.version, lambda out: subprocess.run([*command, out, "1"], check=True)))


if __name__ == "__main__":
    main()
