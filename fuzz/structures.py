"""Structures: what callers pass by mistake, and what strangers send where a service passes it on."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from fuzz.bounds import Outcome
from fuzz.images import png
from fuzz.outcomes import embed_or_refuse, tiny

_KEYS = [
    *("text", "image", "role", "content", "type", "url", "path", "base64", "image_url", "bytes", "system", "user"),
    *("", "index", "images"),
]
_ROLES = ["user", "system", "assistant", "tool", "USER", ""]


def check(value: object) -> Outcome:
    """Embed a value as the second of two."""
    return embed_or_refuse(lambda: tiny().encode(["a", value]), 2, ["item 1"])


def _nested(opening: Callable[[object], object], depth: float, scale: float) -> object:
    value: object = "a"
    for _ in range(max(3, int(depth * scale))):
        value = opening(value)
    return value


def _own(scale: float) -> object:
    value: list[object] = []
    value.append(value)
    return value


def _uri(payload: str, count: float, header: str, scale: float) -> object:
    return {"image": header + payload * max(2, int(count * scale))}


def _message(part: object) -> object:
    return {"role": "user", "content": [part]}


ATTACKS: Mapping[str, Callable[[float], object]] = {
    "data URI of 40 million %": partial(_uri, "%", 4e7, "data:image/png,"),
    "data URI of 25 million escapes": partial(_uri, "%41", 2.5e7, "data:image/png,"),
    "data URI of 76 MB of base64 with spaces": partial(_uri, "QUJD ", 1.5e7, "data:image/png;base64,"),
    "data URI of 76 MB of padding": partial(_uri, "=", 7.6e7, "data:image/png;base64,"),
    "data URI with a header of 40 MB": lambda scale: {"image": "data:" + ";a=b" * int(1e7 * scale) + ",a"},
    "string of 40 MB that may be base64": lambda scale: {"image": "QUJD" * max(20, int(1e7 * scale))},
    "URL of 40 MB": lambda scale: {"image": "http://" + "a." * max(20, int(2e7 * scale)) + "/x.png"},
    "path of 40 MB": lambda scale: {"image": Path("a/" * max(20, int(2e7 * scale)))},
    "bare string of 40 MB that ends as a picture's": lambda scale: "a" * max(20, int(4e7 * scale)) + ".png",
    "lists a hundred thousand deep": partial(_nested, lambda value: [value], 1e5),
    "objects a hundred thousand deep": partial(_nested, lambda value: {"text": value}, 1e5),
    "images a hundred thousand deep": partial(_nested, lambda value: {"image": value}, 1e5),
    "messages a hundred thousand deep": partial(_nested, _message, 1e5),
    "a list of itself": _own,
    "a million keys": lambda scale: {f"key {number}": "a" for number in range(int(1e6 * scale) + 2)},
    "a million parts": lambda scale: {"role": "user", "content": [{"type": "a"}] * (int(1e6 * scale) + 2)},
    "a million texts": lambda scale: {
        "role": "user",
        "content": [{"type": "text", "text": "a"}] * (int(1e6 * scale) + 2),
    },
    "a hundred thousand images": lambda scale: {"image": [png()] * (int(1e5 * scale) + 2)},
    "an array of 100 million numbers": lambda scale: np.zeros(max(4, int(1e8 * scale))),
    "a picture 100 million pixels long": lambda scale: Image.new("L", (max(4000, int(1e8 * scale)), 1)),
    "a key of 40 MB": lambda scale: {"a" * max(20, int(4e7 * scale)): "a"},
    "a role of 40 MB": lambda scale: {"role": "a" * max(20, int(4e7 * scale)), "content": "a"},
    "a type of 40 MB": lambda scale: _message({"type": "a" * max(20, int(4e7 * scale))}),
    "a number of a million digits": lambda scale: 10 ** max(20, int(1e6 * scale)),
    "a list of 10 million numbers": lambda scale: [0.5] * max(20, int(1e7 * scale)),
    "/dev/zero": lambda scale: {"image": "/dev/zero"},
    "/dev/stdin": lambda scale: {"image": Path("/dev/stdin")},
    "/proc/self/mem": lambda scale: {"image": "/proc/self/mem"},
    "/proc/kmsg": lambda scale: {"image": "file:///proc/kmsg"},
    "a folder": lambda scale: {"image": Path("/")},
}
"""Values by what they are."""


def _arrays() -> st.SearchStrategy[Any]:
    shape = st.lists(st.integers(0, 9), max_size=4).map(tuple)
    kinds = ["uint8", "float32", "int64", "bool", "complex64", "float16", "object", "U3", "S2", "M8[s]"]
    arrays = st.builds(np.zeros, shape, st.sampled_from(kinds))
    tensors = st.builds(lambda shape, kind: torch.zeros(shape, dtype=kind), shape, _torch_kinds())
    return arrays | tensors


def _torch_kinds() -> st.SearchStrategy[torch.dtype]:
    return st.sampled_from([torch.uint8, torch.float32, torch.bfloat16, torch.bool, torch.int64, torch.complex64])


def _pictures() -> st.SearchStrategy[Any]:
    modes = st.sampled_from(["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I", "F", "I;16", "LAB"])
    size = st.tuples(st.integers(0, 300), st.integers(0, 40))
    return st.builds(Image.new, modes, size)


def strategy() -> st.SearchStrategy[Any]:
    """Return values of all kinds, some of which are items."""
    encoded = base64.b64encode(png()).decode()
    strings = st.sampled_from(
        ["a", "", "data:,", "data:image/png;base64," + encoded, encoded, "file:///dev/zero", "http://", "http://[::1"]
    )
    words = strings | st.text(max_size=20) | st.sampled_from([*_ROLES, *_KEYS, "text", "image", "image_url"])
    numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.complex_numbers()
    leaves = words | numbers | st.binary(max_size=40) | st.just(png()) | _arrays() | _pictures()
    keys = st.sampled_from(_KEYS) | st.text(max_size=5) | st.integers() | st.none()
    parts = st.fixed_dictionaries({"type": st.sampled_from(["text", "image", "image_url", "video"])}).flatmap(
        lambda part: st.dictionaries(st.sampled_from(_KEYS), leaves, max_size=2).map(lambda rest: {**rest, **part})
    )
    messages = st.fixed_dictionaries({"role": st.sampled_from(_ROLES), "content": words | st.lists(parts, max_size=3)})
    nested = st.recursive(
        leaves | parts | messages,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(keys, inner, max_size=3)
            | st.lists(inner, max_size=2).map(tuple)
        ),
        max_leaves=8,
    )
    return nested | st.lists(messages, max_size=3) | st.fixed_dictionaries({"text": leaves, "image": nested})
