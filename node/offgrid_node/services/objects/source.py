"""Any bytes of any shard of an object whose sealed copy lies here: data rows are slices of it, parity is worked out.

Nothing of a coded object's shards is ever written at its owner: they go out as they are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.coding.coder import Coder
from offgrid_node.protocol.errors import Corrupt, NotFound
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import data_row_span, row_span, rows_of, stripe_span
from offgrid_node.storage.blobs import BlobStore


class ShardSource:
    """All methods block: they belong into threads. Raises Corrupt (reason BlobLost) where the sealed copy is gone, and
    what the disk raises."""

    def __init__(self, blobs: BlobStore, coder: Coder) -> None:
        self._blobs, self._coder = blobs, coder

    def has(self, manifest: Manifest) -> bool:
        return self._blobs.size(manifest.object_id) == manifest.sealed_bytes

    def read(self, manifest: Manifest, shard: int, offset: int, length: int) -> bytes:
        """Part of a shard, which may begin and end within its rows."""
        if manifest.codec == COPY:
            return self._read(manifest, offset, length)
        first, last = (min(at // manifest.row_bytes, manifest.stripes - 1) for at in (offset, offset + length - 1))
        rows = (self.rows(manifest, index, (shard,))[0] for index in range(first, last + 1))
        begin = offset - row_span(manifest, first)[0]
        return b"".join(rows)[begin : begin + length]

    def rows(self, manifest: Manifest, index: int, shards: Sequence[int]) -> list[bytes]:
        """A stripe's rows of some shards."""
        if manifest.codec == COPY:
            return [self._read(manifest, *stripe_span(manifest, index))]
        if any(shard >= manifest.k for shard in shards):
            stripe = self._read(manifest, *stripe_span(manifest, index))
            return encoded(self._coder, manifest.k, manifest.n, stripe, shards)
        row_bytes = row_span(manifest, index)[1]
        spans = (data_row_span(manifest, index, shard) for shard in shards)
        return [self._read(manifest, *span).ljust(row_bytes, b"\0") for span in spans]

    def _read(self, manifest: Manifest, offset: int, length: int) -> bytes:
        try:
            return self._blobs.read(manifest.object_id, offset, length)
        except NotFound as fault:
            raise Corrupt(f"this node's copy of {manifest.object_id} is gone", reason="BlobLost") from fault


def encoded(coder: Coder, k: int, n: int, stripe: bytes, shards: Sequence[int]) -> list[bytes]:
    """Rows of a sealed stripe, in the order of `shards`."""
    return coder.encode(k, n, rows_of(stripe, k), shards)
