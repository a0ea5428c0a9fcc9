"""``adapter_config.json``, read so that no expression of it is run and no size of it is believed."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftType
from torch import Tensor

from st_modules.checkpoints.adapter_fields import check_adapter_fields
from st_modules.checkpoints.json_files import read_json
from st_modules.checkpoints.locate import ADAPTER_CONFIG
from st_modules.checkpoints.weights import list_some
from st_modules.errors import CheckpointError

# What stands before a layer's own name depends on the class and the release that an adapter was trained with.
WRAPPERS = re.compile(r"^\^?(?:(?:base_model|model|language_model)\\?\.)+")
ADAPTER_WEIGHT = re.compile(
    r"(?P<module>.+)\.(?P<kind>lora_(?:embedding_)?[AB]|lora_magnitude_vector)(?:\.(?!weight$|bias$)\w+)?(?P<end>\.\w+)?"
)
PREFIX = "base_model.model."
"""What PEFT writes before the names of an adapter's weights."""

_NAME = re.compile(r"[\w.-]+")
_STEP = re.compile(r"(?P<one>\\[.wd-]|\[[\w.-]+\]|[\w.-])(?P<times>[*+?]?)")
_LONGEST_EXPRESSION = 200
_MOST_PATTERNS = 2000
_LARGEST_ALPHA = 1e6

_EXPRESSIONS = ("exclude_modules", "layers_pattern", "modules_to_save", "target_parameters", "feedforward_modules")
_PATTERNS = frozenset({"rank_pattern", "alpha_pattern"})
_RANKS = ("r", "rank", "init_r", "target_r")


def read_settings(folder: Path, weights: Mapping[str, Tensor]) -> PeftConfig:
    """Read the settings of an adapter, with names of layers in the place of the expressions that PEFT would run.

    Args:
        folder: Folder of the adapter.
        weights: Its weights, by the names of the file.

    Raises:
        CheckpointError: The file is damaged, does not fit the weights, or has an expression that cannot be replaced.
    """
    path = folder / ADAPTER_CONFIG
    content = read_json(path)
    check_adapter_fields(path, content)
    content.pop("runtime_config", None)  # of the machine that it was saved on; PEFT leaves it out too
    names = {match["module"] for name in weights if (match := ADAPTER_WEIGHT.fullmatch(name))}
    layers = sorted(name.removeprefix(PREFIX) for name in names)
    try:
        _check(content, weights)
        if content["peft_type"] == PeftType.LORA:
            _replace_targets(content, layers)
        for key in ("target_modules", *_EXPRESSIONS):
            _require_names(key, content.get(key))
        for key in content.keys() & _PATTERNS:
            content[key] = _replace_pattern(key, content.get(key), layers)
        if content["peft_type"] == PeftType.LORA:
            _check_ranks(content, weights)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}.") from error
    try:
        return PeftConfig.from_peft_type(**PeftConfig.check_kwargs(**content))
    except Exception as error:
        raise CheckpointError(f"{path}: PEFT cannot read it ({error}).") from error


def is_name(value: str) -> bool:
    """Whether something is a dotted name, which means itself as an expression."""
    return bool(_NAME.fullmatch(value))


def _check(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    if content.get("layer_replication"):
        raise ValueError("layer_replication: layers are not repeated. Use adapters without it")
    most = max((size for weight in weights.values() for size in weight.shape), default=0)
    for key in _RANKS:
        rank = content.get(key)
        if rank is not None and not (isinstance(rank, int) and not isinstance(rank, bool) and rank >= 1):
            raise ValueError(f"{key}={reprlib.repr(rank)}: a whole number above 0 is needed")
        if rank is not None and rank > most and content["peft_type"] != PeftType.LORA:
            raise ValueError(f"{key}={rank}: no weight of the adapter has this size")
    for key in ("lora_alpha", "alpha"):
        _require_alpha(key, content.get(key))


def _replace_targets(content: dict[str, Any], layers: list[str]) -> None:
    """Name the layers that have weights, where an expression would say which they are."""
    targets, excluded = content.get("target_modules"), content.get("exclude_modules")
    layer_patterns = content.get("layers_pattern") or []
    patterns = [layer_patterns] if isinstance(layer_patterns, str) else layer_patterns
    if (isinstance(targets, str) and targets != "all-linear") or isinstance(excluded, str) or not _are_names(patterns):
        content["target_modules"] = layers
        content.update(exclude_modules=None, layers_pattern=None, layers_to_transform=None)


def _require_names(key: str, value: Any) -> None:
    if value is None or value == "all-linear":
        return
    names = [value] if isinstance(value, str) and key == "layers_pattern" else value
    if not _are_names(names):
        raise ValueError(
            f"{key}={reprlib.repr(value)}: names of layers are read, and no expression of a file is run. Save the "
            "adapter again with a list of names"
        )


def _are_names(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) and is_name(value) for value in values)


