"""Weights that do not fit are refused by their headers, before a model is built or a number is read."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from st_modules import CheckpointError, SentenceTransformer
from st_modules.checkpoints.shapes import read_shapes
from tests.helpers.references import reference

ROWS = ["gme-2b", "qwen3-vl-embedding-2b", "bge-vl-base", "bge-vl-mllm-s1"]


def copy(row: str, folder: Path) -> Path:
    return Path(shutil.copytree(reference(row).weights, folder / "checkpoint"))


def load(row: str, folder: Path) -> SentenceTransformer:
    return SentenceTransformer(row, weights=folder, device="cpu")


def change_config(folder: Path, part: str, **values: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    (config[part] if part else config).update(values)
    path.write_text(json.dumps(config))


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The maps of devices that models are loaded by; ``None`` is one with memory."""
    seen: list[object] = []
    original = PreTrainedModel.from_pretrained.__func__

    def record(cls: Any, *args: Any, **kwargs: Any) -> Any:
        seen.append(kwargs.get("device_map"))
        return original(cls, *args, **kwargs)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(record))
    return seen


SIZES = [
    ("gme-2b", "", "vocab_size", 10**7),
    ("gme-2b", "", "vocab_size", 517),
    ("gme-2b", "", "intermediate_size", 10**7),
    ("gme-2b", "", "num_hidden_layers", 4),
    ("gme-2b", "", "num_hidden_layers", 256),
    ("gme-2b", "", "num_key_value_heads", 4),
    ("gme-2b", "vision_config", "depth", 3),
    ("gme-2b", "vision_config", "embed_dim", 2**20),
    ("gme-2b", "vision_config", "patch_size", 2**14),
    ("bge-vl-base", "", "projection_dim", 10**7),
    ("bge-vl-base", "text_config", "vocab_size", 10**7),
    ("bge-vl-base", "text_config", "max_position_embeddings", 10**7),
    ("bge-vl-base", "vision_config", "image_size", 2**14),
    ("bge-vl-mllm-s1", "text_config", "vocab_size", 10**7),
    ("bge-vl-mllm-s1", "text_config", "head_dim", 10**7),
    ("bge-vl-mllm-s1", "vision_config", "intermediate_size", 10**7),
]


@pytest.mark.parametrize(("row", "part", "name", "value"), SIZES)
def test_sizes_that_the_weights_do_not_have_are_refused_before_anything_is_built(
    row: str, part: str, name: str, value: int, tmp_path: Path, devices: list[object]
) -> None:
    folder = copy(row, tmp_path)
    change_config(folder, part, **{name: value})
    with pytest.raises(CheckpointError, match="checkpoint: the weights (do not fit the model|cannot be loaded)"):
        load(row, folder)
    assert devices == [{"": "meta"}]


@pytest.mark.parametrize("row", ROWS)
def test_weights_that_fit_are_built_once(row: str, tmp_path: Path, devices: list[object]) -> None:
    load(row, copy(row, tmp_path))
    assert devices == [{"": "meta"}, None]


def test_the_sizes_of_a_text_encoder_are_those_of_the_file_too(tmp_path: Path, devices: list[object]) -> None:
    source = reference("bge-visualized-base")
    assert source.base_weights
    base = Path(shutil.copytree(source.base_weights, tmp_path / "bge"))
    change_config(base, "", vocab_size=10**7)
    with pytest.raises(CheckpointError, match=r"of another shape: .*word_embeddings.* in the file, \[10000000"):
        SentenceTransformer("bge-visualized-base", weights=source.weights, base_weights=base, device="cpu")
    assert devices == [{"": "meta"}]


