"""Qwen3-VL as a reranker: a query and a document in one row, scored by the answer that the model would give.

The score is the logit of "yes" less that of "no". Both are products of the pooled vector with a row of the head, so the
difference of the two rows is all that is kept of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.base.modules import Dense
from torch import nn
from transformers import PreTrainedModel

from st_modules.backbones.qwen3_vl import Qwen3VL
from st_modules.backbones.rows import Row
from st_modules.errors import CheckpointError
from st_modules.inputs.items import Item
from st_modules.inputs.pairs import parse_pairs
from st_modules.prompts.long_texts import most_characters
from st_modules.prompts.templates import Side

_ANSWERS = ("yes", "no")


class Qwen3VLReranker(Qwen3VL):
    """Qwen3-VL with the recipe of its published rerankers; the arguments are those of :class:`Qwen3VL`.

    What it embeds are pairs; the module that :meth:`make_score` returns turns their vectors into scores.
    """

    takes_pairs = True
    # Its head is what answers.
    unused_weights = frozenset[str]()

    _answer: torch.Tensor | None = None

    def take_head(self, model: PreTrainedModel) -> None:
        """Keep the difference of the head's rows of the two answers; a saved model has it as a module of its own.

        Raises:
            CheckpointError: The tokenizer does not have them as words.
        """
        head: Any = model.get_output_embeddings()
        if head is None:
            return
        vocabulary = self.tokenizer.get_vocab()
        if missing := [answer for answer in _ANSWERS if answer not in vocabulary]:
            raise CheckpointError(
                f"The tokenizer does not have the token {' nor '.join(missing)}, which the model answers with. Use the "
                "tokenizer files of the model's repository."
            )
        yes, no = (head.weight[vocabulary[answer]] for answer in _ANSWERS)
        self._answer = (yes - no).detach().clone()

    def make_score(self) -> Dense:
        """Return the module that scores what :meth:`forward` pools, made of the head of a published model."""
        if self._answer is None:
            raise RuntimeError("a saved model has its score among its modules")
        weight, self._answer = self._answer[None], None
        return Dense(
            weight.shape[1],
            1,
            bias=False,
            activation_function=nn.Identity(),
            init_weight=weight,
            module_input_name="sentence_embedding",
            module_output_name="scores",
        )

    def parse(self, inputs: Sequence[Any]) -> list[Item]:
        """Return one item for each pair; see :func:`st_modules.inputs.pairs.parse_pairs`."""
        return parse_pairs(inputs, self.image_limits, takes_video=self.takes_video)

    def plan(
        self, items: Sequence[Item], prompt: str | None = None, side: Side | None = None, max_length: int | None = None
    ) -> list[Row]:
        """Render and tokenise pairs; see :meth:`Backbone.plan`."""
        # As an instruction, a query is never trimmed, and an error where it is longer.
        longest = most_characters(self.positions) + 1
        return super().plan([_shorten_query(item, longest) for item in items], prompt, side, max_length)


def _shorten_query(item: Item, longest: int) -> Item:
    query = item.query
    if query is None or query.text is None or len(query.text) <= longest:
        return item
    return dataclasses.replace(item, query=dataclasses.replace(query, text=query.text[:longest]))