def _replace_pattern(key: str, patterns: Any, layers: list[str]) -> dict[str, Any]:
    if not isinstance(patterns, dict | None) or len(patterns or {}) > _MOST_PATTERNS:
        raise ValueError(
            f"{key}={reprlib.repr(patterns)}: a value for each of at most {_MOST_PATTERNS} names is needed"
        )
    found: dict[str, Any] = {}
    for pattern, value in (patterns or {}).items():
        if key == "rank_pattern" and not (isinstance(value, int) and not isinstance(value, bool) and value >= 1):
            raise ValueError(f"{key}: {reprlib.repr(pattern)} has the rank {reprlib.repr(value)}")
        _require_alpha(key, value)
        literal = pattern.removeprefix("^").removesuffix("$").replace("\\.", ".").replace("\\-", "-")
        names = [literal] if is_name(literal) else select_names(pattern, layers, key)
        found.update({name: value for name in names if name not in found})
    return found


def _require_alpha(key: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is not None and not (number and math.isfinite(value) and abs(value) <= _LARGEST_ALPHA):
        raise ValueError(f"{key}={reprlib.repr(value)}: a number up to {_LARGEST_ALPHA:.0f} is needed")


def _check_ranks(content: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    ranks, wrong = content.get("rank_pattern", {}), set[str]()
    for name, weight in weights.items():
        match = ADAPTER_WEIGHT.fullmatch(name)
        if match is None or match["kind"] not in ("lora_A", "lora_embedding_A") or match["end"] == ".bias":
            continue
        own = [rank for key, rank in ranks.items() if f".{match['module']}".endswith(f".{WRAPPERS.sub('', key)}")]
        rank = own[0] if own else content.get("r", 8)
        if weight.ndim and weight.shape[0] != rank:
            wrong.add(f"{name} ({weight.shape[0]} in the file, {rank} in the settings)")
    if wrong:
        raise ValueError(f"r or rank_pattern is not the rank of the weights {list_some(wrong, most=500)}")


def select_names(pattern: str, names: Iterable[str], key: str) -> list[str]:
    """Return the names that an expression of PEFT means: those that end, after a full stop, with what it matches.

    It is matched in time that grows with the product of both lengths, whatever it says.

    Args:
        pattern: Characters, classes of them and ``.``, each once or with ``*``, ``+`` or ``?``.
        names: The names.
        key: What the expression is of, for messages.

    Raises:
        ValueError: The expression has something else in it.
    """
    text = pattern.removeprefix("^").removesuffix("$")
    steps = list(_STEP.finditer(text))
    if len(text) > _LONGEST_EXPRESSION or "".join(step[0] for step in steps) != text:
        raise ValueError(
            f"{key}={reprlib.repr(pattern)}: names of layers and simple expressions are read, and no other expression "
            "of a file is run. Write the names out"
        )
    try:
        parts = [(re.compile(step["one"]), step["times"]) for step in steps]
    except re.error as error:
        raise ValueError(f"{key}={reprlib.repr(pattern)}: no expression ({error})") from error
    return [name for name in names if any(_matches(parts, end) for end in _endings(name))]


def _endings(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _matches(parts: list[tuple[re.Pattern[str], str]], text: str) -> bool:
    """Follow all ways through an expression at once, character by character."""
    places = _skip(parts, {0})
    for character in text:
        on = {place for place in places if place < len(parts) and parts[place][0].fullmatch(character)}
        stay = {place for place in on if parts[place][1] in ("*", "+")}
        places = _skip(parts, {place + 1 for place in on} | stay)
    return len(parts) in places


def _skip(parts: list[tuple[re.Pattern[str], str]], places: set[int]) -> set[int]:
    reached = set(places)
    for place in range(len(parts)):
        if place in reached and parts[place][1] in ("*", "?"):
            reached.add(place + 1)
    return reached
