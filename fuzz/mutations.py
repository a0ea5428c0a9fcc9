"""Damage to bytes, as random as a fuzzer's and as repeatable as its seed."""

from __future__ import annotations

from hypothesis import strategies as st

_MOST_BYTES = 200_000
_NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Return bytes after a few changes: overwritten, cut out, put in, repeated or cut off."""
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        kind = draw(st.sampled_from(["flip", "number", "write", "insert", "delete", "repeat", "truncate"]))
        length = draw(st.sampled_from([1, 2, 4, 8, 16, 64, 256]))
        if kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
        elif kind == "number":
            size = draw(st.sampled_from([1, 2, 4]))
            number = draw(st.sampled_from(_NUMBERS)) % 256**size
            data = data[:at] + number.to_bytes(size, draw(st.sampled_from(["big", "little"]))) + data[at + size :]
        elif kind == "write":
            piece = draw(st.binary(max_size=8))
            data = data[:at] + piece + data[at + len(piece) :]
        elif kind == "insert":
            data = data[:at] + draw(st.binary(max_size=32)) + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + length :]
        elif kind == "repeat":
            count = min(draw(st.sampled_from([2, 3, 10, 100, 1000])), _MOST_BYTES // length)
            data = (data[:at] + data[at : at + length] * count + data[at + length :])[:_MOST_BYTES]
        elif kind == "truncate":
            data = data[:at]
    return data
