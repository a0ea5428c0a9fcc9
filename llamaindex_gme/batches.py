"""The nodes of one call: what each holds, which cannot be embedded, and where embeddings go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

from llama_index.core.base.embeddings.base import Embedding
from llama_index.core.schema import BaseNode

from llamaindex_gme.callers import refuse_binary
from llamaindex_gme.nodes import node_item, node_place
from st_modules import InputError, list_errors

logger = logging.getLogger(__name__)


class NodeBatch:
    """Nodes to embed.

    Args:
        nodes: The nodes.
        fuse: Whether their images count.
        skips: Whether nodes that cannot be embedded are left out.
        check_texts: Raises where something among texts is none.

    Attributes:
        texts: The texts of nodes that have a text alone, by the nodes' positions.
        others: What the other nodes hold, likewise.

    Raises:
        InputError: A node cannot be embedded, as far as it can be told without opening its image.
    """

    def __init__(
        self, nodes: Sequence[BaseNode], *, fuse: bool, skips: bool, check_texts: Callable[[list[str]], None]
    ) -> None:
        self._nodes = nodes
        self._errors: dict[int, InputError] = {}
        self.texts: dict[int, str] = {}
        self.others: dict[int, Any] = {}
        for index, node in enumerate(nodes):
            try:
                refuse_binary(node, index)
                item = node_item(node, index, fuse=fuse)
                if not item.keys().isdisjoint({"image", "video"}):
                    self.others[index] = item
                    continue
                with self.name_nodes([index]):
                    check_texts([item["text"]])
                self.texts[index] = item["text"]
            except InputError as error:
                if not skips:
                    raise
                self._errors[index] = error

    @contextmanager
    def name_nodes(self, places: Sequence[int]) -> Generator[None, None, None]:
        """Name nodes in errors about inputs that stand for those at these positions."""
        try:
            yield
        except InputError as error:
            raise self._at(places, error) from error

    def finish(
        self,
        texts: Sequence[Embedding],
        others: Sequence[Embedding | None],
        errors: Sequence[InputError] = (),
    ) -> Sequence[BaseNode]:
        """Give the nodes their embeddings, and tell which are left out.

        Args:
            texts: Those of ``texts``.
            others: Those of ``others``.
            errors: What is wrong with those of ``others`` that have none.

        Returns:
            The nodes that have an embedding now; the sequence that was given, where all have.
        """
        places = [*self.others]
        self._errors.update({places[error.index or 0]: self._at(places, error) for error in errors})
        found = {**dict(zip(self.texts, texts, strict=True)), **dict(zip(places, others, strict=True))}
        for place, embedding in found.items():
            if embedding is not None:
                self._nodes[place].embedding = embedding
        if not self._errors:
            return self._nodes
        logger.warning(
            "%d of %d nodes are left out, because they cannot be embedded: %s",
            len(self._errors),
            len(self._nodes),
            list_errors([self._errors[place] for place in sorted(self._errors)], "; "),
        )
        return [node for place, node in enumerate(self._nodes) if place not in self._errors]

    def _at(self, places: Sequence[int], error: InputError) -> InputError:
        """An error about the input at one of these positions as one about its node."""
        if error.index is None:
            return error
        place = places[error.index]
        return error.shift(place - error.index).rename(str(node_place(self._nodes[place], place)))
