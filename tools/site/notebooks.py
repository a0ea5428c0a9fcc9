"""Notebooks as pages of the site."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def to_markdown(notebook: str) -> str:
    """Turn a notebook into Markdown: its text as it is, its code, and what the code printed or drew.

    Args:
        notebook: The content of its file, in version 4 of the format.
    """
    return "\n\n".join(part for cell in json.loads(notebook)["cells"] for part in _write_cell(cell)) + "\n"


def _write_cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
    if cell["cell_type"] == "code" and source:
        yield _fence("python", source)
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                yield f"![What the code above draws](data:image/png;base64,{''.join(data['image/png']).strip()})"
            elif printed := "".join(output.get("text") or data.get("text/plain", "")):
                yield _fence("text", printed.rstrip("\n"))


def _fence(language: str, content: str) -> str:
    return f"````{language}\n{content}\n````"
