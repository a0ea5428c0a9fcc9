"""Training shares ``preprocess`` and ``forward``; a model with adapters is saved, resumed, and ends as its best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.evaluation import SentenceEvaluator
from sentence_transformers.sentence_transformer.losses import (
    CachedMultipleNegativesRankingLoss,
    MultipleNegativesRankingLoss,
)
from transformers import PrinterCallback

from st_modules import CheckpointError, SentenceTransformer
from st_modules.train import LoraSettings, Trainer, add_lora
from tests.helpers.adapters import difference, embed, lora
from tests.helpers.paths import GOLDEN
from tests.helpers.training_rows import load, rows

GOLDEN_GME = GOLDEN / "gme"
IMAGES = [GOLDEN_GME / "images" / name for name in ("square.png", "wide.png", "small.png", "gray.png")]
ANCHORS: list[Any] = ["a car", {"text": "make it blue", "image": IMAGES[0]}, "a cat", {"image": IMAGES[:2]}]
POSITIVES: list[Any] = [IMAGES[1], "a blue car", {"image": IMAGES[2], "text": "cat"}, IMAGES[3]]


@pytest.fixture
def model() -> SentenceTransformer:
    return SentenceTransformer(
        "gme-2b", weights=GOLDEN_GME / "checkpoint", device="cpu", min_image_tokens=4, max_image_tokens=16
    )


def gradients(model: SentenceTransformer, loss: torch.nn.Module) -> dict[str, torch.Tensor]:
    model.zero_grad()
    columns = [model.preprocess(ANCHORS, prompt="Find it."), model.preprocess(POSITIVES, task="document")]
    loss(columns, None).backward()
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert [name for name, gradient in found.items() if gradient is None] == []
    return {name: gradient.clone() for name, gradient in found.items() if gradient is not None}


def test_gradients_reach_every_weight(model: SentenceTransformer) -> None:
    found = gradients(model, MultipleNegativesRankingLoss(model))
    assert [name for name, gradient in found.items() if not gradient.abs().sum() > 0] == []


@pytest.mark.parametrize("rows", [1, 3])
def test_a_batch_split_by_rows_has_the_same_gradients(model: SentenceTransformer, rows: int) -> None:
    expected = gradients(model, MultipleNegativesRankingLoss(model))
    found = gradients(model, CachedMultipleNegativesRankingLoss(model, mini_batch_size=rows))
    assert max((found[name] - gradient).abs().max().item() for name, gradient in expected.items()) <= 1e-5


class Scores(SentenceEvaluator):
    """Keeps the vectors that a model has when it is evaluated, and calls the second ones the best."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.primary_metric, self.seen = name, "score", list[Any]()

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        self.seen.append(embed(model, self.name))
        return {"score": float(len(self.seen) == 2)}


def put_in(how: str, name: str) -> SentenceTransformer:
    torch.manual_seed(0)
    model = load(name)
    if how == "add_lora":
        add_lora(model, LoraSettings(rank=2))
    else:
        model.add_adapter(lora(name))
    if how == "two adapters":
        model.add_adapter(lora(name, r=2), "second")
    if how == "and weights":
        for parameter in model[0].get_submodule("model.language_model.norm").parameters():
            parameter.requires_grad_(True)
    return model


def train(trainer_class: Any, model: SentenceTransformer, folder: Path, name: str, **settings: Any) -> Any:
    arguments = SentenceTransformerTrainingArguments(
        str(folder),
        num_train_epochs=3,
        per_device_train_batch_size=5,
        learning_rate=1e-2,
        eval_strategy="epoch",
        save_strategy="epoch",
        metric_for_best_model="score",
        greater_is_better=True,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **settings,
    )
    loss = CachedMultipleNegativesRankingLoss(model, mini_batch_size=5)
    evaluator = Scores(name)
    data = Dataset.from_list(rows(name))
    trainer = trainer_class(model=model, args=arguments, train_dataset=data, evaluator=evaluator, loss=loss)
    trainer.remove_callback(PrinterCallback)
    return trainer


CASES = [
    (SentenceTransformerTrainer, "add_adapter", "gme-2b"),
    (SentenceTransformerTrainer, "add_lora", "bge-visualized-base"),
    (Trainer, "add_lora", "bge-visualized-base"),
    (Trainer, "two adapters", "gme-2b"),
    (Trainer, "and weights", "gme-2b"),
]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
@pytest.mark.parametrize(("trainer_class", "how", "name"), CASES)
def test_a_run_with_an_adapter_ends_as_its_best_checkpoint_and_is_resumed_from_any(
    trainer_class: Any, how: str, name: str, tmp_path: Path
) -> None:
    trainer = train(trainer_class, put_in(how, name), tmp_path, name, load_best_model_at_end=True)
    trainer.train()
    _, best, last = trainer.evaluator.seen
    assert difference(trainer.model, name, best) <= 1e-6
    assert np.abs(best - last).max() > 1e-4
    checkpoint = tmp_path / "checkpoint-2"
    assert Path(trainer.state.best_model_checkpoint) == checkpoint
    alone = trainer_class is Trainer and how != "and weights"
    assert (checkpoint / "model.safetensors").exists() is not alone
    if not alone:
        assert difference(SentenceTransformer(str(checkpoint), device="cpu"), name, best) <= 1e-6

    resumed = train(trainer_class, put_in(how, name), tmp_path, name)
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert difference(resumed.model, name, last) <= 1e-5


def test_a_checkpoint_of_other_adapters_is_refused(tmp_path: Path) -> None:
    first = train(Trainer, put_in("add_lora", "gme-2b"), tmp_path, "gme-2b")
    first.save_model(str(tmp_path / "checkpoint-1"))
    model = load("gme-2b")
    model.add_adapter(lora("gme-2b"), "another")
    second = train(Trainer, model, tmp_path, "gme-2b")
    with pytest.raises(CheckpointError, match=r"\['default'\], and the model has \['another'\]"):
        second._load_from_checkpoint(str(tmp_path / "checkpoint-1"))
    with pytest.raises(CheckpointError, match="no adapters"):
        second._load_from_checkpoint(str(tmp_path))
