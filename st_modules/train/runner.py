"""One training run: from a configuration to a folder with the adapter, the model and the logs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformerTrainingArguments
from torch.utils.tensorboard import SummaryWriter
from transformers import PrinterCallback, set_seed
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils.import_utils import is_torch_bf16_gpu_available

from st_modules.backbones.base import Backbone
from st_modules.errors import InputError
from st_modules.model import SentenceTransformer
from st_modules.train.config import SourceSettings, TrainConfig
from st_modules.train.data import load_source
from st_modules.train.lora import (
    add_lora,
    backbone_of,
    checkpoint_activations,
    count_parameters,
    freeze_vision,
    merge_adapter,
    save_adapter,
)
from st_modules.train.losses import build_loss
from st_modules.train.trainer import Trainer
from st_modules.train.validation import ConfigError

logger = logging.getLogger(__name__)

LOGS, ADAPTER, MODEL = "runs", "adapter", "model"
"""What a run writes below its output folder."""


@dataclass(frozen=True)
class Result:
    """What a run wrote.

    Attributes:
        trained: How many parameters were trained, of
        parameters: how many.
        steps: Steps that were made, with those before a resumption.
        loss: The training loss as it was last logged.
        adapter: Folder of the adapter, where there is one.
        model: Folder of the whole model, where it was written.
        logs: Folder of the TensorBoard logs.
    """

    trained: int
    parameters: int
    steps: int
    loss: float
    adapter: Path | None
    model: Path | None
    logs: Path


def run(config: TrainConfig, *, resume: bool = False, quiet: bool = False) -> Result:
    """Train as a configuration says.

    Args:
        config: The configuration.
        resume: Go on from the latest checkpoint in the output folder.
        quiet: Show no progress bar.

    Returns:
        What was written.

    Raises:
        ConfigError: The configuration does not fit the model or the data, or the output folder is in use.
        STModulesError: The model or a row of the data cannot be read.
    """
    _check_precision(config)
    arguments = _arguments(config, quiet)
    _check_devices(arguments, config)
    checkpoint = _checkpoint(config, resume)
    _wait_for_all(arguments)
    set_seed(config.training.seed)
    train_data, evaluation_data = _load(config.data), _load(config.evaluation)
    model = _model(config)
    trainer = _trainer(config, arguments, model, train_data, evaluation_data)
    _check_first_rows(trainer, train_data, config.data)
    trained, parameters = count_parameters(model)
    if quiet:
        trainer.remove_callback(PrinterCallback)
    if arguments.should_save:
        trainer.add_callback(TensorBoardCallback(SummaryWriter(str(config.output / LOGS))))
    trainer.train(resume_from_checkpoint=checkpoint)
    adapter = config.output / ADAPTER if config.lora else None
    whole = config.output / MODEL if config.merge or not adapter else None
    if arguments.should_save:
        _save(model, adapter, whole)
    _wait_for_all(arguments)
    return Result(
        trained=trained,
        parameters=parameters,
        steps=trainer.state.global_step,
        loss=_last_loss(trainer),
        adapter=adapter,
        model=whole,
        logs=config.output / LOGS,
    )


def _check_precision(config: TrainConfig) -> None:
    if config.training.bf16 and config.training.device != "cpu" and not is_torch_bf16_gpu_available():
        raise ConfigError("training.bf16: no GPU here computes in bfloat16. Leave it out, or set device: cpu.")


def _check_devices(arguments: SentenceTransformerTrainingArguments, config: TrainConfig) -> None:
    if arguments.n_gpu > 1:
        # DataParallel would split pixels, which are not one row for each item.
        raise ConfigError(
            f"training.device: this process sees {arguments.n_gpu} GPUs. Start one for each with torchrun, or show it "
            "one with CUDA_VISIBLE_DEVICES=0."
        )
    if arguments.world_size > 1 and config.loss.mini_batch_size is None:
        # DistributedDataParallel fails where one of the columns' forward passes leaves out a tower.
        raise ConfigError("loss.mini_batch_size: several processes need it; training.batch_size is its highest value.")


def _checkpoint(config: TrainConfig, resume: bool) -> str | None:
    output = config.output
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output: {output} is a file.")
    if not resume:
        if output.is_dir() and any(output.iterdir()):
            raise ConfigError(f"output: {output} is not empty. Resume the run in it, or name another folder.")
        return None
    checkpoint = get_last_checkpoint(str(output)) if output.is_dir() else None
    if checkpoint is None:
        raise ConfigError(f"output: {output} has no checkpoint to resume from.")
    return checkpoint


def _load(sources: tuple[SourceSettings, ...]) -> dict[str, Dataset]:
    return {source.name: load_source(source) for source in sources}


def _model(config: TrainConfig) -> SentenceTransformer:
    settings = config.model
    names = ("min_image_tokens", "max_image_tokens", "num_crops", "max_length")
    options = {name: getattr(settings, name) for name in names}
    try:
        model = SentenceTransformer(
            settings.name,
            weights=settings.weights,
            base_weights=settings.base_weights,
            device="cpu" if config.training.device == "cpu" else None,
            model_kwargs=_precision(config),
            **options,
        )
        if config.lora:
            add_lora(model, config.lora)
        elif not config.train_vision:
            freeze_vision(model)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error
    if config.training.activation_checkpointing:
        checkpoint_activations(model)
    return model


def _precision(config: TrainConfig) -> dict[str, Any]:
    dtype = config.model.dtype
    if dtype == "auto":
        return {} if config.lora else {"dtype": torch.float32}
    return {"dtype": getattr(torch, dtype)}


def _wait_for_all(arguments: SentenceTransformerTrainingArguments) -> None:
    """Wait for the processes that train together, so that none writes before all have looked, or reads half a file."""
    if arguments.distributed_state:
        arguments.distributed_state.wait_for_everyone()


def _trainer(
    config: TrainConfig,
    arguments: SentenceTransformerTrainingArguments,
    model: SentenceTransformer,
    train_data: dict[str, Dataset],
    evaluation_data: dict[str, Dataset],
) -> Trainer:
    try:
        loss = build_loss(model, config.loss)
    except ValueError as error:
        raise ConfigError(f"loss.{error}") from error
    return Trainer(
        model=model,
        args=arguments,
        train_dataset=DatasetDict(**train_data),
        eval_dataset=DatasetDict(**evaluation_data) if evaluation_data else None,
        loss=loss,
    )


def _arguments(config: TrainConfig, quiet: bool) -> SentenceTransformerTrainingArguments:
    training = config.training
    sources = (*config.evaluation, *config.data)
    on_gpu = training.device != "cpu" and torch.cuda.is_available()
    return SentenceTransformerTrainingArguments(
        output_dir=str(config.output),
        per_device_train_batch_size=training.batch_size,
        per_device_eval_batch_size=training.batch_size,
        gradient_accumulation_steps=training.accumulate,
        max_steps=training.steps or -1,
        num_train_epochs=training.epochs or 1,
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.scheduler,
        warmup_steps=training.warmup if training.warmup < 1 else int(training.warmup),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        batch_sampler=training.sampler,
        multi_dataset_batch_sampler=training.mixing,
        prompts={source.name: source.prompts for source in sources},
        router_mapping={source.name: source.sides for source in sources},  # type: ignore[arg-type]
        bf16=training.bf16,
        use_cpu=training.device == "cpu",
        dataloader_num_workers=training.workers,
        dataloader_pin_memory=on_gpu,
        seed=training.seed,
        logging_steps=training.log_every,
        logging_first_step=True,
        save_strategy="steps" if training.save_every else "no",
        save_steps=training.save_every or 500,
        save_total_limit=training.keep,
        eval_strategy="steps" if training.evaluate_every else "no",
        eval_steps=training.evaluate_every,
        disable_tqdm=quiet,
        report_to="none",
    )


def _check_first_rows(trainer: Trainer, data: dict[str, Dataset], sources: tuple[SourceSettings, ...]) -> None:
    """Prepare one row of each source, so that what does not suit the model is said before the training starts."""
    backbone = backbone_of(trainer.model)
    for source in sources:
        row = {**data[source.name][0], "dataset_name": source.name}
        try:
            trainer.data_collator([row])
        except InputError as error:
            raise InputError(f"{source.name}, row 0: {error}") from error
        _warn_of_ignored_prompts(backbone, row, source)


def _warn_of_ignored_prompts(backbone: Backbone, row: dict[str, Any], source: SourceSettings) -> None:
    for name, prompt in source.prompts.items():
        if prompt and not backbone.reads_instruction(source.side(name), has_text="text" in row[name]):
            logger.warning("%s: this model reads no instruction on column %r, as in inference.", source.name, name)


def _save(model: SentenceTransformer, adapter: Path | None, whole: Path | None) -> None:
    if adapter:
        save_adapter(model, adapter)
    if adapter and whole:
        merge_adapter(model)
    if whole:
        model.eval().save_pretrained(str(whole))


def _last_loss(trainer: Trainer) -> float:
    return next(entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry)
