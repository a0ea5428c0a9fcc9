"""Settings of an adapter from elsewhere: no expression is run, and no rank is believed that the weights do not have."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peft import LoraConfig
from safetensors.torch import load_file, save_file

import st_modules.checkpoints.lora as lora
from st_modules import CheckpointError, SentenceTransformer
from st_modules.checkpoints.adapter_settings import select_names
from st_modules.train import add_lora, load_adapter, save_adapter
from st_modules.train.lora import has_adapter
from tests.helpers.paths import GOLDEN

VLM2VEC = GOLDEN / "vlm2vec"
SLOW = "(([a-z_]+)+[0-9.]*)+X"

REFUSED: list[tuple[str, Any]] = [
    *(("r", value) for value in (0, -1, 10**6, 4.5, "4", True)),
    *(("lora_alpha", value) for value in (float("nan"), float("inf"), 1e30, "16", True)),
    *(("rank_pattern", value) for value in ({SLOW: 4}, {"q_proj": 0}, {"q_proj": 10**6}, {"q_proj": "4"}, ["q_proj"])),
    *(("alpha_pattern", value) for value in ({SLOW: 4}, {"q_proj": float("nan")}, "q_proj", {"a" * 300 + "*": 1})),
    ("alpha_pattern", {".*.*(a|b)": 1}),
    ("alpha_pattern", {"[z-a]": 1}),
    ("exclude_modules", [SLOW]),
    ("modules_to_save", [SLOW]),
    ("modules_to_save", "lm_head"),
    ("target_parameters", [SLOW]),
    ("megatron_config", {"a": 1}),
    ("layer_replication", [[0, 10**6]]),
    ("use_dora", "yes"),
    ("use_rslora", 1),
    ("peft_type", "nope"),
    ("peft_type", None),
    ("peft_type", ["LORA"]),
]


def write(folder: Path, **settings: Any) -> Path:
    copied = Path(shutil.copytree(VLM2VEC / "checkpoint", folder / "adapter"))
    path = copied / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    return copied


def load(adapter: Path) -> SentenceTransformer:
    return SentenceTransformer("vlm2vec-qwen2vl-2b", weights=adapter, base_weights=VLM2VEC / "base", device="cpu")


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    return load(VLM2VEC / "checkpoint").encode(["a text"])


@pytest.mark.parametrize(("name", "value"), REFUSED, ids=str)
def test_a_setting_that_no_adapter_has_is_refused_before_it_is_used(
    name: str, value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lora, "LoraModel", lambda *args, **kwargs: pytest.fail("PEFT was called"))
    folder = write(tmp_path, **{name: value})
    place = re.escape(str(folder / "adapter_config.json"))
    what = "r or rank_pattern" if value in (10**6, {"q_proj": 10**6}) else name
    with pytest.raises(CheckpointError, match=f"{place}: {what}"):
        load(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"exclude_modules": SLOW},
        {"target_modules": SLOW},
        {"target_modules": "all-linear"},
        {"layers_pattern": [SLOW], "layers_to_transform": [0]},
        {"layers_pattern": "layers", "layers_to_transform": list(range(10))},
        {"auto_mapping": {"base_model_class": "system", "parent_library": "os"}},
        {"runtime_config": {"ephemeral_gpu_offload": True}},
        {"revision": "main"},
    ],
    ids=str,
)
def test_settings_that_weights_decide_are_not_run(
    settings: dict[str, Any], tmp_path: Path, expected: np.ndarray
) -> None:
    assert abs(load(write(tmp_path, **settings)).encode(["a text"]) - expected).max() <= 1e-6


NAMES = [f"language_model.layers.{number}.self_attn.{part}_proj" for number in range(12) for part in "qkv"]


@pytest.mark.parametrize(
    "pattern",
    [
        "q_proj",
        r"layers\.1\.\w+\.q_proj",
        r"layers\.[01]\..*",
        r".*\.1\d?\..*q_proj",
        r"layers.1+.self_attn.[qk]_proj",
        ".*",
        r"^layers\.3\.self_attn\.v_proj$",
        "_proj",
    ],
)
def test_simple_expressions_mean_what_they_do_in_peft(pattern: str) -> None:
    bare = pattern.removeprefix("^").removesuffix("$")
    found = [name for name in NAMES if re.match(rf"(.*\.)?({bare})$", name)]
    assert select_names(pattern, NAMES, "alpha_pattern") == found


def test_an_expression_takes_no_more_steps_than_both_lengths() -> None:
    assert select_names("a*" * 90 + "b", ["a" * 900], "alpha_pattern") == []


@pytest.mark.parametrize("target", [r".*\.q_proj", "all-linear", ["q_proj"]])
@pytest.mark.parametrize("how", ["with the model", "alone"])
def test_what_expressions_of_the_caller_chose_is_saved_by_name(how: str, target: Any, tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    ranks: Any = {"rank_pattern": {r".*\.0\..*": 2}, "alpha_pattern": {r"(layers\.1)\..*": 32}}
    model.add_adapter(LoraConfig(r=4, target_modules=target, init_lora_weights=False, **ranks))
    expected = model.encode(["a text"])
    if how == "alone":
        save_adapter(model, tmp_path)
        again = SentenceTransformer("tiny", device="cpu")
        load_adapter(again, tmp_path)
    else:
        model.save_pretrained(str(tmp_path))
        again = SentenceTransformer(str(tmp_path), device="cpu")
    assert abs(again.encode(["a text"]) - expected).max() <= 1e-6
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert isinstance(saved["target_modules"], list)
    assert all(re.fullmatch(r"[\w.]+", name) for name in [*saved["rank_pattern"], *saved["alpha_pattern"]])


@pytest.mark.parametrize(("name", "value"), [("r", 10**6), ("alpha_pattern", {SLOW: 3}), ("lora_alpha", float("nan"))])
def test_an_adapter_of_a_saved_model_is_checked_alike(name: str, value: Any, tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    add_lora(model)
    model.save_pretrained(str(tmp_path))
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: "):
        SentenceTransformer(str(tmp_path), device="cpu")


def test_more_adapters_than_a_model_has_are_refused(tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    add_lora(model)
    model.save_pretrained(str(tmp_path))
    path = tmp_path / "adapters.json"
    names = ["default", *(str(number) for number in range(1000))]
    path.write_text(json.dumps({**json.loads(path.read_text()), "names": names}))
    with pytest.raises(CheckpointError, match=r"adapters\.json: names has 1001"):
        SentenceTransformer(str(tmp_path), device="cpu")


def test_the_rank_is_that_of_each_tensor(tmp_path: Path) -> None:
    folder = write(tmp_path)
    path = folder / "adapter_model.safetensors"
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("q_proj.lora_A.weight"))
    save_file({**weights, name: weights[name][:2].clone()}, path)
    with pytest.raises(CheckpointError, match=rf"not the rank of the weights {name} \(2 in the file, 4 in"):
        load(folder)


@pytest.fixture(scope="module")
def saved_adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of an adapter of "tiny" that changes what is embedded."""
    folder = tmp_path_factory.mktemp("adapter")
    model = SentenceTransformer("tiny", device="cpu")
    model.add_adapter(LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False))
    save_adapter(model, folder)
    return folder


