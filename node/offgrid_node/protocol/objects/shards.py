"""A shard as it lies on a disk: sealed stripes, one behind the other; how they are found, hashed and vouched for.

The root says that the bytes are the manifest's. The possession digest says that the host had all of them when it
signed: it covers the host's own id and the epoch, so that no host can take it from another, or from last time (after
the per-prover challenge of "PORs: Proofs of Retrievability", Juels and Kaliski, 2007, without a challenger). The owner,
who has the bytes, works it out for each host and compares: an ack without them counts for nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.objects.manifest import TAG_BYTES, Manifest, shard_root, stripe_digest

POSSESSION_KIND = b"og.possession.v1"

Read = Callable[[int, int], bytes]
"""Offset and length → exactly so many bytes."""


def stripe_span(manifest: Manifest, index: int) -> tuple[int, int]:
    """Where a sealed stripe begins in a full copy, and its length."""
    offset = index * (manifest.stripe_bytes + TAG_BYTES)
    return offset, min(manifest.stripe_bytes + TAG_BYTES, manifest.sealed_bytes - offset)


def row_span(manifest: Manifest, index: int) -> tuple[int, int]:
    """Where a stripe's row begins in a shard, and its length. Of a copy, `stripe_span`."""
    return index * manifest.row_bytes, -(-stripe_span(manifest, index)[1] // manifest.k)


class Possession:
    """The digest that only the shard's bytes give, for one host and one epoch."""

    def __init__(self, salt: bytes, node_id: str, epoch: int) -> None:
        self._state = hashlib.blake2b(digest_size=32, person=POSSESSION_KIND, salt=salt)
        self._state.update(node_id_bytes(node_id) + epoch.to_bytes(4, "big"))

    def add(self, sealed: bytes) -> None:
        self._state.update(sealed)

    def digest(self) -> bytes:
        return self._state.digest()


def possession_of(manifest: Manifest, read: Read, salt: bytes, node_id: str, epoch: int) -> bytes:
    """What `node_id` must sign if it has all the bytes that `read` gives."""
    possession = Possession(salt, node_id, epoch)
    for index in range(manifest.stripes):
        possession.add(read(*stripe_span(manifest, index)))
    return possession.digest()


def hash_shard(manifest: Manifest, read: Read, salt: bytes, node_id: str, epoch: int) -> tuple[bytes, bytes]:
    """The root over the bytes as they are read, and this node's possession digest of them."""
    digests, possession = [], Possession(salt, node_id, epoch)
    for index in range(manifest.stripes):
        sealed = read(*stripe_span(manifest, index))
        digests.append(stripe_digest(salt, sealed))
        possession.add(sealed)
    return shard_root(digests), possession.digest()
