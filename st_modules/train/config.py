"""What ``st-modules train`` reads: one YAML file, checked before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, TypeAlias

from pydantic import Field, StrictBool, StrictInt
from pydantic.dataclasses import dataclass

from st_modules.prompts.templates import Side
from st_modules.train.collator import NO_SIDE
from st_modules.train.lora import LoraSettings
from st_modules.train.losses import LossSettings
from st_modules.train.validation import STRICT, ConfigError, Count, NonNegative, UserPath, build
from st_modules.train.yaml_files import read_yaml

__all__ = ["ConfigError", "ModelSettings", "SourceSettings", "TrainConfig", "TrainingSettings", "read_config"]

ColumnSide: TypeAlias = Literal[Side, "none"]
"""The side that a column is on; ``none`` for neither, as for ``encode``."""


@dataclass(frozen=True, config=STRICT)
class ModelSettings:
    """The model that training starts from; the fields are arguments of ``SentenceTransformer``.

    Attributes:
        name: A name of the catalog, or the folder of a saved model.
        weights: Local files in the place of the repository.
        base_weights: Local files of what an adapter or a tower is built on.
        dtype: Precision of the weights. ``auto`` is float32 where the weights themselves are trained, and what the
            device has by default (bfloat16 on a GPU) below an adapter.
        min_image_tokens: Fewest tokens of an image; models on Qwen2-VL and Qwen3-VL only.
        max_image_tokens: Most tokens of an image; models on Qwen2-VL and Qwen3-VL only.
        num_crops: Most tiles of an image; models on Phi-3-V only.
        max_length: Longest input in tokens.
    """

    name: str
    weights: UserPath | None = None
    base_weights: UserPath | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    min_image_tokens: Count | None = None
    max_image_tokens: Count | None = None
    num_crops: Count | None = None
    max_length: Count | None = None


@dataclass(frozen=True, config=STRICT)
class ItemSettings:
    """Where an item's text and image are: names of columns of the data; one of them or both.

    Attributes:
        text: Column of the text.
        image: Column of the image: a path, a URL, or an image of ``datasets``.
    """

    text: str | None = None
    image: str | None = None

    def __post_init__(self) -> None:
        if self.text is None and self.image is None:
            raise ValueError("name the column of its text, of its image, or both.")


@dataclass(frozen=True, config=STRICT)
class ColumnSettings:
    """What the rows of a source are made of.

    Attributes:
        anchor: The query.
        positive: What it must find.
        negatives: What it must not find, though it is near: any number of hard negatives.
    """

    anchor: ItemSettings
    positive: ItemSettings
    negatives: tuple[ItemSettings, ...] = ()


@dataclass(frozen=True, config=STRICT)
class SourceSettings:
    """One source of rows. Exactly one of ``file``, ``folder``, ``dataset`` and ``megapairs`` says what it is.

    Attributes:
        name: What logs call it.
        file: A ``.jsonl``, ``.csv``, ``.tsv`` or ``.parquet`` file.
        folder: A folder that ``datasets.load_dataset`` reads, or that ``save_to_disk`` wrote.
        dataset: A repository on the Hugging Face Hub.
        megapairs: A ``.jsonl`` or ``.parquet`` file with MegaPairs records.
        subset: Configuration of the repository.
        split: Split of the folder or of the repository.
        images: Folder that relative image paths are below; that of the file or the folder where it is left out.
        columns: What the rows are made of; MegaPairs records need none.
        negatives: Hard negatives of a MegaPairs record.
        limit: Most rows, the first ones.
        prompts: Instructions by column: ``anchor``, ``positive``, ``negative_1`` …
        sides: Sides by column, where they are not query for the anchor and document for the others.
    """

    name: str
    file: UserPath | None = None
    folder: UserPath | None = None
    dataset: str | None = None
    megapairs: UserPath | None = None
    subset: str | None = None
    split: str = "train"
    images: UserPath | None = None
    columns: ColumnSettings | None = None
    negatives: StrictInt = Field(default=1, ge=0)
    limit: Count | None = None
    prompts: dict[str, str] = Field(default_factory=dict)
    sides: dict[str, ColumnSide] = Field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [name for name in ("file", "folder", "dataset", "megapairs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"pass exactly one of file, folder, dataset and megapairs, not {' and '.join(given) or 'none'}."
            )
        if (self.columns is None) != (self.megapairs is not None):
            raise ValueError("columns: say what the rows are made of; for MegaPairs records, leave it out.")
        if self.subset is not None and self.dataset is None:
            raise ValueError("subset: only a dataset of the Hub has one.")
        for option in ("prompts", "sides"):
            if unknown := sorted(getattr(self, option).keys() - set(self.column_names)):
                raise ValueError(f"{option}: no column {unknown[0]!r}; there are {', '.join(self.column_names)}.")

    def side(self, column: str) -> Side | None:
        """Return the side that a column is on."""
        side = self.sides.get(column, "query" if column == "anchor" else "document")
        return None if side == NO_SIDE else side

    @property
    def column_names(self) -> list[str]:
        """Names of the columns that the loss gets, in order."""
        negatives = len(self.columns.negatives) if self.columns else self.negatives
        return ["anchor", "positive", *(f"negative_{number}" for number in range(1, negatives + 1))]


@dataclass(frozen=True, config=STRICT)
class TrainingSettings:
    """How long, how fast, and what is written.

    Attributes:
        batch_size: Rows of a batch, all of one source; each row's negatives are the other rows' documents. Where
            several processes train together, each has batches of so many rows.
        accumulate: Batches whose gradients are added up for one step.
        steps: How many steps, or
        epochs: how many passes over the data.
        learning_rate: The highest one, after the warm-up.
        scheduler: What becomes of it then.
        warmup: Steps of the warm-up; below 1, their part of all steps.
        weight_decay: Of AdamW.
        max_grad_norm: Longer gradients are shortened to it.
        sampler: ``no_duplicates`` puts no value twice into a batch, where it would be its own negative.
        mixing: From which source the next batch is: in proportion to their sizes, or from each in turn until one is
            used up.
        bf16: Mixed precision: layers compute in bfloat16, trained weights stay in float32. For GPUs; slow on a CPU.
        activation_checkpointing: Compute activations again instead of keeping them.
        device: ``cpu``, or the GPU where there is one.
        workers: Processes that read images, beside the one that trains.
        seed: Of everything that is random.
        log_every: Steps between two lines of the log.
        save_every: Steps between two checkpoints; none where it is left out.
        keep: Checkpoints that are kept, the latest ones.
        evaluate_every: Steps between two evaluations, where there is evaluation data.
    """

    batch_size: StrictInt = Field(default=32, ge=2)
    accumulate: Count = 1
    steps: Count | None = None
    epochs: NonNegative | None = Field(default=None, gt=0)
    learning_rate: NonNegative = 1e-4
    scheduler: Literal["linear", "cosine", "constant_with_warmup"] = "cosine"
    warmup: NonNegative = 0.1
    weight_decay: NonNegative = 0.0
    max_grad_norm: NonNegative = 1.0
    sampler: Literal["no_duplicates", "batch_sampler"] = "no_duplicates"
    mixing: Literal["proportional", "round_robin"] = "proportional"
    bf16: StrictBool = False
    activation_checkpointing: StrictBool = False
    device: Literal["auto", "cpu"] = "auto"
    workers: StrictInt = Field(default=0, ge=0)
    seed: StrictInt = Field(default=0, ge=0, le=2**32 - 1)
    log_every: Count = 10
    save_every: Count | None = None
    keep: Count = 2
    evaluate_every: Count | None = None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("pass exactly one of steps and epochs.")


@dataclass(frozen=True, config=STRICT)
class TrainConfig:
    """Everything that a training run is made of.

    Attributes:
        model: What training starts from.
        output: Folder that is written: checkpoints, ``runs`` for TensorBoard, and at the end ``adapter`` and ``model``.
        data: The sources of rows.
        training: How long and how fast.
        loss: The loss.
        lora: The adapter. Left out, the weights themselves are trained, the vision tower's not.
        train_vision: Whether the vision tower's weights are trained too, where there is no adapter.
        evaluation: Sources on which the loss is computed now and then.
        merge: Whether the adapter is also merged, and the whole model written.
    """

    model: ModelSettings
    output: UserPath
    data: tuple[SourceSettings, ...]
    training: TrainingSettings
    loss: LossSettings = LossSettings()
    lora: LoraSettings | None = None
    train_vision: StrictBool = False
    evaluation: tuple[SourceSettings, ...] = ()
    merge: StrictBool = True

    def __post_init__(self) -> None:
        if not self.data:
            raise ValueError("data: name at least one source of rows.")
        if self.lora and self.train_vision:
            raise ValueError("train_vision: with an adapter, this is lora.vision.")
        if (self.training.evaluate_every is None) != (not self.evaluation):
            raise ValueError("evaluation and training.evaluate_every: one needs the other.")
        for option in ("data", "evaluation"):
            names = [source.name for source in getattr(self, option)]
            if twice := [name for name in names if names.count(name) > 1]:
                raise ValueError(f"{option}: two sources are named {twice[0]!r}.")
        trained = {source.name: source for source in self.data}
        for source in self.evaluation:
            same = trained.get(source.name, source)
            if (same.prompts, same.sides) != (source.prompts, source.sides):
                raise ValueError(
                    f"evaluation: {source.name!r} has other prompts or sides than in data; name it otherwise."
                )


def read_config(path: str | Path) -> TrainConfig:
    """Read a configuration. Relative paths in it are relative to the current folder.

    Args:
        path: A YAML file.

    Raises:
        ConfigError: The file is missing or no YAML, a key is unknown or missing, or a value is wrong: one line
            for each of them.
    """
    path = Path(path)
    values = read_yaml(path)
    try:
        return build(TrainConfig, values)
    except ConfigError as error:
        raise ConfigError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error
