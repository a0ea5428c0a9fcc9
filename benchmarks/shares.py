"""Show where the time of our ``encode`` goes: by phase, by tower, and by kind of operation.

Run ``python benchmarks/shares.py``; with ``--families`` and ``--workloads`` for others than the ones shown.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from families import FAMILIES
from report import Table
from torch.profiler import ProfilerActivity, profile
from transformers.utils.logging import disable_progress_bar
from variants import Loaded, encoder, load_family
from workloads import TITLES, Workload

from st_modules.encode.engine import Engine

_SHOWN = {"gme": ["W3", "W4", "W5", "W6"], "bge_visualized": ["W4", "W5"], "bge_vl_mllm": ["W3"]}
_PRODUCTS = ("_linear_pointwise", "addmm", "::mm", "::bmm", "convolution")
_ATTENTION = "_scaled_dot_product"


def measure(models: Loaded, workload: Workload) -> list[str]:
    """Return the row of a workload: each phase and each kind of operation as a share of the whole call."""
    encode = encoder(models.ours)
    encode(workload)
    with time_phases(models) as phases:
        whole = _seconds(lambda: encode(workload))
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        encode(workload)
    kinds = Counter[str]()
    for operation in profiled.key_averages():
        kinds[_kind(operation.key)] += operation.self_cpu_time_total
    model = phases["model"]
    operations = sum(kinds.values())
    shares = [
        phases["plan"] / whole,
        phases["read"] / whole,
        phases["text"] / whole,
        (model - phases["text"]) / whole,
        (whole - phases["plan"] - phases["read"] - model) / whole,
        *(kinds[kind] / operations for kind in ("products", "attention", "rest")),
    ]
    return [models.family.name, workload.name, f"{whole:.2f}", *(f"{share:.0%}" for share in shares)]


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _kind(name: str) -> str:
    if _ATTENTION in name:
        return "attention"
    return "products" if any(each in name for each in _PRODUCTS) else "rest"


@contextmanager
def time_phases(models: Loaded) -> Iterator[Counter[str]]:
    """Add up the seconds of the phases of calls."""
    backbone: Any = models.ours[0]
    text = attrgetter(backbone.towers.language)(backbone.model)
    places = [(backbone, "plan", "plan"), (Engine, "_prepare", "read"), (backbone, "forward", "model")]
    seconds: Counter[str] = Counter()
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    originals.append((text, "forward", text.forward))

    def add_up(call: Callable[..., Any], phase: str) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **kwargs)
            finally:
                seconds[phase] += time.perf_counter() - start

        return timed

    for (owner, name, call), phase in zip(originals, ["plan", "read", "model", "text"], strict=True):
        setattr(owner, name, add_up(call, phase))
    try:
        yield seconds
    finally:
        for owner, name, call in originals:
            setattr(owner, name, call)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(_SHOWN))
    parser.add_argument("--workloads", nargs="+", choices=list(TITLES))
    parser.add_argument("--scale", type=float, default=0.125)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    disable_progress_bar()
    torch.set_num_threads(args.threads)
    phases = ["planning", "reading", "text tower", "vision tower", "the rest"]
    kinds = ["products", "attention", "other operations"]
    rows: list[list[str]] = []
    for name in args.families:
        with TemporaryDirectory() as photos, load_family(FAMILIES[name], Path(photos)) as models:
            workloads = args.workloads or _SHOWN.get(name, list(TITLES))
            rows += [measure(models, models.workload(workload, args.scale)) for workload in workloads]
    title = "Where the time goes: phases of the call; and of the operations, which kind"
    Table(title, ["family", "workload", "s", *phases, *kinds], rows).show()


if __name__ == "__main__":
    main()
