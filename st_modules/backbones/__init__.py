"""The registry of backbones, one module an architecture: what a batch looks like to it, how it is run and pooled."""

from __future__ import annotations

from collections.abc import Mapping

from st_modules.backbones.base import Backbone
from st_modules.backbones.clip import CLIP
from st_modules.backbones.llava_next import LlavaNext
from st_modules.backbones.phi3_v import Phi3V
from st_modules.backbones.qwen2_vl import Qwen2VL
from st_modules.backbones.qwen3_vl import Qwen3VL
from st_modules.backbones.qwen3_vl_reranker import Qwen3VLReranker
from st_modules.backbones.visualized_bge import VisualizedBGE

_CLASSES: tuple[type[Backbone], ...] = (CLIP, LlavaNext, Phi3V, Qwen2VL, Qwen3VL, Qwen3VLReranker, VisualizedBGE)

BACKBONES: Mapping[str, type[Backbone]] = {each.__module__.rpartition(".")[2]: each for each in _CLASSES}
"""Each backbone by the name of its module, by which the catalog calls it.

The path of a class, module and all, is what the files of saved models name: neither may be renamed.
"""
