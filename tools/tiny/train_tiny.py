"""Train the embedded model, from nothing to a folder with its scores.

    python tools/tiny/train_tiny.py st_modules/assets/tiny

builds the tokenizer, initialises a small Qwen2-VL, trains it on drawings with sentence-transformers' own trainer
through this package's modules, stores the weights as float16, and scores what it saved. Needs two cores and the
extra packages `datasets` and `accelerate`; the model card states how long it took.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import DatasetDict
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.sampler import DefaultBatchSampler, MultiDatasetBatchSamplers
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Normalize
from tiny_card import write_card
from tiny_data import PROMPTS, dataset, training_scene, words
from tiny_scores import Evaluation, table
from tokenizers import AddedToken
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.trainers import BpeTrainer
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import SequentialSampler
from transformers import Qwen2Tokenizer, Qwen2VLConfig, Qwen2VLForConditionalGeneration, TrainerCallback
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from st_modules.backbones.qwen2_vl import Qwen2VL
from st_modules.checkpoints.locate import Checkpoint
from st_modules.demo.scenes import VALUES, neighbours
from st_modules.demo.wording import edit
from st_modules.model import SentenceTransformer
from st_modules.prompts.templates import QWEN2_DEFAULT_SYSTEM

SEED = 20
BATCH_SIZE = 64
SCALE = 20.0
VOCABULARY = 640
CONTROL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
    "use_sliding_window": False,
}
VISION = {
    "depth": 3,
    "embed_dim": 96,
    "hidden_size": 128,
    "num_heads": 6,
    "mlp_ratio": 4,
    "patch_size": 14,
    "spatial_merge_size": 2,
}
OPTIONS = {
    "template": "gme",
    "first_resize": "gme",
    "min_image_tokens": 12,
    "max_image_tokens": 16,
    "max_length": 512,
}


@dataclass(frozen=True)
class Stage:
    """A stretch of training with its own tasks.

    Attributes:
        batches: How many batches of each task.
        learning_rate: The highest learning rate, after the warm-up.
        scheduler: What the learning rate does then.
    """

    batches: dict[str, int]
    learning_rate: float
    scheduler: str


STAGES = (
    Stage({"t2i_first": 800, "it2i_first": 300}, 1.5e-3, "constant_with_warmup"),
    Stage(
        {"t2i_plain": 300, "t2i": 400, "i2t": 250, "t2t": 100, "it2i": 500, "it2i_plain": 250, "partial": 150},
        1.5e-3,
        "cosine",
    ),
)


class InOrder(DefaultBatchSampler):
    """Batches of consecutive rows: a data set's order is what makes its batches."""

    def __init__(self, dataset: Any, *args: Any, **kwargs: Any) -> None:
        # It takes a sampler as well as a data set, which its types do not say.
        sampler: Any = SequentialSampler(dataset)
        super().__init__(sampler, *args, **kwargs)


class Trainer(SentenceTransformerTrainer):
    """The trainer without its model card, which would quote rows as text; the model gets a card of its own."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Collect nothing."""


class Snapshots(TrainerCallback):
    """Saves the model now and then, so that an interrupted run leaves one behind."""

    def __init__(self, folder: Path, every: int = 400) -> None:
        self.folder = folder
        self.every = every

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Save a copy."""
        if state.global_step % self.every == 0:
            save(copy.deepcopy(model), self.folder)


class RankingAndAttributes(nn.Module):
    """In-batch ranking, helped by a classification of each embedding into the attributes of its scene.

    The classifiers are shared by all columns, so that a text and a picture with the same attribute are drawn to the
    same direction. They are dropped after training.

    Args:
        model: The model that is trained.
        weight: Weight of the classification, ranking having 1.
    """

    def __init__(self, model: SentenceTransformer, weight: float = 2.0) -> None:
        super().__init__()
        self.model = model
        self.weight = weight
        self.ranking = MultipleNegativesRankingLoss(
            model, scale=SCALE, directions=("query_to_doc", "doc_to_query"), partition_mode="per_direction"
        )
        dimension = model.get_embedding_dimension()
        assert dimension is not None
        self.directions = nn.ParameterList(0.05 * torch.randn(len(values), dimension) for values in VALUES.values())

    def forward(self, sentence_features: Iterable[dict[str, Any]], labels: Tensor | None) -> Tensor:
        """Return the loss of a batch; `labels` of shape (rows, attributes) are the scenes', None leaves them out."""
        embeddings = [self.model(features)["sentence_embedding"] for features in sentence_features]
        no_labels: Any = None  # their types ask for labels, which this loss does not read
        loss = self.ranking.compute_loss_from_embeddings(embeddings, no_labels)
        return loss if labels is None else loss + self.weight * self._classification(embeddings[:2], labels)

    def _classification(self, embeddings: list[Tensor], labels: Tensor) -> Tensor:
        losses = [
            functional.cross_entropy(SCALE * embedding @ functional.normalize(directions, dim=1).T, labels[:, number])
            for number, directions in enumerate(self.directions)
            for embedding in embeddings
        ]
        return torch.stack(losses).mean()


