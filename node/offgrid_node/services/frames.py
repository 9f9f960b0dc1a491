"""Messages on a byte stream, each after its length in four bytes, the highest first. Pure."""

from __future__ import annotations

HEAD_BYTES = 4


class FrameTooLong(ValueError):
    """The other side says that a message longer than is allowed follows; nothing after it can be made out."""


def frame(message: bytes) -> bytes:
    """As it goes over the stream."""
    return len(message).to_bytes(HEAD_BYTES, "big") + message


class Frames:
    """What has come in and is not taken yet: one whole message and a chunk of the stream at most, where `next` is asked
    until it has no more before reading goes on."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._data = bytearray()
        self._taken = 0

    def feed(self, data: bytes) -> None:
        self._data += data

    def next(self) -> bytes | None:
        """The next whole message; None when it is not all there yet. Raises FrameTooLong."""
        data, start = self._data, self._taken + HEAD_BYTES
        if len(data) < start:
            self._forget()
            return None
        end = start + int.from_bytes(data[self._taken : start], "big")
        if end - start > self._bytes_max:
            raise FrameTooLong(f"a message of {end - start} bytes; at most {self._bytes_max} are allowed")
        if len(data) < end:
            self._forget()
            return None
        self._taken = end
        return bytes(data[start:end])

    def _forget(self) -> None:
        """What was taken, once for all that came together."""
        if self._taken:
            del self._data[: self._taken]
            self._taken = 0
