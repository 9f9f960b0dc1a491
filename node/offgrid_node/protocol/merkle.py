"""Merkle trees over 32-byte leaves (RFC 9162, section 2.1): an odd node moves up, it is never doubled.

Receipts, blocks of the ledger and stripes of an object hang in such trees. A leaf is its owner's personalised digest;
inner nodes have their own personalisation, so that no leaf can pass for one (RFC 7693, section 2.8).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

NODE_KIND = b"og.merkle.v1"
LEAVES_MAX = 1 << 20
DIGEST_BYTES = 32
_NODE = hashlib.blake2b(digest_size=DIGEST_BYTES, person=NODE_KIND)


class PathError(ValueError):
    """A path that cannot belong to a leaf at this place in a tree of this size."""


def join(left: bytes, right: bytes) -> bytes:
    """The node above two others."""
    state = _NODE.copy()  # which takes half the time of a new one
    state.update(left + right)
    return state.digest()


def root_of(leaves: Sequence[bytes]) -> bytes:
    """The root over at least one leaf."""
    level = list(leaves)
    while len(level) > 1:
        level = _above(level)
    return level[0]


class Peaks:
    """The root over leaves that come one by one: of so many only the roots of whole trees are kept, one of each size
    (the peaks of a Merkle mountain range)."""

    def __init__(self, peaks: Sequence[bytes] = (), count: int = 0) -> None:
        """Empty, or what `peaks` of a tree of so many leaves were."""
        self._peaks: list[bytes] = [*peaks]
        self._count = count

    @property
    def peaks(self) -> Sequence[bytes]:
        """The greatest tree first."""
        return self._peaks

    def add(self, leaf: bytes) -> None:
        node, count = leaf, self._count
        while count & 1:
            node, count = join(self._peaks.pop(), node), count >> 1
        self._peaks.append(node)
        self._count += 1

    def root(self) -> bytes:
        """Over at least one leaf; as `root_of`."""
        node = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            node = join(peak, node)
        return node


def tree_of(leaves: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """The root over at least one leaf, and each leaf's path, from its sibling upwards."""
    level, places = list(leaves), list(range(len(leaves)))
    paths: list[list[bytes]] = [[] for _ in leaves]
    while len(level) > 1:
        for leaf, place in enumerate(places):
            sibling = place ^ 1
            if sibling < len(level):
                paths[leaf].append(level[sibling])
            places[leaf] = place >> 1
        level = _above(level)
    return level[0], paths


def path_of(leaves: Sequence[bytes], place: int) -> list[bytes]:
    """One leaf's path, from its sibling upwards."""
    level, path = list(leaves), []
    while len(level) > 1:
        if (sibling := place ^ 1) < len(level):
            path.append(level[sibling])
        level, place = _above(level), place >> 1
    return path


def root_by_path(leaf: bytes, index: int, count: int, path: Sequence[bytes]) -> bytes:
    """The root that a leaf and its path lead to; raises PathError where there can be no such path."""
    if not 0 <= index < count <= LEAVES_MAX:
        raise PathError(f"leaf {index} of {count}")
    node, place, last, used = leaf, index, count - 1, 0
    while last:
        if place & 1 or place < last:
            if used == len(path):
                raise PathError("its path is too short")
            node = join(path[used], node) if place & 1 else join(node, path[used])
            used += 1
        place, last = place >> 1, last >> 1
    if used != len(path):
        raise PathError("its path is too long")
    return node


def _above(level: Sequence[bytes]) -> list[bytes]:
    pairs = range(0, len(level), 2)
    return [join(level[i], level[i + 1]) if i + 1 < len(level) else level[i] for i in pairs]
