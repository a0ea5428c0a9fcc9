"""Embeddings follow the weights, however these change: nothing computed from them outlives a call of ``encode``."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.evaluation import BaseEvaluator
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from torch import nn
from torch.nn.utils import parametrizations, prune
from transformers import Trainer
from transformers.training_args import OptimizerNames

from st_modules import SentenceTransformer
from tests.helpers.inputs import OFF, PICTURES, texts
from tests.helpers.references import reference

NAMES = [
    "gme-2b",
    "qwen3-vl-embedding-2b",
    "vlm2vec-qwen2vl-2b",
    "bge-vl-mllm-s1",
    "bge-vl-base",
    "bge-visualized-base",
]
INPUTS: list[Any] = [*texts(5), PICTURES[0], {"text": "make it blue", "image": PICTURES[1]}]
PROMPT = "Find a picture that is like this one but for what the text says."
TOLERANCE = 1e-6
# The fixed ones are embedded without what saves work, which differs by the rounding of float32.
ROUNDING = 1e-5


def embed(model: Any) -> np.ndarray:
    return model.encode(INPUTS, prompt=PROMPT)


def embed_plainly(model: SentenceTransformer) -> np.ndarray:
    """Embed without anything that saves work."""
    options, model.encode_options = model.encode_options, OFF
    vectors = embed(model)
    model.encode_options = options
    return vectors


def embed_reloaded(model: SentenceTransformer, folder: Path) -> np.ndarray:
    """Embed with a model that has never seen other weights than those of now."""
    model.save_pretrained(str(folder))
    return embed(SentenceTransformer(str(folder), device="cpu"))


def arguments(folder: Path, **options: Any) -> SentenceTransformerTrainingArguments:
    return SentenceTransformerTrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=2,
        learning_rate=1e-2,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **options,
    )


def is_offered(name: str) -> bool:
    try:
        Trainer.get_optimizer_cls_and_kwargs(arguments(Path("unused"), optim=name))
    except (ImportError, ValueError, RuntimeError):
        return False
    return True


OPTIMIZERS = [name.value for name in OptimizerNames if is_offered(name.value)]
"""Those that transformers offers with what is installed; the others need a package or a device of their own."""


class Recorder(BaseEvaluator):
    """Embeds inside training, and writes down what a model would embed that was saved and loaded there."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.found: list[np.ndarray] = []
        self.expected: list[np.ndarray] = []

    def __call__(
        self, model: Any, output_path: str | None = None, epoch: int = -1, steps: int = -1
    ) -> dict[str, float]:
        self.found.append(embed(model))
        self.expected.append(embed_reloaded(model, self.folder / str(len(self.found))))
        return {}


def train(model: SentenceTransformer, folder: Path, optimizer: str) -> Recorder:
    recorder = Recorder(folder / "saved")
    rows = {"anchor": texts(4), "positive": [f"{text} again" for text in texts(4)]}
    SentenceTransformerTrainer(
        model=model,
        args=arguments(folder, optim=optimizer, max_steps=2, eval_strategy="steps", eval_steps=1, save_strategy="no"),
        train_dataset=Dataset.from_dict(rows),
        evaluator=recorder,
        loss=MultipleNegativesRankingLoss(model),
    ).train()
    return recorder


def test_the_optimizers_of_torch_are_among_those_that_are_tried() -> None:
    assert {"adamw_torch_fused", "adamw_torch", "sgd", "adafactor"} <= set(OPTIMIZERS)


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [*((name, "adamw_torch_fused") for name in NAMES), *(("gme-2b", each) for each in OPTIMIZERS)],
)
@pytest.mark.parametrize("keep", [False, True])
def test_embeddings_follow_training_inside_and_after_it(name: str, optimizer: str, keep: bool, tmp_path: Path) -> None:
    model = reference(name).load(name, keep_prefixes=keep)
    before = embed(model)
    recorder = train(model, tmp_path, optimizer)
    vectors = [*recorder.found, embed(model)]
    expected = [*recorder.expected, embed_reloaded(model, tmp_path / "end")]
    assert len(vectors) >= 3
    assert np.abs(np.stack(vectors) - np.stack(expected)).max() <= TOLERANCE
    assert min(np.abs(after - before).max() for after in vectors) > 1e-4


def linear_layers(model: SentenceTransformer) -> list[Any]:
    return [module for module in model.modules() if type(module) is nn.Linear]


def step_fused(model: SentenceTransformer) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True).step()
    model.zero_grad()


def average_weights(model: SentenceTransformer) -> None:
    for parameter in model.parameters():
        parameter.data.mul_(0.9).add_(0.01 * torch.sign(parameter.data))


def copy_data(model: SentenceTransformer) -> None:
    for parameter in model.parameters():
        parameter.data.copy_(parameter.data * 1.1)


def write_by_numpy(model: SentenceTransformer) -> None:
    for layer in linear_layers(model):
        layer.weight.detach().numpy()[:] *= 1.1


def stretch(module: nn.Module, args: Any, output: torch.Tensor) -> torch.Tensor:
    return output * 1.1


def add_hooks(model: SentenceTransformer) -> None:
    for layer in linear_layers(model):
        layer.register_forward_hook(stretch)


def normalise_weights(model: SentenceTransformer) -> None:
    for layer in linear_layers(model):
        parametrizations.weight_norm(layer)
        layer.parametrizations["weight"].original0.data.mul_(1.1)


