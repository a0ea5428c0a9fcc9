"""What a row of the catalog says of a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

Task: TypeAlias = Literal["embed", "rerank"]
Parity: TypeAlias = Literal["authors' code", "authors' usage", "stock transformers", "trained here"]


@dataclass(frozen=True)
class ModelSpec:
    """One published model.

    Attributes:
        name: The short name, as in ``SentenceTransformer("gme-2b")``.
        repo_id: Repository on the Hugging Face Hub; ``None`` for the model that ships with the package.
        backbone: The module in ``st_modules.backbones`` that runs it.
        dimension: Embedding dimension of the published weights.
        licence: SPDX-like identifier that the repository states.
        languages: Languages that the authors name.
        parity: What the tests compare small checkpoints of this layout with: vectors that the authors' own code gave,
            vectors that the steps of their published usage gave, or calls of stock transformers put together. A model
            that was trained here has nothing to be compared with.
        revision: Commit that parity was established for; ``None`` follows the repository's default branch.
        modelscope_id: The same model's identifier on ModelScope, an alias for look-ups.
        base_repo_id: What an adapter or a tower is built on.
        weights_file: The one file of the repository that holds the weights, where it holds several models; a path.
        options: Keyword arguments of the backbone that make it this model.
        prompts: The authors' task instructions by name.
        path: Folder of a model that ships with the package.
        own_modules: Whether its repository may have a ``modules.json`` of sentence-transformers' own modules, which is
            no sign of another model then.
        least_dimension: Fewest of an embedding's first components that serve alone, where the model was trained for
            that (Matryoshka); ``None`` where it was not.
        task: What it does: an embedder turns one input into a vector, a reranker a query and a document into a score.
    """

    name: str
    repo_id: str | None
    backbone: str
    dimension: int
    licence: str
    languages: str
    parity: Parity
    revision: str | None = None
    modelscope_id: str | None = None
    base_repo_id: str | None = None
    weights_file: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None
    own_modules: bool = False
    task: Task = "embed"
    least_dimension: int | None = None

    @property
    def repositories(self) -> list[str]:
        """The names of its repositories, with and without their owners."""
        ids = [each for each in (self.repo_id, self.modelscope_id) if each]
        return [*ids, *(each.rpartition("/")[2] for each in ids)]

    def find_weights_file(self, folder: Path) -> Path | None:
        """Find the one file of weights in a folder that has the repository's layout, or the end of its path."""
        parts = Path(self.weights_file).parts if self.weights_file else ()
        paths = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
        return next((path for path in paths if path.is_file()), None)
