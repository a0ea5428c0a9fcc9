"""The queries that LanceDB is asked, and the order of what it answers: by score, and by id where scores are equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from st_modules._imports import import_extra
from st_modules.index.hits import Hit, list_metadata, make_hit
from st_modules.index.problems import enclose
from st_modules.index.vector_index import aim, read_effort

if TYPE_CHECKING:
    import numpy as np

# How many rows are asked for beyond those that are wanted, to see whether scores are equal at the end; and at most.
_MORE = 16
_MOST_MORE = 4000
# How far LanceDB's distance is from the exact one: it multiplies in the type of the table.
_ERROR = {"float": 1e-6, "halffloat": 2e-3}
# Where so great a share of the table is wanted, looking at all of it is faster than any index, and exact.
_LARGE_SHARE = 20


def find_by_vector(table: Any, vector: np.ndarray, k: int, where: str | None, exact: bool) -> list[Hit]:
    """Find the nearest rows.

    Args:
        table: LanceDB's table of items.
        vector: The query's vector.
        k: How many are wanted.
        where: A condition.
        exact: Whether to compare the vector with all others, also where there is an index.

    Returns:
        Hits with the cosine similarity of the vectors as the table has them.
    """
    rows = table.count_rows()
    columns, metadata = _list_columns(table)
    error = _ERROR[str(table.schema.field("vector").type.value_type)]
    effort = None if exact or k * _LARGE_SHARE > rows else read_effort(table)
    if not rows:
        return []
    more = _MORE
    while True:
        limit = min(k + more, rows)
        query = table.search(vector, vector_column_name="vector").distance_type("cosine").limit(limit)
        query = aim(query, effort, limit) if effort else query.bypass_vector_index()
        found = _restrict(query, where).select([*columns, "vector", "_distance"]).to_arrow()
        distances = found["_distance"].to_numpy()
        # Rows that are as near as the last one that is wanted may be missing, and may have smaller ids.
        if len(found) < limit or limit == rows or more >= _MOST_MORE or distances[-1] > distances[k - 1] + 2 * error:
            return _rank(found, _compare(found["vector"], vector), metadata)[:k]
        more *= 8


def find_by_text(table: Any, text: str, k: int, where: str | None) -> list[Hit]:
    """Find the rows whose texts have the words of a text, the best by BM25 first."""
    columns, metadata = _list_columns(table)
    query = table.search(_match(text), query_type="fts").limit(min(k, table.count_rows()) + _MORE)
    found = _restrict(query, where).select([*columns, "_score"]).to_arrow()
    return _rank(found, found["_score"].to_pylist(), metadata)[:k]


def find_by_both(table: Any, text: str, vector: np.ndarray, k: int, where: str | None, exact: bool) -> list[Hit]:
    """Find rows by vector and by words, ranked by reciprocal rank fusion as LanceDB computes it."""
    _, metadata = _list_columns(table)
    query = table.search(query_type="hybrid", vector_column_name="vector", fts_columns="text")
    limit = min(k, table.count_rows()) + _MORE
    query = query.vector(vector).text(_match(text)).distance_type("cosine").limit(limit)
    effort = None if exact else read_effort(table)
    query = aim(query, effort, limit) if effort else query.bypass_vector_index()
    fusion = import_extra("lancedb.rerankers", extra="index").RRFReranker()
    # All columns: where some are chosen, each of the two searches tells on stderr that it adds its own.
    found = _restrict(query, where).rerank(fusion).to_arrow()
    return _rank(found, found["_relevance_score"].to_pylist(), metadata)[:k]


def _match(text: str) -> Any:
    # A plain string would be taken for a phrase where it stands in quotation marks.
    return import_extra("lancedb.query", extra="index").MatchQuery(text, "text")


def _list_columns(table: Any) -> tuple[list[str], list[str]]:
    """Return the columns of a hit, and which of them are of metadata."""
    metadata = list_metadata(import_extra("pyarrow", extra="index"), table.schema)
    return ["id", "source", "page", "text", "image", "thumbnail", *metadata], metadata


def _restrict(query: Any, where: str | None) -> Any:
    return query if where is None else query.where(enclose(where), prefilter=True)


def _compare(vectors: Any, query: np.ndarray) -> Sequence[float]:
    """Return the cosine similarities of a column of vectors to a vector."""
    import numpy as np

    stored = vectors.combine_chunks()
    rows = stored.flatten().to_numpy().reshape(len(stored), len(query)).astype(np.float64)
    wanted = query.astype(np.float64)
    # Row by row, which gives equal vectors equal scores; a product of matrices does not.
    products = (rows * wanted).sum(axis=1)
    return (products / (np.sqrt((rows * rows).sum(axis=1)) * np.sqrt((wanted * wanted).sum()))).tolist()


def _rank(found: Any, scores: Sequence[float], metadata: list[str]) -> list[Hit]:
    rows = found.drop_columns([name for name in ("vector", "_distance") if name in found.column_names]).to_pylist()
    hits = [make_hit(row, float(score), metadata) for row, score in zip(rows, scores, strict=True)]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))
