"""Messages on a byte stream, each after its length in four bytes, the highest first. Pure.

A large one is received where it stays and leaves in slices, so that neither is copied as a whole.
"""

from __future__ import annotations

from collections import deque

from offgrid.pieces import Buffer, Parts

HEAD_BYTES = 4
ROOM_BYTES = 64 * 1024  # for small messages; a larger one gets room of its own
SLICE_BYTES = 64 * 1024  # what leaves at once: TLS of a mebibyte at a time costs half as much again (caches)


class FrameTooLong(ValueError):
    """The other side says that a message longer than is allowed follows; nothing after it can be made out."""


def frame(message: bytes) -> bytes:
    """As it goes over the stream."""
    return len(message).to_bytes(HEAD_BYTES, "big") + message


class Frames:
    """What has come in and is not taken yet: one message and ROOM_BYTES of the stream at most.

    What comes is written into `room` and then told to `came`; `next` is asked until it has no more before that is done
    again.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._data = bytearray(min(ROOM_BYTES, HEAD_BYTES + bytes_max))
        self._view = memoryview(self._data)
        self._taken = self._filled = 0
        self._large: memoryview | None = None  # one message's own room
        self._large_filled = 0

    @property
    def room(self) -> memoryview:
        """Where the next bytes of the stream belong; never empty."""
        if self._large is not None:
            return self._large[self._large_filled :]
        return self._view[self._filled :]

    def came(self, size_bytes: int) -> bool:
        """So many bytes at the beginning of `room`. Whether it is worth asking for the next message."""
        if self._large is not None:
            self._large_filled += size_bytes
            return self._large_filled == len(self._large)
        self._filled += size_bytes
        return True

    def next(self) -> Buffer | None:
        """The next whole message; None when it is not all there yet. Raises FrameTooLong."""
        if self._large is not None:
            return self._whole()
        start = self._taken + HEAD_BYTES
        if self._filled < start:
            self._compact()
            return None
        size = int.from_bytes(self._view[self._taken : start], "big")
        if size > self._bytes_max:
            raise FrameTooLong(f"a message of {size} bytes; at most {self._bytes_max} are allowed")
        end = start + size
        if self._filled >= end:
            self._taken = end
            return bytes(self._view[start:end])
        if HEAD_BYTES + size <= len(self._data):
            self._compact()
            return None
        self._large, self._large_filled = memoryview(bytearray(size)), self._filled - start
        self._large[: self._large_filled] = self._view[start : self._filled]
        self._taken = self._filled = 0
        return None

    def _whole(self) -> Buffer | None:
        large = self._large
        if large is None or self._large_filled < len(large):
            return None
        self._large = None
        return large

    def _compact(self) -> None:
        """What was taken goes, once for all that came together."""
        rest = self._filled - self._taken
        if self._taken:
            self._view[:rest] = bytes(self._view[self._taken : self._filled])
            self._taken, self._filled = 0, rest


class Outgoing:
    """Frames that are still to leave, in slices."""

    def __init__(self) -> None:
        self._parts: deque[Buffer] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def put(self, parts: Parts) -> None:
        """One message, in two parts."""
        head, tail = parts
        begins = (len(head) + len(tail)).to_bytes(HEAD_BYTES, "big") + head
        if not tail:
            self._parts.append(begins)
            return
        view, first = memoryview(tail), max(0, SLICE_BYTES - len(begins))
        self._parts.append(b"".join((begins, view[:first])))
        if first < len(view):
            self._parts.append(view[first:])

    def take(self) -> Buffer:
        """The next slice; empty when there is none."""
        if not self._parts:
            return b""
        part = self._parts.popleft()
        if len(part) <= SLICE_BYTES:
            return part
        view = memoryview(part)
        self._parts.appendleft(view[SLICE_BYTES:])
        return view[:SLICE_BYTES]
