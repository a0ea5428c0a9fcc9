"""Collections in files: what of them is embedded, piece by piece, wherever they are."""

from st_modules.index.sources.collection import Sources
from st_modules.index.sources.options import SourceOptions

__all__ = ["SourceOptions", "Sources"]
