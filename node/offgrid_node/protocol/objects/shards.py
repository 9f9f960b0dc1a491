"""A shard as it lies on a disk: its rows of all stripes, one behind the other, and how they are found.

What they hash to is in `hashing.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid_node.protocol.objects.manifest import COPY, TAG_BYTES, Manifest

Buffer = bytes | bytearray | memoryview


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


def row_parts(
    manifest: Manifest, offset: int, data: bytes | bytearray | memoryview
) -> Iterator[tuple[memoryview, bool]]:
    """Bytes of a shard, from `offset` on, as parts of its rows; of each whether it ends its row. Raises ValueError for
    more than the shard has."""
    view = memoryview(data)
    while view:
        if offset >= manifest.shard_bytes:
            raise ValueError(f"a shard has {manifest.shard_bytes} bytes, {len(view)} more came")
        begin, length = row_span(manifest, min(offset // manifest.row_bytes, manifest.stripes - 1))
        part = view[: begin + length - offset]
        offset += len(part)
        yield part, offset == begin + length
        view = view[len(part) :]


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


def stripe_of(manifest: Manifest, index: int, rows: Iterable[Buffer]) -> bytes:
    """The inverse of `rows_of`: data rows as a sealed stripe, each byte copied once."""
    left, parts = stripe_span(manifest, index)[1], []
    for row in rows:
        parts.append(memoryview(row)[:left])
        left -= len(parts[-1])
    return b"".join(parts)
