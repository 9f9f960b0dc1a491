"""A parcel's head: who sends it to whom, under which number, until when it matters. The source signs it, with a digest
of what is sealed; so a mailbox can hold a source to its quota, and nobody alters what he carries (after RFC 9171's
primary block).

A source's numbers rise. `floor` is the lowest number of a request to this destination that has not ended at its source:
what is below it is over, and the destination forgets it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from struct import Struct

import msgspec

from offgrid.v1 import common_pb2, mail_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_bytes, node_id_from
from offgrid_node.protocol.signing import BodyReader, check_version, decode_body, digest_of, signed_by

KIND = b"og.parcel.v1"
VERSION = 1
DIGEST_BYTES = 16  # nobody but the source itself could find a second one, and would deceive itself
SEALED_BYTES_MAX = 256 * 1024
_HEAD = Struct(f">B{NODE_ID_BYTES}s{NODE_ID_BYTES}sQQQI{DIGEST_BYTES}s")
PARCEL_OVERHEAD_BYTES = _HEAD.size + 80  # the signature and protobuf's frames


class ParcelHead(msgspec.Struct, frozen=True):
    """What the source signs. `expires_us` is by the source's clock."""

    source: str
    destination: str
    number: int
    floor: int
    expires_us: int
    sealed_bytes: int
    digest: bytes

    def encode(self) -> bytes:
        ends = node_id_bytes(self.source), node_id_bytes(self.destination)
        terms = self.number, self.floor, self.expires_us, self.sealed_bytes, self.digest
        return _HEAD.pack(VERSION, *ends, *terms)

    @classmethod
    def decode(cls, body: bytes) -> ParcelHead:
        """Raises PeerFault for anything that `encode` would not have written, or a number below its floor."""
        return decode_body("parcel", body, cls._read)

    @classmethod
    def _read(cls, reader: BodyReader) -> ParcelHead:
        version, source, destination, number, floor, *terms = reader.unpack(_HEAD)
        check_version(version, VERSION)
        if not 0 < floor <= number:
            raise ValueError(f"number {number} below its floor {floor}")
        return cls(node_id_from(source), node_id_from(destination), number, floor, *terms)

    @property
    def size_bytes(self) -> int:
        """What it takes wherever it is kept."""
        return self.sealed_bytes + PARCEL_OVERHEAD_BYTES


def make_parcel(
    signer: Signer, salt: bytes, destination: str, number: int, floor: int, expires_us: int, sealed: bytes
) -> tuple[ParcelHead, mail_pb2.Parcel]:
    """A parcel of the signer's."""
    head = ParcelHead(signer.node_id, destination, number, floor, expires_us, len(sealed), _digest(sealed))
    body = head.encode()
    signed = common_pb2.Signed(body=body, signature=signer.sign(digest_of(KIND, salt, body)))
    return head, mail_pb2.Parcel(head=signed, sealed=sealed)


def read_parcel(parcel: mail_pb2.Parcel) -> ParcelHead:
    """What its head says, if it is of these sealed bytes; whose signature it is, is not looked at. Raises PeerFault."""
    head, sealed = ParcelHead.decode(parcel.head.body), parcel.sealed
    if len(sealed) > SEALED_BYTES_MAX:
        text = f"parcel: {len(sealed)} sealed bytes, at most {SEALED_BYTES_MAX} are allowed"
        raise PeerFault(text, reason="ParcelTooLarge")
    if head.sealed_bytes != len(sealed) or head.digest != _digest(sealed):
        raise PeerFault(f"parcel {head.number} of {head.source} was altered on its way", reason="ParcelAltered")
    return head


def verify_parcel(parcel: mail_pb2.Parcel, keys: Sequence[bytes], verify: Verifier, salt: bytes) -> ParcelHead:
    """As `read_parcel`, signed by one of the source's `keys`, of now or of before. Raises PeerFault."""
    read_parcel(parcel)
    return verify_head(parcel, keys, verify, salt)


def verify_head(parcel: mail_pb2.Parcel, keys: Sequence[bytes], verify: Verifier, salt: bytes) -> ParcelHead:
    """What its head says, signed; what is sealed is not looked at. Raises PeerFault."""
    head = ParcelHead.decode(parcel.head.body)
    if not signed_by(keys, digest_of(KIND, salt, parcel.head.body), parcel.head.signature, verify):
        raise PeerFault(f"parcel {head.number}: the signature is not {head.source}'s", reason="BadSignature")
    return head


def letter_context(source: str, destination: str) -> bytes:
    """What a parcel's letter is bound to: under another sender's head it does not open."""
    return b"mail" + node_id_bytes(source) + node_id_bytes(destination)


def _digest(sealed: bytes) -> bytes:
    return hashlib.blake2b(sealed, digest_size=DIGEST_BYTES, person=b"og.parcel-seal").digest()
