"""LanceDB's full-text index of the column of texts."""

from __future__ import annotations

from typing import Any

from st_modules._imports import import_extra


def has_text_index(table: Any) -> bool:
    """Whether a table has a full-text index that can be read."""
    if not any(index.columns == ["text"] for index in table.list_indices()):
        return False
    try:
        table.search("a", query_type="fts", fts_columns="text").select(["id", "_score"]).limit(1).to_arrow()
    except (RuntimeError, OSError, ValueError):  # what LanceDB raises of its files
        return False
    return True


def ensure_text_index(table: Any) -> None:
    """Make a table's full-text index, where it has none yet or one that is damaged.

    Rows that come later are found too: LanceDB scans what is not in the index, and ``optimize`` puts it there.

    Args:
        table: LanceDB's table of items.
    """
    if has_text_index(table):
        return
    # Dictionaries tell where words of Chinese, Japanese and Thai end. A word that is common in English may be none in
    # another language, and BM25 gives it next to no weight.
    config = import_extra("lancedb.index", extra="index").FTS(base_tokenizer="icu", remove_stop_words=False)
    table.create_index("text", config=config, replace=True)
