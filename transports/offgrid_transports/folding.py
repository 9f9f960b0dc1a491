"""Ids made shorter: a run of base32 text becomes the bytes it stands for, five eighths as long.

Ids of nodes, jobs and objects are such text in messages, and no dictionary makes them shorter.

    run         ESCAPE | its length, RUN_CHARS_MIN to RUN_CHARS_MAX | its bits, the last byte filled up with zeros
    ESCAPE      ESCAPE 0
"""

from __future__ import annotations

import re

ESCAPE = 0xF5  # in no UTF-8 text
RUN_CHARS_MIN, RUN_CHARS_MAX = 16, 248
_ALPHABET = b"abcdefghijklmnopqrstuvwxyz234567"
_VALUES = {char: value for value, char in enumerate(_ALPHABET)}
_FOLDED = re.compile(b"[a-z2-7]{%d,%d}|\xf5" % (RUN_CHARS_MIN, RUN_CHARS_MAX))
_ESCAPED = bytes((ESCAPE, 0))


class FoldError(ValueError):
    """These bytes are nothing that was folded."""


def fold(body: bytes) -> bytes:
    return _FOLDED.sub(_fold_one, body)


def unfold(folded: bytes) -> bytes:
    """Raises FoldError. No longer than 8/5 of what is given."""
    parts, at = list[bytes](), 0
    while (found := folded.find(ESCAPE, at)) >= 0:
        parts.append(folded[at:found])
        length = folded[found + 1] if found + 1 < len(folded) else -1
        at = found + 2
        if length == 0:
            parts.append(bytes((ESCAPE,)))
            continue
        if not RUN_CHARS_MIN <= length <= RUN_CHARS_MAX:
            raise FoldError(f"a run of {length}; {RUN_CHARS_MIN} to {RUN_CHARS_MAX} are allowed")
        stop = at + (5 * length + 7) // 8
        if stop > len(folded):
            raise FoldError("a run is cut off")
        parts.append(_text_of(folded[at:stop], length))
        at = stop
    parts.append(folded[at:])
    return b"".join(parts)


def _fold_one(match: re.Match[bytes]) -> bytes:
    run = match.group()
    if run[0] == ESCAPE:
        return _ESCAPED
    number = 0
    for char in run:
        number = number << 5 | _VALUES[char]
    spare = -5 * len(run) % 8
    return bytes((ESCAPE, len(run))) + (number << spare).to_bytes((5 * len(run) + 7) // 8)


def _text_of(data: bytes, length: int) -> bytes:
    spare = -5 * length % 8
    number = int.from_bytes(data)
    if number & (1 << spare) - 1:
        raise FoldError("a run's last byte is filled up with something else than zeros")
    number >>= spare
    return bytes(_ALPHABET[number >> 5 * place & 31] for place in range(length - 1, -1, -1))
