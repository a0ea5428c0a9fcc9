"""What a search finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from st_modules.index.schema import ON_ITS_WAY, item_fields


@dataclass(frozen=True)
class Hit:
    """An item that a search has found.

    Attributes:
        id: Its id in the index.
        score: How well it answers, higher is better: the cosine similarity of the vectors. Of a search by words, the
            relevance that LanceDB computes: BM25, and reciprocal rank fusion where both count. Of a reranker, its own.
        source: The file that it was read from.
        page: Page of a PDF, from 1.
        text: Its text.
        image: Where its picture is.
        metadata: The other columns of its row; ``None`` is the value of one that it has none in.
        thumbnail: Its picture made small and encoded, where the index keeps these.
    """

    id: str
    score: float
    source: str
    page: int | None = None
    text: str | None = None
    image: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    thumbnail: bytes | None = None

    def to_record(self) -> dict[str, Any]:
        """Return it as a line of JSON has it, without the thumbnail."""
        return {name: value for name, value in vars(self).items() if name != "thumbnail"}


def list_metadata(pa: Any, schema: Any) -> list[str]:
    """Return the names of a table's columns of metadata.

    Args:
        pa: The module pyarrow.
        schema: The schema of the table of items.
    """
    own = {field.name for field in item_fields(pa, 1, "float32")}
    return [name for name in schema.names if name not in own and not name.startswith(ON_ITS_WAY)]


def make_hit(row: Mapping[str, Any], score: float, metadata: list[str]) -> Hit:
    """Make a hit of a row.

    Args:
        row: The columns of a hit, those of its metadata among them.
        score: Its score.
        metadata: The names of the columns of metadata.
    """
    own = {name: row[name] for name in ("id", "source", "page", "text", "image", "thumbnail")}
    return Hit(**own, score=score, metadata={name: row[name] for name in metadata})
