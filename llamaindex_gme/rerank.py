"""A second reading of the nodes that a retriever found, by a reranker that reads them with their pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # pyright: ignore[reportPrivateImportUsage]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, QueryBundle

from llamaindex_gme.nodes import node_item
from st_modules import InputError

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder

    from st_modules import Reranker

# What belongs to the process that a postprocessor is in.
_OF_THIS_PROCESS = frozenset({"callback_manager"})

dispatcher = get_dispatcher(__name__)


class MultimodalRerank(BaseNodePostprocessor):
    """Keeps the nodes that a reranker finds best; core's ``SentenceTransformerRerank`` with pictures.

    A node is read with its image, and a query with its ``image_path``. The nodes come back best first, with the
    reranker's score in the place of the retriever's.

    Args:
        model: Name of a reranker of st_modules' catalog ("qwen3-vl-reranker-2b"), of a cross-encoder on the Hub or of a
            folder; or a loaded ``CrossEncoder``, in which case it cannot be pickled.
        top_n: How many nodes are kept.
        keep_retrieval_score: Whether the retriever's score goes to "retrieval_score" of a node's metadata.
        instruction: What makes a node a good one; the model's own where it is left out.
        device: Where the model runs.
        cache_folder: Where models from the Hub are kept.
        weights: Local files in the place of the model's repository; see ``st_modules.CrossEncoder``.
        model_kwargs: Other arguments of ``st_modules.CrossEncoder``.
        predict_kwargs: Arguments of its ``predict``, such as ``batch_size``.

    Raises:
        UnknownModelError: The name is near one of the catalog's, or that of an embedder.
        CheckpointError: The model's files are missing, damaged, or of another architecture.

    Example:
        >>> from llamaindex_gme import MultimodalRerank
        >>> best = MultimodalRerank("qwen3-vl-reranker-2b", top_n=3)
        >>> index.as_query_engine(node_postprocessors=[best])
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    model: str
    top_n: int = Field(default=2, ge=1)
    keep_retrieval_score: bool = False
    instruction: str | None = None
    device: str | None = None
    cache_folder: str | None = None
    weights: str | None = None
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    predict_kwargs: dict[str, Any] = Field(default_factory=dict)

    _reranker: Reranker = PrivateAttr()
    _is_named: bool = PrivateAttr()

    def __init__(self, model: str | Path | CrossEncoder = "qwen3-vl-reranker-2b", **kwargs: Any) -> None:
        from st_modules import Reranker  # it takes seconds to import

        for name in ("cache_folder", "weights"):
            if isinstance(kwargs.get(name), os.PathLike):
                kwargs[name] = os.fspath(kwargs[name])
        is_named = isinstance(model, (str, Path))
        super().__init__(model=str(model) if is_named else Reranker(model).name, **kwargs)  # pyright: ignore[reportCallIssue]
        self._is_named = is_named
        self._reranker = Reranker.load(
            model,
            weights=self.weights,
            cache_folder=self.cache_folder,
            **({} if self.device is None else {"device": self.device}),
            **self.model_kwargs,
        )

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised pipelines."""
        return "MultimodalRerank"

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        if not self._is_named:
            raise TypeError(
                "MultimodalRerank of a loaded model cannot be pickled, because its weights would be. Save the model "
                "and name its folder: MultimodalRerank(model)."
            )
        fields = type(self).model_fields.keys() - _OF_THIS_PROCESS
        return partial(type(self), **{name: getattr(self, name) for name in fields}), ()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InputError("There is no query; pass query_str=, or query_bundle= for one with an image.")
        if not nodes:
            return []
        with self._event(nodes, query_bundle) as kept:
            items = [node_item(each.node, index) for index, each in enumerate(nodes)]
            scores = self._reranker.score(_query_item(query_bundle), items, **self._options())
            kept += self._select(nodes, scores)
        return kept

    def _options(self) -> dict[str, Any]:
        return self.predict_kwargs if self.instruction is None else {**self.predict_kwargs, "prompt": self.instruction}

    def _select(self, nodes: Sequence[NodeWithScore], scores: Sequence[float]) -> list[NodeWithScore]:
        ranked = sorted(zip(scores, nodes, strict=True), key=lambda each: -each[0])[: self.top_n]
        for score, found in ranked:
            if self.keep_retrieval_score:
                found.node.metadata["retrieval_score"] = found.score
            found.score = score
        return [found for _, found in ranked]

    @contextmanager
    def _event(self, nodes: list[NodeWithScore], query: QueryBundle) -> Generator[list[NodeWithScore], None, None]:
        """Core's events around a second reading; the nodes that are kept go into the list."""
        kept: list[NodeWithScore] = []
        dispatcher.event(ReRankStartEvent(query=query, nodes=nodes, top_n=self.top_n, model_name=self.model))
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query.query_str,
            EventPayload.TOP_K: self.top_n,
        }
        with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
            yield kept
            event.on_end(payload={EventPayload.NODES: kept})
        dispatcher.event(ReRankEndEvent(nodes=kept))


def _query_item(query: QueryBundle) -> dict[str, Any]:
    return {"text": query.query_str or None, "image": query.image_path}
