"""What an index costs beside the model: over bare ``encode``, where nothing has changed, and in memory.

Run ``python benchmarks/indexing.py``. Each figure is a ratio within one run of one process, or the peak memory of a
process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

_SIDE = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--device", default=None)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3, help="times that each is timed; the fastest counts")
    parser.add_argument("--memory", type=int, nargs="*", default=[1000, 20_000], help="collections of so many items")
    parser.add_argument("--peak", nargs=2, metavar=("SOURCES", "INDEX"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peak:
        sources, index = arguments.peak
        print_peak(sources, index, arguments.model, arguments.device)
        return
    with TemporaryDirectory(prefix="st-modules-bench-") as name:
        folder = Path(name)
        pictures = draw(folder / "pictures", arguments.pictures)
        compare(pictures, folder, arguments.model, arguments.device, arguments.repeat)
        for count in arguments.memory:
            peak = measure_peak(draw(folder / str(count), count), folder / f"{count}.index", arguments)
            print(f"{count} pictures: {peak:.0f} MiB at most", flush=True)


def draw(folder: Path, count: int) -> Path:
    """Write JPEGs of coloured noise, of the size that photographs have once they are scaled for a model."""
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:06}.jpg", quality=90)
    return folder


def compare(pictures: Path, folder: Path, name: str, device: str | None, repeat: int) -> None:
    """Time ``encode``, an index of the same pictures, and that index once more."""
    from st_modules import SentenceTransformer
    from st_modules.index import build

    model = SentenceTransformer(name, device=device, keep_prefixes=True)
    paths = sorted(pictures.iterdir())
    items = [{"image": path} for path in paths]
    build(pictures, folder / "warm.index", model)  # imports, the model's fingerprint
    calls = {
        "encode": lambda index: model.encode_document(items),
        "index": lambda index: build(pictures, index, model),
        "again": lambda index: build(pictures, index, model),
    }
    timed = {name: [measure(call, folder / f"{turn}.index") for turn in range(repeat)] for name, call in calls.items()}
    print(f"{len(paths)} pictures, {name} on {model.device}", flush=True)
    for which, clock in enumerate(("seconds", "seconds of processors")):
        bare, first, again = (min(each[which] for each in times) for times in timed.values())
        print(f"{clock}: encode {bare:.2f}, index {first:.2f} ({first / bare - 1:+.1%}), ", end="")
        print(f"again {again:.3f} ({first / again:.0f} times faster)", flush=True)


def measure(call: Callable[[Path], object], index: Path) -> tuple[float, float]:
    """Return the seconds that a call takes, and those of processors: beside other work, the second tells more."""
    start, used = time.perf_counter(), time.process_time()
    call(index)
    return time.perf_counter() - start, time.process_time() - used


def measure_peak(sources: Path, index: Path, arguments: argparse.Namespace) -> float:
    """Return the peak memory of a process that builds an index, in MiB."""
    call = [sys.executable, __file__, "--model", arguments.model, "--peak", str(sources), str(index)]
    device = [] if arguments.device is None else ["--device", arguments.device]
    done = subprocess.run([*call, *device], capture_output=True, text=True, check=True, env=os.environ)
    return json.loads(done.stdout.splitlines()[-1])


def print_peak(sources: str, index: str, model: str, device: str | None) -> None:
    from st_modules.index import build

    build(sources, index, model, device=device)
    print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


if __name__ == "__main__":
    main()
