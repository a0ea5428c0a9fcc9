"""``Index``: a collection that was indexed, to be searched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from st_modules._imports import import_extra
from st_modules.arguments import check_choice, check_flag, check_integer
from st_modules.errors import ArgumentError, InputError, shorten
from st_modules.index.columns import name_type
from st_modules.index.exporting import check_target, export_items
from st_modules.index.hits import Hit, list_metadata
from st_modules.index.model_facts import ModelFacts
from st_modules.index.problems import UnknownItemError, enclose, name_problems
from st_modules.index.schema import MODEL_KEY
from st_modules.index.searching import find_by_both, find_by_text, find_by_vector
from st_modules.index.table import is_any, open_errors, open_items

if TYPE_CHECKING:
    import numpy as np
    import sentence_transformers

    from st_modules.index.reranking import Reranker
    from st_modules.integrations.embedder import Embedder

Mode: TypeAlias = Literal["vector", "text", "hybrid"]

_MODES = ("vector", "text", "hybrid")


class Index:
    """A collection that was indexed, to be searched. :meth:`open` opens one.

    Every search sees the rows that are there when it begins, also where another process is adding some.

    Attributes:
        path: Where it is.
        model_name: The model that its vectors are of.
        dimension: How many dimensions they have.
    """

    def __init__(self, path: str, table: Any, facts: ModelFacts, loading: Mapping[str, Any]) -> None:
        self.path = path
        self.model_name = facts.model
        self.dimension = facts.dimension
        self._table = table
        self._facts = facts
        self._described = (table.schema.metadata or {}).get(MODEL_KEY)
        self._loading = {**loading, "model": loading["model"] or facts.model}
        self._embedder: Embedder | None = None

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        model: str | Path | sentence_transformers.SentenceTransformer | None = None,
        *,
        weights: str | Path | None = None,
        base_weights: str | Path | None = None,
        device: str | None = None,
    ) -> Self:
        """Open an index.

        Args:
            path: Its folder, or a URL that LanceDB takes.
            model: A loaded model, or what loads it in the place of the name that the index has. Without one the model
                is loaded when the first query is embedded.
            weights: As of :class:`st_modules.SentenceTransformer`.
            base_weights: As of :class:`st_modules.SentenceTransformer`.
            device: Where the model runs.

        Raises:
            InputError: There is no index, or a damaged one, or one of a later version.
            IndexMismatchError: The model is another than that of the index.
            MissingExtraError: LanceDB is not installed.
            ValueError: A loaded model was passed with arguments that say how to load it.
        """
        place = os.fspath(path)
        # LanceDB would make the folder.
        local = place.removeprefix("file://")
        if "://" not in local and not Path(local).is_dir():
            found = "a file" if os.path.lexists(local) else "no such folder"
            raise InputError(f"{shorten(place)}: {found}, no index there; `st-modules index` makes one.")
        with name_problems(place):
            table, facts = open_items(place)
        options = {"weights": weights, "base_weights": base_weights, "device": device}
        given = {name: value for name, value in options.items() if value is not None}
        index = cls(place, table, facts, {"model": model, **given})
        if isinstance(model, str | Path):
            facts.check_name(str(model), place)
        elif model is not None:
            index._load()
        return index

    def __repr__(self) -> str:
        return f"Index({self.path!r}, model={self.model_name!r})"

    def __len__(self) -> int:
        return self.count()

    @property
    def columns(self) -> list[str]:
        """The columns that a condition may name: the index's own, then those of metadata."""
        return list(self.column_types)

    @property
    def column_types(self) -> dict[str, str]:
        """What :attr:`columns` have: ``"string"``, ``"int"``, ``"float"`` or ``"bool"``."""
        schema = self._refresh().schema
        names = ["id", "source", "page", "text", "image"]
        names += list_metadata(import_extra("pyarrow", extra="index"), schema)
        return {name: name_type(str(schema.field(name).type)) for name in names}

    def count(self, where: str | None = None) -> int:
        """Return how many items there are, or how many meet a condition.

        Raises:
            InputError: The condition is wrong.
        """
        table = self._refresh()
        with self._name_problems(where):
            return table.count_rows(None if where is None else enclose(where))

    def search(
        self,
        item: Any,
        k: int = 10,
        *,
        where: str | None = None,
        instruction: str | None = None,
        prompt_name: str | None = None,
        mode: Mode = "vector",
        exact: bool = False,
        rerank: Reranker | None = None,
        rerank_k: int = 50,
    ) -> list[Hit]:
        """Find what is nearest to a query.

        Args:
            item: A text, ``{"text": ..., "image": ...}``, or anything else that ``encode_query`` takes as one item.
            k: How many items are wanted.
            where: A condition in LanceDB's SQL on the index's own columns and those of metadata, as ``"page < 3"``. A
                column whose name is no plain word in lower case stands between backticks.
            instruction: What the model is told about the task (``prompt`` of ``encode_query``).
            prompt_name: The name of one of the model's own instructions.
            mode: ``"vector"``; ``"text"``, by the words of the items' texts, for which no model is loaded; or
                ``"hybrid"``, by both.
            exact: Compare the query with every vector, also where there is a vector index.
            rerank: A model that reads the query and an item together: :class:`st_modules.CrossEncoder`, or one of
                sentence-transformers. It decides on the order of the first ones, and gives the scores.
            rerank_k: How many it reads; ``k`` where that is more.

        Returns:
            The items, best first, and equally good ones in the order of their ids; fewer where there are no more.

        Raises:
            ArgumentError: An argument has a value that it cannot have.
            InputError: The query cannot be embedded, or the condition is wrong.
            IndexMismatchError: The model is another than that of the index.
        """
        check_integer("k", k)
        check_integer("rerank_k", rerank_k)
        check_choice("mode", mode, _MODES)
        check_flag("exact", exact)
        prompts = _check_prompts(mode, instruction, prompt_name)
        text = None if mode == "vector" else _find_text(item, mode)
        wanted = k if rerank is None else max(k, rerank_k)
        vector = None if mode == "text" else self._embed(item, prompts)
        hits = self._find(text, vector, wanted, where, exact)
        if rerank is None:
            return hits
        from st_modules.index.reranking import rerank_hits
        from st_modules.inputs.limits import ImageLimits

        limits = self._embedder.image_limits if self._embedder else ImageLimits()
        return rerank_hits(rerank, item, hits, limits)[:k]

    def search_by_vector(
        self,
        vector: np.ndarray,
        k: int = 10,
        *,
        where: str | None = None,
        text: str | None = None,
        exact: bool = False,
    ) -> list[Hit]:
        """Find what is nearest to a query that was embedded elsewhere; no model is loaded.

        Args:
            vector: What the index's own model made of the query: ``dimension`` numbers, of whatever length.
            k: As of :meth:`search`.
            where: As of :meth:`search`.
            text: The query's text, by the words of which is searched too (``mode="hybrid"``).
            exact: As of :meth:`search`.

        Returns:
            As :meth:`search`.

        Raises:
            ArgumentError: As :meth:`search`, and where the vector is none that can be compared.
            InputError: The text has no words, or the condition is wrong.
        """
        import numpy as np

        check_integer("k", k)
        check_flag("exact", exact)
        query = np.asarray(vector, np.float32)
        if query.shape != (self.dimension,) or not np.isfinite(query).all() or not query.any():
            raise ArgumentError(
                f"vector: pass {self.dimension} finite numbers, not all of them 0, as {self.model_name} makes them."
            )
        return self._find(None if text is None else _find_text(text, "hybrid"), query, k, where, exact)

    def search_like(self, id: str, k: int = 10, where: str | None = None) -> list[Hit]:
        """Find what is nearest to an item of the index, by its own vector; no model is loaded.

        Args:
            id: The item. It is not among the answers.
            k: As of :meth:`search`.
            where: As of :meth:`search`.

        Raises:
            ArgumentError: As :meth:`search`.
            InputError: There is no such item, or the condition is wrong.
        """
        check_integer("k", k)
        (record,) = self.get([id])
        hits = self._find(None, record["vector"], k + 1, where, exact=False)
        return [hit for hit in hits if hit.id != id][:k]

    def get(self, ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return items by their ids, in that order: all columns of a hit, and ``vector`` as a float32 array.

        Raises:
            InputError: There is no item with one of the ids.
        """
        import numpy as np

        for each in ids:
            if not isinstance(each, str):
                raise InputError(f"{shorten(each)}: pass ids as strings.")
        table = self._refresh()
        names = ["id", "vector", "source", "page", "text", "image", "thumbnail"]
        names += list_metadata(import_extra("pyarrow", extra="index"), table.schema)
        with self._name_problems():
            query = table.search().where(is_any("id", list(ids) or [""])).select(names).limit(None)
            found = {row["id"]: row for row in query.to_arrow().to_pylist()}
        if missing := [each for each in ids if each not in found]:
            raise UnknownItemError(f"{self.path}: no item has the id {shorten(missing[0])}.")
        return [{**found[each], "vector": np.asarray(found[each]["vector"], np.float32)} for each in ids]

    def errors(self) -> list[dict[str, Any]]:
        """Return what could not be embedded: ``place``, ``id``, ``source``, ``page`` and ``reason`` of each."""
        with name_problems(self.path):
            table = open_errors(self.path)
            rows = [] if table is None else table.search().limit(None).to_arrow().to_pylist()
        return sorted(rows, key=lambda row: (row["source"], row["page"] or 0, row["place"]))

    def export(self, path: str | os.PathLike[str], *, force: bool = False) -> int:
        """Write the items to a Parquet file: id, vector, source, page, text, image and the metadata.

        Args:
            path: The file, which ends with ``.parquet``.
            force: Whether a file that is there is written over.

        Returns:
            How many items were written.

        Raises:
            InputError: The file is there already, or cannot be one.
            OSError: It cannot be written.
        """
        target = Path(path)
        check_target(target, force)
        return export_items(self._refresh(), target, self.path)

    def _find(
        self,
        text: str | None,
        vector: np.ndarray | None,
        k: int,
        where: str | None,
        exact: bool,
    ) -> list[Hit]:
        table = self._refresh()
        with self._name_problems(where):
            if vector is None:
                return find_by_text(table, text or "", k, where)
            if text is None:
                return find_by_vector(table, vector, k, where, exact)
            return find_by_both(table, text, vector, k, where, exact)

    def _refresh(self) -> Any:
        """Return the table as it is now."""
        with name_problems(self.path):
            self._table.checkout_latest()
            described = (self._table.schema.metadata or {}).get(MODEL_KEY)
        if described != self._described:
            raise InputError(f"{self.path}: it was built anew since it was opened; open it again.")
        return self._table

    def _name_problems(self, where: str | None = None) -> Any:
        columns = ["id", "source", "page", "text", "image"]
        return name_problems(self.path, where, columns if where is None else self.columns)

    def _embed(self, item: Any, prompts: Mapping[str, str]) -> np.ndarray:
        # As many dimensions as the index has, whatever a loaded model is set to.
        options = {**prompts, "truncate_dim": self._facts.dimension, "show_progress_bar": False}
        known = self._load().model.prompts
        if (name := prompts.get("prompt_name", "")) and name not in known:
            raise ArgumentError(
                f"prompt_name={name!r}: {self.model_name} has no such instruction, but {', '.join(known) or 'none'}."
            )
        return self._load().encode([item], "query", **options)[0]

    def _load(self) -> Embedder:
        if self._embedder is None:
            from st_modules.integrations.embedder import Embedder

            embedder = Embedder.load(**self._loading)
            self._facts.check_model(embedder.model, self.path)
            self._embedder = embedder
        return self._embedder


def _check_prompts(mode: str, instruction: str | None, prompt_name: str | None) -> dict[str, str]:
    """Return the options of a query's encoding."""
    given = {"prompt": instruction, "prompt_name": prompt_name}
    prompts = {name: value for name, value in given.items() if value is not None}
    if len(prompts) > 1:
        raise ArgumentError("instruction and prompt_name are two ways to say the same: pass one of them.")
    if prompts and mode == "text":
        raise ArgumentError("mode='text': no model reads an instruction; leave it out, or pass mode='hybrid'.")
    return prompts


def _find_text(item: Any, mode: str) -> str:
    text = item.get("text") if isinstance(item, Mapping) else item
    if not isinstance(text, str) or not text.strip():
        raise InputError(f"mode={mode!r} looks for the words of a text, and the query has none.")
    if mode == "text" and isinstance(item, Mapping) and item.keys() != {"text"}:
        raise InputError("mode='text' looks for words alone, and the query has more; pass mode='hybrid'.")
    return text