def prune_weights(model: SentenceTransformer) -> None:
    for layer in linear_layers(model):
        prune.l1_unstructured(layer, "weight", amount=0.3)


WRITES = [step_fused, average_weights, copy_data, write_by_numpy]
CHANGES = [*WRITES, add_hooks, normalise_weights, prune_weights]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("change", CHANGES)
def test_embeddings_follow_every_change(name: str, change: Callable[[SentenceTransformer], None]) -> None:
    model = reference(name).load(name)
    before = embed(model)
    change(model)
    after = embed(model)
    assert np.abs(after - embed_plainly(model)).max() <= ROUNDING
    assert np.abs(after - before).max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("write", WRITES)
def test_embeddings_after_a_write_are_those_of_the_saved_model(
    name: str, write: Callable[[SentenceTransformer], None], tmp_path: Path
) -> None:
    model = reference(name).load(name)
    embed(model)
    write(model)
    assert np.abs(embed(model) - embed_reloaded(model, tmp_path)).max() <= TOLERANCE


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_lower_precision_does_not_reach_the_next_call(name: str, dtype: torch.dtype, keep: bool) -> None:
    model = reference(name).load(name, keep_prefixes=keep)
    with torch.autocast("cpu", dtype=dtype):
        lower = embed(model)
    assert np.array_equal(embed(model), embed(reference(name).load(name)))
    with torch.autocast("cpu", dtype=dtype):
        assert np.array_equal(embed(model), lower)
    assert not np.array_equal(embed(model), lower)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_a_cast_model_is_that_which_is_loaded_in_the_precision(name: str, dtype: torch.dtype) -> None:
    model = reference(name).load(name, keep_prefixes=True)
    embed(model)
    options: Any = {"model_kwargs": {"dtype": dtype}}
    source = reference(name)
    loaded = SentenceTransformer(
        name, weights=source.weights, base_weights=source.base_weights, device="cpu", **options
    )
    assert np.array_equal(embed(model.to(dtype)), embed(loaded))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_was_cast_and_cast_back_lost_no_more_than_its_weights_did(name: str) -> None:
    model, expected = (reference(name).load(name) for _ in range(2))
    for parameter in expected.parameters():
        parameter.data = parameter.data.to(torch.bfloat16).float()
    assert np.array_equal(embed(model.bfloat16().float()), embed(expected))


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1"])
def test_training_takes_back_that_weights_are_fixed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    model = reference(name).load(name, keep_prefixes=True)
    assert model.keep_prefixes
    embed(model)
    model.eval()
    assert model.keep_prefixes
    model.train()
    assert not model.keep_prefixes
    assert "keep_prefixes is off" in caplog.text


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1"])
def test_a_pass_that_records_gradients_takes_it_back_too(name: str) -> None:
    model = reference(name).load(name, keep_prefixes=True)
    embed(model)
    features = model.preprocess(INPUTS)
    with torch.no_grad():
        model(dict(features))
    assert model.keep_prefixes
    model(features)["sentence_embedding"].sum().backward()
    assert not model.keep_prefixes


@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1"])
def test_training_of_the_stock_model_itself_takes_it_back_too(name: str) -> None:
    model = reference(name).load(name, keep_prefixes=True)
    embed(model)
    backbone: Any = model[0]
    stock = backbone.model
    stock.train()
    stock(input_ids=torch.tensor([[1, 2, 3]])).last_hidden_state.sum().backward()
    torch.optim.AdamW(model.parameters(), lr=1e-2, fused=True).step()
    model.zero_grad()
    stock.eval()
    assert np.abs(embed(model) - embed_plainly(model)).max() <= ROUNDING
    assert not model.keep_prefixes


def merge_by_peft(model: SentenceTransformer) -> None:
    backbone: Any = model[0]
    config = LoraConfig(target_modules=["q_proj", "v_proj"], lora_alpha=64, init_lora_weights=False)
    get_peft_model(backbone.model.language_model, config).merge_and_unload()


def scale_a_layer_that_is_trained_whole(model: SentenceTransformer) -> None:
    model.add_adapter(LoraConfig(target_modules=["q_proj"], modules_to_save=["input_layernorm"]))
    embed(model)
    for name, parameter in model.named_parameters():
        if "modules_to_save" in name:
            parameter.data.mul_(3)
    embed(model)
    model.disable_adapters()


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1"])
@pytest.mark.parametrize("change", [merge_by_peft, scale_a_layer_that_is_trained_whole, add_hooks, prune_weights])
def test_kept_states_do_not_outlive_adapters_and_hooks(
    name: str, change: Callable[[SentenceTransformer], None]
) -> None:
    model = reference(name).load(name, keep_prefixes=True)
    embed(model)
    change(model)
    assert model.keep_prefixes
    assert np.abs(embed(model) - embed_plainly(model)).max() <= ROUNDING


def test_copies_of_a_model_with_fixed_weights_keep_nothing() -> None:
    model = reference("gme-2b").load("gme-2b", keep_prefixes=True)
    expected = embed(model)
    for changed in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert not changed.keep_prefixes
        copy_data(changed)
        assert np.abs(embed(changed) - embed_plainly(changed)).max() <= ROUNDING
    assert model.keep_prefixes
    assert np.array_equal(embed(model), expected)
