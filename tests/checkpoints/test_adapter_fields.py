"""``adapter_config.json``: settings of other types are refused by file and field."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from st_modules import CheckpointError
from st_modules.checkpoints.adapter_settings import read_settings
from tests.helpers.paths import GOLDEN

PUBLISHED = GOLDEN / "vlm2vec" / "checkpoint" / "adapter_config.json"
WEIGHTS = load_file(PUBLISHED.parent / "adapter_model.safetensors")


def read(folder: Path, **changes: Any) -> Any:
    content = {**json.loads(PUBLISHED.read_text(encoding="utf-8")), **changes}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return read_settings(folder, WEIGHTS)


def test_the_published_layout_is_read(tmp_path: Path) -> None:
    shutil.copy(PUBLISHED, tmp_path)
    assert read_settings(tmp_path, WEIGHTS).peft_type == "LORA"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("r", value) for value in (None, True, -1, 0, 1.5, 10**9, "8", [], {})),
        *(("lora_alpha", value) for value in (None, True, "x", [], 1e30)),
        *(("lora_dropout", value) for value in (None, -1, 2, "x", [])),
        *((name, value) for name in ("use_dora", "use_rslora", "fan_in_fan_out") for value in (None, 0, 1, "x", [])),
        *((name, value) for name in ("alpha_pattern", "rank_pattern") for value in (1, "x", [1], {"a": "x"})),
        *(("target_modules", value) for value in (-1, 1.5, [1], [None], {}, [[]])),
        *(("modules_to_save", value) for value in (99, "x", [1], [[]])),
        *(("layers_to_transform", value) for value in (1.5, "x", -1, [None])),
        *(("peft_type", value) for value in (None, 1, "x", [], {})),
        *(("base_model_name_or_path", value) for value in (1, [], {})),
        *(("bias", value) for value in (None, True, "x", [])),
        ("megatron_config", {"a": 1}),
        ("auto_mapping", [1]),
        ("to_dict", 1),
        ("eva_config", 5),
    ],
    ids=str,
)
def test_a_setting_of_another_type_is_refused_by_file_and_name(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        read(tmp_path, **{name: value})
    assert str(error.value).startswith(f"{tmp_path / 'adapter_config.json'}: ")
    assert name in str(error.value) or name == "eva_config"
