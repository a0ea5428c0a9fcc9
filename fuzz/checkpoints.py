"""Checkpoints: files of small models, one of which is damaged or is something else than a file."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any, TypeAlias
from zipfile import ZipFile, ZipInfo

from hypothesis import strategies as st

from fuzz.bounds import Outcome
from fuzz.mutations import mutations
from fuzz.outcomes import CHECKPOINTS, GOLDEN, embed_or_refuse, tiny
from st_modules import SentenceTransformer

_SAVED = "saved"
_VALUES: list[Any] = [
    *(None, True, False, -1, 0, 1, 2, 3.5, 1e30, float("nan"), float("inf"), 10**9, 10**40),
    *("x", "", "float32", "../../x", "(a+)+$", [], [[]], ["x"], {}, {"x": {}}, [0.5] * 3, [10**9] * 3),
]


@dataclass
class Damage:
    """A model whose folder is copied and changed before it is loaded.

    Attributes:
        model: A name of the catalog, or ``saved`` for one that was saved by ``save_pretrained``.
        change: Changes the copy of its folder.
        words: What it does, for messages.
    """

    model: str
    change: Callable[[Path], object]
    words: str


@cache
def _saved() -> Path:
    folder = Path(mkdtemp(prefix="st-modules-fuzz-"))
    tiny().save_pretrained(str(folder))
    return folder


def _folders(model: str) -> tuple[Path, Path | None]:
    if model == _SAVED:
        return _saved(), None
    weights, base = CHECKPOINTS[model]
    return GOLDEN / weights, GOLDEN / base if base else None


def check(damage: Damage) -> Outcome:
    """Load a model from a folder that was changed, and embed a text by it."""
    source, base = _folders(damage.model)
    with TemporaryDirectory(prefix="st-modules-fuzz-") as name:
        folder = Path(name) / "model"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("images", "cases.json", "expected.safetensors"))
        damage.change(folder)
        inner = folder / base.name if base and base.parent == source else base

        def embed() -> Any:
            if damage.model == _SAVED:
                return SentenceTransformer(str(folder), device="cpu").encode(["a"])
            model = SentenceTransformer(damage.model, weights=folder, base_weights=inner, device="cpu")
            return model.encode(["a"])

        return embed_or_refuse(embed, 1, [str(folder), "item 0"])


def _replace(path: str, build: Callable[[Path], object], folder: Path) -> None:
    """Put something else in the place of a file."""
    (folder / path).unlink(missing_ok=True)
    build(folder / path)


def _link(target: str, path: Path) -> None:
    path.symlink_to(target)


def _link_outside(path: Path) -> None:
    """A link to a file outside of the folder that has what the file should have."""
    outside = path.parent.parent / "outside"
    shutil.copy(_source_of(path), outside)
    path.symlink_to(outside)


def _source_of(path: Path) -> Path:
    found = [folder / path.name for folder, _ in map(_folders, [*CHECKPOINTS, _SAVED])]
    return next(each for each in found if each.is_file())


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _set(path: str, where: tuple[Any, ...], value: Any, folder: Path) -> None:
    """Put a value at a place of a JSON file, or take out what is there, for ``...``."""
    content = json.loads((folder / path).read_text(encoding="utf-8"))
    if not where:
        content = None if value is ... else value
    else:
        inner = content
        for key in where[:-1]:
            inner = inner.setdefault(key, {}) if isinstance(inner, dict) else inner[key]
        if value is ...:
            del inner[where[-1]]
        else:
            inner[where[-1]] = value
    (folder / path).write_text(json.dumps(content), encoding="utf-8")


def _fields(path: str, name: str, value: Any) -> Callable[[Path], object]:
    """Return what sets a field of a JSON file; ``a.b`` is a field of a field."""
    return partial(_set, path, tuple(name.split(".")), value)


def _index(target: str, folder: Path) -> None:
    """Weights in several files, of which one is elsewhere."""
    names = json.loads(_header(folder / "model.safetensors")[1])
    names.pop("__metadata__", None)
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    shutil.copy(folder / "model-1.safetensors", folder.parent / "outside.safetensors")
    weight_map = dict.fromkeys(names, "model-1.safetensors")
    weight_map[next(iter(names))] = target
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def _with_pickle(content: bytes, path: Path) -> None:
    """Write a file of torch.save with another pickle, and its numbers where they can be."""
    with ZipFile(_source_of(path)) as source, ZipFile(path, "w") as archive, path.open("rb") as written:
        for part in source.infolist():
            start = written.seek(0, os.SEEK_END) + 30 + len(part.filename) + 4
            info = ZipInfo(part.filename)
            padding = -start % 64
            info.extra = b"FB" + struct.pack("<H", padding) + bytes(padding)
            archive.writestr(info, content if part.filename.endswith("data.pkl") else source.read(part))


def _header(path: Path) -> tuple[int, bytes]:
    data = path.read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    return length, data[8 : 8 + length]


def _with_header(change: Callable[[dict[str, Any]], object], path: Path, folder: Path) -> None:
    """Change the header of a safetensors file."""
    data = (folder / path).read_bytes()
    length, header = _header(folder / path)
    content = json.loads(header)
    change(content)
    written = json.dumps(content).encode()
    (folder / path).write_bytes(struct.pack("<Q", len(written)) + written + data[8 + length :])


def _set_first_shape(shape: list[int], content: dict[str, Any]) -> None:
    name = next(name for name in content if name != "__metadata__")
    content[name]["shape"] = shape


_WEIGHTS, _ADAPTER, _RUN = "model.safetensors", "adapter_config.json", "clip_sf_large.pth"
_SIZES = {
    "num_hidden_layers": 100_000,
    "vocab_size": 10_000_000,
    "hidden_size": 1_000_000,
    "intermediate_size": 100_000_000,
    "max_position_embeddings": 10**10,
    "num_attention_heads": 0,
}
_CONFIGURATION = {
    "vision_config.depth": 100_000,
    "vision_config.embed_dim": 10**7,
    "vision_config.patch_size": 0,
    "attn_implementation": "somebody/kernel",
    "_attn_implementation": "somebody/kernel",
    "auto_map": {"AutoModel": "code.Model"},
    "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "rope_scaling": {"type": "mrope", "mrope_section": [10**9]},
    "hidden_act": "x",
    "rms_norm_eps": float("nan"),
}
_DEEPSTACK_CONFIGURATION = {
    "vision_config.deepstack_visual_indexes": [0, 10**9],
    "vision_config.num_position_embeddings": 10**12,
    "vision_config.out_hidden_size": 10**9,
    "text_config.head_dim": 10**7,
    "text_config.model_type": "bert",
    "video_token_id": 10**40,
}
_SLOW_EXPRESSION = "(.*)(.*)(.*)(.*)(.*)(.*)(.*)(.*)x"
_ADAPTER_CONFIGURATION = {
    "r": 1_000_000,
    "lora_alpha": float("nan"),
    "alpha_pattern": {_SLOW_EXPRESSION: 5},
    "rank_pattern": {_SLOW_EXPRESSION: 5},
    "exclude_modules": _SLOW_EXPRESSION,
    "target_modules": _SLOW_EXPRESSION,
    "layers_pattern": _SLOW_EXPRESSION,
    "modules_to_save": ["x"],
    "auto_mapping": {"base_model_class": "system", "parent_library": "os"},
    "init_lora_weights": "pissa",
    "peft_type": "X",
    "base_model_name_or_path": "../../../etc",
}
_HEADERS: dict[str, Callable[[dict[str, Any]], object]] = {
    "an absurd shape": partial(_set_first_shape, [10**9, 10**9]),
    "a shape that does not fit": partial(_set_first_shape, [3]),
    "a negative shape": partial(_set_first_shape, [-1, -1]),
    "a hundred thousand tensors": lambda content: content.update(
        {f"x{number}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for number in range(100_000)}
    ),
}
_NO_FILES: dict[str, Callable[[Path], object]] = {
    "a link to /dev/zero": partial(_link, "/dev/zero"),
    "a link to a file outside": _link_outside,
    "a link to itself": lambda path: path.symlink_to(path),
    "a pipe": os.mkfifo,
    "a folder": Path.mkdir,
    "empty": partial(_write, b""),
}
_FIELDS_OF_SAVED: list[tuple[str, str, Any]] = [
    ("st_modules_config.json", "max_length", True),
    ("st_modules_config.json", "max_length", 1.5),
    ("st_modules_config.json", "image_limits", {}),
    ("preprocessor_config.json", "patch_size", 0),
    ("preprocessor_config.json", "size", {"height": 10**9, "width": 10**9}),
    ("preprocessor_config.json", "image_mean", [float("nan")] * 3),
    ("preprocessor_config.json", "image_std", [0, 0, 0]),
    ("config_sentence_transformers.json", "prompts", {"x": 5}),
    ("config_sentence_transformers.json", "similarity_fn_name", "x"),
    ("tokenizer_config.json", "model_max_length", "x"),
]
_DAMAGED_JSON = {
    "100,000 lists deep": b"[" * 100_000,
    "a list": b"[1]",
    "null": b"null",
    "no UTF-8": b'{"a": "\xff"}',
    "cut off": b'{"a": ',
}
_MODULES = [
    b'[{"idx": 0, "name": "0", "path": "../..", "type": "sentence_transformers.models.Normalize"}]',
    b'[{"idx": 0, "name": "0", "path": "", "type": "os.system"}]',
    b'[{"idx": 0, "name": "0", "path": "", "type": 5}]',
    b"[{}]",
]


_Attack: TypeAlias = tuple[str, str, Callable[[Path], object]]


def _weights() -> Iterator[_Attack]:
    """Yield attacks by files of weights: a model, what is done to its folder, and what does it."""
    for target in ("../outside.safetensors", "/dev/zero", "/etc/hostname", "missing.safetensors", ""):
        yield "gme-2b", f"an index with weights in {target!r}", partial(_index, target)
    for name in (_WEIGHTS, "config.json", "tokenizer.json", "preprocessor_config.json"):
        for words, build in _NO_FILES.items():
            yield "gme-2b", f"{name} is {words}", partial(_replace, name, build)
    for words, change in _HEADERS.items():
        yield "gme-2b", f"a header with {words}", partial(_with_header, change, Path(_WEIGHTS))
    yield "gme-2b", "a header of 10**18 bytes", partial(_replace, _WEIGHTS, partial(_write, b"\xff" * 64))


def _settings() -> Iterator[_Attack]:
    """Yield attacks by what a model's settings say."""
    for name, size in _SIZES.items():
        yield "gme-2b", f"{name} of {size}", _fields("config.json", name, size)
        yield "bge-vl-mllm-s1", f"text {name} of {size}", _fields("config.json", f"text_config.{name}", size)
        yield "bge-vl-base", f"text {name} of {size}", _fields("config.json", f"text_config.{name}", size)
        yield "bge-visualized-base", f"{name} of {size}", _fields("bge/config.json", name, size)
    for name, value in _CONFIGURATION.items():
        yield "gme-2b", f"{name} of {value}", _fields("config.json", name, value)
    for name, value in _DEEPSTACK_CONFIGURATION.items():
        yield "qwen3-vl-embedding-2b", f"{name} of {value}", _fields("config.json", name, value)
    for name, value in _ADAPTER_CONFIGURATION.items():
        yield "vlm2vec-v2", f"{name} of {value}", _fields(_ADAPTER, name, value)


