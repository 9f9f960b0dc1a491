"""A segment as it is sealed: its message, compressed (RFC 1950)."""

from __future__ import annotations

import zlib

from google.protobuf.message import DecodeError

from offgrid.v1 import state_pb2
from offgrid_node.protocol.errors import Corrupt

LEVEL = 6  # rows shrink to a third, at some 30 MB a second
BYTES_MAX = 256 * 1024 * 1024  # once it is no longer compressed; the changes in one are 32 MiB at most


def packed(segment: state_pb2.Segment) -> bytes:
    return zlib.compress(segment.SerializeToString(), LEVEL)


def unpacked(data: bytes) -> state_pb2.Segment:
    """The inverse of `packed`. Raises Corrupt for anything else."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, BYTES_MAX)
        if not stream.eof or stream.unused_data:
            raise Corrupt("a segment of the journal is cut off, or too long", reason="SegmentDamaged")
        return state_pb2.Segment.FromString(plain)
    except (zlib.error, DecodeError) as error:
        raise Corrupt(f"a segment of the journal is damaged: {error}", reason="SegmentDamaged") from error
