"""What a backbone is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from transformers import BaseImageProcessor, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


class Towers(NamedTuple):
    """Names of a backbone's parts, by which adapters find the layers to adapt.

    Attributes:
        language: The language model, or the text tower.
        vision: The vision tower.
    """

    language: str
    vision: str


@dataclass(frozen=True)
class Architecture:
    """The classes of transformers that a backbone is made of.

    Attributes:
        model_type: What ``config.json`` must state.
        config: Class of the configuration.
        published: Class whose ``from_pretrained`` knows every published layout of the weights.
        model: Class of what runs, which is also what is saved.
        tokenizer: Class for a folder without ``tokenizer.json``.
        image_processor: The class that runs on Pillow, named so that no other installed backend is picked.
        parts: What a part of ``config.json`` may state as its ``model_type``, where transformers would take any.
        names: Names of weights in published files, as expressions, and what stands in their place in ``model``, where
            transformers does not know it.
    """

    model_type: str
    config: type[PreTrainedConfig]
    published: type[PreTrainedModel]
    model: type[PreTrainedModel]
    tokenizer: type[PreTrainedTokenizerBase]
    image_processor: type[BaseImageProcessor]
    parts: Mapping[str, frozenset[str]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
