"""The records of a mesh as they are held once they are decoded, and which of two stands."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.errors import InvalidRequest, PeerFault
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.keychange import Chain
from offgrid_node.protocol.mesh.records import MemberRecord, PeerRecord

GENESIS_KEY, ROOT_CHANGES_KEY = b"genesis", b"root_changes"
RowKey = tuple[str, bytes]
CheckCertificate = Callable[[bytes], bytes]


class HeldMember(msgspec.Struct, frozen=True):
    """A decoded membership record and the proof that it came in."""

    record: MemberRecord
    proof: mesh_pb2.MemberProof


class HeldPeer(msgspec.Struct, frozen=True):
    """A decoded peer record and the signed message that it came in."""

    record: PeerRecord
    message: common_pb2.Signed


class Held(NamedTuple):
    """All that is held of one node; `admin` is the best record by the root that named it one."""

    member: HeldMember | None
    peer: HeldPeer | None
    admin: HeldMember | None
    chain: Chain
    rival: Chain


class Change(msgspec.Struct, frozen=True):
    """What became of one node since changes were last taken; `before` and `after` are None when not a member.

    With neither flag set only the rows have changed.
    """

    node_id: str
    before: MemberRecord | None
    after: MemberRecord | None
    member_changed: bool
    peer_changed: bool


def rank(record: MemberRecord) -> tuple[bool, bool, int, int]:
    """Of two records of one node the one of higher rank stands."""
    return record.removed, not record.issuer, record.epoch, -int.from_bytes(record.body_hash, "big")


def check_form(record: MemberRecord, certificate: bytes, check_certificate: CheckCertificate) -> None:
    """What needs no issuer: the certificate is the record's key, and keys of the powerful are their first.

    Raises PeerFault.
    """
    if record.removed:
        return
    try:
        if check_certificate(certificate) != record.public_key:
            raise PeerFault(f"member {record.node_id}: certificate of another key", reason="BadCertificate")
    except InvalidRequest as error:
        raise PeerFault(f"member {record.node_id}: {error.message}", reason="BadCertificate") from error
    if (record.admin or record.issuer) and node_id_of(record.public_key) != record.node_id:
        raise PeerFault(f"member {record.node_id}: only the root may give a node another key", reason="KeyOfAnother")
