"""Messages as values of a GATT characteristic, pure: each value is a header byte and a piece of one message.

Header: bit 7 the first piece of a message, bit 6 its last, bits 5 to 0 count the values of the channel. Values arrive
in order, but a stack that is short of buffers may drop some without a word: a gap spoils the message that it is in and
nothing else.
"""

from __future__ import annotations

FIRST = 0x80
LAST = 0x40
COUNT_MASK = 0x3F
HEADER_BYTES = 1


class Cutter:
    """Cuts the messages of one direction; counts its values."""

    def __init__(self) -> None:
        self._count = 0

    def cut(self, message: bytes, value_bytes: int) -> list[bytes]:
        """The values, of at most `value_bytes` each (2 or more), that carry `message` (not empty)."""
        room = value_bytes - HEADER_BYTES
        pieces = [message[at : at + room] for at in range(0, len(message), room)]
        values = []
        for number, piece in enumerate(pieces):
            flags = (FIRST if number == 0 else 0) | (LAST if number == len(pieces) - 1 else 0)
            values.append(bytes([flags | self._count]) + piece)
            self._count = (self._count + 1) & COUNT_MASK
        return values


class Joiner:
    """Joins them again. Holds at most `limit_bytes`, whatever arrives."""

    def __init__(self, limit_bytes: int) -> None:
        self.spoiled = 0
        """Messages that were dropped for a gap or their length, and values without a message around them."""
        self._limit = limit_bytes
        self._parts: list[bytes] | None = None
        self._length = 0
        self._next = 0

    def join(self, value: bytes) -> bytes | None:
        """The message that this value completes, if it does."""
        if len(value) <= HEADER_BYTES:
            self._spoil()
            return None
        head, piece = value[0], value[HEADER_BYTES:]
        gap = head & COUNT_MASK != self._next
        self._next = (head + 1) & COUNT_MASK
        if head & FIRST:
            if self._parts is not None:
                self._spoil()
            self._parts, self._length = [], 0
        elif self._parts is None or gap:
            self._spoil()
            return None
        self._length += len(piece)
        if self._length > self._limit:
            self._spoil()
            return None
        self._parts.append(piece)
        if not head & LAST:
            return None
        message = b"".join(self._parts)
        self._parts = None
        return message

    def _spoil(self) -> None:
        self._parts = None
        self.spoiled += 1
