"""AV1: the largest size of its frames, which is in the header of a sequence."""

from __future__ import annotations

from collections.abc import Iterator

_SEQUENCE_HEADER = 1
_LONGEST_HEADER = 512


def read_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    """Return width and height of each sequence in data; ``(0, 0)`` for any other unit, which takes time too."""
    place = 0
    while place < len(data) and data[place] < 128:
        kind, has_extension, has_size = data[place] >> 3, data[place] & 4, data[place] & 2
        place += 2 if has_extension else 1
        length, shift = len(data) - place, 0
        if has_size:
            length = 0
            while place < len(data) and shift < 56:
                length |= (data[place] & 127) << shift
                place, shift = place + 1, shift + 7
                if data[place - 1] < 128:
                    break
        yield _read_sequence(data[place : place + min(length, _LONGEST_HEADER)]) if kind == _SEQUENCE_HEADER else (0, 0)
        place += length


class _Bits:
    """The bits of data, and zeros after them."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def read(self, count: int) -> int:
        self._left -= count
        value = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return value & ((1 << count) - 1)

    def skip_exponential(self) -> None:
        zeros = 0
        while zeros < 32 and not self.read(1):
            zeros += 1
        self.read(zeros)


def _read_sequence(data: bytes) -> tuple[int, int]:
    bits = _Bits(data)
    bits.read(4)  # profile, and whether it is one picture
    if bits.read(1):  # a short header
        bits.read(5)
    else:
        _skip_timing(bits)
    across, down = bits.read(4) + 1, bits.read(4) + 1
    return bits.read(across) + 1, bits.read(down) + 1


def _skip_timing(bits: _Bits) -> None:
    delay = 0
    if bits.read(1):  # times of frames
        bits.read(64)
        if bits.read(1):
            bits.skip_exponential()
        if bits.read(1):  # a model of the decoder
            delay = bits.read(5) + 1
            bits.read(42)
    has_display_delay = bits.read(1)
    for _ in range(bits.read(5) + 1):
        bits.read(12)
        if bits.read(5) > 7:
            bits.read(1)
        if delay and bits.read(1):
            bits.read(2 * delay + 1)
        if has_display_delay and bits.read(1):
            bits.read(4)
