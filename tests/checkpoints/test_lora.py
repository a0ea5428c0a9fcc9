"""LoRA and DoRA adapters on a tiny Qwen2-VL: merged weights, key layouts, bases, and refusals."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen2VLForConditionalGeneration

from st_modules import CheckpointError, SentenceTransformer
from tests.helpers.paths import GOLDEN

Weights = dict[str, Tensor]
Rename = Callable[[str], str]

NAME = "vlm2vec-qwen2vl-2b"
VLM2VEC = GOLDEN / "vlm2vec"
BASE_FOLDER = VLM2VEC / "base"
BASE = load_file(BASE_FOLDER / "model.safetensors")
ADAPTER = load_file(VLM2VEC / "checkpoint" / "adapter_model.safetensors")
CONFIG = json.loads((VLM2VEC / "checkpoint" / "adapter_config.json").read_text(encoding="utf-8"))
BASE_NAME = CONFIG["base_model_name_or_path"]
TOLERANCE = 1e-5

CASES = [
    case
    for case in json.loads((VLM2VEC / "cases.json").read_text(encoding="utf-8"))["cases"]
    if case["id"] in ("image_question_small", "image_question_wide", "image_only", "text_0", "text_2")
]
ITEMS: list[Any] = [
    {"image": VLM2VEC / case["image"], "text": case["rendered"].removeprefix("<|image_pad|> ")}
    if "image" in case
    else case["rendered"]
    for case in CASES
]
EXPECTED = np.concatenate([load_file(VLM2VEC / "expected.safetensors")[case["id"]].numpy() for case in CASES])

PREFIX = "base_model.model."
LAYER = "model.layers.1.self_attn.q_proj"
QUERY = f"{PREFIX}{LAYER}."

BASE_LAYOUTS: dict[str, Rename] = {
    "transformers 4.45, as published": lambda name: name,
    "transformers 4.52": lambda name: (
        name.replace("model.", "model.language_model.", 1)
        if name.startswith("model.")
        else name.replace("visual.", "model.visual.", 1)
    ),
    "headless, as Qwen2VLModel saves": lambda name: re.sub(r"^model\.", "language_model.", name),
}
ADAPTER_LAYOUTS: dict[str, Rename] = {
    "transformers 4.45, as published": lambda name: name,
    "transformers 4.52": lambda name: name.replace("model.model.layers", "model.model.language_model.layers"),
    "headless, transformers 4.45": lambda name: name.replace("model.model.layers", "model.layers"),
    "headless, transformers 4.52": lambda name: name.replace("model.model.layers", "model.language_model.layers"),
}


def with_name(adapter: str, end: str) -> Rename:
    return lambda name: re.sub(r"(lora_[AB])\.", rf"\1.{adapter}.", name).replace("_vector", f"_vector.{adapter}{end}")


NAMINGS: dict[str, Rename] = {
    "no name": lambda name: name,
    "default": with_name("default", ".weight"),
    "another name": with_name("vlm2vec", ".weight"),
    "default, magnitudes as parameters": with_name("default", ""),
}


def write_adapter(folder: Path, weights: Weights, **config: Any) -> Path:
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def write_base(folder: Path, weights: Weights) -> Path:
    folder.mkdir()
    for path in BASE_FOLDER.iterdir():
        shutil.copyfile(path, folder / path.name)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def load(adapter: Path, base: Path | None = BASE_FOLDER, **kwargs: Any) -> SentenceTransformer:
    return SentenceTransformer(NAME, weights=adapter, base_weights=base, device="cpu", **kwargs)


def rename(weights: Weights, rule: Rename) -> Weights:
    return {rule(name): tensor for name, tensor in weights.items()}


def distance(model: SentenceTransformer, expected: np.ndarray = EXPECTED) -> float:
    return float(np.abs(model.encode(ITEMS) - expected).max())


def random_adapter(ranks: Mapping[str, int], magnitudes: bool = False) -> Weights:
    generator = torch.Generator().manual_seed(5)
    weights: Weights = {}
    for module, rank in ranks.items():
        outputs, inputs, *kernel = BASE[f"{module}.weight"].shape
        up = (outputs, rank, *(1 for _ in kernel))
        weights[f"{PREFIX}{module}.lora_A.weight"] = torch.randn(rank, inputs, *kernel, generator=generator) / 5
        weights[f"{PREFIX}{module}.lora_B.weight"] = torch.randn(*up, generator=generator) / 5
        if magnitudes:
            weights[f"{PREFIX}{module}.lora_magnitude_vector"] = 0.5 + torch.rand(outputs, generator=generator)
    return weights


def merged_by_hand(adapter: Weights, scale: Callable[[str], float]) -> Weights:
    """The weights under the names of Qwen2VLModel; ``scale`` gives a layer's factor by its name in the base's file."""
    weights = dict(BASE)
    for name in adapter:
        if name.endswith(".lora_A.weight"):
            module = name.removeprefix(PREFIX).removesuffix(".lora_A.weight")
            down, up = (adapter[f"{PREFIX}{module}.lora_{part}.weight"].flatten(1) for part in "AB")
            weight = BASE[f"{module}.weight"]
            weight = weight + scale(module) * (up @ down).view_as(weight)
            magnitudes = adapter.get(f"{PREFIX}{module}.lora_magnitude_vector")
            if magnitudes is not None:
                weight = weight * (magnitudes / weight.norm(dim=1))[:, None]
            weights[f"{module}.weight"] = weight
    return rename(weights, BASE_LAYOUTS["headless, as Qwen2VLModel saves"])


def stock_model(model: SentenceTransformer) -> Any:
    """The model of transformers that the first module runs."""
    return model[0].model


def weights_distance(model: SentenceTransformer, expected: Weights) -> float:
    found = stock_model(model).state_dict()
    assert found.keys() == expected.keys()
    return max((found[name] - weight).abs().max().item() for name, weight in expected.items())


@pytest.fixture(scope="module")
def golden_model() -> SentenceTransformer:
    return load(VLM2VEC / "checkpoint")


@pytest.fixture(scope="module")
def base_vectors() -> np.ndarray:
    return SentenceTransformer(NAME, weights=BASE_FOLDER, device="cpu").encode(ITEMS)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        layout: write_base(root / str(number), rename(BASE, rule))
        for number, (layout, rule) in enumerate(BASE_LAYOUTS.items())
    }


@pytest.mark.parametrize("base_layout", BASE_LAYOUTS)
@pytest.mark.parametrize("adapter_layout", ADAPTER_LAYOUTS)
def test_every_published_key_layout_gives_the_golden_vectors(
    bases: dict[str, Path], tmp_path: Path, base_layout: str, adapter_layout: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", rename(ADAPTER, ADAPTER_LAYOUTS[adapter_layout]))
    assert distance(load(adapter, bases[base_layout])) <= TOLERANCE


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("adapter_layout", ADAPTER_LAYOUTS)
def test_the_adapters_name_in_the_keys_changes_nothing(tmp_path: Path, adapter_layout: str, naming: str) -> None:
    weights = rename(rename(ADAPTER, ADAPTER_LAYOUTS[adapter_layout]), NAMINGS[naming])
    assert distance(load(write_adapter(tmp_path / "adapter", weights))) <= TOLERANCE


@pytest.mark.parametrize("naming", ["no name", "default"])
def test_an_adapter_saved_by_torch_gives_the_golden_vectors(tmp_path: Path, naming: str) -> None:
    adapter = write_adapter(tmp_path / "adapter", {})
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(rename(ADAPTER, NAMINGS[naming]), adapter / "adapter_model.bin")
    assert distance(load(adapter)) <= TOLERANCE


@pytest.mark.parametrize(
    "how", [{"prompt": "Represent the given image with the following question:"}, {"prompt_name": "vqa"}]
)
def test_the_instruction_as_a_prompt_gives_the_golden_vectors(
    golden_model: SentenceTransformer, how: dict[str, Any]
) -> None:
    items = [
        {"image": VLM2VEC / "images" / f"{name}.png", "text": "What is in the image"} for name in ("small", "wide")
    ]
    expected = np.stack(
        [EXPECTED[[case["id"] for case in CASES].index(f"image_question_{name}")] for name in ("small", "wide")]
    )
    assert np.abs(golden_model.encode(items, **how) - expected).max() <= TOLERANCE


def test_the_golden_adapter_equals_the_merge_by_hand(golden_model: SentenceTransformer) -> None:
    assert weights_distance(golden_model, merged_by_hand(ADAPTER, lambda module: 16 / 4)) <= TOLERANCE


@pytest.mark.parametrize("adapter_layout", ADAPTER_LAYOUTS)
def test_an_adapter_changes_the_vectors_of_its_base(
    base_vectors: np.ndarray, tmp_path: Path, adapter_layout: str
) -> None:
    adapter = write_adapter(tmp_path / "adapter", rename(ADAPTER, ADAPTER_LAYOUTS[adapter_layout]))
    changes = np.abs(load(adapter).encode(ITEMS) - base_vectors).max(axis=1)
    assert changes.min() > 1e-2


RANKS = {LAYER: 4, "model.layers.0.self_attn.k_proj": 4, "model.layers.2.mlp.down_proj": 4}
VARIANTS: dict[str, tuple[Weights, dict[str, Any], Callable[[str], float]]] = {
    "plain": (random_adapter(RANKS), {}, lambda module: 6 / 4),
    "rank-stabilised": (random_adapter(RANKS), {"use_rslora": True}, lambda module: 6 / 4**0.5),
    "a rank of its own": (
        random_adapter({**RANKS, LAYER: 9}),
        {"rank_pattern": {"q_proj": 9}},
        lambda module: 6 / (9 if "q_proj" in module else 4),
    ),
    "an alpha of its own": (
        random_adapter(RANKS),
        {"alpha_pattern": {"down_proj": 10}},
        lambda module: (10 if "down_proj" in module else 6) / 4,
    ),
    "a rank and an alpha by regex, rank-stabilised": (
        random_adapter({**RANKS, LAYER: 9}),
        {
            "rank_pattern": {r"layers\.1\.\w+\.q_proj": 9},
            "alpha_pattern": {r"layers\.[01]\..*": 10},
            "use_rslora": True,
        },
        lambda module: (6 if "layers.2" in module else 10) / (3 if "layers.1" in module else 2),
    ),
    "targets as a regex": (
        random_adapter({LAYER: 4, "model.layers.0.self_attn.q_proj": 4}),
        {"target_modules": r"model\.layers\.[01]\.self_attn\.q_proj"},
        lambda module: 6 / 4,
    ),
    "targets as a regex that keeps the vision layers out": (
        random_adapter(RANKS),
        {"target_modules": r"^(?!.*visual)(?=model\.).*(?:q_proj|k_proj|down_proj)$"},
        lambda module: 6 / 4,
    ),
    "every linear layer": (random_adapter(RANKS), {"target_modules": "all-linear"}, lambda module: 6 / 4),
    "one layer number": (
        random_adapter({LAYER: 4}),
        {"target_modules": ["q_proj"], "layers_to_transform": [1]},
        lambda module: 6 / 4,
    ),
    "vision": (
        random_adapter({"visual.blocks.0.attn.qkv": 4, "visual.blocks.1.mlp.fc1": 4, "visual.merger.mlp.0": 4}),
        {"target_modules": ["qkv", "fc1", "0"]},
        lambda module: 6 / 4,
    ),
    "vision and text": (random_adapter({"visual.blocks.0.attn.qkv": 4, **RANKS}), {}, lambda module: 6 / 4),
    "patch embedding": (random_adapter({"visual.patch_embed.proj": 4}), {}, lambda module: 6 / 4),
    "magnitudes on vision and text": (
        random_adapter({"visual.blocks.0.attn.qkv": 4, **RANKS}, magnitudes=True),
        {"use_dora": True, "use_rslora": True},
        lambda module: 6 / 4**0.5,
    ),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_of_lora_equals_the_merge_by_hand(tmp_path: Path, variant: str) -> None:
    weights, config, scale = VARIANTS[variant]
    adapter = write_adapter(tmp_path / "adapter", weights, **{"lora_alpha": 6, "use_dora": False, **config})
    assert weights_distance(load(adapter), merged_by_hand(weights, scale)) <= TOLERANCE


def test_vision_layers_are_found_under_their_newer_name(tmp_path: Path) -> None:
    weights = random_adapter({"visual.blocks.0.attn.qkv": 4})
    newer = rename(weights, lambda name: name.replace("model.visual", "model.model.visual"))
    model = load(write_adapter(tmp_path / "adapter", newer, use_dora=False))
    assert weights_distance(model, merged_by_hand(weights, lambda module: 16 / 4)) <= TOLERANCE


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, "bfloat16"], ids=str)
def test_the_merge_is_rounded_once_from_float32(tmp_path: Path, dtype: torch.dtype | str) -> None:
    weights = random_adapter({**RANKS, "visual.blocks.0.attn.qkv": 4})
    model = load(write_adapter(tmp_path / "adapter", weights, use_dora=False), model_kwargs={"dtype": dtype})
    rounded = torch.bfloat16 if dtype == "bfloat16" else dtype
    expected = {name: weight.to(rounded) for name, weight in merged_by_hand(weights, lambda module: 16 / 4).items()}
    found = stock_model(model).state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


def without(name: str) -> Weights:
    assert name in ADAPTER
    return {key: tensor for key, tensor in ADAPTER.items() if key != name}


MISFITS: dict[str, tuple[Weights, dict[str, Any], str]] = {
    "a layer that does not exist": (
        {**ADAPTER, QUERY.replace("layers.1", "layers.99") + "lora_A.weight": torch.ones(4, 64)},
        {},
        "layers.99.self_attn.q_proj.lora_A",
    ),
    "a full weight": ({**ADAPTER, f"{PREFIX}lm_head.weight": torch.ones(516, 64)}, {}, "lm_head.weight"),
    "a module saved in full": (
        {**ADAPTER, f"{PREFIX}lm_head.weight": torch.ones(516, 64)},
        {"modules_to_save": ["lm_head"]},
        "lm_head.weight",
    ),
    "a bias": ({**ADAPTER, f"{QUERY}bias": torch.ones(64)}, {"bias": "lora_only"}, f"{LAYER}.bias"),
    "an unknown kind": ({**ADAPTER, f"{QUERY}lora_E": torch.ones(4, 1)}, {}, f"{LAYER}.lora_E"),
    "no lora_A": (without(f"{QUERY}lora_A.weight"), {}, "layers.1.self_attn.q_proj.lora_A"),
    "no lora_B": (without(f"{QUERY}lora_B.weight"), {}, "layers.1.self_attn.q_proj.lora_B"),
    "no magnitudes": (without(f"{QUERY}lora_magnitude_vector"), {}, "layers.1.self_attn.q_proj.lora_magnitude_vector"),
    "magnitudes in plain LoRA": (ADAPTER, {"use_dora": False}, "layers.1.self_attn.q_proj.lora_magnitude_vector"),
    "plain LoRA for DoRA": (random_adapter(RANKS), {}, "layers.1.self_attn.q_proj.lora_magnitude_vector"),
    "lora_A of another width": (
        {**ADAPTER, f"{QUERY}lora_A.weight": torch.ones(4, 63)},
        {},
        "layers.1.self_attn.q_proj.lora_A",
    ),
    "lora_B of another rank": (
        {**ADAPTER, f"{QUERY}lora_B.weight": torch.ones(64, 3)},
        {},
        "layers.1.self_attn.q_proj.lora_B",
    ),
    "too few magnitudes": (
        {**ADAPTER, f"{QUERY}lora_magnitude_vector": torch.ones(1)},
        {},
        "layers.1.self_attn.q_proj.lora_magnitude_vector",
    ),
    "another rank in the configuration": (ADAPTER, {"r": 8}, "layers.1.self_attn.q_proj.lora_A"),
    "no tensors": ({}, {}, "no weights"),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_an_adapter_that_does_not_fit_is_refused_by_folder_and_name(tmp_path: Path, misfit: str) -> None:
    weights, config, name = MISFITS[misfit]
    adapter = write_adapter(tmp_path / "adapter", weights, **config)
    with pytest.raises(CheckpointError, match=re.escape(name)) as caught:
        load(adapter)
    assert str(adapter) in str(caught.value)


LORA = random_adapter({LAYER: 4})


@pytest.mark.parametrize("option", [{"bias": "lora_only"}, {"modules_to_save": ["lm_head"]}], ids=str)
def test_whole_weights_that_the_adapter_lacks_are_refused(tmp_path: Path, option: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match=next(iter(option))):
        load(write_adapter(tmp_path / "adapter", ADAPTER, **option))


@pytest.mark.parametrize(
    "rule",
    [
        lambda name: name.replace("model.model.layers", "model.model.language_model.layers"),
        lambda name: name.replace(".weight", ".other.weight"),
    ],
    ids=["another layout", "another name"],
)
def test_two_tensors_for_one_place_are_refused(tmp_path: Path, rule: Rename) -> None:
    twice = {**LORA, **{rule(name): -tensor for name, tensor in LORA.items()}}
    with pytest.raises(CheckpointError, match="the place of another"):
        load(write_adapter(tmp_path / "adapter", twice, use_dora=False))


def test_an_adapter_of_the_head_is_refused(tmp_path: Path) -> None:
    head = {f"{PREFIX}lm_head.lora_A.weight": torch.ones(4, 64), f"{PREFIX}lm_head.lora_B.weight": torch.ones(516, 4)}
    with pytest.raises(CheckpointError, match=r"lm_head\.lora_A.*has no place"):
        load(write_adapter(tmp_path / "adapter", {**LORA, **head}, use_dora=False))


def test_weights_that_are_no_numbers_are_refused(tmp_path: Path) -> None:
    broken = {name: tensor * float("nan") for name, tensor in LORA.items()}
    with pytest.raises(CheckpointError, match="adapter: .*NaN"):
        load(write_adapter(tmp_path / "adapter", broken, use_dora=False))


@pytest.mark.parametrize("content", [[torch.ones(2)], torch.ones(2), {"a": 1}, {1: torch.ones(2)}, {}], ids=repr)
def test_a_file_without_named_weights_is_refused(tmp_path: Path, content: object) -> None:
    adapter = write_adapter(tmp_path / "adapter", ADAPTER)
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(content, adapter / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="adapter: "):
        load(adapter)


def test_the_hub_is_not_asked_for_an_adapters_missing_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr("peft.utils.save_and_load.hf_hub_download", lambda *args, **kwargs: asked.append(args))
    monkeypatch.chdir(tmp_path)
    Path("user").mkdir()
    adapter = write_adapter(Path("user/adapter"), ADAPTER)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"adapter_model\.safetensors"):
        load(adapter)
    assert asked == []


@pytest.mark.parametrize("pattern", [LAYER, f"^{LAYER}", LAYER.replace(".", r"\.")])
@pytest.mark.parametrize(
    ("kind", "rank", "value", "scale"), [("alpha_pattern", 4, 64, 16.0), ("rank_pattern", 8, 8, 2.0)]
)
def test_patterns_with_names_of_the_old_layout_count(
    tmp_path: Path, pattern: str, kind: str, rank: int, value: int, scale: float
) -> None:
    weights = random_adapter({LAYER: rank})
    model = load(write_adapter(tmp_path / "adapter", weights, use_dora=False, **{kind: {pattern: value}}))
    assert weights_distance(model, merged_by_hand(weights, lambda _: scale)) <= TOLERANCE


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
def test_the_stored_weights_are_merged_whatever_precision_the_configuration_names(
    tmp_path: Path, stored: torch.dtype, wanted: torch.dtype
) -> None:
    base = write_base(tmp_path / "base", {name: tensor.to(stored) for name, tensor in BASE.items()})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    model = load(write_adapter(tmp_path / "adapter", LORA, use_dora=False), base, model_kwargs={"dtype": wanted})
    down, up = (LORA[f"{QUERY}lora_{part}.weight"] for part in "AB")
    expected = (BASE[f"{LAYER}.weight"].to(stored).float() + 4 * (up @ down)).to(wanted)
    assert torch.equal(stock_model(model).language_model.layers[1].self_attn.q_proj.weight, expected)


def test_rotary_frequencies_stay_in_float32(golden_model: SentenceTransformer) -> None:
    half = load(VLM2VEC / "checkpoint", model_kwargs={"dtype": torch.bfloat16})
    buffers = {name: buffer for name, buffer in stock_model(half).named_buffers() if "inv_freq" in name}
    assert len(buffers) >= 2
    assert {buffer.dtype for buffer in buffers.values()} == {torch.float32}
    assert {parameter.dtype for parameter in stock_model(half).parameters()} == {torch.bfloat16}


def test_a_quantised_base_is_refused() -> None:
    with pytest.raises(CheckpointError, match="quantised"):
        load(VLM2VEC / "checkpoint", model_kwargs={"quantization_config": {"load_in_8bit": True}})


def test_a_merged_model_can_be_trained(golden_model: SentenceTransformer) -> None:
    parameters = stock_model(golden_model).named_parameters()
    assert [name for name, parameter in parameters if not parameter.requires_grad] == []


@pytest.mark.parametrize("size", [0, 1000])
def test_a_truncated_adapter_is_refused(tmp_path: Path, size: int) -> None:
    path = write_adapter(tmp_path / "adapter", ADAPTER) / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CheckpointError, match=re.escape(f"{path.parent}: the adapter cannot be read")):
        load(path.parent)


def test_an_adapter_without_weights_is_refused(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", ADAPTER)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=re.escape(str(adapter))):
        load(adapter)


def test_an_adapter_with_a_broken_configuration_is_refused(tmp_path: Path) -> None:
    path = write_adapter(tmp_path / "adapter", ADAPTER) / "adapter_config.json"
    path.write_text("{")
    with pytest.raises(CheckpointError, match=re.escape(str(path))):
        load(path.parent)


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (
            {"peft_type": "IA3", "target_modules": ["k_proj"], "feedforward_modules": []},
            {f"{PREFIX}model.layers.0.self_attn.k_proj.ia3_l": torch.ones(32, 1)},
        ),
        (
            {"peft_type": "LOHA", "target_modules": ["q_proj"]},
            {f"{QUERY}hada_w1_a": torch.ones(64, 8), f"{QUERY}hada_w1_b": torch.ones(8, 64)},
        ),
        ({"peft_type": "LOHA", "target_modules": ["q_proj"]}, random_adapter(RANKS)),
    ],
)
def test_an_adapter_of_another_kind_is_refused(tmp_path: Path, config: dict[str, Any], weights: Weights) -> None:
    adapter = write_adapter(tmp_path / "adapter", weights)
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": BASE_NAME, **config}))
    with pytest.raises(CheckpointError, match=f"{re.escape(str(adapter))}.*{config['peft_type']}.*only LoRA"):
        load(adapter)


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., None], tuple[str]]:
        return os.mkdir, (str(self.marker),)


def test_the_payload_runs_where_pickles_are_trusted(tmp_path: Path) -> None:
    torch.save({"a": Payload(tmp_path / "marker")}, tmp_path / "payload")
    torch.load(tmp_path / "payload", weights_only=False)
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("saved_by_torch", [True, False])
def test_code_in_a_pickled_adapter_is_not_run(tmp_path: Path, saved_by_torch: bool) -> None:
    adapter, marker = write_adapter(tmp_path / "adapter", {}), tmp_path / "marker"
    (adapter / "adapter_model.safetensors").unlink()
    content = {**ADAPTER, f"{QUERY}lora_C": Payload(marker)}
    if saved_by_torch:
        torch.save(content, adapter / "adapter_model.bin")
    else:
        (adapter / "adapter_model.bin").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=re.escape(str(adapter))):
        load(adapter)
    assert not marker.exists()


def test_a_local_folder_named_by_the_adapter_is_its_base(bases: dict[str, Path], tmp_path: Path) -> None:
    base = bases["transformers 4.52"]
    adapter = write_adapter(tmp_path / "adapter", ADAPTER, base_model_name_or_path=str(base))
    assert distance(load(adapter, base=None)) <= TOLERANCE


def test_the_base_given_by_the_caller_wins_over_the_adapters(tmp_path: Path) -> None:
    other = write_base(tmp_path / "other", {name: -tensor for name, tensor in BASE.items()})
    adapter = write_adapter(tmp_path / "adapter", ADAPTER, base_model_name_or_path=str(other))
    assert distance(load(adapter, base=BASE_FOLDER)) <= TOLERANCE


class Hub:
    """Stands in for ``snapshot_download``: a snapshot has those files of a local folder that were asked for."""

    def __init__(self, root: Path, **repositories: Path) -> None:
        self.root = root
        self.repositories = repositories
        self.asked: list[str] = []

    def __call__(self, repo_id: str, *, allow_patterns: list[str], **kwargs: Any) -> str:
        self.asked.append(repo_id)
        source = self.repositories[repo_id.rpartition("/")[2].replace("-", "_")]
        folder = self.root / str(len(self.asked))
        folder.mkdir()
        for name in filter_repo_objects([path.name for path in source.iterdir()], allow_patterns=allow_patterns):
            shutil.copyfile(source / name, folder / name)
        return str(folder)


def test_the_hub_is_asked_for_the_base_that_the_adapter_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(tmp_path, some_base=BASE_FOLDER)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    adapter = write_adapter(tmp_path / "adapter", ADAPTER, base_model_name_or_path="someone/some-base")
    assert distance(load(adapter, base=None)) <= TOLERANCE
    assert hub.asked == ["someone/some-base"]


@pytest.mark.parametrize("pickled", [False, True])
def test_adapter_and_base_are_downloaded_where_nothing_local_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pickled: bool
) -> None:
    adapter = write_adapter(tmp_path / "adapter", ADAPTER)
    if pickled:
        (adapter / "adapter_model.safetensors").unlink()
        torch.save(ADAPTER, adapter / "adapter_model.bin")
    hub = Hub(tmp_path, VLM2Vec_Qwen2VL_2B=adapter, Qwen2_VL_2B_Instruct=BASE_FOLDER)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub)
    assert distance(SentenceTransformer(NAME, device="cpu")) <= TOLERANCE
    assert hub.asked == ["TIGER-Lab/VLM2Vec-Qwen2VL-2B", "Qwen/Qwen2-VL-2B-Instruct"]


@pytest.mark.parametrize("source", [BASE_NAME, "/somewhere/else/checkpoint-500", None])
def test_without_network_and_base_the_error_says_what_to_do(tmp_path: Path, source: str | None) -> None:
    adapter = write_adapter(tmp_path / "adapter", ADAPTER, base_model_name_or_path=source)
    with pytest.raises(CheckpointError, match=f"{BASE_NAME} is neither .* pass base_weights="):
        load(adapter, None, cache_folder=str(tmp_path))


def test_an_adapter_is_refused_for_a_model_that_is_none() -> None:
    with pytest.raises(CheckpointError, match="it holds an adapter, and gme-2b is none"):
        SentenceTransformer("gme-2b", weights=VLM2VEC / "checkpoint", base_weights=BASE_FOLDER)


def test_an_adapter_without_its_configuration_is_told_so(tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", ADAPTER)
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"no adapter_config\.json or config\.json in it"):
        load(adapter)


def test_a_folder_that_may_be_the_base_itself_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    load(BASE_FOLDER, None)
    assert "no adapter_config.json in it" in caplog.text


@pytest.mark.parametrize("base", [BASE_FOLDER, VLM2VEC / "images"])
def test_a_base_for_a_complete_model_is_refused(base: Path) -> None:
    with pytest.raises(ValueError, match=r"base_weights=.*complete model"):
        load(BASE_FOLDER, base)


@pytest.mark.parametrize("given", [True, False])
def test_a_base_without_configuration_is_refused(tmp_path: Path, given: bool) -> None:
    base = write_base(tmp_path / "base", BASE)
    (base / "config.json").unlink()
    adapter = write_adapter(tmp_path / "adapter", ADAPTER, base_model_name_or_path=str(base))
    with pytest.raises(CheckpointError, match=f"{re.escape(str(base))}: no config.json"):
        load(adapter, base if given else None)


def test_a_base_with_a_missing_weight_is_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", {name: tensor for name, tensor in BASE.items() if LAYER not in name})
    with pytest.raises(CheckpointError, match=f"{re.escape(str(base))}: .*missing: .*layers.1.self_attn.q_proj.weight"):
        load(VLM2VEC / "checkpoint", base)


@pytest.mark.parametrize("name", [NAME, None])
def test_a_saved_merged_model_gives_the_golden_vectors(
    golden_model: SentenceTransformer, tmp_path: Path, name: str | None
) -> None:
    golden_model.save_pretrained(str(tmp_path))
    saved = load(tmp_path, base=None) if name else SentenceTransformer(str(tmp_path), device="cpu")
    assert distance(saved) <= TOLERANCE


def test_a_model_merged_elsewhere_gives_the_golden_vectors(tmp_path: Path) -> None:
    model = Qwen2VLForConditionalGeneration.from_pretrained(BASE_FOLDER)
    model.model.load_state_dict(merged_by_hand(ADAPTER, lambda module: 16 / 4))
    model.save_pretrained(tmp_path)
    for path in BASE_FOLDER.iterdir():
        if path.name not in ("config.json", "generation_config.json", "model.safetensors"):
            shutil.copyfile(path, tmp_path / path.name)
    assert distance(load(tmp_path, base=None)) <= TOLERANCE


def image_tokens(model: SentenceTransformer) -> int:
    features = model.preprocess([{"image": VLM2VEC / "images" / "large.png"}])
    return int((features["input_ids"] == stock_model(model).config.image_token_id).sum())


@pytest.mark.parametrize(
    "limit",
    [{"min_pixels": 3136, "max_pixels": 16 * 28**2}, {"size": {"shortest_edge": 3136, "longest_edge": 16 * 28**2}}],
    ids=["max_pixels", "size"],
)
def test_an_adapters_own_image_settings_take_the_place_of_its_bases(
    golden_model: SentenceTransformer, tmp_path: Path, limit: dict[str, Any]
) -> None:
    settings = json.loads((BASE_FOLDER / "preprocessor_config.json").read_text(encoding="utf-8"))
    for name in ("size", "min_pixels", "max_pixels"):
        del settings[name]
    adapter = write_adapter(tmp_path / "adapter", ADAPTER)
    (adapter / "preprocessor_config.json").write_text(json.dumps({**settings, **limit}))
    assert 0 < image_tokens(load(adapter)) <= 16 < image_tokens(golden_model)


def test_an_adapters_own_tokenizer_takes_the_place_of_its_bases(
    golden_model: SentenceTransformer, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", ADAPTER)
    for name in ("tokenizer_config.json", "merges.txt"):
        shutil.copyfile(BASE_FOLDER / name, adapter / name)
    for name in ("tokenizer.json", "vocab.json"):
        content = json.loads((BASE_FOLDER / name).read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"] if name == "tokenizer.json" else content
        vocabulary["Q"], vocabulary["Z"] = vocabulary["Z"], vocabulary["Q"]
        (adapter / name).write_text(json.dumps(content))
    model = load(adapter)
    theirs, own = (golden_model.preprocess([text])["input_ids"].tolist() for text in ("Q", "Z"))
    assert theirs != own
    assert model.preprocess(["Q"])["input_ids"].tolist() == own
    assert model.preprocess(["Z"])["input_ids"].tolist() == theirs
