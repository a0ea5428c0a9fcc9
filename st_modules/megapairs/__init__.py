"""Training data in the manner of MegaPairs: triplets mined from pictures, and the published ones, ready to train on.

:func:`make_triplets` goes from a folder of pictures to a file of triplets. :func:`training_dataset` and
:func:`training_rows` go from such a file, or from that of the MegaPairs dataset, to what sentence-transformers trains
on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from st_modules._imports import lazy_names, require

if TYPE_CHECKING:
    from st_modules.megapairs.chat import ChatInstructions
    from st_modules.megapairs.encoders import Encoder
    from st_modules.megapairs.export import save_pictures
    from st_modules.megapairs.instructions import (
        CaptionTemplates,
        InstructionError,
        InstructionWriter,
        PicturePair,
        Written,
    )
    from st_modules.megapairs.pictures import Collection, Picture, read_collection
    from st_modules.megapairs.pipeline import Recipe, Summary, make_triplets
    from st_modules.megapairs.training import training_dataset, training_rows
    from st_modules.megapairs.triplets import Triplet, read_triplets, write_parquet

__all__ = [
    "CaptionTemplates",
    "ChatInstructions",
    "Collection",
    "Encoder",
    "InstructionError",
    "InstructionWriter",
    "Picture",
    "PicturePair",
    "Recipe",
    "Summary",
    "Triplet",
    "Written",
    "make_triplets",
    "read_collection",
    "read_triplets",
    "save_pictures",
    "training_dataset",
    "training_rows",
    "write_parquet",
]


def _check(name: str) -> None:
    if name == "ChatInstructions":
        require("langchain_core", extra="megapairs")


__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CaptionTemplates": "instructions",
        "ChatInstructions": "chat",
        "Collection": "pictures",
        "Encoder": "encoders",
        "InstructionError": "instructions",
        "InstructionWriter": "instructions",
        "Picture": "pictures",
        "PicturePair": "instructions",
        "Recipe": "pipeline",
        "Summary": "pipeline",
        "Triplet": "triplets",
        "Written": "instructions",
        "make_triplets": "pipeline",
        "read_collection": "pictures",
        "read_triplets": "triplets",
        "save_pictures": "export",
        "training_dataset": "training",
        "training_rows": "training",
        "write_parquet": "triplets",
    },
    _check,
)
