"""The files of a checkpoint that training is resumed from, checked before anything of them is used."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import safe_globals

from st_modules.checkpoints.fields import (
    FLAG,
    NUMBER,
    OBJECT,
    TEXT,
    Kind,
    check_fields,
    each,
    is_number,
    optional,
    whole,
)
from st_modules.checkpoints.json_files import check_regular, read_json_value
from st_modules.checkpoints.pickles import TRAINING_STATE, check_pickle
from st_modules.errors import CheckpointError, in_one_line

OPTIMIZER, SCHEDULER = "optimizer.pt", "scheduler.pt"

_ADVICE = "Resume from another checkpoint."
_STATES = (OPTIMIZER, SCHEDULER, "scaler.pt", "rng_state*.pth")
_COUNT = whole(0, 2**63)
_FIELDS: dict[str, Kind] = {
    **dict.fromkeys(("global_step", "max_steps", "num_train_epochs", "num_input_tokens_seen"), _COUNT),
    **dict.fromkeys(("train_batch_size", "best_global_step"), optional(_COUNT)),
    # Below 1 they are a part of all steps.
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), optional(NUMBER)),
    "best_metric": optional(NUMBER),
    "best_model_checkpoint": optional(TEXT),
    "epoch": optional(Kind("a number of at least 0", lambda value: is_number(value) and value >= 0)),
    "is_hyper_param_search": FLAG,
    "is_local_process_zero": FLAG,
    "is_world_process_zero": FLAG,
    "log_history": each(OBJECT, most=10_000_000),
    "stateful_callbacks": optional(OBJECT),
    "total_flos": NUMBER,
}


def check_checkpoint(folder: Path) -> None:
    """Check the files of a checkpoint that hold the state of its training; those of the model have checks of their own.

    Raises:
        CheckpointError: There is no such folder, or a file of it is damaged or holds something else than such a state.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder. Name the checkpoint that training is resumed from.")
    _check_state(folder / TRAINER_STATE_NAME)
    for pattern in _STATES:
        for path in sorted(folder.glob(pattern)):
            _check_tensors(path)


@contextmanager
def restoring(folder: str | Path | None, names: str) -> Generator[None, None, None]:
    """Name the files of a checkpoint where what they hold is not the state of the training that is resumed.

    Raises:
        CheckpointError: Anything is raised within.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(
            f"{folder}: {names} cannot be restored, since it is of another training or damaged: {in_one_line(error)}. "
            f"{_ADVICE}"
        ) from error


def check_optimizer(optimizer: Any, folder: str | Path) -> None:
    """Check that what an optimiser restored has the shapes of what it trains, which torch takes at its word.

    Raises:
        CheckpointError: It has others.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, torch.Tensor) and value.ndim and value.shape != parameter.shape:
                raise CheckpointError(
                    f"{Path(folder) / OPTIMIZER}: {name} of shape {list(value.shape)} for a weight of shape "
                    f"{list(parameter.shape)}. {_ADVICE}"
                )


def _check_state(path: Path) -> None:
    # What is logged may be no number, such as a gradient's norm.
    content = read_json_value(path, finite=False)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: a JSON object is needed. {_ADVICE}")
    state: Mapping[str, Any] = content
    if unknown := sorted(state.keys() - {field.name for field in fields(TrainerState)}):
        raise CheckpointError(f"{path}: {unknown[0]} is no field of a training's state. {_ADVICE}")
    check_fields(path, {**dict.fromkeys(("global_step", "max_steps")), **state}, _FIELDS)
    check_fields(path, state, {"global_step": whole(0, state["max_steps"])})


def _check_tensors(path: Path) -> None:
    """Check that a file of torch can be read, by torch's reader that runs no code and without reading the tensors."""
    check_regular(path)
    try:
        check_pickle(path, TRAINING_STATE)
        with safe_globals():
            content = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, or not the state of a training. {_ADVICE}") from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: it holds a {type(content).__name__}, and not the state of a training. {_ADVICE}"
        )