@pytest.fixture(params=["st_modules.train", "sentence-transformers"])
def load_into(request: pytest.FixtureRequest) -> Callable[[SentenceTransformer, Path], object]:
    """Both ways in which an adapter comes into a model."""
    if request.param == "st_modules.train":
        return load_adapter
    return lambda model, folder: model.load_adapter(str(folder))


def changed(folder: Path, target: Path, **fields: Any) -> Path:
    shutil.copytree(folder, target)
    config = target / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))
    return target


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize(
    "fields",
    [
        {"init_lora_weights": "orthogonal"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"init_lora_weights": "gaussian", "loftq_config": {"loftq_bits": 4}, "corda_config": {"cache_file": "x"}},
        {"target_modules": r".*\.(q_proj|v_proj)$", "megatron_core": "megatron.core", "layer_replication": None},
        {"target_modules": SLOW, "exclude_modules": SLOW},
        {"an_option_of_another_release": 1, "runtime_config": {"ephemeral_gpu_offload": True}},
    ],
)
def test_settings_that_weights_do_not_depend_on_change_nothing(
    fields: dict[str, Any],
    saved_adapter: Path,
    load_into: Callable[[SentenceTransformer, Path], object],
    tmp_path: Path,
) -> None:
    plain, other = (SentenceTransformer("tiny", device="cpu") for _ in range(2))
    bare = plain.encode(["a text"])
    load_adapter(plain, saved_adapter)
    load_into(other, changed(saved_adapter, tmp_path / "changed", **fields))
    assert abs(other.encode(["a text"]) - plain.encode(["a text"])).max() <= 1e-6
    assert abs(other.encode(["a text"]) - bare).max() > 1e-3


@pytest.mark.filterwarnings("ignore::UserWarning:peft")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("init_lora_weights", value)
            for value in ("pissa", "pissa_niter_1000000000", "olora", "corda", "lora_ga", "x")
        ),
        ("alora_invocation_tokens", [1, 2]),
        ("r", 10**6),
        ("alpha_pattern", {SLOW: 3}),
        ("megatron_config", {"x": 1}),
    ],
)
def test_settings_that_would_change_the_base_or_cost_time_are_refused_by_name(
    name: str,
    value: Any,
    saved_adapter: Path,
    load_into: Callable[[SentenceTransformer, Path], object],
    tmp_path: Path,
) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    expected = model.encode(["a text"])
    folder = changed(saved_adapter, tmp_path / "changed", **{name: value})
    with pytest.raises(CheckpointError, match=rf"changed/adapter_config\.json: {name}"):
        load_into(model, folder)
    assert not has_adapter(model)
    assert (model.encode(["a text"]) == expected).all()


def test_layers_that_a_file_names_by_another_release_are_found(saved_adapter: Path, tmp_path: Path) -> None:
    names = [
        f"model.language_model.layers.{number}.self_attn.{name}" for number in range(4) for name in ("q_proj", "v_proj")
    ]
    model, plain = (SentenceTransformer("tiny", device="cpu") for _ in range(2))
    model.load_adapter(str(changed(saved_adapter, tmp_path / "changed", target_modules=names)))
    load_adapter(plain, saved_adapter)
    assert abs(model.encode(["a text"]) - plain.encode(["a text"])).max() <= 1e-6
