"""KISS: frames on a serial line (Chepponis and Karn, 1987), as RNode and MeshCore modems speak it. Pure.

A frame is FEND, a command byte, the payload and FEND; FEND and FESC inside are escaped. One FEND may end a frame and
begin the next. Whatever stands outside frames, or has a wrong escape, or is too long, is dropped and counted.
"""

from __future__ import annotations

FEND, FESC, TFEND, TFESC = 0xC0, 0xDB, 0xDC, 0xDD
FRAME_BYTES_MAX = 1024  # escaped; the longest that a modem here sends has 508 bytes
END, ESCAPE = bytes([FEND]), bytes([FESC])


def escaped(data: bytes) -> bytes:
    return data.replace(ESCAPE, bytes([FESC, TFESC])).replace(END, bytes([FESC, TFEND]))


def unescaped(data: bytes) -> bytes | None:
    """None for a wrong escape."""
    if FESC not in data:
        return data
    first, *rest = data.split(ESCAPE)
    plain = bytearray(first)
    for part in rest:
        if not part or part[0] not in (TFEND, TFESC):
            return None
        plain.append(FEND if part[0] == TFEND else FESC)
        plain += part[1:]
    return bytes(plain)


def encode(command: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return END + escaped(bytes([command]) + payload) + END


class KissDecoder:
    """Bytes in, frames out; keeps at most `frame_bytes_max` of an unfinished one."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self.dropped_bytes = 0
        self._most = frame_bytes_max
        self._rest = bytearray()
        self._in_frame = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The (command, payload) of each frame that `data` completes."""
        frames: list[tuple[int, bytes]] = []
        *pieces, rest = data.split(END)
        for piece in pieces:
            self._take(piece)
            if self._in_frame and self._rest:
                plain = unescaped(bytes(self._rest))
                if plain:
                    frames.append((plain[0], plain[1:]))
                else:
                    self.dropped_bytes += len(self._rest)
            self._rest.clear()
            self._in_frame = True
        self._take(rest)
        return frames

    def _take(self, piece: bytes) -> None:
        if not self._in_frame or len(self._rest) + len(piece) > self._most:
            self.dropped_bytes += len(self._rest) + len(piece)
            self._rest.clear()
            self._in_frame = False
        else:
            self._rest += piece
