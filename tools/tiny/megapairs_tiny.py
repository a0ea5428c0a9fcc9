"""Mine triplets from drawings, and train a model from nothing on these triplets alone.

    python tools/tiny/megapairs_tiny.py

draws a folder of pictures with captions, mines triplets from it with the embedded model and templates, builds a model
of the embedded model's architecture with random weights, trains it with sentence-transformers' own trainer on the
mined file, and prints how well it retrieves before and after. What it is asked for is held out: one in five of the
scenes is not in the folder. Each shows one large shape in the middle, of one of six kinds and colours, on one of five
backgrounds. The bands are such that most pairs differ in one of the three, which is printed too. Needs the extras
`megapairs` and `train`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
import time
import zlib
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from train_tiny import SCALE, Trainer, initialise

from st_modules.demo.drawings import draw
from st_modules.demo.scenes import BACKGROUNDS, Scene, neighbours
from st_modules.demo.wording import caption, edit
from st_modules.megapairs import (
    CaptionTemplates,
    Encoder,
    Picture,
    PicturePair,
    Recipe,
    Summary,
    make_triplets,
    read_collection,
    read_triplets,
    save_pictures,
    training_dataset,
)
from st_modules.model import SentenceTransformer

ENCODERS = [Encoder("tiny", reads, 0.6, 0.95) for reads in ("visual", "fused", "caption")]
QUESTIONS_ABOUT_A_SCENE = 3
QUESTIONS_SEED = 2026
SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = ("red", "green", "blue", "yellow", "pink", "brown")
SCENES = [
    scene
    for shape, colour, background in itertools.product(SHAPES, COLOURS, BACKGROUNDS)
    if (scene := Scene(shape, colour, "large", 1, "center", background)).is_visible
]
LEARNING_RATE = 4e-4
IMAGE_TOKENS: dict[str, Any] = {"min_image_tokens": 4, "max_image_tokens": 6}


@dataclass(frozen=True)
class Stage:
    """A stretch of training.

    Attributes:
        steps: How many batches.
        negatives: How many hard negatives a row has.
        scheduler: What becomes of the learning rate after the warm-up.
    """

    steps: int
    negatives: int
    scheduler: str


# Hard negatives from the start would be nearer to the query than anything that the model can tell apart yet.
STAGES = (Stage(900, 0, "constant_with_warmup"), Stage(700, 2, "cosine"))


def is_held_out(scene: Scene) -> bool:
    """Whether the folder has no picture of a scene."""
    return zlib.crc32(f"held {scene}".encode()) % 5 == 0


def draw_pictures(folder: Path, drawings: int, seed: int) -> None:
    """Draw every scene that is not held out some times, with its caption."""
    rows = (
        {"image": draw(scene, seed + number), "text": caption(scene)}
        for scene in SCENES
        if not is_held_out(scene)
        for number in range(drawings)
    )
    save_pictures(rows, folder, caption="text")


def mine(folder: Path, out: Path, seed: int) -> Summary:
    """Mine triplets from a folder."""
    recipe = Recipe(ENCODERS, neighbours=60, pairs=4, negatives=5, seed=seed)
    return make_triplets(folder, out, recipe, CaptionTemplates(seed=seed), device="cpu", show_progress_bar=True)


def differences(triplets: Path, folder: Path) -> dict[int, float]:
    """In how many of its three attributes a target's scene differs from the query's, as parts of all triplets."""
    scenes = {caption(scene): scene for scene in SCENES}
    shown = {picture.name: scenes[str(picture.caption)] for picture in read_collection(folder).pictures}
    counts = Counter(_differing(shown[triplet.q_img], shown[triplet.t_img]) for triplet in read_triplets(triplets))
    return {number: count / counts.total() for number, count in sorted(counts.items())}


def _differing(one: Scene, other: Scene) -> int:
    return sum(getattr(one, name) != getattr(other, name) for name in ("shape", "colour", "background"))


@dataclass(frozen=True)
class Questions:
    """Held-out scenes, each to be found with pictures of other scenes and one thing to change in them.

    The gallery has one picture of every scene there is. Queries are other drawings, never those that were trained on.
    """

    right: np.ndarray

    gallery: list[dict[str, Any]]
    images: list[dict[str, Any]]
    mined: list[dict[str, Any]]
    own: list[dict[str, Any]]

    @classmethod
    def make(cls, seed: int) -> Questions:
        """Ask about every held-out scene."""
        rng = random.Random(seed)
        near = {scene: [other for other in neighbours(scene) if other in SCENES] for scene in SCENES}
        pairs = [
            (source, wanted)
            for wanted in filter(is_held_out, SCENES)
            for source in rng.sample(near[wanted], QUESTIONS_ABOUT_A_SCENE)
        ]
        return cls(
            right=np.array([SCENES.index(wanted) for _, wanted in pairs]),
            gallery=[{"image": draw(scene, seed - 1)} for scene in SCENES],
            images=[{"image": draw(source, seed - 2)} for source, _ in pairs],
            mined=[{"text": _instruction(*pair)} for pair in pairs],
            own=[{"text": edit(*pair, rng.choice)} for pair in pairs],
        )

    def scores(self, model: SentenceTransformer) -> dict[str, tuple[float, float]]:
        """Recall@1 and recall@5 of each kind of question."""
        gallery = self._embed(model, self.gallery)
        kinds = {
            "image + text, as mined": _together(self.images, self.mined),
            "image + text, other words": _together(self.images, self.own),
            "the image alone": self.images,
            "the text alone": self.mined,
        }
        return {kind: _recall(self._embed(model, items) @ gallery.T, self.right) for kind, items in kinds.items()}

    @staticmethod
    def _embed(model: SentenceTransformer, items: list[dict[str, Any]]) -> np.ndarray:
        return model.encode(items, batch_size=64, show_progress_bar=False)


def _instruction(before: Scene, after: Scene) -> str:
    query, target = (Picture(repr(scene), caption(scene)) for scene in (before, after))
    (written,) = CaptionTemplates(count=1).write([PicturePair(query, target, Path())])
    return written.texts[0]


def _together(images: list[dict[str, Any]], texts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [image | text for image, text in zip(images, texts, strict=True)]


def _recall(cosines: np.ndarray, right: np.ndarray) -> tuple[float, float]:
    """Recall at 1 and 5, where `right` has the number of each query's right answer."""
    ranks = (cosines > cosines[np.arange(len(right)), right][:, None]).sum(axis=1)
    return float((ranks < 1).mean()), float((ranks < 5).mean())


