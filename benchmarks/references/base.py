"""The loop that the authors' programs have in common.

Batches of 32 in the order of the input, padded to the longest, without a look at lengths; items of one kind only in a
batch where the authors' code cannot mix them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
import torch
from PIL import Image
from workloads import Item, Workload

Texts: TypeAlias = Sequence[str | None]
Images: TypeAlias = Sequence[Image.Image | None]

_BATCH_SIZE = 32


class Reference(ABC):
    """A model and the loop around it.

    Attributes:
        mixes: Whether texts, images and both may be in one batch.
        model: The stock model.
        tokenizer: The checkpoint's tokenizer.
    """

    mixes: ClassVar[bool] = False
    model: Any
    tokenizer: Any

    @abstractmethod
    def embed(self, texts: Texts, images: Images, prompt: str | None) -> torch.Tensor:
        """Embed one batch, whose items are all of one kind unless ``mixes``.

        Args:
            texts: One for each item, ``None`` where an item has none.
            images: One for each item, not prepared in any way, or ``None``.
            prompt: The instruction.

        Returns:
            Vectors of shape (items, dimension), not yet of length one.
        """

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """Return how many tokens each text becomes by itself."""
        return [len(ids) for ids in self.tokenizer(list(texts), add_special_tokens=False)["input_ids"]]

    def encode(self, workload: Workload) -> np.ndarray:
        """Return the normalised vectors of a workload, of shape (items, dimension)."""
        size = 1 if workload.one_by_one else _BATCH_SIZE
        vectors: list[Any] = [None] * len(workload.items)
        for numbers in self._groups(workload.items):
            for start in range(0, len(numbers), size):
                batch = numbers[start : start + size]
                found = self._encode_batch([workload.items[number] for number in batch], workload.prompt)
                for number, vector in zip(batch, found, strict=True):
                    vectors[number] = vector
        return np.stack(vectors)

    def _groups(self, items: Sequence[Item]) -> list[list[int]]:
        groups: dict[object, list[int]] = {}
        for number, item in enumerate(items):
            kind = None if self.mixes else (item.text is None, item.image is None)
            groups.setdefault(kind, []).append(number)
        return list(groups.values())

    @torch.inference_mode()
    def _encode_batch(self, items: Sequence[Item], prompt: str | None) -> np.ndarray:
        vectors = self.embed([item.text for item in items], [_open(item.image) for item in items], prompt)
        return torch.nn.functional.normalize(vectors, dim=-1).numpy()


def _open(image: Image.Image | str | None) -> Image.Image | None:
    return Image.open(image) if isinstance(image, str) else image
