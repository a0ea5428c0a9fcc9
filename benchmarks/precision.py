"""Time lower precision and compilation beside float32, on the same mid-size random GME.

Run ``python benchmarks/precision.py``. The int8 row needs ``pip install torchao``. The cosine is that of each item's
embedding with its float32 one.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from families import FAMILIES
from rich.console import Console
from rich.table import Table
from transformers.utils.logging import disable_progress_bar
from variants import Loaded, encoder, load_family

from st_modules import SentenceTransformer


def in_dtype(dtype: torch.dtype) -> Callable[[SentenceTransformer], SentenceTransformer]:
    return lambda model: model.to(dtype)


def compile_model(model: SentenceTransformer) -> SentenceTransformer:
    for layer in model[0].model.language_model.layers:
        layer.compile(dynamic=True)
    return model


def int8_weights(model: SentenceTransformer) -> SentenceTransformer:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_  # type: ignore[import-not-found]

    quantize_(model[0].model.language_model, Int8WeightOnlyConfig())
    return model


VARIANTS: dict[str, Callable[[SentenceTransformer], SentenceTransformer]] = {
    "bfloat16": in_dtype(torch.bfloat16),
    "float16": in_dtype(torch.float16),
    "compiled": compile_model,
    "int8 weights": int8_weights,
}


def row(models: Loaded, name: str, workload: Any, rounds: int) -> list[str]:
    """Time one variant beside float32; its first call, which compiles or converts, is timed apart."""
    plain, other = encoder(models.ours), encoder(VARIANTS[name](copy.deepcopy(models.ours)))
    expected = plain(workload)
    start = time.perf_counter()
    found = other(workload).astype(np.float32)
    first = time.perf_counter() - start
    ratios = []
    for _ in range(rounds):
        times = []
        for encode in (plain, other):
            start = time.perf_counter()
            encode(workload)
            times.append(time.perf_counter() - start)
        ratios.append(times[0] / times[1])
    cosine = (expected * found).sum(1) / np.linalg.norm(expected, axis=1) / np.linalg.norm(found, axis=1)
    speed = f"{np.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
    return [name, workload.name, speed, f"{first:.1f} s", f"{cosine.min():.5f}", f"{np.median(cosine):.5f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--workloads", nargs="+", default=["W1", "W3"])
    parser.add_argument("--scale", type=float, default=0.125)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    disable_progress_bar()
    if importlib.util.find_spec("torchao") is None:
        args.variants = [name for name in args.variants if name != "int8 weights"]
    table = Table("Variant", "Workload", "times as fast as float32", "first call", "least cosine", "median cosine")
    with TemporaryDirectory() as photos, load_family(FAMILIES["gme"], Path(photos)) as models:
        for name in args.variants:
            for workload in args.workloads:
                table.add_row(*row(models, name, models.workload(workload, args.scale), args.rounds))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
