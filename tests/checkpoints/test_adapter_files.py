"""The files of adapters in a saved model: PEFT reads them, later ones replace them, and damaged ones are refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
from peft import LoHaConfig, LoraConfig, PeftModel, VBLoRAConfig, VeraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from st_modules import CheckpointError, SentenceTransformer
from st_modules.train import merge_adapter, save_adapter
from tests.helpers.adapters import LAYERS, adapted, difference, embed, lora
from tests.helpers.training_rows import load

NAME = "gme-2b"


pytestmark = pytest.mark.filterwarnings(
    # PEFT asks transformers by a name that is deprecated.
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with two adapters of one shape."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # PEFT's, that a second adapter is added
        adapted(NAME, lora(NAME), lora(NAME)).save_pretrained(str(folder))
    return folder


def test_the_files_are_pefts(saved: Path) -> None:
    model = SentenceTransformer(str(saved), device="cpu")
    for folder, name in ((saved, "second"), (saved / "adapters" / "1", "default")):
        model.set_adapter(name)
        plain = load(NAME)
        stock: Any = plain[0].model
        PeftModel.from_pretrained(stock, str(folder))
        assert difference(plain, NAME, embed(model, NAME)) <= 1e-6


def test_the_weights_are_those_of_the_model_alone(saved: Path, tmp_path: Path) -> None:
    load(NAME).save_pretrained(str(tmp_path))
    plain, found = (load_file(folder / "model.safetensors") for folder in (tmp_path, saved))
    assert found.keys() == plain.keys()
    assert [name for name, weight in plain.items() if not weight.equal(found[name])] == []


@pytest.mark.parametrize("merge", [True, False], ids=["merged", "one adapter"])
def test_a_model_that_is_saved_in_the_place_of_another_has_its_own_adapters_alone(
    merge: bool, saved: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    model = adapted(NAME)
    if merge:
        merge_adapter(model)
    model.save_pretrained(str(folder))
    again = SentenceTransformer(str(folder), device="cpu")
    assert difference(again, NAME, embed(model, NAME)) <= 1e-6
    assert not (folder / "adapters").exists()
    assert (folder / "adapter_config.json").exists() is not merge


@pytest.mark.parametrize("name", ["gme-2b", "vlm2vec-qwen2vl-2b"])
def test_a_saved_model_with_adapters_loads_by_the_name_of_what_it_is(name: str, tmp_path: Path) -> None:
    model = load(name)
    model.add_adapter(lora("gme-2b"))
    model.save_pretrained(str(tmp_path))
    again = SentenceTransformer(name, weights=tmp_path, device="cpu")
    assert again.active_adapters() == ["default"]


@pytest.mark.parametrize(
    "content",
    [
        {"module": "nothing"},
        {"module": 1},
        {"names": []},
        {"names": "default"},
        {"names": ["default", 1]},
        {"names": ["second", "second"]},
        {"names": ["second", "default", "third"]},
        {"active": ["third"]},
        {"active": None},
        {"enabled": "no"},
        {"names": ["a.b", "default"], "active": []},
        [],
    ],
    ids=str,
)
def test_a_damaged_list_of_adapters_is_refused(content: Any, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    file = folder / "adapters.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **content} if content else content))
    with pytest.raises(CheckpointError, match=str(folder)):
        SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("place", [".", "adapters/1"])
@pytest.mark.parametrize("what", ["no file", "no settings", "a weight is missing", "another shape", "other layers"])
def test_a_damaged_adapter_is_refused_by_its_folder(what: str, place: str, saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    file, config = folder / place / "adapter_model.safetensors", folder / place / "adapter_config.json"
    weights = load_file(file)
    first = min(weights)
    if what == "no file":
        file.unlink()
    elif what == "no settings":
        config.unlink()
    elif what == "other layers":
        config.write_text(json.dumps({**json.loads(config.read_text()), "target_modules": LAYERS[NAME][:1]}))
    else:
        kept = {} if what == "a weight is missing" else {first: weights[first][:, :-1].clone()}
        save_file({**{name: weight for name, weight in weights.items() if name != first}, **kept}, file)
    with pytest.raises(CheckpointError, match=str(folder)):
        SentenceTransformer(str(folder), device="cpu")


def test_a_folder_whose_model_is_gone_says_that_it_holds_an_adapter(saved: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match="an adapter and no model"):
        SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("lost", ["adapters.json", "adapter_config.json", "adapter_model.safetensors"])
def test_a_folder_without_a_part_of_its_adapter_is_not_loaded_as_if_it_had_none(lost: str, tmp_path: Path) -> None:
    model = adapted("gme-2b")
    model.save_pretrained(str(tmp_path))
    (tmp_path / lost).unlink()
    with pytest.raises(CheckpointError):
        SentenceTransformer(str(tmp_path), device="cpu")


def test_an_adapter_is_not_saved_among_the_files_of_a_model(tmp_path: Path) -> None:
    model = adapted("gme-2b")
    model.save_pretrained(str(tmp_path))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match="has a model"):
        save_adapter(model, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


@pytest.mark.filterwarnings("ignore:Already found a .peft_config:UserWarning")
def test_adapters_of_different_kinds_on_the_same_layers_are_not_saved(tmp_path: Path) -> None:
    model = load("gme-2b")
    model.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]), "one")
    model.add_adapter(LoHaConfig(r=2, target_modules=["q_proj"]), "two")
    with pytest.raises(ValueError, match="different kinds"):
        model.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(
    "config",
    [VeraConfig(target_modules=["q_proj"]), VBLoRAConfig(target_modules=["q_proj"], vector_length=8)],
    ids=["VeRA", "VB-LoRA"],
)
def test_adapters_whose_layers_share_weights_are_not_saved(config: Any, tmp_path: Path) -> None:
    model = load("gme-2b")
    backbone: Any = model[0]
    backbone.model = get_peft_model(backbone.model, config)
    with pytest.raises(ValueError, match="share weights"):
        model.save_pretrained(str(tmp_path / "saved"))
    assert not (tmp_path / "saved").exists()
