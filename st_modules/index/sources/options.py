"""What of a source is embedded, and what that may cost."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from st_modules.arguments import check_integer
from st_modules.errors import ArgumentError
from st_modules.files.pages import PAGE_DPI
from st_modules.files.tables import Columns
from st_modules.inputs.limits import ImageLimits, check_image_limits


@dataclass(frozen=True)
class SourceOptions:
    """How sources are read.

    Args:
        columns: Which columns of a table are texts, images and ids. By default those of these names.
        metadata: Which other columns are kept; ``None`` for all.
        limits: What pictures may cost, and which of those that a table names may be opened or fetched. What the user
            names as a source is opened in any case.
        dpi: How large the pages of PDFs are rendered.

    Raises:
        ArgumentError: An option has a value that it cannot have.
    """

    columns: Columns = field(default_factory=Columns)
    metadata: tuple[str, ...] | None = None
    limits: ImageLimits = field(default_factory=ImageLimits)
    dpi: int = PAGE_DPI

    def __post_init__(self) -> None:
        check_image_limits(self.limits)
        check_integer("dpi", self.dpi)
        if self.metadata is not None:
            object.__setattr__(self, "metadata", _check_names(self.metadata))

    def keeps(self, column: str) -> bool:
        """Whether a column that is not embedded is kept as metadata."""
        return self.metadata is None or column in self.metadata


def _check_names(names: Iterable[object]) -> tuple[str, ...]:
    listed = () if isinstance(names, str) else tuple(names)
    if isinstance(names, str) or not all(isinstance(name, str) and name for name in listed):
        raise ArgumentError(f"metadata={reprlib.repr(names)}: pass a list of names of columns, or None for all.")
    return tuple(str(name) for name in listed)
