"""A saved adapter reloads as adapter and as merged model, with equal embeddings; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
from peft import AdaLoraConfig, IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from st_modules import CheckpointError, SentenceTransformer
from st_modules.train import LoraSettings, add_lora, load_adapter, merge_adapter, save_adapter
from tests.helpers.adapters import LAYERS, difference, disturb, embed, lora
from tests.helpers.adapters import adapted as adapter_of_st
from tests.helpers.training_rows import MODELS, load, perturb

SECOND_ADAPTER = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
"""PEFT warns that a second adapter is added."""

KINDS = [LoraSettings(rank=2), LoraSettings(rank=2, dora=True, vision=True)]


def adapted(name: str, settings: LoraSettings) -> SentenceTransformer:
    model = load(name)
    add_lora(model, settings)
    perturb(model, 0.1)
    return model


@pytest.mark.parametrize("settings", KINDS, ids=["lora", "dora-vision"])
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_adapter_reloads_as_adapter_and_as_merged_model(
    name: str, settings: LoraSettings, tmp_path: Path
) -> None:
    model = adapted(name, settings)
    expected = embed(model, name)
    assert np.abs(embed(load(name), name) - expected).max() > 1e-3
    save_adapter(model, tmp_path / "adapter")

    again = load(name)
    load_adapter(again, tmp_path / "adapter")
    assert np.abs(embed(again, name) - expected).max() <= 1e-5

    merge_adapter(again)
    assert np.abs(embed(again, name) - expected).max() <= 1e-5
    again.save_pretrained(str(tmp_path / "model"))
    assert np.abs(embed(SentenceTransformer(str(tmp_path / "model"), device="cpu"), name) - expected).max() <= 1e-5


# PEFT asks transformers by a name that is deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_saved_adapter_is_one_for_peft_too(tmp_path: Path) -> None:
    model = adapted("gme-2b", LoraSettings(rank=2))
    save_adapter(model, tmp_path)
    plain = load("gme-2b")
    stock: Any = plain[0].model
    PeftModel.from_pretrained(stock, str(tmp_path))
    assert np.abs(embed(plain, "gme-2b") - embed(model, "gme-2b")).max() <= 1e-6


def test_a_saved_adapter_is_small_and_the_same_each_time(tmp_path: Path) -> None:
    model = adapted("gme-2b", LoraSettings(rank=2))
    for folder in ("first", "second"):
        save_adapter(model, tmp_path / folder)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / folder).iterdir()} for folder in ("first", "second")
    )
    assert sorted({*first} - {"README.md"}) == ["adapter_config.json", "adapter_model.safetensors"]
    assert [name for name, content in first.items() if second[name] != content] == []
    assert set(load_file(tmp_path / "first" / "adapter_model.safetensors")) == {
        f"base_model.model.{name.removeprefix('0.model.').replace('.default', '')}"
        for name, _ in model.named_parameters()
        if "lora_" in name
    }


def test_a_loaded_adapter_is_frozen_unless_it_is_to_be_trained(tmp_path: Path) -> None:
    save_adapter(adapted("bge-vl-base", LoraSettings(rank=2)), tmp_path)
    frozen, trainable = load("bge-vl-base"), load("bge-vl-base")
    load_adapter(frozen, tmp_path)
    load_adapter(trainable, tmp_path, trainable=True)
    assert [name for name, p in frozen.named_parameters() if p.requires_grad] == []
    assert {"lora_" in name for name, p in trainable.named_parameters() if p.requires_grad} == {True}


def test_a_merged_model_has_the_weights_of_the_original_and_no_more(tmp_path: Path) -> None:
    model = adapted("bge-visualized-base", LoraSettings(rank=2))
    merge_adapter(model)
    assert model.state_dict().keys() == load("bge-visualized-base").state_dict().keys()
    assert [name for name, parameter in model.named_parameters() if not parameter.requires_grad] == []
    add_lora(model)  # another one may follow


def _spoil(folder: Path, what: str) -> None:
    file, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    weights = load_file(file)
    first = min(weights)
    if what == "no file":
        file.unlink()
    elif what == "no settings":
        config.unlink()
    elif what == "a weight is missing":
        del weights[first]
    elif what == "a weight is one too many":
        weights[first.replace("lora_A", "lora_C")] = weights[first].clone()
    elif what == "another shape":
        weights[first] = weights[first][:, :-1].clone()
    elif what == "other layers":
        settings: dict[str, Any] = json.loads(config.read_text())
        config.write_text(json.dumps({**settings, "target_modules": ["query_key_value"]}))
    if file.exists():
        save_file(weights, file)


@pytest.mark.parametrize(
    "what",
    ["no file", "no settings", "a weight is missing", "a weight is one too many", "another shape", "other layers"],
)
def test_an_adapter_that_does_not_fit_is_refused_by_its_folder(what: str, tmp_path: Path) -> None:
    save_adapter(adapted("gme-2b", LoraSettings(rank=2)), tmp_path / "adapter")
    _spoil(tmp_path / "adapter", what)
    with pytest.raises(CheckpointError, match=str(tmp_path / "adapter")):
        load_adapter(load("gme-2b"), tmp_path / "adapter")


@pytest.mark.parametrize(
    ("base", "model"),
    [
        (None, "trained on and call"),
        ("Alibaba-NLP/gme-Qwen2-VL-2B-Instruct", "trained on, gme-2b, and call"),
        ("BAAI/bge-visualized", "trained on, bge-visualized-base or bge-visualized-m3, and call"),
    ],
)
def test_the_folder_of_an_adapter_is_no_model_and_what_to_do_is_said(
    base: str | None, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_network(monkeypatch)
    adapter = adapted("gme-2b", LoraSettings(rank=2))
    stock: Any = adapter[0].model
    stock.peft_config["default"].base_model_name_or_path = base
    save_adapter(adapter, tmp_path)
    with pytest.raises(CheckpointError) as caught:
        SentenceTransformer(str(tmp_path))
    assert model in str(caught.value)
    assert f"st_modules.train.load_adapter(model, {str(tmp_path)!r})" in str(caught.value)


def _refuse_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: pytest.fail("the network was asked"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)


@pytest.mark.parametrize("gone", [True, False])
def test_an_adapter_to_a_models_folder_says_which_folder_that_is(
    gone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_network(monkeypatch)
    base = tmp_path / "base"
    load("gme-2b").save_pretrained(str(base))
    model = SentenceTransformer(str(base), device="cpu")
    model.add_adapter(lora("gme-2b"))
    save_adapter(model, tmp_path / "adapter")
    if gone:
        shutil.rmtree(base)
    with pytest.raises(CheckpointError, match=rf"{base}(, which is gone)?.* and call") as caught:
        SentenceTransformer(str(tmp_path / "adapter"))
    assert ("which is gone" in str(caught.value)) is gone


def test_an_adapter_to_the_embedded_model_says_its_name(tmp_path: Path) -> None:
    model = SentenceTransformer("tiny", device="cpu")
    model.add_adapter(lora("gme-2b"))
    save_adapter(model, tmp_path)
    with pytest.raises(CheckpointError, match="trained on, tiny, and call"):
        SentenceTransformer(str(tmp_path))


def test_an_adapter_to_another_librarys_model_is_left_to_sentence_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "bert-base-uncased"}')
    monkeypatch.setattr(sentence_transformers.SentenceTransformer, "__init__", _given_up)
    with pytest.raises(LookupError, match=str(tmp_path)):
        SentenceTransformer(str(tmp_path))


def _given_up(self: object, name: str, **kwargs: Any) -> None:
    raise LookupError(name)


@pytest.mark.parametrize(
    "needs_one", [merge_adapter, lambda model: save_adapter(model, "nowhere")], ids=["merge", "save"]
)
def test_what_needs_an_adapter_says_so(needs_one: Callable[[SentenceTransformer], Any]) -> None:
    with pytest.raises(ValueError, match="has no adapter"):
        needs_one(load("bge-vl-base"))


@pytest.mark.parametrize("adapter", ["default", "mine"])
@pytest.mark.parametrize("name", MODELS)
def test_an_adapter_of_sentence_transformers_is_saved_loaded_and_merged(
    name: str, adapter: str, tmp_path: Path
) -> None:
    model = load(name)
    model.add_adapter(lora(name, use_dora=True), adapter)
    disturb(model)
    expected = embed(model, name)
    save_adapter(model, tmp_path)
    again = load(name)
    load_adapter(again, tmp_path)
    assert difference(again, name, expected) <= 1e-6
    merge_adapter(model)
    assert difference(model, name, expected) <= 1e-5
    assert model.state_dict().keys() == load(name).state_dict().keys()
    model.add_adapter(lora(name))  # another one may follow


MERGED: dict[str, Callable[[str], Any]] = {
    "whole layers": lambda name: lora(name, modules_to_save=["norm"]),
    "biases": lambda name: lora(name, bias="all"),
    "tokens": lambda name: lora(name, trainable_token_indices=[5, 6]),
    "IA3": lambda name: IA3Config(target_modules=LAYERS[name], feedforward_modules=[]),
    "AdaLoRA": lambda name: AdaLoraConfig(target_modules=LAYERS[name], total_step=10),
}


@pytest.mark.parametrize("kind", MERGED)
def test_adapters_of_other_kinds_are_merged(kind: str) -> None:
    model = adapter_of_st("gme-2b", MERGED[kind]("gme-2b"))
    expected = embed(model, "gme-2b")
    merge_adapter(model)
    assert difference(model, "gme-2b", expected) <= 1e-5
    assert model.state_dict().keys() == load("gme-2b").state_dict().keys()


def two_adapters() -> SentenceTransformer:
    return adapter_of_st("gme-2b", lora("gme-2b"), lora("gme-2b", r=2))


@SECOND_ADAPTER
def test_several_active_adapters_are_merged_and_others_are_not_dropped() -> None:
    model = two_adapters()
    with pytest.raises(ValueError, match=r"\['default', 'second'\]: of them, \['second'\]"):
        merge_adapter(model)
    model.set_adapter(["default", "second"])
    expected = embed(model, "gme-2b")
    merge_adapter(model)
    assert difference(model, "gme-2b", expected) <= 1e-5


def test_a_disabled_adapter_is_not_merged() -> None:
    model = adapter_of_st("gme-2b")
    model.disable_adapters()
    with pytest.raises(ValueError, match="none change the model"):
        merge_adapter(model)


@SECOND_ADAPTER
def test_of_several_adapters_the_active_one_is_saved_alone(tmp_path: Path) -> None:
    model = two_adapters()
    save_adapter(model, tmp_path)
    again = load("gme-2b")
    load_adapter(again, tmp_path)
    assert difference(again, "gme-2b", embed(model, "gme-2b")) <= 1e-6
    model.set_adapter(["default", "second"])
    with pytest.raises(ValueError, match="one is saved"):
        save_adapter(model, tmp_path / "other")


# PEFT asks transformers by a name that is deprecated.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_pefts_wrapper_is_merged_away() -> None:
    model = load("gme-2b")
    stock: Any = model[0].model
    model[0].model = get_peft_model(stock, lora("gme-2b"))
    disturb(model)
    expected = embed(model, "gme-2b")
    merge_adapter(model)
    assert difference(model, "gme-2b", expected) <= 1e-5
    assert model[0].model is stock


def test_an_adapter_may_follow_one_that_was_deleted() -> None:
    model = adapter_of_st("bge-visualized-base")
    model.delete_adapter("default")
    add_lora(model)
    assert model.active_adapters() == ["default"]
    assert model.state_dict().keys() == adapted("bge-visualized-base", LoraSettings()).state_dict().keys()


@pytest.mark.parametrize("settings", KINDS, ids=["lora", "dora-vision"])
def test_an_adapter_whose_names_begin_at_the_whole_model_loads_too(settings: LoraSettings, tmp_path: Path) -> None:
    # As adapters of Visualized-BGE were saved that are of the text encoder alone, too.
    model = adapted("bge-visualized-base", settings)
    save_adapter(model, tmp_path)
    config, file = tmp_path / "adapter_config.json", tmp_path / "adapter_model.safetensors"
    if not settings.vision:
        content = json.loads(config.read_text())
        names = [f"text.{name}" for name in content["target_modules"]]
        config.write_text(json.dumps({**content, "target_modules": names}))
        prefix = "base_model.model."
        save_file({name.replace(prefix, f"{prefix}text."): each for name, each in load_file(file).items()}, file)
    again = load("bge-visualized-base")
    load_adapter(again, tmp_path)
    assert difference(again, "bge-visualized-base", embed(model, "bge-visualized-base")) <= 1e-6