def build_tokenizer(folder: Path, seed: int) -> Qwen2Tokenizer:
    """Learn a byte-level vocabulary in Qwen2's layout from captions, changes and instructions, and save it."""
    rng = random.Random(seed)
    scenes = [training_scene(rng) for _ in range(4000)]
    texts = [words(scene, rng)["text"] for scene in scenes]
    texts += [edit(scene, rng.choice(neighbours(scene)), rng.choice) for scene in scenes]
    texts += [*PROMPTS.values(), f"system\n{QWEN2_DEFAULT_SYSTEM}", "user\n", "assistant\n"] * 200
    learner = BpeTrainer(
        vocab_size=VOCABULARY - len(CONTROL_TOKENS), initial_alphabet=ByteLevel.alphabet(), show_progress=False
    )
    bpe = Qwen2Tokenizer(vocab={}, merges=[]).backend_tokenizer
    bpe.train_from_iterator(texts, learner)
    learned = json.loads(bpe.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learned["merges"]]  # as the backend has them, not as the types say
    tokenizer = Qwen2Tokenizer(
        vocab={token: number for token, number in learned["vocab"].items() if token not in CONTROL_TOKENS},
        merges=merges,
        eos_token="<|im_end|>",
        padding_side="right",
        model_max_length=TEXT["max_position_embeddings"],
    )
    control: list[Any] = [AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS]
    tokenizer.add_tokens(control, special_tokens=True)
    tokenizer.save_pretrained(folder)
    return tokenizer


def initialise(folder: Path, seed: int) -> SentenceTransformer:
    """Write an untrained checkpoint in the upstream's layout to `folder`, and load it."""
    tokenizer = build_tokenizer(folder, seed)
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in CONTROL_TOKENS}
    special = {"bos_token_id": None, "eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]}
    config = Qwen2VLConfig(
        text_config={**TEXT, **special, "vocab_size": len(tokenizer)},
        vision_config=VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    Qwen2VLImageProcessorPil(do_convert_rgb=False).save_pretrained(folder)
    backbone = Qwen2VL.from_checkpoint(Checkpoint(folder), model_kwargs={"dtype": torch.float32}, **OPTIONS)
    return SentenceTransformer(modules=[backbone, Normalize()], prompts=PROMPTS, device="cpu")


def train(
    model: SentenceTransformer, loss: RankingAndAttributes, stage: Stage, folder: Path, seed: int, share: float
) -> None:
    """Train through one stage.

    Args:
        model: The model, changed in place.
        loss: The loss, whose classifiers learn on from one stage to the next.
        stage: Which tasks, and how fast.
        folder: Where snapshots go.
        seed: Decides the drawings and their order.
        share: The part of the stage's batches that is trained, 1 for all.
    """
    batches = {task: max(1, round(share * count)) for task, count in stage.batches.items()}
    steps = sum(batches.values())
    with tempfile.TemporaryDirectory() as output:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=output,
            num_train_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=stage.learning_rate,
            lr_scheduler_type=stage.scheduler,
            warmup_steps=min(100, steps // 4),
            weight_decay=0.05,
            adam_beta2=0.98,
            seed=seed,
            prompts={task: {"anchor": PROMPTS[task]} if task in PROMPTS else {} for task in batches},
            batch_sampler=InOrder,
            multi_dataset_batch_sampler=MultiDatasetBatchSamplers.PROPORTIONAL,
            use_cpu=True,
            save_strategy="no",
            logging_steps=25,
            report_to="none",
            disable_tqdm=True,
        )
        rows = DatasetDict({task: dataset(task, count, BATCH_SIZE, seed) for task, count in batches.items()})
        Trainer(model=model, args=arguments, train_dataset=rows, loss=loss, callbacks=[Snapshots(folder)]).train()


def save(model: SentenceTransformer, folder: Path) -> None:
    """Write the model with its weights as float16."""
    model.half().save_pretrained(str(folder), create_model_card=False)


def main() -> None:
    """Train, save, score, and write the model card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where the model goes; the package's own is st_modules/assets/tiny")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--share", type=float, default=1.0, help="part of the training steps, for a trial run")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as start:
        model = initialise(Path(start), arguments.seed)
        loss = RankingAndAttributes(model)
        for number, stage in enumerate(STAGES):
            train(model, loss, stage, arguments.folder, arguments.seed + number, arguments.share)
    save(model, arguments.folder)
    minutes = (time.monotonic() - started) / 60
    scores = Evaluation(SentenceTransformer("tiny", weights=arguments.folder)).scores()
    print(table(scores))
    write_card(arguments.folder, scores, seed=arguments.seed, minutes=minutes, threads=arguments.threads)


if __name__ == "__main__":
    main()
