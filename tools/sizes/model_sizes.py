"""How large each published model of the catalog is: parameters, memory, dimension, image tokens and longest input.

    python tools/sizes/model_sizes.py

prints the table of docs/models.md. Nothing is downloaded: each architecture is built without weights, on torch's meta
device, from the hyper-parameters below, which are those of the published ``config.json`` files as far as they are
known. Dimension, image tokens and longest input are what the package's own modules answer for it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any

import torch
import transformers as hf
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from st_modules.backbones.base import Backbone
from st_modules.backbones.clip import CLIP
from st_modules.backbones.eva02 import EVA02, EVA02Shape
from st_modules.backbones.llava_next import LlavaNext
from st_modules.backbones.phi3_v import Phi3V
from st_modules.backbones.phi3_v_model import Phi3VConfig, Phi3VModel
from st_modules.backbones.phi3_v_vision import read_vision_shape
from st_modules.backbones.qwen2_vl import Qwen2VL
from st_modules.backbones.qwen3_vl import Qwen3VL
from st_modules.backbones.visualized_bge import FusedModel, VisualizedBGE
from st_modules.catalog import ModelSpec, list_models
from st_modules.errors import ImageError
from st_modules.inputs.images import ImageSource

# Image sides in pixels. Their pairs have the smallest and the largest image of each rule, and ratios up to 128.
SIDES = [28 * tokens for tokens in (1, 2, 4, 8, 16, 24, 32, 40, 64, 128)]

_QWEN2_BOUNDS = {"shortest_edge": 4 * 28**2, "longest_edge": 16384 * 28**2}
_TILES = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]


def _sizes(hidden: int, layers: int, heads: int, intermediate: int, **others: Any) -> dict[str, Any]:
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    return {**dict(zip(names, (hidden, layers, heads, intermediate), strict=True)), **others}


def _segment_tokenizer(image_token_id: int | None = None, video_token_id: int | None = None) -> Any:
    """What a module asks of its tokenizer before it encodes anything."""
    return SimpleNamespace(tokenizer=None, image_ids={image_token_id}, video_ids={video_token_id}, end_ids=[0])


def _qwen2_vl(spec: ModelSpec) -> Backbone:
    text = _QWEN2_VL[spec.dimension]
    vision = {"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4, "patch_size": 14}
    config = hf.Qwen2VLConfig(
        text_config={**text, "max_position_embeddings": 32768},
        vision_config={**vision, "hidden_size": text["hidden_size"]},
    )
    processor = Qwen2VLImageProcessorPil(size=_QWEN2_BOUNDS)
    return Qwen2VL(
        hf.Qwen2VLModel(config),
        _segment_tokenizer(config.image_token_id, config.video_token_id),
        processor,
        **spec.options,
    )


def _qwen3_vl(spec: ModelSpec, text: dict[str, Any], vision: dict[str, Any]) -> Backbone:
    config = hf.Qwen3VLConfig(
        text_config={**text, "num_key_value_heads": 8, "vocab_size": 151936, "max_position_embeddings": 262144},
        vision_config={**vision, "patch_size": 16, "out_hidden_size": text["hidden_size"]},
    )
    processor = Qwen2VLImageProcessorPil(patch_size=16)
    encoder = _segment_tokenizer(config.image_token_id, config.video_token_id)
    return Qwen3VL(hf.Qwen3VLModel(config), encoder, processor, **spec.options)


def _vision(hidden: int, depth: int, intermediate: int, taken: list[int]) -> dict[str, Any]:
    names = ("hidden_size", "depth", "intermediate_size", "deepstack_visual_indexes")
    return {**dict(zip(names, (hidden, depth, intermediate, taken), strict=True)), "num_heads": 16}


def _llava_next(spec: ModelSpec, **text: Any) -> Backbone:
    vision = _sizes(1024, 24, 16, 4096, image_size=336, patch_size=14, model_type="clip_vision_model")
    config = hf.LlavaNextConfig(
        text_config=_sizes(4096, 32, 32, 14336, num_key_value_heads=8, **text),
        vision_config=vision,
        image_grid_pinpoints=_TILES,
    )
    encoder = _segment_tokenizer(config.image_token_id)
    return LlavaNext(hf.LlavaNextModel(config), encoder, LlavaNextImageProcessorPil(), **spec.options)


def _phi3_v(spec: ModelSpec) -> Backbone:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 48, "long_factor": [1.0] * 48}
    text = _sizes(3072, 32, 32, 8192, vocab_size=32064, max_position_embeddings=131072)
    config = Phi3VConfig(
        text_config={**text, "rope_scaling": {**rope, "original_max_position_embeddings": 4096, "factor": 32.0}},
        vision_config=read_vision_shape({}),
    )
    encoder = _segment_tokenizer(config.image_token_id)
    return Phi3V(Phi3VModel(config), encoder, CLIPImageProcessorPil(), **spec.options)


def _clip(spec: ModelSpec, text: dict[str, Any], vision: dict[str, Any], dimension: int) -> Backbone:
    config = hf.CLIPConfig(text_config=text, vision_config={**vision, "image_size": 224}, projection_dim=dimension)
    return CLIP(hf.CLIPModel(config), _segment_tokenizer(), CLIPImageProcessorPil(), **spec.options)


def _build_visualized(spec: ModelSpec, text_model: Any, config: Any, tower: EVA02Shape) -> Backbone:
    text = text_model(config, add_pooling_layer=False)
    projection = torch.nn.Linear(tower.width, config.hidden_size)
    return VisualizedBGE(
        FusedModel(text, EVA02(tower), projection), _segment_tokenizer(), template=spec.options["template"]
    )


# Of the model of 2 and that of 7 billion parameters, by their dimension.
_QWEN2_VL = {
    1536: _sizes(1536, 28, 12, 8960, num_key_value_heads=2, vocab_size=151936),
    3584: _sizes(3584, 28, 28, 18944, num_key_value_heads=4, vocab_size=152064),
}
_MISTRAL = partial(_llava_next, model_type="mistral", max_position_embeddings=32768)
_CLIP_L14 = partial(
    _clip, text=_sizes(768, 12, 12, 3072), vision=_sizes(1024, 24, 16, 4096, patch_size=14), dimension=768
)
_B16 = EVA02Shape(width=768, layers=12, heads=12, hidden=int(768 * 2.6667), patch=16, grid=14)
_L14 = EVA02Shape(width=1024, layers=24, heads=16, hidden=int(1024 * 2.6667), patch=14, grid=16)
_BERT = hf.BertConfig(**_sizes(768, 12, 12, 3072, vocab_size=30522, max_position_embeddings=512))
_XLM_ROBERTA = hf.XLMRobertaConfig(
    **_sizes(1024, 24, 16, 4096, vocab_size=250002, max_position_embeddings=8194, type_vocab_size=1)
)

ARCHITECTURES: dict[str, Callable[[ModelSpec], Backbone]] = {
    "qwen2_vl": _qwen2_vl,
    "phi3_v": _phi3_v,
    "qwen3-vl-embedding-2b": partial(
        _qwen3_vl, text=_sizes(2048, 28, 16, 6144), vision=_vision(1024, 24, 4096, [5, 11, 17])
    ),
    "qwen3-vl-embedding-8b": partial(
        _qwen3_vl, text=_sizes(4096, 36, 32, 12288), vision=_vision(1152, 27, 4304, [8, 16, 24])
    ),
    "vlm2vec-llava-next": partial(_MISTRAL, vocab_size=32064),
    "bge-vl-base": partial(
        _clip, text=_sizes(512, 12, 8, 2048), vision=_sizes(768, 12, 12, 3072, patch_size=16), dimension=512
    ),
    "bge-vl-large": _CLIP_L14,
    "clip-sf-large": _CLIP_L14,
    "bge-vl-mllm-s1": partial(_MISTRAL, vocab_size=32005),
    "bge-vl-mllm-s2": partial(_MISTRAL, vocab_size=32005),
    "bge-vl-v1.5-zs": partial(_MISTRAL, vocab_size=32064),
    "bge-vl-v1.5-mmeb": partial(_MISTRAL, vocab_size=32064),
    "bge-visualized-base": partial(_build_visualized, text_model=hf.BertModel, config=_BERT, tower=_B16),
    "bge-visualized-m3": partial(_build_visualized, text_model=hf.XLMRobertaModel, config=_XLM_ROBERTA, tower=_L14),
    "e5-v": partial(_llava_next, model_type="llama", max_position_embeddings=8192, vocab_size=128320),
}
"""Builders by backbone where dimension and options tell its models apart, else by the catalog's names."""


