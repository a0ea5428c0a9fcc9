"""Fine-tune the embedded model on a domain that it never saw, and print what that does to both domains.

    python tools/tiny/finetune_tiny.py

draws shapes in frames (`framed_data.py`), trains an adapter on two cores as `examples/train_tiny.yaml` says, and
scores the model before and after: on held-out shapes in frames, and on the plain drawings that it was made for.
Each score of the new domain is the part of the queries whose first answer is the right one, among pictures of which
several differ in the frame alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from framed_data import FRAMES, ICONS, ROWS, SEED, change, describe, paint, write_training_data
from tiny_data import PROMPTS
from tiny_scores import Evaluation

from st_modules.model import SentenceTransformer
from st_modules.train import TrainConfig, read_config, run

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_tiny.yaml"
OLD_QUERIES = 200
BASES = 40
"""Held-out icons, each of which is in the gallery in every frame."""


def configuration(folder: Path, output: Path, steps: int | None) -> TrainConfig:
    """The example's configuration, with data and output in other folders."""
    config = read_config(EXAMPLE)
    data = tuple(replace(source, file=folder / str(source.file)) for source in config.data)
    training = replace(config.training, steps=steps or config.training.steps)
    return replace(config, output=output, data=data, training=training)


class NewDomain:
    """Scores on held-out icons.

    Args:
        seed: Chooses the icons, their drawings and what is said about them.
    """

    def __init__(self, seed: int = 2026) -> None:
        rng = random.Random(seed)
        held_out = [icon for icon in ICONS if icon.is_held_out]
        bases = rng.sample([icon for icon in held_out if icon.frame == FRAMES[0]], BASES)
        wanted = {(base.shape, base.colour, base.background) for base in bases}
        self.icons = [icon for icon in held_out if (icon.shape, icon.colour, icon.background) in wanted]
        self.texts = [{"text": describe(icon, rng)} for icon in self.icons]
        self.gallery = [{"image": paint(icon, seed)} for icon in self.icons]
        self.pictures = [{"image": paint(icon, seed + 1)} for icon in self.icons]
        changes = [change(icon, rng) for icon in self.icons]
        self.changes = [{**picture, "text": text} for picture, (text, _) in zip(self.pictures, changes, strict=True)]
        self.changed = np.array([self.icons.index(target) for _, target in changes])

    def scores(self, model: SentenceTransformer) -> dict[str, float]:
        """R@1 of each task."""
        right = np.arange(len(self.icons))
        gallery, captions = model.encode_document(self.gallery), model.encode_document(self.texts)
        return {
            "text → image": _rate(model.encode_query(self.texts, prompt=PROMPTS["t2i"]), gallery, right),
            "image → text": _rate(model.encode_query(self.pictures, prompt=PROMPTS["i2t"]), captions, right),
            "image + text → image": _rate(
                model.encode_query(self.changes, prompt=PROMPTS["it2i"]), gallery, self.changed
            ),
        }


def _rate(queries: np.ndarray, gallery: np.ndarray, right: np.ndarray) -> float:
    return float(((queries @ gallery.T).argmax(axis=1) == right).mean())


def old_scores(model: SentenceTransformer) -> dict[str, float]:
    """R@1 of the tasks of the model card that have an instruction."""
    wanted = {"text → image", "image → text", "image + text → image"}
    return {score.name: score.rate for score in Evaluation(model, OLD_QUERIES).scores() if score.name in wanted}


def table(before: dict[str, dict[str, float]], after: dict[str, dict[str, float]]) -> str:
    """Both domains' scores as a Markdown table."""
    lines = ["| domain | task | before | after |", "|---|---|---|---|"]
    for domain, scores in before.items():
        lines += [f"| {domain} | {task} | {rate:.3f} | {after[domain][task]:.3f} |" for task, rate in scores.items()]
    return "\n".join(lines)


def main() -> None:
    """Draw, score, train, score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS, help="rows of each file")
    parser.add_argument("--steps", type=int, help="those of the example where it is left out")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keeps the adapter, the model and the logs in this folder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    new = NewDomain()

    def scores(model: SentenceTransformer) -> dict[str, dict[str, float]]:
        return {"shapes in frames (new)": new.scores(model), "plain drawings (old)": old_scores(model)}

    before = scores(SentenceTransformer("tiny", device="cpu"))
    with tempfile.TemporaryDirectory() as folder:
        write_training_data(Path(folder) / "shapes", arguments.rows, arguments.seed)
        config = configuration(Path(folder), arguments.out or Path(folder) / "out", arguments.steps)
        training = time.monotonic(), time.process_time()
        result = run(config)
        trained, worked = time.monotonic() - training[0], time.process_time() - training[1]
        after = scores(SentenceTransformer(str(result.model), device="cpu"))
    print(table(before, after))
    print(
        f"Trained {result.trained:,} of {result.parameters:,} parameters for {result.steps} steps in {trained:.0f} s "
        f"({worked:.0f} s of CPU time, {arguments.threads} threads); with drawing and scoring "
        f"{time.monotonic() - started:.0f} s ({time.process_time():.0f} s)."
    )


if __name__ == "__main__":
    main()
