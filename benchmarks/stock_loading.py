"""Time our ``encode`` beside a checkpoint of Qwen3-VL-Embedding that sentence-transformers loads by itself.

Its processor needs torchvision, which this package does without, so that this is no part of ``make bench``: install
torchvision beside torch, and run ``python benchmarks/stock_loading.py``. The bounds of pictures, which
sentence-transformers takes from the checkpoint's own file, are made the same for both. Vectors of texts are equal to
1e-5; those of pictures are not, for torchvision resizes them otherwise. How far they are apart is shown.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
from families import FAMILIES
from measure import rotate, sample
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from transformers.utils.logging import disable_progress_bar
from variants import Loaded, encoder, load_family
from workloads import MAX_IMAGE_TOKENS, MIN_IMAGE_TOKENS, TITLES, Workload

_TOKEN = 32 * 32


def load_stock(folder: Path) -> SentenceTransformer:
    """Load a checkpoint by sentence-transformers' own modules, set up as the recipe is."""
    bounds = {"min_pixels": MIN_IMAGE_TOKENS * _TOKEN, "max_pixels": MAX_IMAGE_TOKENS * _TOKEN}
    transformer = Transformer(
        str(folder), processor_kwargs=bounds, processing_kwargs={"chat_template": {"add_generation_prompt": True}}
    )
    pooling = Pooling(transformer.get_embedding_dimension(), pooling_mode="lasttoken")
    prompts = {"default": "Represent the user's input."}
    modules = [transformer, pooling, Normalize()]
    return SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name="default", device="cpu")


def compare(models: Loaded, stock: SentenceTransformer, workload: Workload, rounds: int) -> str:
    """Time both in turns; return a row of the table."""
    # The authors strip an instruction, and sentence-transformers takes it as it is.
    workload = replace(workload, prompt=workload.prompt and workload.prompt.strip())
    variants = {"ours": encoder(models.ours), "stock": encoder(stock)}
    for encode in variants.values():
        encode(replace(workload, items=workload.items[:3]))
    vectors: dict[str, np.ndarray] = {}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(rounds):
        for name in rotate(list(variants), turn):
            vectors[name], cost = sample(partial(variants[name], workload))
            seconds[name].append(cost.seconds)
    ratio = median(stock / ours for stock, ours in zip(seconds["stock"], seconds["ours"], strict=True))
    difference = float(np.abs(vectors["stock"] - vectors["ours"]).max())
    times = " | ".join(f"{median(seconds[name]):.2f}" for name in variants)
    return f"| {workload.name}: {TITLES[workload.name]} | {times} | {ratio:.2f} | {difference:.0e} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=0.125, help="fraction of the items (1 is 512 short texts)")
    args = parser.parse_args()
    disable_progress_bar()
    print("| workload | ours, s | sentence-transformers, s | ratio | largest difference |")
    print("|---|--:|--:|--:|--:|")
    with TemporaryDirectory() as photos, load_family(FAMILIES["qwen3_vl_embedding"], Path(photos)) as models:
        stock = load_stock(models.files.weights)
        for name in args.workloads:
            print(compare(models, stock, models.workload(name, args.scale), args.rounds))


if __name__ == "__main__":
    main()
