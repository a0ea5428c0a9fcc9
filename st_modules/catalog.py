"""Every model that the package knows, one row of data each.

Revisions, dimensions and licences are those of the published repositories. The dimension that a loaded
model reports is read from its weights; the one here is what listings show.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from st_modules.errors import UnknownModelError

_GME_PROMPTS = {"t2i": "Find an image that matches the given text."}


@dataclass(frozen=True)
class ModelSpec:
    """One published model.

    Attributes:
        name: The short name, as in ``SentenceTransformer("gme-2b")``.
        repo_id: Repository on the Hugging Face Hub; ``None`` for the model that ships with the package.
        backbone: The module in ``st_modules.backbones`` that runs it.
        dimension: Embedding dimension of the published weights.
        licence: SPDX-like identifier that the repository states.
        revision: Commit that parity was established for; ``None`` follows the repository's default branch.
        modelscope_id: The same model's identifier on ModelScope, an alias for look-ups.
        base_repo_id: What an adapter or a tower is built on.
        weights_file: The one file of the repository that holds the weights, where it holds several models.
        available: Whether this version of the package can load it.
        options: Keyword arguments of the backbone that make it this model.
        prompts: The authors' task instructions by name.
        path: Folder of a model that ships with the package.
    """

    name: str
    repo_id: str | None
    backbone: str
    dimension: int
    licence: str
    revision: str | None = None
    modelscope_id: str | None = None
    base_repo_id: str | None = None
    weights_file: str | None = None
    available: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    prompts: Mapping[str, str] = field(default_factory=dict)
    path: Path | None = None


_GME = {"template": "gme", "first_resize_tokens": (4, 16384)}

_MODELS = (
    ModelSpec(
        "tiny",
        None,
        "qwen2_vl",
        128,
        "apache-2.0",
        available=True,
        path=Path(__file__).parent / "assets" / "tiny",
    ),
    ModelSpec(
        "gme-2b",
        "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        "qwen2_vl",
        1536,
        "apache-2.0",
        revision="ce765ae71b8cdb208203cd8fb64a170b1b84293a",
        modelscope_id="iic/gme-Qwen2-VL-2B-Instruct",
        available=True,
        options=_GME,
        prompts=_GME_PROMPTS,
    ),
    ModelSpec(
        "gme-7b",
        "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct",
        "qwen2_vl",
        3584,
        "apache-2.0",
        revision="477027a6480f8630363be77751f169cc3434b673",
        modelscope_id="iic/gme-Qwen2-VL-7B-Instruct",
        available=True,
        options=_GME,
        prompts=_GME_PROMPTS,
    ),
    ModelSpec(
        "vlm2vec-qwen2vl-2b",
        "TIGER-Lab/VLM2Vec-Qwen2VL-2B",
        "qwen2_vl",
        1536,
        "apache-2.0",
        base_repo_id="Qwen/Qwen2-VL-2B-Instruct",
    ),
    ModelSpec(
        "vlm2vec-qwen2vl-7b",
        "TIGER-Lab/VLM2Vec-Qwen2VL-7B",
        "qwen2_vl",
        3584,
        "apache-2.0",
        base_repo_id="Qwen/Qwen2-VL-7B-Instruct",
    ),
    ModelSpec(
        "vlm2vec-v2",
        "VLM2Vec/VLM2Vec-V2.0",
        "qwen2_vl",
        1536,
        "apache-2.0",
        revision="e39ff079b8275ef876d3656da8c0bddbff3c4dde",
        base_repo_id="Qwen/Qwen2-VL-2B-Instruct",
    ),
    ModelSpec("vlm2vec-llava-next", "TIGER-Lab/VLM2Vec-LLaVa-Next", "llava_next", 4096, "apache-2.0"),
    ModelSpec(
        "bge-vl-base",
        "BAAI/BGE-VL-base",
        "clip",
        512,
        "mit",
        revision="cc4c733ed997dbee4ac70ccffb911e70c9c24b93",
    ),
    ModelSpec(
        "bge-vl-large",
        "BAAI/BGE-VL-large",
        "clip",
        768,
        "mit",
        revision="40fb48217f521df22a2a5bf15edd52ed1146ef05",
    ),
    ModelSpec(
        "bge-vl-mllm-s1",
        "BAAI/BGE-VL-MLLM-S1",
        "llava_next",
        4096,
        "mit",
        revision="455ac20c111813fbb263dd0f22d47d173a971582",
    ),
    ModelSpec(
        "bge-vl-mllm-s2",
        "BAAI/BGE-VL-MLLM-S2",
        "llava_next",
        4096,
        "mit",
        revision="20137e245f277e7eca277bbb436ce7d632a16406",
    ),
    ModelSpec(
        "bge-vl-v1.5-zs",
        "BAAI/BGE-VL-v1.5-zs",
        "llava_next",
        4096,
        "mit",
        revision="a7ca46102a1a8be517e85cc1f03d1df39498e56c",
    ),
    ModelSpec(
        "bge-vl-v1.5-mmeb",
        "BAAI/BGE-VL-v1.5-mmeb",
        "llava_next",
        4096,
        "mit",
        revision="59f60b95765b32014df235059c4d8c60e8204be5",
    ),
    ModelSpec(
        "bge-visualized-base",
        "BAAI/bge-visualized",
        "visualized_bge",
        768,
        "mit",
        revision="98db10b10d22620010d06f11733346e1c98c34aa",
        base_repo_id="BAAI/bge-base-en-v1.5",
        weights_file="Visualized_base_en_v1.5.pth",
    ),
    ModelSpec(
        "bge-visualized-m3",
        "BAAI/bge-visualized",
        "visualized_bge",
        1024,
        "mit",
        revision="98db10b10d22620010d06f11733346e1c98c34aa",
        base_repo_id="BAAI/bge-m3",
        weights_file="Visualized_m3.pth",
    ),
    ModelSpec(
        "e5-v",
        "royokong/e5-v",
        "llava_next",
        4096,
        "unknown",
        revision="0c1f22679417b3ae925d779442221c40cd1861ab",
    ),
)


def list_models() -> list[ModelSpec]:
    """Return every model of the catalog, available or not, in its order."""
    return list(_MODELS)


def find_model(name: str) -> ModelSpec | None:
    """Look a model up by short name, repository id or ModelScope id, in any letter case.

    Args:
        name: What the user calls the model.

    Returns:
        Its row, or ``None`` where ``name`` is nobody's (a path, another library's model).

    Raises:
        UnknownModelError: ``name`` is a repository that holds several models.
    """
    wanted = name.casefold()
    hits = [
        spec
        for spec in _MODELS
        if wanted in {alias.casefold() for alias in (spec.name, spec.repo_id, spec.modelscope_id) if alias}
    ]
    if len(hits) > 1:
        names = " or ".join(repr(spec.name) for spec in hits)
        raise UnknownModelError(f"{name!r} holds several models: pass {names}.")
    return hits[0] if hits else None


def get_model(name: str) -> ModelSpec:
    """Look a model up, and insist that this version of the package can load it.

    Args:
        name: Short name, repository id or ModelScope id.

    Returns:
        The model's row.

    Raises:
        UnknownModelError: The catalog has no such model (near names are suggested), or it is not available yet.
    """
    spec = find_model(name)
    if spec is None:
        raise UnknownModelError(f"Unknown model {name!r}.{suggestion(name)} `st-modules list` shows every model.")
    if not spec.available:
        raise UnknownModelError(
            f"Model {spec.name!r} is not available yet: this version of st-modules does not have its recipe. "
            f"Available: {', '.join(other.name for other in _MODELS if other.available)}."
        )
    return spec


def suggestion(name: str) -> str:
    """Return `` Did you mean 'x'?`` for a name that is near one of the catalog's, else the empty string."""
    near = difflib.get_close_matches(name.casefold(), [spec.name for spec in _MODELS], n=1, cutoff=0.75)
    return f" Did you mean {near[0]!r}?" if near else ""
