"""Protocol buffers on the wire, as far as a few small messages need them. Pure.

Meshtastic's own library is GPL-3.0-only, and of its messages we need a handful of fields; so they are written and read
here by field number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
VARINT_BYTES_MAX = 10
Value = int | bytes


def varint(value: int) -> bytes:
    """A number below 2**64; negative ones as two's complement of 64 bits."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field: int, value: int) -> bytes:
    """A varint field; nothing when it is 0, as proto3 does."""
    return varint(field << 3 | VARINT) + varint(value) if value else b""


def blob(field: int, value: bytes) -> bytes:
    """A bytes, string or message field."""
    return varint(field << 3 | BYTES) + varint(len(value)) + value


def fixed32(field: int, value: int) -> bytes:
    return varint(field << 3 | FIXED32) + struct.pack("<I", value)


def floating(field: int, value: float) -> bytes:
    return varint(field << 3 | FIXED32) + struct.pack("<f", value)


def fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """Every field with its number, fixed ones as unsigned; raises ValueError where `data` is no message."""
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        wire, field = key & 7, key >> 3
        if wire == VARINT:
            value, at = _read_varint(data, at)
            yield field, value
            continue
        if wire == BYTES:
            length, at = _read_varint(data, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if at + length > len(data):
            raise ValueError("cut off")
        piece = data[at : at + length]
        at += length
        yield field, piece if wire == BYTES else int.from_bytes(piece, "little")


class Message:
    """A message's fields by number; of repeated ones the last. Raises ValueError where `data` is no message."""

    def __init__(self, data: bytes) -> None:
        self._fields: dict[int, Value] = dict(fields(data))

    def __contains__(self, field: int) -> bool:
        return field in self._fields

    def number(self, field: int) -> int:
        """0 when it is not there; raises ValueError when it is no number."""
        value = self._fields.get(field, 0)
        if not isinstance(value, int):
            raise ValueError(f"field {field} is no number")
        return value

    def signed(self, field: int) -> int:
        value = self.number(field)
        return value - (1 << 64) if value >> 63 else value

    def floating(self, field: int) -> float:
        value: float = struct.unpack("<f", struct.pack("<I", self.number(field) & 0xFFFFFFFF))[0]
        return value

    def blob(self, field: int) -> bytes:
        """Empty when it is not there; raises ValueError when it is a number."""
        value = self._fields.get(field, b"")
        if not isinstance(value, bytes):
            raise ValueError(f"field {field} is a number")
        return value

    def message(self, field: int) -> Message:
        return Message(self.blob(field))


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for index in range(VARINT_BYTES_MAX):
        if at + index >= len(data):
            raise ValueError("cut off")
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if not byte & 0x80:
            return value & ((1 << 64) - 1), at + index + 1
    raise ValueError("a number of more than 64 bits")
