"""Models with adapters that are not merged: what they compute, what is saved and copied of them, what is refused."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoHaConfig, LoraConfig, PromptTuningConfig, get_peft_model
from peft.tuners.lora import LoraLayer

from st_modules import EncodeOptions, SentenceTransformer
from st_modules.checkpoints.adapters import collect_adapters, without_adapters
from st_modules.train import LoraSettings, add_lora, merge_adapter
from tests.helpers.adapters import LAYERS, adapted, difference, disturb, embed, lora, trained
from tests.helpers.training_rows import load

KINDS: dict[str, Callable[[str], Any]] = {
    "DoRA": lambda name: lora(name, use_dora=True),
    "ranks and scales by layer": lambda name: lora(
        name, use_rslora=True, rank_pattern={LAYERS[name][0]: 2}, alpha_pattern={LAYERS[name][1]: 3}
    ),
    "PiSSA": lambda name: lora(name, init_lora_weights="pissa"),
    "layers by a pattern": lambda name: lora(name, target_modules=rf".*\.1\..*{LAYERS[name][0]}"),
    "whole layers": lambda name: lora(name, modules_to_save=["norm", "LayerNorm"]),
    "biases": lambda name: lora(name, bias="all"),
    "tokens": lambda name: lora(name, trainable_token_indices=[5, 6]),
    "embeddings": lambda name: lora(name, target_modules=["embed_tokens", "word_embeddings", *LAYERS[name]]),
    "IA3": lambda name: IA3Config(target_modules=LAYERS[name], feedforward_modules=[]),
    "LoHa": lambda name: LoHaConfig(r=4, target_modules=LAYERS[name]),
}

pytestmark = pytest.mark.filterwarnings(
    # PEFT says what biases mean when adapters are switched off, and guesses whether they are saved.
    "ignore:Careful, disabling adapter layers:UserWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
    # That a second adapter is added; and transformers, by a name that is deprecated.
    "ignore:Already found a `peft_config`:UserWarning",
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


def reload(model: SentenceTransformer, folder: Path) -> SentenceTransformer:
    model.save_pretrained(str(folder))
    return SentenceTransformer(str(folder), device="cpu")


def merged_by_hand(model: SentenceTransformer) -> dict[str, torch.Tensor]:
    """The weights with W + BA·alpha/r in the place of W, for an adapter of rank 4 with alpha 8."""
    found = model.state_dict()
    weights = {name.replace(".base_layer", ""): weight.clone() for name, weight in found.items() if "lora_" not in name}
    for name, weight in found.items():
        if "lora_A" in name:
            weights[name.replace("lora_A.default.", "")] += found[name.replace("lora_A", "lora_B")] @ weight * 8 / 4
    return weights


OPTIONS = {
    "as it is": EncodeOptions(),
    "no packing": EncodeOptions(packing=False),
    "no pruning": EncodeOptions(pruning=False),
    "no shared prefix": EncodeOptions(shared_prefix=False),
    "no fast vision": EncodeOptions(fast_vision=False),
}


@pytest.mark.parametrize(
    ("name", "options"),
    [("gme-2b", each) for each in OPTIONS]
    + [(name, "as it is") for name in LAYERS if name != "gme-2b"]
    + [("bge-vl-mllm-s1", "no packing"), ("bge-visualized-base", "no pruning"), ("bge-vl-base", "no pruning")],
)
def test_an_adapter_computes_what_weights_do_that_it_was_added_to_by_hand(name: str, options: str) -> None:
    # The keys too, which the pruned last layer asks for itself; Phi-3 has them in one with its queries.
    keys = {"q_proj": ["k_proj"], "query": ["key"], "qkv_proj": []}[LAYERS[name][0]]
    model, plain = adapted(name, lora(name, lora_alpha=8, target_modules=[*LAYERS[name], *keys])), load(name)
    assert difference(model, name, embed(plain, name)) > 1e-3
    plain.load_state_dict(merged_by_hand(model))
    plain.encode_options = EncodeOptions(
        packing=False, shared_prefix=False, pruning=False, fast_vision=False, deduplication=False
    )
    model.encode_options = OPTIONS[options]
    assert difference(model, name, embed(plain, name)) <= 1e-5


@pytest.mark.parametrize("name", LAYERS)
def test_a_model_with_an_adapter_is_saved_and_loads_with_it(name: str, tmp_path: Path) -> None:
    model = adapted(name)
    again = reload(model, tmp_path)
    assert difference(again, name, embed(model, name)) <= 1e-6
    assert again.active_adapters() == ["default"]
    assert trained(again) == trained(model)


@pytest.mark.parametrize("settings", [LoraSettings(rank=2), LoraSettings(rank=2, dora=True, vision=True)])
@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1", "bge-vl-base", "bge-visualized-base"])
def test_so_is_one_with_an_adapter_of_add_lora(name: str, settings: LoraSettings, tmp_path: Path) -> None:
    model = load(name)
    add_lora(model, settings)
    disturb(model)
    again = reload(model, tmp_path)
    assert difference(again, name, embed(model, name)) <= 1e-6
    assert trained(again) == trained(model)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["gme-2b", "bge-visualized-base"])
def test_so_is_one_with_an_adapter_of_another_kind(name: str, kind: str, tmp_path: Path) -> None:
    model = adapted(name, KINDS[kind](name))
    again = reload(model, tmp_path)
    assert difference(again, name, embed(model, name)) <= 1e-6
    assert trained(again) == trained(model)


@pytest.mark.parametrize("active", ["default", "second", ["second", "default"]], ids=str)
@pytest.mark.parametrize("name", ["gme-2b", "bge-visualized-base"])
def test_several_adapters_are_saved_and_those_are_active_that_were(name: str, active: Any, tmp_path: Path) -> None:
    model = adapted(name, lora(name), lora(name, r=2, target_modules=LAYERS[name][:1]))
    model.set_adapter(active)
    again = reload(model, tmp_path)
    assert difference(again, name, embed(model, name)) <= 1e-6
    assert again.active_adapters() == model.active_adapters()
    for each in ("default", "second"):
        again.set_adapter(each)
        model.set_adapter(each)
        assert difference(again, name, embed(model, name)) <= 1e-6


def test_an_adapter_is_saved_under_any_name(tmp_path: Path) -> None:
    model = load("gme-2b")
    model.add_adapter(lora("gme-2b"), "my/adapter")
    disturb(model)
    again = reload(model, tmp_path / "model")
    assert difference(again, "gme-2b", embed(model, "gme-2b")) <= 1e-6
    assert again.active_adapters() == ["my/adapter"]
    stock: Any = again.transformers_model
    assert [*stock.peft_config] == ["my/adapter"]  # and transformers has loaded no other
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_adapters_that_are_disabled_are_saved_so(tmp_path: Path) -> None:
    model = adapted("gme-2b")
    expected, plain = embed(model, "gme-2b"), embed(load("gme-2b"), "gme-2b")
    model.disable_adapters()
    again = reload(model, tmp_path)
    assert difference(again, "gme-2b", plain) <= 1e-6
    again.enable_adapters()
    assert difference(again, "gme-2b", expected) <= 1e-6


def test_a_model_whose_adapters_were_deleted_is_saved_as_it_was_before(tmp_path: Path) -> None:
    model = adapted("bge-visualized-base")
    model.delete_adapter("default")
    again = reload(model, tmp_path)
    assert again.state_dict().keys() == load("bge-visualized-base").state_dict().keys()
    assert difference(again, "bge-visualized-base", embed(load("bge-visualized-base"), "bge-visualized-base")) <= 1e-6


@pytest.mark.parametrize("name", ["gme-2b", "bge-visualized-base"])
def test_an_adapter_that_peft_was_called_for_is_saved_too(name: str, tmp_path: Path) -> None:
    model = load(name)
    stock: Any = model[0].model
    model[0].model = get_peft_model(stock, lora(name))
    disturb(model)
    assert difference(reload(model, tmp_path), name, embed(model, name)) <= 1e-6


def test_saving_changes_nothing_about_the_model(tmp_path: Path) -> None:
    model = adapted("gme-2b")
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.save_pretrained(str(tmp_path))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert [name for name, weight in before.items() if not torch.equal(weight, after[name])] == []
    assert model.active_adapters() == ["default"]


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))], ids=["copy", "pickle"]
)
@pytest.mark.parametrize("name", ["gme-2b", "bge-vl-mllm-s1", "bge-visualized-base"])
def test_a_copy_has_the_adapters(name: str, copied: Callable[[SentenceTransformer], SentenceTransformer]) -> None:
    model = adapted(name)
    assert difference(copied(model), name, embed(model, name)) <= 1e-6


def _merge_for_now(model: SentenceTransformer) -> None:
    for layer in _layers(model):
        layer.merge()


def _scale(model: SentenceTransformer) -> None:
    for layer in _layers(model):
        layer.set_scale("default", 0.5)


def _disable_one(model: SentenceTransformer) -> None:
    _layers(model)[0].enable_adapters(False)


def _forget_settings(model: SentenceTransformer) -> None:
    stock: Any = model[0].model
    del stock.peft_config


def _layers(model: SentenceTransformer) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_merge_for_now, "merged for the time being"),
        (_scale, "scaled by 1.0"),
        (_disable_one, "in some layers"),
        (_forget_settings, "does not say their settings"),
    ],
)
def test_adapters_in_a_state_that_no_file_has_are_refused_before_anything_is_written(
    change: Callable[[SentenceTransformer], None], message: str, tmp_path: Path
) -> None:
    model = adapted("gme-2b", lora("gme-2b", lora_alpha=8))
    change(model)
    with pytest.raises(ValueError, match=message):
        model.save_pretrained(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


def test_a_kind_that_keeps_something_outside_of_its_file_is_refused(tmp_path: Path) -> None:
    model = adapted("gme-2b", AdaLoraConfig(target_modules=LAYERS["gme-2b"], total_step=10))
    with pytest.raises(ValueError, match=r"ADALORA.*ranknum"):
        model.save_pretrained(str(tmp_path / "model"))


@pytest.mark.parametrize("use", ["save", "merge"])
def test_layers_that_repeat_others_are_refused(use: str, tmp_path: Path) -> None:
    name = "bge-visualized-base"
    model = adapted(name, lora(name, layer_replication=[[0, 2], [1, 2]]))
    with pytest.raises(ValueError, match="layer_replication"):
        model.save_pretrained(str(tmp_path)) if use == "save" else merge_adapter(model)
    assert [*tmp_path.iterdir()] == []


def test_a_prompt_that_is_learned_is_refused(tmp_path: Path) -> None:
    model = load("gme-2b")
    settings: Any = PromptTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=2, token_dim=8, num_layers=1, num_attention_heads=1
    )
    stock: Any = model[0].model
    model[0].model = get_peft_model(stock, settings)
    with pytest.raises(ValueError, match="PROMPT_TUNING"):
        model.save_pretrained(str(tmp_path / "model"))


def test_two_parts_with_adapters_are_refused(tmp_path: Path) -> None:
    model = load("bge-visualized-base")
    add_lora(model, LoraSettings(rank=2, vision=True))
    model.add_adapter(lora("bge-visualized-base"), "second")
    with pytest.raises(ValueError, match="2 parts of the model have adapters"):
        model.save_pretrained(str(tmp_path / "model"))


def test_what_is_taken_out_shares_memory_with_the_model() -> None:
    model: Any = adapted("gme-2b")[0].model
    places = {weight.data_ptr() for weight in model.parameters()}
    adapters = collect_adapters(model)
    assert adapters is not None
    assert {weight.data_ptr() for weight in adapters.by_name["default"].weights.values()} <= places
    assert {weight.data_ptr() for weight in without_adapters(model).parameters()} <= places


def test_an_adapter_that_could_not_be_added_is_not_in_the_way_of_another() -> None:
    model = load("gme-2b")
    with pytest.raises(ValueError, match="nowhere"):
        model.add_adapter(LoraConfig(target_modules=["nowhere"]))
    model.add_adapter(LoraConfig(target_modules=["q_proj"]))
    assert model.active_adapters() == ["default"]