def build(spec: ModelSpec) -> Backbone:
    """Make a model's module without weights."""
    make = ARCHITECTURES.get(spec.name) or ARCHITECTURES[spec.backbone]
    with torch.device("meta"):
        return make(spec)


def image_tokens(backbone: Backbone, images: list[ImageSource]) -> str:
    counts = set()
    for image in images:
        try:
            counts.add(backbone.image_tokens(image))
        except ImageError:  # too elongated for this model
            continue
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def row(spec: ModelSpec, images: list[ImageSource]) -> str:
    backbone = build(spec)
    count = sum(weight.numel() for weight in backbone.parameters())
    parameters = f"{count / 1e9:.2f} B" if count >= 1e9 else f"{count / 1e6:.1f} M"
    memory = f"{count * torch.bfloat16.itemsize / 2**30:.2f}"
    tokens = image_tokens(backbone, images)
    cells = [f"`{spec.name}`", parameters, memory, backbone.get_embedding_dimension(), tokens, backbone.max_length]
    return f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    images = [ImageSource(Image.new("1", size)) for size in product(SIDES, SIDES)]
    print("| name | parameters | GiB at bfloat16 | dimension | tokens of an image | longest input |")
    print("|---|---|---|---|---|---|")
    for spec in list_models():
        if spec.repo_id:
            print(row(spec, images))


if __name__ == "__main__":
    main()
