"""The models that decide which pictures are similar, what each of them reads, and how similar a pair must be."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from st_modules.catalog import find_published, near_miss
from st_modules.errors import CheckpointError, InputError, STModulesError, UnknownModelError
from st_modules.megapairs.pictures import Picture

if TYPE_CHECKING:
    import sentence_transformers

Reads: TypeAlias = Literal["visual", "caption", "fused"]

_MODEL_FILES = ("modules.json", "config.json", "adapter_config.json")
"""A folder that ``SentenceTransformer`` loads has one of them."""


@dataclass(frozen=True)
class Encoder:
    """A similarity: a model, what it reads of a picture, and the band of cosines in which two pictures make a pair.

    Pictures over the band of a visual encoder are near-duplicates, and no pair.

    Args:
        model: A name of the catalog, anything else that ``SentenceTransformer`` loads, or a loaded model.
        reads: "visual" for the image, "caption" for the caption, "fused" for both as one item. A picture without a
            caption is in no caption encoder's pairs; a fused encoder reads its image alone.
        lower: Lowest cosine of a pair, from -1.
        upper: Highest cosine of a pair, to 1.
        name: What to call the model in messages and in the names of files; that of a string is the string.

    Raises:
        InputError: ``reads`` or the band is wrong, or a loaded model came without a name.
    """

    model: str | sentence_transformers.SentenceTransformer
    reads: Reads
    lower: float
    upper: float
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            if not isinstance(self.model, str):
                raise InputError("A model that is loaded already needs a name: pass Encoder(..., name=...).")
            object.__setattr__(self, "name", self.model)
        if self.reads not in get_args(Reads):
            raise InputError(f"{self.name}: reads {self.reads!r}; it can read {', '.join(get_args(Reads))}.")
        if not -1 <= self.lower < self.upper <= 1:
            raise InputError(
                f"{self.name}: the band {self.lower} to {self.upper} is not one; the lower bound comes first, and both "
                "are cosines from -1 to 1."
            )

    @classmethod
    def parse(cls, text: str) -> Encoder:
        """Read ``MODEL:READS:LOWER:UPPER``, as in ``tiny:visual:0.6:0.95``.

        Raises:
            InputError: It is not of this form.
        """
        model, *rest = text.rsplit(":", 3)
        try:
            reads, lower, upper = rest
            band = float(lower), float(upper)
        except ValueError as error:
            raise InputError(f"{text!r}: write MODEL:READS:LOWER:UPPER, as in tiny:visual:0.6:0.95.") from error
        return cls(model, cast(Reads, reads), *band)

    @property
    def label(self) -> str:
        """The encoder as messages have it."""
        return f"{self.name} ({self.reads})"

    def check_name(self) -> None:
        """Look whether the model can be there. Nothing is loaded, and the Hub is not asked.

        Raises:
            UnknownModelError: It is a misspelled name of the catalog, a folder that does not exist, or one without a
                model. What could be a repository of the Hub is let through.
        """
        if isinstance(self.model, str) and not find_published(self.model) and (problem := _problem(self.model)):
            raise UnknownModelError(f"{self.label}: {problem}")

    def load(self, device: str | None = None) -> sentence_transformers.SentenceTransformer:
        """Return the model; a name is loaded.

        Raises:
            STModulesError: It cannot be loaded.
        """
        if not isinstance(self.model, str):
            return self.model
        from st_modules.model import SentenceTransformer

        try:
            return SentenceTransformer(self.model, device=device)
        except STModulesError:
            raise
        except (OSError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"{self.label}: the model cannot be loaded: {reason}") from error

    @property
    def state(self) -> str:
        """What tells that the model is the same as before; empty where nothing does, as for a folder that is gone.

        Its weights where it is loaded, the sizes and times of its folder's files, or the catalog's revision.
        """
        from torch import nn

        from st_modules.checkpoints.weights import digest_weights

        if isinstance(self.model, nn.Module):
            return digest_weights(self.model)
        if not isinstance(self.model, str):
            return ""
        if spec := find_published(self.model):
            return str(spec.revision)
        files = sorted(path for path in Path(self.model).rglob("*") if path.is_file())
        return " ".join(f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)

    def item(self, picture: Picture, path: Path) -> dict[str, Any] | None:
        """What the model is given of a picture; ``None`` where it has nothing to read."""
        image = {"image": str(path)} if self.reads != "caption" else {}
        text = {"text": picture.caption} if self.reads != "visual" and picture.caption else {}
        return {**text, **image} or None


def _problem(name: str) -> str:
    """What is wrong with a name that the catalog does not have; empty where it may be right."""
    from st_modules.checkpoints.hub import is_repo_id

    folder = Path(name)
    if folder.exists():
        there = any((folder / file).is_file() for file in _MODEL_FILES)
        return "" if there else f"no model in it; a model's folder has one of {', '.join(_MODEL_FILES)}."
    if hint := near_miss(name):
        return f"unknown model.{hint}"
    return "" if is_repo_id(name) else "no such folder."
