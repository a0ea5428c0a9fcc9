"""Show that memory does not grow with the number of images on disk.

JPEG files of 0.01 to 24 megapixels, one in a hundred of them above 0.3, are embedded by "tiny" in one call, then ten
times as many. Run ``python benchmarks/many_images.py``.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from measure import sample
from PIL import Image
from rich.console import Console
from rich.table import Table
from workloads import picture

from st_modules import SentenceTransformer

_RAREST = 100
_NAME_SIZE = (32, 8)


def megapixels(count: int) -> list[float]:
    """Return the sizes of the files, in no order."""
    large = max(1, count // _RAREST)
    sizes = np.concatenate([np.geomspace(0.01, 0.3, count - large), np.geomspace(24, 0.3, large)])
    return np.random.default_rng(count).permutation(sizes).tolist()


def write(folder: Path, sizes: Sequence[float]) -> list[str]:
    """Write a JPEG file of each size, none the same as another, and return their paths."""
    generator = np.random.default_rng(0)
    paths: list[str] = []
    for number, size in enumerate(sizes):
        image = picture(generator, int(1000 * (size * 4 / 3) ** 0.5), int(1000 * (size * 3 / 4) ** 0.5))
        image.paste(Image.fromarray(generator.integers(0, 256, _NAME_SIZE, dtype=np.uint8)))
        paths.append(str(folder / f"{number:06}.jpg"))
        image.save(paths[-1], quality=90)
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    args = parser.parse_args()
    model = SentenceTransformer("tiny", device="cpu")
    table = Table("Images", "Megapixels together", "Minutes", "Peak memory above the model")
    console = Console()
    for count in (args.count // 10, args.count):
        sizes = megapixels(count)
        with TemporaryDirectory() as folder, console.status(f"{count} images"):
            paths = write(Path(folder), sizes)
            model.encode(paths[:32])
            embeddings, cost = sample(functools.partial(model.encode, paths))
        assert embeddings.shape == (count, model.get_embedding_dimension())
        peak = "" if cost.peak_bytes is None else f"{cost.peak_bytes / 2**20:.0f} MiB"
        table.add_row(str(count), f"{sum(sizes):.0f}", f"{cost.seconds / 60:.1f}", peak)
    console.print(table)


if __name__ == "__main__":
    main()
