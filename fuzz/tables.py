"""JSONL files that ``st-modules embed`` reads."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from hypothesis import strategies as st
from typer.testing import CliRunner

from fuzz.bounds import Outcome
from fuzz.images import png
from fuzz.mutations import mutations
from st_modules import cli


def check(content: bytes) -> Outcome:
    """Embed the rows of a file by the command, beside a picture that they may name."""
    with TemporaryDirectory(prefix="st-modules-fuzz-") as name:
        folder = Path(name)
        rows, out = folder / "rows.jsonl", folder / "vectors.npy"
        rows.write_bytes(content)
        (folder / "a.png").write_bytes(png())
        result = CliRunner().invoke(cli.app, ["embed", "--quiet", "--file", str(rows), "--out", str(out)])
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        printed = result.output.replace("\n", "")
        assert printed.isprintable(), f"control characters in {printed!r}"
        left = sorted(path.name for path in folder.iterdir())
        if result.exit_code:
            assert result.exit_code == 1, f"{result.exit_code}: {printed}"
            assert all(line.startswith("Error: ") for line in result.stderr.splitlines()), result.stderr
            assert "rows.jsonl" in result.stderr, result.stderr
            assert left == ["a.png", "rows.jsonl"], f"left behind: {left}"
            return Outcome(False, result.stderr)
        vectors = np.load(out)
        records = [json.loads(line) for line in out.with_suffix(".jsonl").read_text("utf-8").split("\n")[:-1]]
        assert len(vectors) == len(records) > 0
        assert np.abs(np.linalg.norm(vectors, axis=1) - 1).max() < 1e-3
        return Outcome(True, f"{vectors.shape}")


def _rows(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _repeat(piece: str, count: float, scale: float) -> str:
    return piece * max(2, int(count * scale))


ATTACKS: Mapping[str, Callable[[float], object]] = {
    "a lone surrogate in a text": lambda scale: _rows({"text": "\ud800"}),
    "a lone surrogate in another field": lambda scale: _rows({"text": "a", "note": ["\ud800"]}),
    "a lone surrogate in a name": lambda scale: _rows({"text": "a", "\ud800": 1}),
    "a lone surrogate in an id": lambda scale: _rows({"text": "a", "id": "\ud800"}),
    "a lone surrogate in an image": lambda scale: _rows({"image": "\ud800.png"}),
    "an escape sequence in an image": lambda scale: _rows({"image": "\x1b[31m.png"}),
    "an escape sequence in a name": lambda scale: b'{"\x1b[31m": 1}\n',
    "a line of 100 MB": lambda scale: _rows({"text": _repeat("a", 1e8, scale)}),
    "a line of 100 MB that does not end": lambda scale: b'{"text": "' + b"a" * int(1e8 * scale),
    "lists ten million deep": lambda scale: b'{"text": ' + b"[" * int(1e7 * scale + 9),
    "objects a million deep": lambda scale: b'{"text": ' + b'{"a":' * int(1e6 * scale + 9),
    "metadata a thousand deep": lambda scale: b'{"text": "a", "b": ' + b"[" * 1000 + b"]" * 1000 + b"}\n",
    "a number of 10 million digits": lambda scale: b'{"text": "a", "b": ' + b"1" * int(1e7 * scale + 9) + b"}\n",
    "numbers that are none": lambda scale: b'{"text": "a", "b": NaN, "c": -Infinity}\n',
    # Fields take linear time too, about 5 microseconds each.
    "half a million keys": lambda scale: _rows({"text": "a", **{str(n): n for n in range(int(5e5 * scale))}}),
    "10 million empty lines": lambda scale: b"\n" * int(1e7 * scale + 9),
    # Time is linear in them: each is parsed, as a right one would be.
    "500,000 bad lines": lambda scale: b"{\n" * int(5e5 * scale + 9),
    "zero bytes": lambda scale: b"",
    "binary": lambda scale: bytes(range(256)) * max(1, int(1e5 * scale)),
    "UTF-16": lambda scale: '{"text": "a"}\n'.encode("utf-16"),
    "/dev/zero as an image": lambda scale: _rows({"image": "/dev/zero"}),
    "a folder as an image": lambda scale: _rows({"image": "/"}),
}
"""Files by what is wrong with them."""


def strategy() -> st.SearchStrategy[bytes]:
    """Return files of rows, right ones among them, that are damaged afterwards or not."""
    strings = st.sampled_from(["a", "", "a.png", "b.png", "/", "http://0/", "data:,a", "\ud800", "\x1b[0m"]) | st.text(
        max_size=10
    )
    values = st.recursive(
        strings | st.none() | st.booleans() | st.integers() | st.floats(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(strings, inner, max_size=3),
        max_leaves=6,
    )
    keys = st.sampled_from(["text", "image", "id", "note"])
    right = st.fixed_dictionaries({"text": st.text(st.characters(codec="utf-8"), max_size=20)})
    rows = st.lists(right | st.dictionaries(keys, values, max_size=4), max_size=4).map(lambda rows: _rows(*rows))
    return rows | rows.flatmap(mutations)