def _saved_files() -> Iterator[_Attack]:
    """Yield attacks by the files that ``save_pretrained`` writes."""
    for path, name, value in _FIELDS_OF_SAVED:
        yield _SAVED, f"{path}, {name} of {value}", _fields(path, name, value)
    for name in ("modules.json", "config.json", "st_modules_config.json", "config_sentence_transformers.json"):
        for words, content in _DAMAGED_JSON.items():
            yield _SAVED, f"{name} is {words}", partial(_replace, name, partial(_write, content))
    for content in _MODULES:
        yield _SAVED, f"modules.json of {content!r}", partial(_replace, "modules.json", partial(_write, content))


def _runs() -> Iterator[tuple[str, str, Callable[[Path], object]]]:
    """Pickles of a training run of which nothing may be made."""
    pickles = {
        "a call of the system": b"cos\nsystem\nX\x04\x00\x00\x00exit\x85R",
        "dictionaries without end": b"}" * (2**20 - 8),
        "tuples within tuples": b"N" + b"\x85" * (2**20 - 8),
        "tuples of twice the same tuple": b"N\x85q\x00" + b"h\x00h\x00\x86q\x00" * 100_000,
        "a model of itself": b"}q\x00X\x05\x00\x00\x00modelh\x00s",
        "marks without end": b"(" * (2**20 - 8),
    }
    for words, content in pickles.items():
        build = partial(_with_pickle, b"\x80\x02" + content + b".")
        yield "clip-sf-large", words, partial(_replace, _RUN, build)


