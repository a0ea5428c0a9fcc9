"""The contract of a backbone: a sentence-transformers input module that plans before it touches pixels."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from sentence_transformers.base.modality_types import Modality
from sentence_transformers.base.modules import InputModule
from sentence_transformers.util import get_device_name

from st_modules.images import ImageLimits, ImageSource
from st_modules.inputs import Item, check_text, parse_items
from st_modules.templates import Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """One item, ready but for its pixels.

    Attributes:
        ids: Token ids, image tokens included.
        images: The item's images, not opened beyond their headers.
        trimmed: Whether the end of the item's text was cut to fit ``max_length``.
    """

    ids: list[int]
    images: tuple[ImageSource, ...]
    trimmed: bool


class Backbone(InputModule):
    """Base class of the modules that turn items into one vector each.

    A subclass says in ``config_keys`` which constructor arguments are saved with the model, and implements
    :meth:`plan`, :meth:`collate`, :meth:`forward`, :meth:`save` and :meth:`load`. Inference and training share
    them: ``preprocess`` is ``collate(plan(items))``.
    """

    config_file_name = "st_modules_config.json"
    image_limits: ImageLimits
    max_length: int

    @property
    def modalities(self) -> list[Modality]:
        """What the module embeds; "message" is what lets a batch mix the others."""
        return ["text", "image", ("image", "text"), "message"]

    @property
    def max_seq_length(self) -> int:
        """Longest row in tokens; sentence-transformers' name for ``max_length``."""
        return self.max_length

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self.max_length = value

    @abstractmethod
    def get_embedding_dimension(self) -> int:
        """Return the length of an embedding, read from the weights."""

    @abstractmethod
    def plan(
        self, items: Sequence[Item], prompt: str | None = None, task: Task = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise items; images are opened no further than their headers.

        Args:
            items: What to embed.
            prompt: The instruction; an item's own instruction takes its place.
            task: ``"query"``, ``"document"`` or neither.
            max_length: Longest row in tokens, in the place of the module's own.

        Returns:
            One row an item, in the same order.

        Raises:
            InputError: An item does not fit, or cannot be read.
        """

    @abstractmethod
    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Read the rows' pixels and join the rows to a batch of features for :meth:`forward`."""

    def preprocess(
        self,
        inputs: Sequence[Any],
        prompt: str | None = None,
        task: Task = None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> dict[str, torch.Tensor]:
        """Turn inputs of any accepted form into the features of one batch.

        Args:
            inputs: Items as ``encode`` takes them.
            prompt: The instruction.
            task: ``"query"``, ``"document"`` or neither.
            max_length: Longest row in tokens, in the place of the module's own.
            **kwargs: ``processing_kwargs`` and others of sentence-transformers, which must be empty.

        Returns:
            Features for :meth:`forward`; every tensor is on the CPU.

        Raises:
            InputError: An input cannot be embedded.
            ValueError: An option that this module does not have was passed.
        """
        refuse_options(kwargs)
        rows = self.plan(parse_items(inputs, self.image_limits), prompt, task, max_length)
        self.report_trimmed(rows, max_length)
        return self.collate(rows)

    def report_trimmed(self, rows: Sequence[Row], max_length: int | None = None) -> None:
        """Log how many rows lost the end of their text, where any did."""
        if count := sum(row.trimmed for row in rows):
            logger.warning(
                "%d of %d items are longer than max_length=%d tokens: the end of their text was cut.",
                count,
                len(rows),
                max_length or self.max_length,
            )

    def _check_prompt(self, prompt: str | None) -> None:
        if prompt:
            check_text(prompt, "the prompt")


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` where an option of sentence-transformers is set that these models do not have."""
    if given := [name for name, value in options.items() if value]:
        raise ValueError(
            f"{', '.join(given)}: these models do not have this option. How images and long texts are prepared is "
            "decided by min_image_tokens, max_image_tokens and max_length of SentenceTransformer."
        )


def default_dtype(device: str | torch.device | None) -> torch.dtype:
    """Return the precision that a model is loaded in where none is asked for.

    Args:
        device: Where it will run; ``None`` is the device that sentence-transformers would choose.

    Returns:
        float32 on the CPU, bfloat16 on an accelerator.
    """
    return torch.float32 if torch.device(device or get_device_name()).type == "cpu" else torch.bfloat16


def loading_kwargs(model_kwargs: Mapping[str, Any] | None, device: str | torch.device | None) -> dict[str, Any]:
    """Turn sentence-transformers' ``model_kwargs`` into what ``from_pretrained`` takes.

    ``torch_dtype`` becomes ``dtype``, which gets the device's default; ``trust_remote_code`` is dropped, since no
    module of this package runs a repository's code.
    """
    kwargs = {name: value for name, value in (model_kwargs or {}).items() if name != "trust_remote_code"}
    dtype = kwargs.pop("torch_dtype", None)
    kwargs["dtype"] = kwargs.get("dtype") or dtype or default_dtype(device)
    return kwargs
