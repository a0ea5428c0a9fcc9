"""Universal multimodal embedders as sentence-transformers models: text, images and text+image in one space.

``SentenceTransformer("gme-2b")`` loads a published model, ``SentenceTransformer("tiny")`` the one that ships with
the package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names, require
from st_modules.catalog import ModelSpec, get_model, list_models
from st_modules.errors import (
    CheckpointError,
    ImageError,
    InputError,
    MissingExtraError,
    Place,
    ServerError,
    STModulesError,
    UnknownModelError,
    VideoError,
    list_errors,
)

if TYPE_CHECKING:
    from st_modules.cross_encoder import CrossEncoder
    from st_modules.encode.options import EncodeOptions
    from st_modules.inputs.formats import image_suffixes
    from st_modules.inputs.images import ImageSource
    from st_modules.inputs.limits import ImageLimits
    from st_modules.inputs.videos import VideoSource
    from st_modules.integrations.batch_embedder import BatchEmbedder
    from st_modules.integrations.embedder import Embedder
    from st_modules.integrations.remote_embedder import RemoteEmbedder
    from st_modules.integrations.reranker import Reranker
    from st_modules.model import SentenceTransformer
    from st_modules.prompts.templates import Side
    from st_modules.registration import register, unregister

__version__ = "0.1.0"

__all__ = [
    "BatchEmbedder",
    "CheckpointError",
    "CrossEncoder",
    "Embedder",
    "EncodeOptions",
    "ImageError",
    "ImageLimits",
    "ImageSource",
    "InputError",
    "MissingExtraError",
    "ModelSpec",
    "Place",
    "RemoteEmbedder",
    "Reranker",
    "STModulesError",
    "SentenceTransformer",
    "ServerError",
    "Side",
    "UnknownModelError",
    "VideoError",
    "VideoSource",
    "get_model",
    "image_suffixes",
    "list_errors",
    "list_models",
    "register",
    "unregister",
]


def _check(name: str) -> None:
    if name == "RemoteEmbedder":
        require("httpx", extra="client")
        require("tenacity", extra="client")


# torch and sentence-transformers take seconds to import, so what needs them is imported at first use.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CrossEncoder": "cross_encoder",
        "BatchEmbedder": "integrations.batch_embedder",
        "Embedder": "integrations.embedder",
        "EncodeOptions": "encode.options",
        "ImageLimits": "inputs.limits",
        "ImageSource": "inputs.images",
        "VideoSource": "inputs.videos",
        "RemoteEmbedder": "integrations.remote_embedder",
        "Reranker": "integrations.reranker",
        "SentenceTransformer": "model",
        "Side": "prompts.templates",
        "image_suffixes": "inputs.formats",
        "register": "registration",
        "unregister": "registration",
    },
    _check,
)