def _damage(model: str, change: Callable[[Path], object], words: str, scale: float) -> Damage:
    return Damage(model, change, words)


ATTACKS: Mapping[str, Callable[[float], object]] = {
    f"{model}: {words}": partial(_damage, model, change, words)
    for model, words, change in chain(_weights(), _runs(), _settings(), _saved_files())
}
"""Models by what is wrong with their files; there is one size of each."""


@cache
def _files(model: str) -> list[str]:
    """The files of a model, but for those of texts that nobody reads."""
    source, _ = _folders(model)
    ignored = ("images", "cases.json", "expected.safetensors", "README.md", ".pth")
    found = [str(path.relative_to(source)) for path in sorted(source.rglob("*")) if path.is_file()]
    return [name for name in found if name == _RUN or not (name.startswith(ignored) or name.endswith(ignored))]


def _paths(value: Any, depth: int = 3) -> list[tuple[Any, ...]]:
    """Where the values of a JSON file are; long lists and dictionaries count by their first ones."""
    if not depth or not isinstance(value, dict | list) or not value:
        return [()]
    items = list(value.items() if isinstance(value, dict) else enumerate(value))[:40]
    return [(), *((key, *rest) for key, inner in items for rest in _paths(inner, depth - 1))]


@st.composite
def _damages(draw: st.DrawFn) -> Damage:
    model = draw(st.sampled_from([*CHECKPOINTS, _SAVED]))
    name = draw(st.sampled_from(_files(model)))
    source = _folders(model)[0] / name
    kind = draw(st.sampled_from(["field", "field", "field", "bytes", "missing"]))
    if kind == "field" and name.endswith(".json") and source.stat().st_size < 200_000:
        where = draw(st.sampled_from(_paths(json.loads(source.read_text(encoding="utf-8")))))
        value = draw(st.sampled_from([..., *_VALUES]))
        return Damage(model, partial(_set, name, where, value), f"{model}: {name} {where} = {value!r}")
    if kind == "field" and name == _RUN:
        with ZipFile(source) as archive:
            pickle = next(part for part in archive.infolist() if part.filename.endswith("data.pkl"))
            content = draw(mutations(archive.read(pickle)))
        build = partial(_with_pickle, content)
        return Damage(model, partial(_replace, name, build), f"{model}: the pickle of {name} is damaged")
    if kind == "missing":
        return Damage(model, lambda folder: (folder / name).unlink(), f"{model}: {name} is missing")
    data = source.read_bytes()
    head = draw(mutations(data[:2000]))
    return Damage(model, partial(_replace, name, partial(_write, head + data[2000:])), f"{model}: {name} is damaged")


def strategy() -> st.SearchStrategy[Damage]:
    """Return models of which one file is missing, damaged, or has another value somewhere."""
    return _damages()
