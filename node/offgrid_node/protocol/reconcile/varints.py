"""Numbers as they travel here: seven bits a byte, the lowest first (LEB128, DWARF 4, section 7.6)."""

from __future__ import annotations

VALUE_MAX = (1 << 64) - 1
_BYTES_MAX = 10


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(raw: bytes, at: int) -> tuple[int, int]:
    """The value, and where it ends. Raises ValueError where there is none of at most 64 bits, in as few bytes as it
    takes."""
    value = 0
    for place, byte in enumerate(raw[at : at + _BYTES_MAX]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if value > VALUE_MAX or (place and not byte):
                break
            return value, at + place + 1
    raise ValueError(f"no number at byte {at} of {len(raw)}")
