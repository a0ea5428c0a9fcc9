"""The collator: sentence-transformers' own, with the side of a search that each column is on."""

from __future__ import annotations

from dataclasses import dataclass

from sentence_transformers.sentence_transformer.data_collator import SentenceTransformerDataCollator

NO_SIDE = "none"
"""In a ``router_mapping``: the column is on neither side, as for ``encode``."""


@dataclass
class DataCollator(SentenceTransformerDataCollator):
    """Prepares the first column as queries and the others as documents, as inference does.

    sentence-transformers' collator leaves the side out unless ``router_mapping`` names it. Models whose layout depends
    on it would then be trained on inputs that ``encode_query`` and ``encode_document`` never make: GME would read an
    instruction on its document side, DSE would write no ``Query:``. ``router_mapping`` still decides where it names a
    column: ``"query"``, ``"document"`` or ``"none"``.
    """

    def _get_task_for_column(
        self, column_name: str, column_position: int, router_mapping: dict[str, str]
    ) -> str | None:
        side = router_mapping.get(column_name, "document" if column_position else "query")
        return None if side == NO_SIDE else side
