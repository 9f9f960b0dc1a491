"""What is being executed, on a mapped file: whoever starts after a process that died can say what it was at work on.

For work whose lease is not durable before it starts, since it leaves no traces. A mapped page outlives its process,
however that ends (kill -9, a fault in compiled code, memory that ran out), and costs a copy of 32 bytes where a row
would cost a flush; a machine that loses its power loses it as well, and that was no payload's doing.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from offgrid_node.protocol.jobs.orders import DIGEST_BYTES, ClaimKey

PLACES = 1_024  # as many as a host may have slots; beyond them nothing is noted
NOTHING = bytes(DIGEST_BYTES)
SIZE_BYTES = PLACES * DIGEST_BYTES


class AtWork:
    """Digests of payloads, each as long as it is executed."""

    def __init__(self, path: Path) -> None:
        """Raises OSError where the file cannot be written."""
        path.touch(mode=0o600)
        with path.open("r+b") as file:
            found = file.read(SIZE_BYTES)
            file.seek(0)
            file.write(bytes(SIZE_BYTES))  # a page without a block behind it is a fault when the disk is full
            file.flush()
            file.truncate(SIZE_BYTES)
            self._map = mmap.mmap(file.fileno(), SIZE_BYTES)
        places = (found[_span(place)] for place in range(len(found) // DIGEST_BYTES))
        self._left = {digest for digest in places if digest != NOTHING}
        self._free = list(reversed(range(PLACES)))
        self._places: dict[ClaimKey, int] = {}

    def take_left(self) -> set[bytes]:
        """What the process before this one was at work on when it died; told once."""
        left, self._left = self._left, set()
        return left

    def begin(self, key: ClaimKey, digest: bytes) -> None:
        if self._free and len(digest) == DIGEST_BYTES:
            place = self._places[key] = self._free.pop()
            self._map[_span(place)] = digest

    def end(self, key: ClaimKey) -> None:
        place = self._places.pop(key, None)
        if place is not None:
            self._map[_span(place)] = NOTHING
            self._free.append(place)

    def close(self) -> None:
        """The end is an orderly one: what is broken off is nobody's fault."""
        self._map[:] = bytes(SIZE_BYTES)
        self._map.close()


def _span(place: int) -> slice:
    return slice(place * DIGEST_BYTES, (place + 1) * DIGEST_BYTES)
