"""Frames in a stream of bytes: a hello each way, then each frame behind its length. Pure.

    hello   "OGL1" · 2 bytes the longest frame that this end takes
    frame   2 bytes length · as many bytes

Anything else (another hello, a length of nothing or beyond what was offered) is garbage, and with it the stream is
lost: there is no way to tell where the next frame begins.
"""

from __future__ import annotations

import struct

from offgrid_transports.transport import FRAME_BYTES_MAX, LINK_BYTE

MAGIC = b"OGL1"
FRAME_BYTES_MIN = 64  # no end may offer less
_LENGTH = struct.Struct("!H")
HELLO_BYTES = len(MAGIC) + _LENGTH.size


class Garbage(Exception):
    """What came is no such stream; says what it was."""


def hello(frame_bytes_max: int) -> bytes:
    return MAGIC + _LENGTH.pack(frame_bytes_max)


def framed(frame: bytes) -> bytes:
    return _LENGTH.pack(len(frame)) + frame


class Deframer:
    """Takes what came, in whichever pieces, and returns frames. It holds what was not taken yet, and no more."""

    def __init__(self, frame_bytes_max: int) -> None:
        self._most = frame_bytes_max
        self._bytes = bytearray()
        self._from = 0
        self.offered = 0
        """The longest frame that the other end takes; 0 before its hello."""

    @property
    def held(self) -> int:
        """Bytes that came and were not taken yet."""
        return len(self._bytes) - self._from

    def feed(self, data: bytes) -> None:
        if self._from:
            del self._bytes[: self._from]
            self._from = 0
        self._bytes += data

    def take(self) -> bytes | None:
        """The next frame; None when it is not whole yet. Raises Garbage, from then on each time."""
        if not self.offered and not self._take_hello():
            return None
        if self.held < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes, self._from)
        if not 0 < length <= self._most:
            raise Garbage(f"a frame of {length} bytes; allowed: 1 to {self._most}")
        begins = self._from + _LENGTH.size
        if self.held > _LENGTH.size and self._bytes[begins] >= LINK_BYTE:
            raise Garbage(f"a frame that begins with {self._bytes[begins]:#x}; allowed: below {LINK_BYTE:#x}")
        if self.held < _LENGTH.size + length:
            return None
        self._from = begins + length
        return bytes(self._bytes[begins : self._from])

    def _take_hello(self) -> bool:
        began = self._bytes[: len(MAGIC)]
        if not MAGIC.startswith(began):
            raise Garbage(f"it begins with {bytes(began)!r}; allowed: {MAGIC!r}")
        if self.held < HELLO_BYTES:
            return False
        (offered,) = _LENGTH.unpack_from(self._bytes, len(MAGIC))
        if not FRAME_BYTES_MIN <= offered <= FRAME_BYTES_MAX:
            raise Garbage(f"it takes frames of {offered} bytes; allowed: {FRAME_BYTES_MIN} to {FRAME_BYTES_MAX}")
        self.offered, self._from = offered, HELLO_BYTES
        return True
