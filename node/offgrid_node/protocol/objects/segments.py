"""The head of a journal's segment: which one it is, of which life, and what it follows, under its owner's signature.

A segment is an object whose manifest carries its head, so hosts keep it like any other and can show its owner what they
have. A head names its own object and the one before it: an object's id is a hash over what is sealed, so the heads form
a hash chain, and of two segments of one number only one belongs to it. `protocol/state` makes and reads them.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import InvalidRequest, PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes, unbase32
from offgrid_node.protocol.objects.manifest import COPY, OBJECT_ID, Manifest
from offgrid_node.protocol.objects.tables import segment_key
from offgrid_node.protocol.signing import BodyReader, BodyWriter, check_version, decode_body, digest_of, signed_by

SEGMENT_KIND = b"og.segment.v1"
VERSION = 1
OBJECT_BYTES = 20
MARK_BYTES = 6  # of 30 bits, so that of two segments one in a billion passes for the other
MARKS_MAX = 16_384  # four times what lies behind the largest base, and 96 KiB
_NONE = bytes(OBJECT_BYTES)


class SegmentHead(msgspec.Struct, frozen=True):
    """`previous`: the object before it, "" for the first. The segments from number `base` to this one, `previous` by
    `previous`, give the owner's rows whole; 0: there are none such yet. `events` of the journal are in them."""

    owner: str
    life: int
    number: int
    base: int
    events: int
    object_id: str
    previous: str

    @property
    def order(self) -> tuple[int, int]:
        """Of two heads the greater is the newer one."""
        return self.life, self.number

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(node_id_bytes(self.owner), NODE_ID_BYTES)
        for number in (self.life, self.number, self.base, self.events):
            writer.uint(number, 8)
        return writer.fixed(_raw(self.object_id), OBJECT_BYTES).fixed(_raw(self.previous), OBJECT_BYTES).done()

    @classmethod
    def decode(cls, body: bytes) -> SegmentHead:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("segment", body, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> SegmentHead:
        check_version(reader.uint(1), VERSION)
        owner = base32(reader.fixed(NODE_ID_BYTES))
        life, number, base, events = (reader.uint(8) for _ in range(4))
        if not number or base > number:
            raise ValueError(f"segment {number} from {base} on")
        made, previous = reader.fixed(OBJECT_BYTES), reader.fixed(OBJECT_BYTES)
        return cls(owner, life, number, base, events, _name(made), _name(previous))


def sign_head(head: SegmentHead, signer: Signer, salt: bytes) -> common_pb2.Signed:
    body = head.encode()
    return common_pb2.Signed(body=body, signature=signer.sign(digest_of(SEGMENT_KIND, salt, body)))


def verify_head(
    manifest: objects_pb2.Manifest, body: Manifest, keys: Sequence[bytes], verify: Verifier, salt: bytes
) -> SegmentHead:
    """The head of a manifest whose signed bytes say `body`. Raises PeerFault unless one of the keys signed it for that
    very object, which is a copy."""
    head = SegmentHead.decode(manifest.segment.body)
    if (head.owner, head.object_id) != (body.owner, body.object_id) or body.codec != COPY:
        raise PeerFault(f"the segment's head is not that of {body.object_id}", reason="WrongSegment")
    if not signed_by(keys, digest_of(SEGMENT_KIND, salt, manifest.segment.body), manifest.segment.signature, verify):
        raise PeerFault(f"segment {head.number}: the signature is not {head.owner}'s", reason="BadSignature")
    return head


class KnownSegments(msgspec.Struct, frozen=True):
    """Segments that the owner knows of: `marks` of those up to number `last` that follow one another, in this life."""

    life: int
    last: int
    marks: bytes

    @classmethod
    def of(cls, life: int, last: int, object_ids: Sequence[str]) -> KnownSegments:
        """`object_ids`: of the segments up to the last one, the oldest first."""
        return cls(life, last, "".join(map(_mark, object_ids[-MARKS_MAX:])).encode())

    def message(self) -> objects_pb2.KnownSegments:
        return objects_pb2.KnownSegments(life=self.life, last=self.last, marks=self.marks)

    @classmethod
    def read(cls, message: objects_pb2.KnownSegments) -> KnownSegments:
        """Raises InvalidRequest."""
        size, most = len(message.marks), min(MARKS_MAX, message.last)
        if size % MARK_BYTES or size > most * MARK_BYTES:
            text = f"{size} bytes; allowed: {MARK_BYTES} for each of at most {most} segments up to {message.last}"
            raise InvalidRequest.field("known.marks", text)
        return cls(message.life, message.last, message.marks)

    def has(self, life: int, number: int, object_id: str) -> bool:
        """Whether it is one of them, as far as its mark tells."""
        end = len(self.marks) - (self.last - number) * MARK_BYTES
        mark = self.marks[end - MARK_BYTES : end] if MARK_BYTES <= end <= len(self.marks) else b""
        return life == self.life and mark == _mark(object_id).encode()


def is_segment(manifest: objects_pb2.Manifest) -> bool:
    """Whether it is of a journal's segment, of which journals say nothing: they would never come to an end."""
    return manifest.HasField("segment")


def key_in(manifest: objects_pb2.Manifest) -> bytes:
    """Of a segment's row in SEGMENTS_KEPT."""
    head = SegmentHead.decode(manifest.segment.body)
    return segment_key(head.owner, head.order, head.object_id)


def number_in(manifest: objects_pb2.Manifest) -> int:
    """Of a segment of this node's own."""
    return SegmentHead.decode(manifest.segment.body).number


def _mark(object_id: str) -> str:
    return object_id[2 : 2 + MARK_BYTES]


def _raw(object_id: str) -> bytes:
    return unbase32(object_id.removeprefix("o-")) if object_id else _NONE


def _name(raw: bytes) -> str:
    name = f"o-{base32(raw)}" if raw != _NONE else ""
    if name and not OBJECT_ID.match(name):
        raise ValueError(f"{name} is no object id")
    return name
