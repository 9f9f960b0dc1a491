"""What a host's shards hash to, as their bytes come: roots, and the digest by which the host vouches for them.

A shard's root says that the bytes are the manifest's. The possession digest says that the host had all of them when it
signed: it covers the host's own id and the epoch, so that no host can take it from another, or from last time (after
the per-prover challenge of "PORs: Proofs of Retrievability", Juels and Kaliski, 2007, without a challenger). The owner,
who has the bytes, works it out for each host and compares: an ack without them counts for nothing. It is a hash over
the rows' Poly1305 tags (RFC 8439) under a key of mesh, host and epoch: everybody may know that key, for nobody is to be
kept from finding other bytes with the same tag; but the tag of these takes all of these.

Bytes of one shard come in their order, in pieces of any size; which shard comes when makes no difference. Of all that
has come, a few hundred bytes for each shard are kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

from cryptography.hazmat.primitives.poly1305 import Poly1305

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.merkle import Peaks
from offgrid_node.protocol.objects.manifest import Manifest, stripe_hasher
from offgrid_node.protocol.objects.shards import Buffer, blob_name, row_parts, row_span

POSSESSION_KIND = b"og.possession.v1"

Read = Callable[[str, int, int], bytes]
"""A blob's name, offset and length → exactly so many bytes."""
Pieces = Iterable[tuple[int, Buffer]]
"""Shards, and of each the bytes that follow what came of it before."""


class Possession:
    """The digest that only the bytes of a host's shards give, for that host and one epoch."""

    def __init__(self, manifest: Manifest, shards: Sequence[int], salt: bytes, node_id: str, epoch: int) -> None:
        self._state = hashlib.blake2b(digest_size=32, person=POSSESSION_KIND, salt=salt)
        self._state.update(node_id_bytes(node_id) + epoch.to_bytes(4, "big"))
        self._manifest, self._key = manifest, self._state.digest()
        self._tags = {shard: _Tags(manifest, self._key) for shard in sorted(shards)}

    def reached(self, shard: int) -> int:
        """How many bytes of it have come."""
        return self._tags[shard].reached

    @property
    def is_whole(self) -> bool:
        return all(tags.reached == self._manifest.shard_bytes for tags in self._tags.values())

    def add(self, shard: int, data: Buffer) -> None:
        self._tags[shard].add(data)

    def restart(self, shard: int) -> None:
        self._tags[shard] = _Tags(self._manifest, self._key)

    def digest(self) -> bytes:
        state = self._state.copy()
        for tags in self._tags.values():
            state.update(tags.digest())
        return state.digest()


class ShardHashes:
    """Roots and possession digest."""

    def __init__(self, manifest: Manifest, shards: Sequence[int], salt: bytes, node_id: str, epoch: int) -> None:
        self._manifest, self._salt = manifest, salt
        self._leaves = {shard: _Leaves(manifest, salt) for shard in sorted(shards)}
        self._possession = Possession(manifest, shards, salt, node_id, epoch)

    def reached(self, shard: int) -> int:
        return self._possession.reached(shard)

    def add(self, shard: int, data: Buffer) -> None:
        self._leaves[shard].add(data)
        self._possession.add(shard, data)

    def restart(self, shard: int) -> None:
        self._leaves[shard] = _Leaves(self._manifest, self._salt)
        self._possession.restart(shard)

    def wrong(self) -> list[int]:
        """Once all bytes are here: the shards whose root is not the manifest's."""
        return [shard for shard, leaves in self._leaves.items() if leaves.root() != self._manifest.roots[shard]]

    def possession(self) -> bytes:
        """Once all bytes are here."""
        return self._possession.digest()


class _Leaves:
    """A shard's root: of whole rows only the peaks of their tree are kept."""

    def __init__(self, manifest: Manifest, salt: bytes) -> None:
        self._manifest, self._salt = manifest, salt
        self._peaks, self._row, self._reached = Peaks(), stripe_hasher(salt), 0

    def add(self, data: Buffer) -> None:
        for part, ends in row_parts(self._manifest, self._reached, data):
            self._row.update(part)
            if ends:
                self._peaks.add(self._row.digest())
                self._row = stripe_hasher(self._salt)
        self._reached += len(data)

    def root(self) -> bytes:
        return self._peaks.root()


class _Tags:
    """A hash over the tags of a shard's rows."""

    def __init__(self, manifest: Manifest, key: bytes) -> None:
        self._manifest, self._key = manifest, key
        self._all, self._row, self.reached = hashlib.blake2b(digest_size=32), Poly1305(key), 0

    def add(self, data: Buffer) -> None:
        for part, ends in row_parts(self._manifest, self.reached, data):
            self._row.update(part)
            if ends:
                self._all.update(self._row.finalize())
                self._row = Poly1305(self._key)
        self.reached += len(data)

    def digest(self) -> bytes:
        return self._all.digest()


def pieces_at(manifest: Manifest, shards: Iterable[int], read: Read) -> Iterator[tuple[int, bytes]]:
    """Of shards that lie under their names, row by row."""
    for shard in shards:
        name = blob_name(manifest, shard)
        for index in range(manifest.stripes):
            yield shard, read(name, *row_span(manifest, index))


def possession_of(
    manifest: Manifest, shards: Sequence[int], pieces: Pieces, salt: bytes, node_id: str, epoch: int
) -> bytes:
    """What `node_id` must sign if it has all of its shards."""
    possession = Possession(manifest, shards, salt, node_id, epoch)
    for shard, data in pieces:
        possession.add(shard, data)
    return possession.digest()


def wrong_shards(manifest: Manifest, shards: Sequence[int], pieces: Pieces, salt: bytes) -> list[int]:
    """Those whose bytes are not the manifest's."""
    leaves = {shard: _Leaves(manifest, salt) for shard in sorted(shards)}
    for shard, data in pieces:
        leaves[shard].add(data)
    return [shard for shard, of in leaves.items() if of.root() != manifest.roots[shard]]
