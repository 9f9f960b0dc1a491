"""What a job brings in and out when it is too large to travel inside its messages, and what of it a host may keep.

Up to INLINE_BYTES_MAX an input is part of the payload and an output part of the report. Beyond that they are objects of
the core: the payload names one with its key, the report names what the host keeps sealed until the core has taken it
over. Either way a host keeps nothing in clear: what it reports is sealed for the core (`keys/letters.py`).
"""

from __future__ import annotations

import hashlib

INLINE_BYTES_MAX = 64 * 1024
LARGE_INPUT_BYTES_MAX = OUTPUT_BYTES_MAX = 64 * 1024 * 1024  # of one job; a host has them in memory while it runs
KEY_BYTES = 32
ARCHIVE_BYTES_MAX = 65 * 1024 * 1024  # of the files of a result, packed: what a tar adds is far less than 1 MiB
OUTPUT_LOST = "OutputLost"  # reported, and not to be had: it is not paid, and the next attempt begins


def report_context(host: str, core: str, job_id: str, attempt: int) -> bytes:
    """What a sealed result is bound to: it opens as the result of this attempt and of no other. Node ids and numbers
    hold no slash, so no two attempts have the same."""
    return f"og.result.v1/{host}/{core}/{attempt}/{job_id}".encode()


class ResultHash:
    """BLAKE2b-256 over exit code and output, as it comes: what redundant executions are compared by."""

    def __init__(self, exit_code: int) -> None:
        self._state = hashlib.blake2b(digest_size=32, person=b"og.result.v1")
        self._state.update(exit_code.to_bytes(4, "big", signed=True))

    def add(self, output: bytes) -> None:
        self._state.update(output)

    def digest(self) -> bytes:
        return self._state.digest()
