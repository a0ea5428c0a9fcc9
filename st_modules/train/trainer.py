"""The trainer: sentence-transformers' own, for models whose adapter is what is trained and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformerTrainer
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import get_last_checkpoint

from st_modules.checkpoints.adapter_files import write_adapters
from st_modules.checkpoints.adapters import Adapters, collect_adapters
from st_modules.model import SentenceTransformer
from st_modules.train.collator import DataCollator
from st_modules.train.lora import backbone_of, has_adapter, restore_adapters
from st_modules.train.resuming import OPTIMIZER, SCHEDULER, check_checkpoint, check_optimizer, restoring


class Trainer(SentenceTransformerTrainer):
    """``SentenceTransformerTrainer`` for the models of the catalog, with the same arguments.

    Three things differ. Columns are prepared for their side of a search (:class:`DataCollator`). The checkpoints of a
    model with an adapter hold the adapter alone, and training is resumed from them. And the model card quotes no rows:
    they may be private, and pictures cannot be quoted.
    """

    data_collator_class = DataCollator

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Say in the model card that the model was trained, and collect nothing about the data."""
        self.model.model_card_data.add_tags("generated_from_trainer")

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; see ``transformers.Trainer.train``.

        Raises:
            CheckpointError: A file of the checkpoint is damaged, or is of another training.
        """
        folder = get_last_checkpoint(self.args.output_dir) if resume_from_checkpoint is True else resume_from_checkpoint
        if folder:
            check_checkpoint(Path(folder))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with restoring(checkpoint, f"{OPTIMIZER} or {SCHEDULER}"):
            super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint:
            check_optimizer(self.optimizer, checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with restoring(checkpoint, "rng_state.pth"):
            super()._load_rng_state(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        adapters = collect_adapters(backbone_of(self.model).model) if has_adapter(self.model) else None
        if adapters is None or not self._trains_nothing_else(adapters):
            super()._save(output_dir, state_dict)
            return
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        write_adapters(adapters, folder)
        torch.save(self.args, folder / TRAINING_ARGS_NAME)

    def _trains_nothing_else(self, adapters: Adapters) -> bool:
        places = {weight.data_ptr() for each in adapters.by_name.values() for weight in each.weights.values()}
        return all(weight.data_ptr() in places for weight in self.model.parameters() if weight.requires_grad)

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:
        if has_adapter(self.model) and not (Path(checkpoint_path) / "modules.json").is_file():
            restore_adapters(self.model, checkpoint_path)
            return
        # Not by the base class, which loads the checkpoint in the device's default precision: on a GPU that would
        # round the weights of a float32 model to bfloat16.
        precision = {"dtype": next(self.model.parameters()).dtype}
        saved = SentenceTransformer(checkpoint_path, device="cpu", model_kwargs=precision)
        with restoring(checkpoint_path, "its model"):
            self.model.load_state_dict(saved.state_dict())
