"""Settings of config.json that no model has are refused by their names, before any weight is looked at."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import st_modules.backbones.stored as stored
from st_modules import CheckpointError, SentenceTransformer
from tests.helpers.references import reference

NAN, INFINITE = float("nan"), float("inf")

GME: list[tuple[str, Any]] = [
    *(("num_hidden_layers", value) for value in (0, -1, 100_000, 10**9, 3.0, "3", True, [1])),
    *(("vocab_size", value) for value in (0, -1, 1e7, 2**31, 10**30, "516", True)),
    *(("hidden_size", value) for value in (0, -64, 64.5, "64", {}, 2**40)),
    *(("num_attention_heads", value) for value in (0, -4, 4.0, "4")),
    *(("num_key_value_heads", value) for value in (0, -2, 2.0)),
    *(("intermediate_size", value) for value in (0, -1, "96")),
    *(("max_position_embeddings", value) for value in (0, -1, 10**30, 1e5)),
    *(("rope_theta", value) for value in (0, -1.0, NAN, INFINITE, 1e300, "1e6", True)),
    *(("sliding_window", value) for value in (0, -1, 1.5, "8", True)),
    *(("rms_norm_eps", value) for value in (NAN, -1e-5, 1.5, INFINITE, "1e-5")),
    *(("hidden_act", value) for value in ("nope", 1, ["silu"])),
    *(("torch_dtype", value) for value in ("nope", "nn", "int8", "Tensor", 3)),
    *(("dtype", value) for value in ("nope", "uint8")),
    *(("num_labels", value) for value in (10**9, -1)),
    *(("attn_implementation", value) for value in ("owner/kernel", "owner/kernel:name", {"": "o/k"}, "flash|o/k", 1)),
    ("_attn_implementation", "owner/kernel@main"),
    ("experts_implementation", "owner/kernel"),
    ("quantization_config", {"quant_method": "gptq", "bits": 4}),
    ("compression_config", {"format": "int-quantized"}),
    ("transformers_weights", "../x.safetensors"),
    ("fusion_config", {"patch_embeddings": True}),
    ("kernel_config", {"a": "o/k"}),
    ("use_kernels", True),
    ("per_layer_config", {"0": {}}),
    ("get_text_config", 5),
    ("__class__", "x"),
    ("image_token_id", 10**6),
    ("vision_config.depth", 100_000),
    ("vision_config.num_heads", 0),
    ("vision_config.patch_size", -14),
    ("vision_config.spatial_merge_size", 0),
    ("vision_config.temporal_patch_size", 2.5),
    ("vision_config.in_channels", 10**6),
    ("vision_config.hidden_act", "nope"),
    ("rope_scaling.factor", NAN),
    ("rope_scaling.rope_theta", 0),
]

LLAVA: list[tuple[str, Any]] = [
    ("text_config.num_hidden_layers", 10**5),
    ("text_config.model_type", "mamba"),
    ("text_config.model_type", ["llama"]),
    ("vision_config.model_type", "timm_wrapper"),
    ("vision_config.image_size", 2**20),
    ("vision_config.layer_norm_eps", -1.0),
    ("projector_hidden_act", "nope"),
    ("vision_feature_layer", 99),
    ("vision_feature_layer", -99),
    ("vision_feature_layer", [1, 99]),
    ("image_token_index", 10**6),
    *(("image_grid_pinpoints", value) for value in ([[10**6, 56]], [[0, 56]], [56], [[56]], [[56, 56]] * 2000)),
]


def write(row: str, folder: Path, place: str, value: Any) -> Path:
    copied = Path(shutil.copytree(reference(row).weights, folder / "checkpoint"))
    path = copied / "config.json"
    config = json.loads(path.read_text())
    *parts, name = place.split(".")
    inner = config
    for part in parts:
        inner = inner[part]
    inner[name] = value
    path.write_text(json.dumps(config))
    return copied


@pytest.mark.parametrize(
    ("row", "place", "value"), [*(("gme-2b", *case) for case in GME), *(("bge-vl-mllm-s1", *case) for case in LLAVA)]
)
def test_a_setting_that_no_model_has_is_refused_by_its_name(
    row: str, place: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(row, tmp_path, place, value)
    monkeypatch.setattr(stored, "load_pretrained", lambda *args, **kwargs: pytest.fail("weights were loaded"))
    name = place.replace("image_token_index", "image_token_id")
    with pytest.raises(CheckpointError, match=rf"checkpoint/config\.json: {name}"):
        SentenceTransformer(row, weights=folder, device="cpu")


@pytest.mark.parametrize(
    ("row", "place", "value"),
    [
        ("gme-2b", "auto_map", {"AutoModel": "evil.Model"}),
        ("gme-2b", "architectures", ["BertModel"]),
        ("gme-2b", "_name_or_path", "/etc/passwd"),
        ("gme-2b", "tokenizer_class", "EvilTokenizer"),
        ("gme-2b", "revision", "main"),
        ("gme-2b", "_attn_implementation", "flash_attention_2"),
        ("gme-2b", "quantization_config", None),
        ("gme-2b", "use_kernels", False),
        ("gme-2b", "attention_dropout", 0.5),
        ("bge-vl-mllm-s1", "vision_feature_layer", [-2]),
    ],
)
def test_settings_that_decide_nothing_may_be_there(row: str, place: str, value: Any, tmp_path: Path) -> None:
    expected = reference(row).load(row).encode(["a text"])
    found = SentenceTransformer(row, weights=write(row, tmp_path, place, value), device="cpu").encode(["a text"])
    assert abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("name", ["eager", "sdpa"])
def test_attention_is_the_callers_choice(name: str, tmp_path: Path) -> None:
    folder = write("gme-2b", tmp_path, "attn_implementation", "flash_attention_2")
    model: Any = SentenceTransformer("gme-2b", weights=folder, device="cpu", model_kwargs={"attn_implementation": name})
    assert model[0].model.config._attn_implementation == name


@pytest.mark.parametrize(("name", "value"), [("vocab_size", 0), ("layer_norm_eps", NAN), ("hidden_act", "nope")])
def test_a_text_encoder_is_checked_alike(name: str, value: Any, tmp_path: Path) -> None:
    source = reference("bge-visualized-base")
    assert source.base_weights
    base = Path(shutil.copytree(source.base_weights, tmp_path / "bge"))
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(CheckpointError, match=rf"bge/config\.json: {name}"):
        SentenceTransformer("bge-visualized-base", weights=source.weights, base_weights=base, device="cpu")
