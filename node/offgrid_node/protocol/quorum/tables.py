"""The rows of quorums: table names and keys."""

from __future__ import annotations

QUORUMS = "quorums"  # owner "/" quorum id → QuorumRow: this node's own, and at a broker those it keeps track of
FENCES = "quorum_fences"  # owner "/" quorum id → QuorumFence, at a member
CHANGES = "quorum_changes"  # number of a change (8 bytes, big-endian) → quorum id; one entry for each own quorum
CLOSED = "quorum_closed"  # number of a change → id of an own quorum that is closed; until all brokers were told
TOLD = "quorum_told"  # broker → number of the last change that it was told
COUNTS = "quorum_counts"  # what "/" owner → how many rows this node keeps for it
META, LAST_CHANGE = "meta", b"quorum_change"
TOLD_LIFE = b"quorum_told_life"  # in META: the life in which a broker was last told anything (latecomers.py)
LIFE = b"quorum_life"  # in META: how often this node was restored without its last rows, see `succession.py`

NUMBER_BYTES = 8


def quorum_key(owner: str, quorum_id: str) -> bytes:
    return f"{owner}/{quorum_id}".encode()


def number_key(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def number_of(value: bytes | None) -> int:
    """The inverse of `number_key`; 0 for no row."""
    return int.from_bytes(value or b"", "big")
