"""Any bytes of any shard of an object whose sealed copy lies here: data rows are slices of it, parity is worked out.

Nothing of a coded object's shards is ever written at its owner: they go out as they are asked for. Rows of several
stripes are cut at once: to work parity out once more costs less than to write it down and read it again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from offgrid_node.coding.coder import Coder
from offgrid_node.protocol.errors import Corrupt, NotFound
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import data_row_span, row_span, stripe_span
from offgrid_node.storage.blobs import ReadableBlobs

CUT_BYTES = 20 << 20  # of all shards together, at once: nearly a mebibyte of each of twenty, which is a piece
PASS_BYTES = 4 << 20  # the same, where nothing is sent: less is held beside what is on its way


class ShardSource:
    """All methods block: they belong into threads. Raises Corrupt (reason BlobLost) where the sealed copy is gone, and
    what the disk raises."""

    def __init__(self, blobs: ReadableBlobs, coder: Coder) -> None:
        self._blobs, self._coder = blobs, coder

    def has(self, manifest: Manifest) -> bool:
        return self._blobs.size(manifest.object_id) == manifest.sealed_bytes

    def read(self, manifest: Manifest, shard: int, offset: int, length: int) -> bytes:
        """Part of a shard, which may begin and end within its rows."""
        if manifest.codec == COPY:
            return self._read(manifest, offset, length)
        first, last = (min(at // manifest.row_bytes, manifest.stripes - 1) for at in (offset, offset + length - 1))
        begin = offset - row_span(manifest, first)[0]
        return self.cut(manifest, first, last - first + 1, (shard,))[shard][begin : begin + length]

    def pieces(self, manifest: Manifest, shards: Collection[int]) -> Iterator[tuple[int, bytes]]:
        """All of some shards: of each the rows that follow."""
        together = _stripes_in(manifest, PASS_BYTES)
        for first in range(0, manifest.stripes, together):
            yield from self.cut(manifest, first, min(together, manifest.stripes - first), shards).items()

    def cut(self, manifest: Manifest, first: int, count: int, shards: Collection[int]) -> dict[int, bytes]:
        """Some shards' rows of `count` stripes, one behind the other."""
        k, n = manifest.k, manifest.n
        parity = [shard for shard in shards if shard >= k]
        data = self._data(manifest, first, count, range(k) if parity else shards)
        if parity:
            data.update(zip(parity, self._coder.encode(k, n, list(data.values()), parity), strict=True))
        return {shard: data[shard] for shard in shards}

    def _data(self, manifest: Manifest, first: int, count: int, shards: Collection[int]) -> dict[int, bytes]:
        """Rows that are slices of the sealed stripes; each stripe's last one is filled up with zeros."""
        if len(shards) < manifest.k:
            return {shard: self._rows(manifest, first, count, shard) for shard in shards}
        begin, (end, last) = stripe_span(manifest, first)[0], stripe_span(manifest, first + count - 1)
        sealed = memoryview(self._read(manifest, begin, end + last - begin))
        rows: dict[int, list[bytes | memoryview]] = {shard: [] for shard in shards}
        for index in range(first, first + count):
            row_bytes = row_span(manifest, index)[1]
            for shard in shards:
                offset, length = data_row_span(manifest, index, shard)
                row = sealed[offset - begin : offset - begin + length]
                rows[shard] += [row] if length == row_bytes else [row, bytes(row_bytes - length)]
        return {shard: b"".join(parts) for shard, parts in rows.items()}

    def _rows(self, manifest: Manifest, first: int, count: int, shard: int) -> bytes:
        parts = []
        for index in range(first, first + count):
            row = self._read(manifest, *data_row_span(manifest, index, shard))
            parts.append(row.ljust(row_span(manifest, index)[1], b"\0"))
        return parts[0] if count == 1 else b"".join(parts)

    def _read(self, manifest: Manifest, offset: int, length: int) -> bytes:
        try:
            return self._blobs.read(manifest.object_id, offset, length)
        except NotFound as fault:
            raise Corrupt(f"this node's copy of {manifest.object_id} is gone", reason="BlobLost") from fault


def stripes_together(manifest: Manifest) -> int:
    """How many are cut at once."""
    return _stripes_in(manifest, CUT_BYTES)


def _stripes_in(manifest: Manifest, size_bytes: int) -> int:
    return max(1, size_bytes // (manifest.n * manifest.row_bytes))
