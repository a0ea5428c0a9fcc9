"""``config.json``: every field that a model is made by is checked by its name before the model is made."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from st_modules import CheckpointError, SentenceTransformer
from st_modules.backbones import BACKBONES
from st_modules.backbones.base import Backbone
from st_modules.checkpoints.configuration import load_config
from st_modules.checkpoints.fields import check_fields
from tests.helpers.paths import GOLDEN

FOLDERS = {"qwen2_vl": "gme", "qwen3_vl": "qwen3_vl_embedding", "clip": "bge_vl_clip", "llava_next": "bge_vl_mllm"}


def read(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / FOLDERS[name] / "checkpoint" / "config.json").read_text(encoding="utf-8"))


def load(name: str, folder: Path, content: Any) -> Any:
    """Read a configuration as the backbone does."""
    (folder / "config.json").write_text(json.dumps(content))
    backbone: type[Backbone] = BACKBONES[name]
    config = load_config(backbone.architecture.config, folder, {}, backbone.architecture.parts)
    check_fields(folder / "config.json", *backbone.config_fields(config))
    return config


def change(content: dict[str, Any], place: str, value: Any) -> dict[str, Any]:
    key, _, rest = place.partition(".")
    return {**content, key: change(content.get(key, {}), rest, value) if rest else value}


@pytest.mark.parametrize("name", FOLDERS)
def test_published_layouts_are_read(name: str, tmp_path: Path) -> None:
    assert load(name, tmp_path, read(name)).model_type == name


NO_SIZES: list[Any] = [None, True, -1, 0, 1.5, 1e30, 10**9, "64", [], {}]
WRONG: list[tuple[str, str, Any]] = [
    *(("qwen2_vl", name, value) for name in ("hidden_size", "num_hidden_layers") for value in NO_SIZES),
    *(("qwen2_vl", f"vision_config.{name}", value) for name in ("depth", "patch_size") for value in NO_SIZES),
    *(("clip", f"text_config.{name}", value) for name in ("vocab_size", "num_attention_heads") for value in NO_SIZES),
    *(("llava_next", "vision_config.image_size", value) for value in NO_SIZES),
    *((name, "is_decoder", value) for name in FOLDERS for value in (True, 1, "x")),
    *(("clip", f"text_config.{name}", True) for name in ("is_decoder", "add_cross_attention", "is_encoder_decoder")),
    ("qwen2_vl", "attribute_map", {"initializer_range": "rms_norm_eps"}),
    *(("qwen2_vl", "vision_config", value) for value in (None, True, "x", [])),
    *(("llava_next", "text_config", value) for value in (None, 5, "x")),
    *(("qwen2_vl", "rope_theta", value) for value in (None, True, -1, 0, 1e30, "x", [])),
    *(("qwen2_vl", "rope_scaling", value) for value in (None, {}, 5, "x")),
    *(
        ("qwen2_vl", "rope_scaling.mrope_section", value)
        for value in (None, 8, [8], [2, 3, 4], [-1, 6, 3], [True, 4, 3], [2.0, 3, 3], "abc", {"a": 1}, [[2], 3, 3])
    ),
    *(("qwen3_vl", "text_config.rope_scaling", value) for value in (None, {}, 5, "x")),
    *(
        ("qwen3_vl", "text_config.rope_scaling.mrope_section", value)
        for value in (None, 8, [8], [2, 3, 3], [2, 2, 2], [6, 3, -1], [True, 4, 3], [4.0, 2, 2], "abc", [[4], 2, 2])
    ),
    *(("qwen3_vl", "text_config.rope_scaling.mrope_interleaved", value) for value in (False, 0, 1, "x")),
    *(("qwen3_vl", "video_token_id", value) for value in (None, -1, 496, 10**40, "x")),
    *(("qwen3_vl", "text_config.head_dim", value) for value in (None, 0, 15, "x")),
    *(("qwen3_vl", f"{part}.model_type", value) for part in ("text_config", "vision_config") for value in ("bert", 5)),
    *(("qwen3_vl", "vision_config.num_heads", value) for value in (0, 3, 16)),
    *(("qwen3_vl", "vision_config.head_dim", value) for value in (8, 0, "x")),
    *(("qwen3_vl", "vision_config.in_channels", value) for value in (1, 4, None)),
    *(("qwen3_vl", "vision_config.num_position_embeddings", value) for value in (None, -1, 0, 143, 1.5, "x")),
    *(("qwen3_vl", "vision_config.out_hidden_size", value) for value in (None, 32, "x")),
    *(
        ("qwen3_vl", "vision_config.deepstack_visual_indexes", value)
        for value in (None, 1, [3], [-1], [1, 0], [0, 0], [0, 1, 2], [True], [0.0], "01", {"a": 1}, [[0]])
    ),
    *(("clip", "vision_config.hidden_act", value) for value in (None, "", "x", 5, [])),
    *(("qwen2_vl", "rms_norm_eps", value) for value in (None, -1, 1e30, "x")),
    *(("bare", "torch_dtype", value) for value in ("", "x", "nn", 1.5, [], {})),
    *(("qwen2_vl", "vision_config.num_heads", value) for value in (0, 3, 16)),
    *(
        ("llava_next", "image_grid_pinpoints", value)
        for value in ([], {}, "x", 5, [[56]], [[56, 55]], [[56, 0]], [[56, 10**9]], [[True, 56]], [56, 56])
    ),
    *(("llava_next", "vision_feature_layer", value) for value in (None, 4, -99, "x", [99], 1.5)),
    *(("llava_next", "vision_feature_select_strategy", value) for value in (None, "full", "x", 5)),
]


@pytest.mark.parametrize(("name", "place", "value"), WRONG)
def test_a_value_that_a_field_cannot_have_is_refused_by_file_and_field(
    name: str, place: str, value: Any, tmp_path: Path
) -> None:
    name = "clip" if name == "bare" else name
    with pytest.raises(CheckpointError) as error:
        load(name, tmp_path, change(read(name), place, value))
    assert str(error.value).startswith(f"{tmp_path / 'config.json'}: ")
    assert place.rpartition(".")[2] in str(error.value)


def test_a_field_that_has_the_name_of_a_method_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: to_dict is no field"):
        load("clip", tmp_path, {**read("clip"), "to_dict": 1})


def test_what_the_user_changes_is_named_beside_the_file(tmp_path: Path) -> None:
    folder = GOLDEN / "bge_vl_clip" / "checkpoint"
    with pytest.raises(
        CheckpointError, match=r"config\.json, changed by config_kwargs \(projection_dim\).*projection_dim"
    ):
        SentenceTransformer("bge-vl-base", weights=folder, config_kwargs={"projection_dim": "x"}, device="cpu")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "gme" / "checkpoint", tmp_path / "checkpoint"))


@pytest.mark.parametrize(("place", "value"), [("vision_config.patch_size", 0), ("rope_scaling.mrope_section", None)])
def test_a_model_is_not_loaded_by_such_a_file(checkpoint: Path, place: str, value: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(change(read("qwen2_vl"), place, value)))
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{place.rpartition('.')[2]}"):
        SentenceTransformer("gme-2b", weights=checkpoint, device="cpu")


def test_settings_of_texts_that_are_generated_do_not_matter(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "generation_config.json").write_text("[" * 100_000)
    damaged, whole = (
        SentenceTransformer("gme-2b", weights=folder, device="cpu").encode("a red circle")
        for folder in (checkpoint, GOLDEN / "gme" / "checkpoint")
    )
    assert (damaged == whole).all()


@pytest.mark.parametrize("part", ["", "text_config.", "vision_config."])
@pytest.mark.parametrize(
    ("name", "expected"), [("return_dict", True), ("output_hidden_states", False), ("output_attentions", False)]
)
def test_what_a_model_returns_is_not_taken_from_the_file(name: str, expected: bool, part: str, tmp_path: Path) -> None:
    config = load("llava_next", tmp_path, change(read("llava_next"), part + name, not expected))
    inner = getattr(config, part[:-1]) if part else config
    assert getattr(inner, name) is expected
