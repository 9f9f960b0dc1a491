"""A shard as it lies on a disk: its rows of all stripes, one behind the other; how they are found, hashed, vouched for.

A shard's root says that the bytes are the manifest's. The possession digest says that the host had all of them when it
signed: it covers the host's own id and the epoch, so that no host can take it from another, or from last time (after
the per-prover challenge of "PORs: Proofs of Retrievability", Juels and Kaliski, 2007, without a challenger). The owner,
who has the bytes, works it out for each host and compares: an ack without them counts for nothing. It is a hash over
the rows' Poly1305 tags (RFC 8439) under a key of mesh, host and epoch: everybody may know that key, for nobody is to be
kept from finding other bytes with the same tag; but the tag of these takes all of these.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.poly1305 import Poly1305

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.merkle import Peaks
from offgrid_node.protocol.objects.manifest import COPY, TAG_BYTES, Manifest, stripe_digest

POSSESSION_KIND = b"og.possession.v1"

Read = Callable[[str, int, int], bytes]
"""A blob's name, offset and length → exactly so many bytes."""
Rows = Callable[[int], Sequence[bytes]]
"""A stripe's index → its rows of the shards in question, in the ascending order of those."""


def blob_name(manifest: Manifest, shard: int) -> str:
    """What a shard is called at the host that keeps it. A copy has the object's id, as the owner's sealed copy has."""
    return manifest.object_id if manifest.codec == COPY else shard_name(manifest.object_id, shard)


def shard_name(object_id: str, shard: int) -> str:
    """Of a coded object."""
    return f"{object_id}.{shard}"


def stripe_span(manifest: Manifest, index: int) -> tuple[int, int]:
    """Where a sealed stripe begins in a full copy, and its length."""
    offset = index * (manifest.stripe_bytes + TAG_BYTES)
    return offset, min(manifest.stripe_bytes + TAG_BYTES, manifest.sealed_bytes - offset)


def row_span(manifest: Manifest, index: int) -> tuple[int, int]:
    """Where a stripe's row begins in a shard, and its length. Of a copy, `stripe_span`."""
    return index * manifest.row_bytes, -(-stripe_span(manifest, index)[1] // manifest.k)


def data_row_span(manifest: Manifest, index: int, shard: int) -> tuple[int, int]:
    """Where a data row's bytes begin in a full copy, and how many of them there are: fewer than the row has where the
    stripe ends before it does."""
    offset, length = stripe_span(manifest, index)
    row_bytes = row_span(manifest, index)[1]
    begin = min(shard * row_bytes, length)
    return offset + begin, min(row_bytes, length - begin)


def rows_of(stripe: bytes, k: int) -> list[memoryview]:
    """A sealed stripe as its k data rows; only those that are filled up with zeros are copied."""
    row_bytes, view = -(-len(stripe) // k), memoryview(stripe)
    rows = [view[at : at + row_bytes] for at in range(0, row_bytes * k, row_bytes)]
    return [row if len(row) == row_bytes else memoryview(bytes(row).ljust(row_bytes, b"\0")) for row in rows]


def stripe_of(manifest: Manifest, index: int, rows: Sequence[bytes]) -> bytes:
    """The inverse of `rows_of`."""
    return b"".join(rows)[: stripe_span(manifest, index)[1]]


class Possession:
    """The digest that only the bytes of a host's shards give, for that host and one epoch."""

    def __init__(self, salt: bytes, node_id: str, epoch: int) -> None:
        self._state = hashlib.blake2b(digest_size=32, person=POSSESSION_KIND, salt=salt)
        self._state.update(node_id_bytes(node_id) + epoch.to_bytes(4, "big"))
        self._key = self._state.digest()

    def add(self, row: bytes) -> None:
        self._state.update(Poly1305.generate_tag(self._key, row))

    def digest(self) -> bytes:
        return self._state.digest()


def rows_at(manifest: Manifest, shards: Sequence[int], read: Read) -> Rows:
    """The rows of shards that lie under their names."""
    names = [blob_name(manifest, shard) for shard in shards]
    return lambda index: [read(name, *row_span(manifest, index)) for name in names]


def possession_of(manifest: Manifest, rows: Rows, salt: bytes, node_id: str, epoch: int) -> bytes:
    """What `node_id` must sign if it has all of its shards: their rows of the first stripe, then of the next."""
    possession = Possession(salt, node_id, epoch)
    for index in range(manifest.stripes):
        for row in rows(index):
            possession.add(row)
    return possession.digest()


def hash_shards(
    manifest: Manifest, shards: Sequence[int], rows: Rows, salt: bytes, node_id: str, epoch: int
) -> tuple[list[bytes], bytes]:
    """The roots over the bytes as they are read, and this node's possession digest of them all. What it keeps of a row
    is gone with the next: as many as there are, it needs no more memory."""
    peaks, possession = [Peaks() for _ in shards], Possession(salt, node_id, epoch)
    for index in range(manifest.stripes):
        for peak, row in zip(peaks, rows(index), strict=True):
            peak.add(stripe_digest(salt, row))
            possession.add(row)
    return [peak.root() for peak in peaks], possession.digest()


def wrong_shards(manifest: Manifest, shards: Sequence[int], roots: Sequence[bytes]) -> list[int]:
    """Those whose root is not the manifest's."""
    return [shard for shard, root in zip(shards, roots, strict=True) if manifest.roots[shard] != root]
