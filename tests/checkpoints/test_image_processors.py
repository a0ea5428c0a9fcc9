"""``preprocessor_config.json``: settings that pictures cannot be prepared by are refused by their names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from st_modules import CheckpointError, SentenceTransformer
from st_modules.backbones import BACKBONES
from st_modules.checkpoints.configuration import load_config
from st_modules.checkpoints.image_processors import load_image_processor
from tests.helpers.paths import GOLDEN

FOLDERS = {"qwen2_vl": "gme", "qwen3_vl": "qwen3_vl_embedding", "clip": "bge_vl_clip", "llava_next": "bge_vl_mllm"}
FILE = "preprocessor_config.json"


def read(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / FOLDERS[name] / "checkpoint" / FILE).read_text(encoding="utf-8"))


def load(name: str, folder: Path) -> Any:
    """Read an image processor as the backbone does."""
    architecture = BACKBONES[name].architecture
    config = load_config(architecture.config, GOLDEN / FOLDERS[name] / "checkpoint", {})
    return load_image_processor(architecture.image_processor, folder, BACKBONES[name].image_settings(config))


def write(folder: Path, content: Any, file: str = FILE) -> Path:
    path = folder / file
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", FOLDERS)
def test_published_layouts_are_read(name: str, tmp_path: Path) -> None:
    write(tmp_path, read(name))
    assert list(load(name, tmp_path).image_mean) == read(name)["image_mean"]


@pytest.mark.parametrize("name", FOLDERS)
def test_a_setting_that_is_left_out_is_the_processors_own(name: str, tmp_path: Path) -> None:
    settings = {key: value for key, value in read(name).items() if key not in ("resample", "rescale_factor")}
    write(tmp_path, settings)
    assert load(name, tmp_path).resample == read(name)["resample"]


NO_SIDES: list[Any] = [None, True, -1, 0, 1.5, 1e30, 10**9, 99, "x", [], {}]
NO_FLAGS: list[Any] = [0, 1, "x", "", [], {}]
WRONG: list[tuple[str, str, Any]] = [
    *(
        (qwen, name, value)
        for qwen in ("qwen2_vl", "qwen3_vl")
        for name in ("patch_size", "merge_size", "temporal_patch_size")
        for value in NO_SIDES
    ),
    *(("qwen2_vl", name, value) for name in ("min_pixels", "max_pixels") for value in (True, -1, 0, 1.5, "x", [], {})),
    ("qwen2_vl", "min_pixels", 10**9),
    ("qwen2_vl", "max_pixels", 10**30),
    *((name, "do_resize", value) for name in FOLDERS for value in (*NO_FLAGS, None)),
    *((name, "do_resize", False) for name in FOLDERS if name != "qwen3_vl"),
    *(
        (name, flag, value)
        for name in FOLDERS
        for flag in ("do_rescale", "do_normalize")
        for value in (*NO_FLAGS, None)
    ),
    *(("clip", "do_center_crop", value) for value in (*NO_FLAGS, None, False)),
    *((name, "resample", value) for name in FOLDERS for value in (None, True, -1, 99, 1.5, "x", [], {})),
    *(("clip", "rescale_factor", value) for value in (None, True, -1, 0, 1e30, "x", [])),
    *(("qwen2_vl", "image_mean", value) for value in (None, True, "x", [], {}, [1, 2], [0.5, 0.5, True], 1e30)),
    *(("qwen2_vl", "image_std", value) for value in (None, True, 0, -1, "x", [], [1, 0, 1], [1, -1, 1], 1e30)),
    *(("clip", "size", {"shortest_edge": value}) for value in NO_SIDES if value != 99),
    *(("llava_next", "size", value) for value in ({"height": 56, "width": 56}, {}, "x", [])),
    *((name, "crop_size", {"height": 64, "width": value}) for name in ("clip", "llava_next") for value in NO_SIDES),
    *(("clip", "crop_size", value) for value in (None, 0, 99, "x", [], {})),
    *(
        ("llava_next", "image_grid_pinpoints", value)
        for value in (None, [], "x", [[56]], [[56, 112]], [[56, 0]], [[56, 10**9]], [[0, 0]] * 100_000)
    ),
    *(("clip", "data_format", value) for value in ("channels_last", "x", 1)),
    ("clip", "resize", "x"),
    ("qwen2_vl", "preprocess", None),
]
SHOWN = [f"{name}-{place}-{str(value)[:30]}" for name, place, value in WRONG]


@pytest.mark.parametrize(("name", "place", "value"), WRONG, ids=SHOWN)
def test_a_value_that_a_setting_cannot_have_is_refused_by_file_and_setting(
    name: str, place: str, value: Any, tmp_path: Path
) -> None:
    write(tmp_path, {**read(name), place: value})
    with pytest.raises(CheckpointError) as error:
        load(name, tmp_path)
    assert str(error.value).startswith(str(tmp_path))
    assert FILE in str(error.value)
    assert place in str(error.value) or "cannot be read: " in str(error.value)


def test_settings_inside_those_of_a_processor_are_checked_where_they_are_read(tmp_path: Path) -> None:
    write(tmp_path, read("clip"))
    path = write(tmp_path, {"image_processor": {**read("clip"), "resample": 99}}, "processor_config.json")
    with pytest.raises(CheckpointError, match=f"^{path}: resample is 99"):
        load("clip", tmp_path)
    write(tmp_path, {"image_processor": []}, "processor_config.json")
    with pytest.raises(CheckpointError, match=f"^{path}: image_processor is "):
        load("clip", tmp_path)


def test_a_damaged_file_beside_it_is_refused_by_its_own_name(tmp_path: Path) -> None:
    write(tmp_path, read("clip"))
    path = tmp_path / "processor_config.json"
    path.write_text("{")
    with pytest.raises(CheckpointError, match=f"^{path}: cannot be read"):
        load("clip", tmp_path)


def test_a_model_is_not_loaded_by_such_a_file(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "gme" / "checkpoint", tmp_path / "checkpoint"))
    path = write(folder, {**read("qwen2_vl"), "patch_size": 0})
    with pytest.raises(CheckpointError, match=f"^{path}: patch_size is 0, and 14, as in config.json, is needed"):
        SentenceTransformer("gme-2b", weights=folder, device="cpu")


def test_one_number_for_all_channels_is_the_same_as_three_of_it(tiny: SentenceTransformer, tmp_path: Path) -> None:
    tiny.save_pretrained(str(tmp_path), create_model_card=False)
    settings = json.loads((tmp_path / FILE).read_text())
    vectors: list[Any] = []
    for mean, deviation in ((0.5, 0.25), ([0.5] * 3, [0.25] * 3)):
        write(tmp_path, {**settings, "image_mean": mean, "image_std": deviation})
        model = SentenceTransformer(str(tmp_path), device="cpu")
        vectors.append(model.encode(Image.linear_gradient("L").resize((90, 60))))
    np.testing.assert_allclose(*vectors, atol=1e-6)
