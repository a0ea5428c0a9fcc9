"""Time planned batches beside sentence-transformers' own loop, on the same model and with equal vectors.

Run ``make bench``, or ``python benchmarks/encode.py gme-2b --items 50`` for another model. The two are timed in turns,
and the best of several rounds counts, so that a busy moment of the machine hits both alike.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import sentence_transformers
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar

from st_modules import SentenceTransformer
from st_modules.demo.drawings import draw
from st_modules.demo.scenes import random_scenes
from st_modules.demo.wording import caption


class OwnLoop(SentenceTransformer):
    """The same model, with the encode loop that sentence-transformers has."""

    _inference = sentence_transformers.SentenceTransformer._inference


def workloads(items: int) -> dict[str, list[Any]]:
    rng = random.Random(1)
    scenes = random_scenes(1, items)
    short = [caption(scene) for scene in scenes]
    uneven = [". ".join(rng.choices(short, k=rng.choice([1, 1, 1, 2, 4, 12]))) for _ in scenes]
    pictures = [draw(scene) for scene in scenes]
    both = [{"text": text, "image": picture} for text, picture in zip(short, pictures, strict=True)]
    mixed = [rng.choice(three) for three in zip(short, pictures, both, strict=True)]
    return {"short texts": short, "texts of uneven length": uneven, "pictures": pictures, "mixed": mixed}


def seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="tiny")
    parser.add_argument("--weights", help="local folder with the model's files")
    parser.add_argument("--base-weights", help="local folder of what an adapter or a vision tower is built on")
    parser.add_argument("--items", type=int, default=120)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    disable_progress_bar()
    ours, theirs = (
        cls(args.model, weights=args.weights, base_weights=args.base_weights) for cls in (SentenceTransformer, OwnLoop)
    )
    table = Table("Workload", "sentence-transformers' loop", "planned batches", "times as fast", "largest difference")
    for name, items in workloads(args.items).items():
        vectors = [model.encode(items, batch_size=args.batch_size) for model in (theirs, ours)]
        difference = np.abs(vectors[0] - vectors[1]).max()
        assert difference <= 1e-5, f"{name}: the vectors differ by {difference}"
        times = [
            [seconds(partial(model.encode, items, batch_size=args.batch_size)) for model in (theirs, ours)]
            for _ in range(args.rounds)
        ]
        before, after = np.min(times, axis=0)
        table.add_row(name, f"{before:.2f} s", f"{after:.2f} s", f"{before / after:.2f}", f"{difference:.0e}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
