"""Folders in the layout of an upstream: one with a repository's name is that model, another is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentence_transformers
from transformers import BertConfig, BertModel

from st_modules import (
    CheckpointError,
    SentenceTransformer,
    UnknownModelError,
    get_model,
    list_models,
    register,
    unregister,
)
from st_modules.catalog import find_model, find_published
from st_modules.checkpoints.recognise import recognise
from tests.helpers.paths import GOLDEN
from tests.helpers.references import TOLERANCE, reference

PUBLISHED = [spec for spec in list_models() if spec.repo_id]
ONE_A_REPOSITORY = [spec for spec in PUBLISHED if not spec.weights_file]
FAMILIES = [
    "gme-2b",
    "qwen3-vl-embedding-2b",
    "vlm2vec-qwen2vl-2b",
    "bge-vl-mllm-s1",
    "bge-vl-base",
    "bge-visualized-base",
    "bge-visualized-m3",
]


def repository(name: str) -> str:
    return next(spec.repo_id for spec in PUBLISHED if spec.name == name and spec.repo_id)


def copy_to(name: str, folder: Path) -> Path:
    """Copy the files of a repository, under the folder's name."""
    return Path(shutil.copytree(reference(name).weights, folder))


def hub(name: str) -> str:
    return f"models--{repository(name).replace('/', '--')}/snapshots/0123abcd"


def modelscope(name: str) -> str:
    return f"modelscope/hub/models/{repository(name).replace('.', '___')}"


NAMINGS: dict[str, Callable[[str], str]] = {
    "repository": lambda name: repository(name).rpartition("/")[2],
    "lower case": lambda name: repository(name).rpartition("/")[2].lower(),
    "upper case": lambda name: repository(name).rpartition("/")[2].upper(),
    "owner and name": repository,
    "the Hub's cache": hub,
    "ModelScope's cache": modelscope,
}


def differences(model: SentenceTransformer, name: str) -> float:
    cases = list(reference(name).cases.values())[:6]
    return max(float(np.abs(case.embed(model, 8) - case.expected).max()) for case in cases)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_folder_with_a_repositorys_name_is_that_model(name: str, naming: str, tmp_path: Path) -> None:
    folder = copy_to(name, tmp_path / NAMINGS[naming](name))
    base = reference(name).base_weights
    model = SentenceTransformer(folder, device="cpu", base_weights=base)
    assert differences(model, name) <= TOLERANCE


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("spec", ONE_A_REPOSITORY, ids=lambda spec: spec.name)
def test_every_model_is_recognised_by_the_name_of_its_folder(spec: Any, naming: str, tmp_path: Path) -> None:
    folder = tmp_path / NAMINGS[naming](spec.name)
    folder.mkdir(parents=True)
    assert recognise(folder) == spec
    assert recognise(Path(f"{folder}/")) == spec


def test_a_folder_is_recognised_by_what_a_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "BGE-VL-base").mkdir()
    (tmp_path / "current").symlink_to(tmp_path / "BGE-VL-base")
    found = recognise(tmp_path / "current")
    assert found
    assert found.name == "bge-vl-base"


@pytest.mark.parametrize("name", ["bge-visualized-base", "bge-visualized-m3"])
def test_a_file_of_weights_is_the_model_that_has_it(name: str) -> None:
    (file,) = Path(reference(name).weights).glob("*.pth")
    model = SentenceTransformer(file, device="cpu", base_weights=reference(name).base_weights)
    assert differences(model, name) <= TOLERANCE


@pytest.mark.parametrize("present", [[], ["Visualized_base_en_v1.5.pth", "Visualized_m3.pth"]])
def test_a_folder_of_several_models_is_refused_with_their_names(present: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "bge-visualized"
    folder.mkdir()
    for name in present:
        (folder / name).touch()
    with pytest.raises(UnknownModelError, match=r"bge-visualized-base'.* or .*bge-visualized-m3"):
        SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "gme-2b",
        "qwen3-vl-embedding-2b",
        "bge-vl-mllm-s1",
        "bge-vl-base",
        "e5-v",
        "dse-qwen2-2b",
        "ops-mm-v1-2b",
        "vdr-2b-multi",
    ],
)
def test_a_folder_of_another_name_is_refused_with_what_to_pass(name: str, tmp_path: Path) -> None:
    folder = copy_to(name, tmp_path / "mine")
    with pytest.raises(CheckpointError) as error:
        SentenceTransformer(str(folder), device="cpu")
    assert all(part in str(error.value) for part in (str(folder), name, "weights="))