def test_what_transformers_logs_of_misfits_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = copy("bge-vl-base", tmp_path)
    rewrite(folder, lambda weights: {name: each for name, each in weights.items() if name != "logit_scale"})
    load("bge-vl-base", folder)
    assert caplog.text.count("logit_scale") <= 1


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn], ids=str)
def test_quantised_weights_are_refused_by_name(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = copy("gme-2b", tmp_path)
    name = "model.layers.0.mlp.up_proj.weight"
    rewrite(folder, lambda weights: {**weights, name: weights[name].to(dtype)})
    with pytest.raises(CheckpointError, match=rf"checkpoint: the tensor {name} is stored as {str(dtype)[6:]}"):
        load("gme-2b", folder)


def test_positions_of_older_releases_are_whole_numbers(tmp_path: Path) -> None:
    folder = copy("bge-vl-base", tmp_path)
    positions = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    rewrite(folder, lambda weights: {**weights, **positions})
    load("bge-vl-base", folder)


def header(content: object, size: int = 8) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + bytes(size)


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


DAMAGED = {
    "empty": b"",
    "a header of 2**63 bytes": struct.pack("<Q", 2**63) + b"{}",
    "a header of 90 MB": struct.pack("<Q", 90 * 10**6) + b"{" + b" " * 1000,
    "a header that is none": struct.pack("<Q", 4) + b"abcd",
    "more numbers than the file": header({"a": entry([2**40], [0, 2**42])}),
    "a shape that is too large": header({"a": entry([2**40, 2**40], [0, 8])}),
    "numbers of two tensors": header({"a": entry([2], [0, 8]), "b": entry([2], [0, 8])}),
    "a hole": header({"a": entry([1], [4, 8])}),
    "a type that is none": header({"a": entry([2], [0, 8], "F33")}),
    "a shape below 0": header({"a": entry([-2], [0, 8])}),
    "a name without end": header({"a" * 2000: entry([2], [0, 8])}),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_header_is_refused_by_its_file(damage: str, tmp_path: Path) -> None:
    folder = copy("gme-2b", tmp_path)
    (folder / "model.safetensors").write_bytes(DAMAGED[damage])
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*model\.safetensors: cannot be read"):
        load("gme-2b", folder)


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(header({f"layers.{number}": entry([0], [0, 0]) for number in range(20_001)}, 0))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: more than 20000 tensors"):
        read_shapes([path])


def test_a_tensor_in_two_files_is_refused(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    for path in paths:
        save_file({"a": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"1\.safetensors: the tensor a is in another file"):
        read_shapes(paths)


def test_parts_of_a_distributed_checkpoint_are_refused(tmp_path: Path) -> None:
    folder = copy("gme-2b", tmp_path)
    (folder / "model.safetensors").rename(folder / "shard-00001-model-00001-of-00001.safetensors")
    with pytest.raises(CheckpointError, match="shard-00001.*distributed"):
        load("gme-2b", folder)


def test_pickled_weights_give_the_same_vectors(tmp_path: Path) -> None:
    folder = copy("gme-2b", tmp_path)
    expected = load("gme-2b", folder).encode("a text")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert abs(load("gme-2b", folder).encode("a text") - expected).max() <= 1e-6


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 4417000000\n"


@pytest.mark.parametrize(
    ("row", "file"),
    [
        *(("gme-2b", name) for name in ("model.safetensors", "pytorch_model.bin", "tokenizer.json", "config.json")),
        ("vlm2vec-qwen2vl-2b", "adapter_model.safetensors"),
        ("bge-visualized-base", "Visualized_base_en_v1.5.pth"),
    ],
)
def test_what_git_wrote_in_the_place_of_a_file_is_told(row: str, file: str, tmp_path: Path) -> None:
    source = reference(row).weights
    folder = Path(shutil.copytree(source if source.is_dir() else source.parent, tmp_path / "checkpoint"))
    if file.endswith(".bin"):
        (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(POINTER)
    with pytest.raises(CheckpointError, match=rf"{file}: a pointer of Git LFS"):
        SentenceTransformer(row, weights=folder, base_weights=reference(row).base_weights, device="cpu")


@pytest.mark.parametrize("metadata", [..., None, [1], "x"])
def test_an_index_without_its_metadata_is_refused_by_the_field(metadata: object, tmp_path: Path) -> None:
    folder = copy("gme-2b", tmp_path)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    content = {"metadata": metadata, "weight_map": {"x": "model-1.safetensors"}}
    if metadata is ...:
        del content["metadata"]
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json: metadata is .* an object is needed"):
        load("gme-2b", folder)
