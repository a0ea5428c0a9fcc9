"""Every model that the package knows, one row of data each.

Revisions, dimensions and licences are those of the published repositories. The dimension that a loaded
model reports is read from its weights; the one here is what listings show.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from st_modules.errors import UnknownModelError

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


_GME = {
    "template": "gme",
    "first_resize": "gme",
    "min_image_tokens": 256,
    "max_image_tokens": 1280,
    "max_length": 1800,
}
_VLM2VEC_QWEN2VL = {"template": "vlm2vec_qwen2vl", "first_resize": "vlm2vec"}
_QWEN3_VL_EMBEDDING = {
    "template": "qwen3_vl_embedding",
    "min_image_tokens": 4,
    "max_image_tokens": 1800,
    "max_length": 8192,
}
_VLM2VEC_PHI3V = {"template": "vlm2vec_phi3v", "num_crops": 4}
_DSE_PHI3 = {"template": "dse_phi3", "num_crops": 16, "first_resize": 1344, "text_max_length": 128}
_VLM2VEC_V2 = {
    "template": "vlm2vec_v2",
    "first_resize": "vlm2vec",
    "resize": "vlm2vec_v2",
    "min_image_tokens": 4,
    "max_image_tokens": 1280,
}
_BGE_VL_MLLM = {"template": "bge_vl_mllm", "first_resize": 512}

_GME_PROMPTS = {"t2i": "Find an image that matches the given text."}
_QWEN3_VL_EMBEDDING_PROMPTS = {"retrieve": "Retrieve images or text relevant to the user's query."}
_VLM2VEC_PROMPTS = {
    "image": "Represent the given image.",
    "vqa": "Represent the given image with the following question:",
    "t2i": "Find me an everyday image that matches the given caption:",
}
_MBEIR_PROMPTS = {
    "t2i": "Find me an everyday image that matches the given caption.",
    "i2t": "Find an image caption describing the following everyday image.",
    "cir": "Retrieve a day-to-day image that aligns with the modification instructions of the provided image.",
}
_VLM2VEC_V2_PROMPTS = {
    **_VLM2VEC_PROMPTS,
    "video": "Understand the content of the provided video.",
    "t2v": "Find a video that contains the following visual content:",
}
_BGE_VL_MLLM_PROMPTS = {
    "cir": "Retrieve the target image that best meets the combined criteria by using both the provided image and the "
    "image retrieval instructions: ",
}

_MODELS = (
    ModelSpec(
        name="tiny",
        repo_id=None,
        backbone="qwen2_vl",
        dimension=128,
        licence="apache-2.0",
        languages="English",
        parity="trained here",
        options=_GME,
        path=Path(__file__).parent / "assets" / "tiny",
    ),
    ModelSpec(
        name="gme-2b",
        repo_id="Alibaba-NLP/gme-Qwen2-VL-2B-Instruct",
        backbone="qwen2_vl",
        dimension=1536,
        licence="apache-2.0",
        languages="English, Chinese",
        parity="authors' code",
        revision="ce765ae71b8cdb208203cd8fb64a170b1b84293a",
        modelscope_id="iic/gme-Qwen2-VL-2B-Instruct",
        options=_GME,
        prompts=_GME_PROMPTS,
    ),
    ModelSpec(
        name="gme-7b",
        repo_id="Alibaba-NLP/gme-Qwen2-VL-7B-Instruct",
        backbone="qwen2_vl",
        dimension=3584,
        licence="apache-2.0",
        languages="English, Chinese",
        parity="authors' code",
        revision="477027a6480f8630363be77751f169cc3434b673",
        modelscope_id="iic/gme-Qwen2-VL-7B-Instruct",
        options=_GME,
        prompts=_GME_PROMPTS,
    ),
    ModelSpec(
        name="qwen3-vl-embedding-2b",
        repo_id="Qwen/Qwen3-VL-Embedding-2B",
        backbone="qwen3_vl",
        dimension=2048,
        licence="apache-2.0",
        languages="multilingual",
        parity="authors' code",
        options=_QWEN3_VL_EMBEDDING,
        prompts=_QWEN3_VL_EMBEDDING_PROMPTS,
        own_modules=True,
        least_dimension=64,
    ),
    ModelSpec(
        name="qwen3-vl-embedding-8b",
        repo_id="Qwen/Qwen3-VL-Embedding-8B",
        backbone="qwen3_vl",
        dimension=4096,
        licence="apache-2.0",
        languages="multilingual",
        parity="authors' code",
        options=_QWEN3_VL_EMBEDDING,
        prompts=_QWEN3_VL_EMBEDDING_PROMPTS,
        own_modules=True,
        least_dimension=64,
    ),
    ModelSpec(
        name="vlm2vec-qwen2vl-2b",
        repo_id="TIGER-Lab/VLM2Vec-Qwen2VL-2B",
        backbone="qwen2_vl",
        dimension=1536,
        licence="apache-2.0",
        languages="English",
        parity="authors' usage",
        base_repo_id="Qwen/Qwen2-VL-2B-Instruct",
        options=_VLM2VEC_QWEN2VL,
        prompts=_VLM2VEC_PROMPTS,
    ),
    ModelSpec(
        name="vlm2vec-qwen2vl-7b",
        repo_id="TIGER-Lab/VLM2Vec-Qwen2VL-7B",
        backbone="qwen2_vl",
        dimension=3584,
        licence="apache-2.0",
        languages="English",
        parity="authors' usage",
        base_repo_id="Qwen/Qwen2-VL-7B-Instruct",
        options=_VLM2VEC_QWEN2VL,
        prompts=_VLM2VEC_PROMPTS,
    ),
    ModelSpec(
        name="vlm2vec-v2",
        repo_id="VLM2Vec/VLM2Vec-V2.0",
        backbone="qwen2_vl",
        dimension=1536,
        licence="apache-2.0",
        languages="English",
        parity="authors' code",
        revision="e39ff079b8275ef876d3656da8c0bddbff3c4dde",
        base_repo_id="Qwen/Qwen2-VL-2B-Instruct",
        options=_VLM2VEC_V2,
        prompts=_VLM2VEC_V2_PROMPTS,
    ),
    ModelSpec(
        name="vlm2vec-llava-next",
        repo_id="TIGER-Lab/VLM2Vec-LLaVa-Next",
        backbone="llava_next",
        dimension=4096,
        licence="apache-2.0",
        languages="English",
        parity="authors' code",
        options={"template": "vlm2vec_llava_next", "tile_layout": "transformers-4.46"},
        prompts=_VLM2VEC_PROMPTS,
    ),
    ModelSpec(
        name="vlm2vec-phi3.5-v",
        repo_id="TIGER-Lab/VLM2Vec-Full",
        backbone="phi3_v",
        dimension=3072,
        licence="apache-2.0",
        languages="English",
        parity="authors' code",
        options=_VLM2VEC_PHI3V,
        prompts=_VLM2VEC_PROMPTS,
    ),
    ModelSpec(
        name="vlm2vec-phi3.5-v-lora",
        repo_id="TIGER-Lab/VLM2Vec-LoRA",
        backbone="phi3_v",
        dimension=3072,
        licence="apache-2.0",
        languages="English",
        parity="authors' code",
        base_repo_id="microsoft/Phi-3.5-vision-instruct",
        options=_VLM2VEC_PHI3V,
        prompts=_VLM2VEC_PROMPTS,
    ),
    ModelSpec(
        name="bge-vl-base",
        repo_id="BAAI/BGE-VL-base",
        backbone="clip",
        dimension=512,
        licence="mit",
        languages="English",
        parity="authors' code",
        revision="cc4c733ed997dbee4ac70ccffb911e70c9c24b93",
        options={"template": "clip"},
    ),
    ModelSpec(
        name="bge-vl-large",
        repo_id="BAAI/BGE-VL-large",
        backbone="clip",
        dimension=768,
        licence="mit",
        languages="English",
        parity="authors' code",
        revision="40fb48217f521df22a2a5bf15edd52ed1146ef05",
        options={"template": "clip"},
    ),
    ModelSpec(
        name="clip-sf-large",
        repo_id="TIGER-Lab/UniIR",
        backbone="clip",
        dimension=768,
        licence="mit",
        languages="English",
        parity="authors' code",
        base_repo_id="openai/clip-vit-large-patch14",
        weights_file="checkpoint/CLIP_SF/clip_sf_large.pth",
        options={"template": "uniir_clip", "rounded_crop": True},
        prompts=_MBEIR_PROMPTS,
    ),
    ModelSpec(
        name="bge-vl-mllm-s1",
        repo_id="BAAI/BGE-VL-MLLM-S1",
        backbone="llava_next",
        dimension=4096,
        licence="mit",
        languages="English",
        parity="authors' usage",
        revision="455ac20c111813fbb263dd0f22d47d173a971582",
        options=_BGE_VL_MLLM,
        prompts=_BGE_VL_MLLM_PROMPTS,
    ),
    ModelSpec(
        name="bge-vl-mllm-s2",
        repo_id="BAAI/BGE-VL-MLLM-S2",
        backbone="llava_next",
        dimension=4096,
        licence="mit",
        languages="English",
        parity="authors' usage",
        revision="20137e245f277e7eca277bbb436ce7d632a16406",
        options=_BGE_VL_MLLM,
        prompts=_BGE_VL_MLLM_PROMPTS,
    ),
    ModelSpec(
        name="bge-vl-v1.5-zs",
        repo_id="BAAI/BGE-VL-v1.5-zs",
        backbone="llava_next",
        dimension=4096,
        licence="mit",
        languages="English",
        parity="authors' usage",
        revision="a7ca46102a1a8be517e85cc1f03d1df39498e56c",
        options=_BGE_VL_MLLM,
        prompts=_BGE_VL_MLLM_PROMPTS,
    ),
    ModelSpec(
        name="bge-vl-v1.5-mmeb",
        repo_id="BAAI/BGE-VL-v1.5-mmeb",
        backbone="llava_next",
        dimension=4096,
        licence="mit",
        languages="English",
        parity="authors' usage",
        revision="59f60b95765b32014df235059c4d8c60e8204be5",
        options=_BGE_VL_MLLM,
        prompts=_BGE_VL_MLLM_PROMPTS,
    ),
    ModelSpec(
        name="bge-visualized-base",
        repo_id="BAAI/bge-visualized",
        backbone="visualized_bge",
        dimension=768,
        licence="mit",
        languages="English",
        parity="authors' code",
        revision="98db10b10d22620010d06f11733346e1c98c34aa",
        base_repo_id="BAAI/bge-base-en-v1.5",
        weights_file="Visualized_base_en_v1.5.pth",
        options={"template": "visualized_bge", "text_model": "bert"},
    ),
    ModelSpec(
        name="bge-visualized-m3",
        repo_id="BAAI/bge-visualized",
        backbone="visualized_bge",
        dimension=1024,
        licence="mit",
        languages="multilingual",
        parity="authors' code",
        revision="98db10b10d22620010d06f11733346e1c98c34aa",
        base_repo_id="BAAI/bge-m3",
        weights_file="Visualized_m3.pth",
        options={"template": "visualized_bge", "text_model": "xlm-roberta"},
    ),
    ModelSpec(
        name="e5-v",
        repo_id="royokong/e5-v",
        backbone="llava_next",
        dimension=4096,
        licence="unknown",
        languages="English",
        parity="authors' code",
        revision="0c1f22679417b3ae925d779442221c40cd1861ab",
        options={"template": "e5_v", "tile_layout": "transformers-4.41"},
    ),
    ModelSpec(
        name="dse-qwen2-2b",
        repo_id="MrLight/dse-qwen2-2b-mrl-v1",
        backbone="qwen2_vl",
        dimension=1536,
        licence="apache-2.0",
        languages="English, French",
        parity="stock transformers",
        revision="3fde4464ea72da2a863ed8fa51f0f1b8045f0426",
        least_dimension=512,
        options={
            "template": "dse_qwen2",
            "first_resize": "qwen_vl_utils",
            "multimodal_positions": True,
            "min_image_tokens": 1,
            "max_image_tokens": 2560,
        },
    ),
    ModelSpec(
        name="dse-phi3",
        repo_id="Tevatron/dse-phi3-v1.0",
        backbone="phi3_v",
        dimension=3072,
        licence="mit",
        languages="English",
        parity="authors' code",
        options=_DSE_PHI3,
    ),
    ModelSpec(
        name="dse-phi3-docmatix",
        repo_id="Tevatron/dse-phi3-docmatix-v2",
        backbone="phi3_v",
        dimension=3072,
        licence="mit",
        languages="English",
        parity="authors' code",
        options=_DSE_PHI3,
    ),
)


def list_models() -> list[ModelSpec]:
    """Return every model of the catalog, in its order."""
    return list(_MODELS)


def find_model(name: str) -> ModelSpec | None:
    """Look a model up by short name, repository id or ModelScope id, with or without the owner, in any letter case.

    Args:
        name: What the user calls the model.

    Returns:
        Its row, or ``None`` where ``name`` is nobody's (a path, another library's model).

    Raises:
        UnknownModelError: ``name`` is a repository that holds several models.
    """
    wanted = name.casefold()
    hits = [spec for spec in _MODELS if wanted in map(str.casefold, (spec.name, *spec.repositories))]
    if len(hits) > 1:
        names = " or ".join(repr(spec.name) for spec in hits)
        raise UnknownModelError(f"{name!r} holds several models: pass {names}.")
    return hits[0] if hits else None


def find_published(name: str) -> ModelSpec | None:
    """Look a model up as :func:`find_model` does, but for a name that is that of a folder here."""
    return None if names_folder(name) else find_model(name)


def names_folder(name: str) -> bool:
    """Whether a name is that of a folder or a file that is here, and no short name, which always means the model."""
    # In its own letter case: "BGE-VL-base" is the name of a repository, and may be a folder's.
    return name not in {spec.name for spec in _MODELS} and Path(name).exists()


def get_model(name: str) -> ModelSpec:
    """Look a model up as :func:`find_model` does.

    Args:
        name: What the user calls the model.

    Returns:
        The model's row.

    Raises:
        UnknownModelError: The catalog has no such model (near names are suggested).
    """
    spec = find_model(name)
    if spec is None:
        raise UnknownModelError(f"Unknown model {name!r}.{_suggestion(name)} `st-modules list` shows every model.")
    return spec


def near_miss(name: str) -> str:
    """Return a suggestion for a name that is no path and has no owner, else the empty string."""
    return "" if "/" in name or Path(name).exists() else _suggestion(name)


def _suggestion(name: str) -> str:
    """Return `` Did you mean 'x'?`` for a name that is near one of the catalog's, else the empty string."""
    names = {alias.casefold(): spec.name for spec in _MODELS for alias in (*spec.repositories, spec.name)}
    near = difflib.get_close_matches(name.casefold(), list(names), cutoff=0.75)
    # One that only lacks its end is meant rather than one that is as long.
    near.sort(key=lambda each: not each.startswith(name.casefold()))
    return f" Did you mean {names[near[0]]!r}?" if near else ""