@pytest.mark.parametrize("name", ["bge-visualized-base", "vlm2vec-qwen2vl-2b"])
def test_a_folder_without_a_config_is_refused_likewise(name: str, tmp_path: Path) -> None:
    folder = copy_to(name, tmp_path / "mine")
    with pytest.raises(CheckpointError, match=f"{name}.*weights="):
        SentenceTransformer(str(folder), device="cpu")


CODE = [{"idx": 0, "name": "0", "path": "", "type": "custom_st.MultiModalTransformer"}]


@pytest.mark.parametrize("trust", [False, True])
def test_a_folders_own_code_is_never_followed(trust: bool, tmp_path: Path) -> None:
    folder = copy_to("gme-2b", tmp_path / "mine")
    (folder / "modules.json").write_text(json.dumps(CODE))
    (folder / "custom_st.py").write_text("raise RuntimeError('it was run')")
    with pytest.raises(CheckpointError, match="weights="):
        SentenceTransformer(str(folder), device="cpu", trust_remote_code=trust)
    named = folder.rename(tmp_path / "gme-Qwen2-VL-2B-Instruct")
    assert differences(SentenceTransformer(str(named), device="cpu", trust_remote_code=trust), "gme-2b") <= TOLERANCE


ADAPTERS: dict[str, tuple[dict[str, Any], str]] = {
    "of a published model": ({"base_model_name_or_path": "Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"}, "gme-2b"),
    "of nothing that is named": ({"base_model_name_or_path": None, "auto_mapping": None}, "trained on and call"),
    "of a folder elsewhere": (
        {"base_model_name_or_path": "/home/me/qwen", "auto_mapping": None},
        "qwen, which is gone",
    ),
    "of the base in a folder": ({"base_model_name_or_path": "/data/Qwen2-VL-2B-Instruct"}, "vlm2vec-qwen2vl-2b or"),
    "of a mirror of the base": ({"base_model_name_or_path": "me/qwen2-vl-2b-instruct"}, "vlm2vec-qwen2vl-2b or"),
    "of an architecture": ({"base_model_name_or_path": "me/qwen"}, "gme-2b, .*dse-qwen2-2b"),
}


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_adapter_is_refused_with_what_it_may_be_for(case: str, tmp_path: Path) -> None:
    config, names = ADAPTERS[case]
    folder = copy_to("vlm2vec-qwen2vl-2b", tmp_path / "mine")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    with pytest.raises(CheckpointError, match=rf"adapter.*{names}.*"):
        SentenceTransformer(str(folder), device="cpu")


@pytest.mark.parametrize("naming", ["folder", "BGE-VL-base"])
def test_an_adapter_is_told_by_the_folder_of_its_base(naming: str, tmp_path: Path) -> None:
    base = copy_to("bge-vl-base", tmp_path / naming)
    folder = copy_to("vlm2vec-qwen2vl-2b", tmp_path / "mine")
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    expected = "bge-vl-base and call" if naming == "BGE-VL-base" else "bge-vl-base or bge-vl-large"
    with pytest.raises(CheckpointError, match=expected.replace(" and call", ", and call")):
        SentenceTransformer(str(folder), device="cpu")


def test_a_saved_model_is_itself_whatever_its_folder_is_called(tmp_path: Path) -> None:
    model = reference("gme-2b").load("gme-2b", max_length=50)
    folder = tmp_path / "BGE-VL-base"
    model.save_pretrained(str(folder))
    loaded = SentenceTransformer(str(folder), device="cpu")
    assert (type(loaded[0]).__name__, loaded.max_seq_length) == ("Qwen2VL", 50)


@pytest.mark.parametrize("name", ["BGE-VL-base", "bge-vl-BASE", "BAAI/BGE-VL-base"])
def test_a_folder_that_is_here_goes_before_the_repository_of_its_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reference("gme-2b").load("gme-2b", max_length=50).save_pretrained(name)
    for load in (SentenceTransformer, lambda name, device: SentenceTransformer(Path(name), device=device)):
        assert load(name, device="cpu").max_seq_length == 50
    assert find_published(name) is None


def test_weights_stand_in_for_a_name_and_not_for_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("BGE-VL-base", "data/BGE-VL-base", "elsewhere"):
        copy_to("bge-vl-base", tmp_path / folder)
    assert SentenceTransformer("BGE-VL-base", weights="elsewhere", device="cpu").get_embedding_dimension()
    with pytest.raises(ValueError, match="'data/BGE-VL-base' is not the name of one"):
        SentenceTransformer("data/BGE-VL-base", weights="elsewhere", device="cpu")