def training_rows(triplets: Path, folder: Path, stage: Stage, batch_size: int, seed: int) -> Dataset:
    """The mined triplets again and again, every time in another order and with another choice of instructions."""
    wanted, passes, rows = stage.steps * batch_size, [], 0
    while rows < wanted:
        number = seed + len(passes)
        passes.append(training_dataset(triplets, folder, stage.negatives, seed=number).shuffle(number))
        rows += len(passes[-1])
    return concatenate_datasets(passes).select(range(wanted))


def train(model: SentenceTransformer, rows: Dataset, stage: Stage, batch_size: int, seed: int) -> None:
    """Train on rows in their order, with in-batch ranking."""
    with tempfile.TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=output,
            num_train_epochs=1,
            per_device_train_batch_size=batch_size,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type=stage.scheduler,
            warmup_steps=min(50, stage.steps // 4),
            weight_decay=0.05,
            adam_beta2=0.98,
            seed=seed,
            use_cpu=True,
            save_strategy="no",
            logging_steps=25,
            report_to="none",
            disable_tqdm=True,
        )
        loss = MultipleNegativesRankingLoss(model, scale=SCALE)
        trainer: SentenceTransformerTrainer = Trainer(model=model, args=arguments, train_dataset=rows, loss=loss)
        trainer.train()


def table(before: dict[str, tuple[float, float]], after: dict[str, tuple[float, float]]) -> str:
    """Scores before and after as a Markdown table."""
    lines = ["| asked with | R@1 before | R@1 after | R@5 before | R@5 after |", "|---|---|---|---|---|"]
    for kind, (one, five) in before.items():
        lines.append(f"| {kind} | {one:.3f} | {after[kind][0]:.3f} | {five:.3f} | {after[kind][1]:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Draw, mine, train, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawings", type=int, default=3, help="pictures of each scene")
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--share", type=float, default=1.0, help="part of the training steps, for a trial run")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seed = arguments.seed
    with tempfile.TemporaryDirectory() as temporary:
        folder, triplets, start = (Path(temporary) / name for name in ("pictures", "triplets.jsonl", "start"))
        (start / "large").mkdir(parents=True)
        started = time.monotonic()
        draw_pictures(folder, arguments.drawings, seed)
        made = mine(folder, triplets, seed)
        print(f"{made.triplets} triplets of {made.pictures} pictures in {time.monotonic() - started:.0f} s")
        for number, part in differences(triplets, folder).items():
            print(f"{part:.1%} of the targets differ from the query in {number} of 3 attributes")
        questions = Questions.make(QUESTIONS_SEED)
        initialise(start / "large", seed).save_pretrained(str(start / "saved"), create_model_card=False)
        model = SentenceTransformer(str(start / "saved"), device="cpu", **IMAGE_TOKENS)
        before = questions.scores(model)
        started = time.monotonic()
        for number, stage in enumerate(STAGES):
            stage = replace(stage, steps=max(1, round(stage.steps * arguments.share)))
            rows = training_rows(triplets, folder, stage, arguments.batch_size, seed + 100 * number)
            train(model, rows, stage, arguments.batch_size, seed)
        print(f"trained in {(time.monotonic() - started) / 60:.1f} minutes on {arguments.threads} threads")
        print(f"{len(questions.images)} questions about held-out scenes, {len(questions.gallery)} pictures to search")
        print(table(before, questions.scores(model)))


if __name__ == "__main__":
    main()