def test_a_short_name_means_the_model_whatever_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert SentenceTransformer("tiny", device="cpu").get_embedding_dimension() == 128
    assert find_published("tiny")


def test_a_folder_with_modules_of_sentence_transformers_and_a_repositorys_name_is_refused(tmp_path: Path) -> None:
    plain = sentence_transformers.SentenceTransformer(str(copy_to("bge-vl-base", tmp_path / "mine")), device="cpu")
    folder = tmp_path / "BGE-VL-base"
    plain.save_pretrained(str(folder))
    with pytest.raises(CheckpointError, match=r"modules\.json.*Rename the folder.*weights="):
        SentenceTransformer(str(folder), device="cpu")
    assert find_model("bge-vl-base") == recognise(copy_to("bge-vl-base", tmp_path / "other" / "BGE-VL-base"))


@pytest.mark.parametrize("naming", NAMINGS)
def test_a_repository_that_has_modules_of_sentence_transformers_itself_is_the_model(
    naming: str, tmp_path: Path
) -> None:
    name = "qwen3-vl-embedding-2b"
    folder = copy_to(name, tmp_path / NAMINGS[naming](name))
    types = {"": "base.modules.transformer.Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.{kind}"}
        for number, (path, kind) in enumerate(types.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    settings = {"prompts": {"x": "no prompt of ours: "}, "default_prompt_name": "x", "similarity_fn_name": "dot"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    model = SentenceTransformer(str(folder), device="cpu")
    assert differences(model, name) <= TOLERANCE
    assert model.prompts == {"query": "", "document": "", **get_model(name).prompts}
    assert model.default_prompt_name is None


@pytest.mark.parametrize("folder", ["models--me--BGE-VL-base/snapshots/0", "me--BGE-VL-base", "BGE-VL-base-mine"])
def test_a_folder_of_another_owners_repository_is_not_the_authors(folder: str, tmp_path: Path) -> None:
    path = copy_to("bge-vl-base", tmp_path / folder)
    assert recognise(path) is None
    with pytest.raises(CheckpointError, match="weights="):
        SentenceTransformer(str(path), device="cpu")


def test_a_saved_model_without_its_list_of_modules_is_refused(tmp_path: Path) -> None:
    reference("gme-2b").load("gme-2b").save_pretrained(str(tmp_path))
    (tmp_path / "modules.json").unlink()
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        SentenceTransformer(str(tmp_path), device="cpu")


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', "[[" * 100_000], ids=["cut", "numbers", "dict", "deep"])
def test_a_damaged_list_of_modules_is_refused_by_its_name(content: str, tmp_path: Path) -> None:
    folder = copy_to("bge-vl-base", tmp_path / "mine")
    (folder / "modules.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"mine.modules\.json"):
        SentenceTransformer(str(folder), device="cpu")


def test_what_sentence_transformers_saved_is_its_own_affair(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "bge_visualized_base" / "bge", tmp_path / "bert"))
    BertModel(BertConfig.from_pretrained(folder)).save_pretrained(folder)
    plain = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert np.array_equal(plain.encode(["a text"]), SentenceTransformer(str(folder), device="cpu").encode(["a text"]))


def test_a_clip_that_sentence_transformers_saved_is_its_own_affair(tmp_path: Path) -> None:
    folder = copy_to("bge-vl-base", tmp_path / "mine")
    config = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "auto_map": {}}))
    plain = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    plain.save_pretrained(str(tmp_path / "saved"))
    ours = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert np.array_equal(plain.encode(["a text"]), ours.encode(["a text"]))


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.touch()
    with pytest.raises(CheckpointError, match="Pass its folder"):
        SentenceTransformer(str(path), device="cpu")


@pytest.mark.parametrize("spec", ONE_A_REPOSITORY, ids=lambda spec: spec.name)
def test_a_repository_is_known_without_its_owner(spec: Any, tmp_path: Path) -> None:
    for name in (each.rpartition("/")[2] for each in spec.repositories):
        with pytest.raises(CheckpointError, match=f"{spec.name}: {spec.repo_id} is neither in the download cache"):
            SentenceTransformer(name.upper(), cache_folder=str(tmp_path), local_files_only=True)


@pytest.fixture
def registered() -> Iterator[None]:
    register()
    yield
    unregister()


@pytest.mark.usefixtures("registered")
def test_the_plain_class_recognises_folders_once_it_is_taught(tmp_path: Path) -> None:
    folder = copy_to("bge-vl-base", tmp_path / "BGE-VL-base")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    assert isinstance(model, SentenceTransformer)
    assert differences(model, "bge-vl-base") <= TOLERANCE
