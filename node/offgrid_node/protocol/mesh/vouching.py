"""Whose key a key is, shown to somebody who knows no more of the mesh than its id: the chain of signed records from the
mesh's root to one member. It has two links at most (roll.py): the member's record, and that of the admin who issued it,
each with the changes by which other keys followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.keychange import check_chain
from offgrid_node.protocol.mesh.records import MEMBER_KIND, MemberRecord, decode_member
from offgrid_node.protocol.mesh.root import Root
from offgrid_node.protocol.signing import digest_of, signed_by

LINKS_MAX = 2


class Vouched(NamedTuple):
    """A member's record, which may be a tombstone, and all keys that were the node's, the newest first."""

    record: MemberRecord
    keys: tuple[bytes, ...]


def vouched(root: Root, chain: Sequence[mesh_pb2.MemberProof], node_id: str, verify: Verifier) -> Vouched:
    """What the root, or an admin that it named, said of `node_id`; a tombstone tells whose key it was, too.

    `chain` is its record, then its issuer's where that is an admin; an admin's word counts by any of its keys, for
    nobody can tell from here when it was given. Raises PeerFault (BadChain, BadKeyChange, BadSignature) for anything
    else.
    """
    if not 1 <= len(chain) <= LINKS_MAX:
        raise PeerFault(f"{len(chain)} records, a chain has 1 or {LINKS_MAX}", reason="BadChain")
    record, proof = decode_member(chain[0].record.body), chain[0]
    if record.node_id != node_id:
        raise PeerFault(f"the record is that of {record.node_id}, not of {node_id}", reason="BadChain")
    if len(chain) != (LINKS_MAX if record.issuer else 1):
        raise PeerFault(f"the record was issued by {record.issuer or 'the root'}: a link is missing or one too many",
                        reason="BadChain")  # fmt: skip
    if not record.issuer:
        return _by_root(root, proof, record, verify)
    if record.admin:
        raise PeerFault(f"{node_id}: only the root names admins", reason="BadChain")
    if not record.removed and node_id_of(record.public_key) != node_id:
        raise PeerFault(f"{node_id}: only the root may give a node another key", reason="BadChain")
    admin = _by_root(root, chain[1], decode_member(chain[1].record.body), verify)
    if admin.record.node_id != record.issuer or not admin.record.admin:
        raise PeerFault(f"the second record does not show the root naming {record.issuer} an admin", reason="BadChain")
    digest = digest_of(MEMBER_KIND, root.genesis.salt, proof.record.body)
    if not signed_by(admin.keys, digest, proof.record.signature, verify):
        raise _unsigned(node_id)
    return Vouched(record, _keys(root, proof, record, verify))


def _by_root(root: Root, proof: mesh_pb2.MemberProof, record: MemberRecord, verify: Verifier) -> Vouched:
    if record.issuer or not root.said(MEMBER_KIND, proof.record.body, proof.record.signature, verify):
        raise _unsigned(record.node_id)
    return Vouched(record, _keys(root, proof, record, verify))


def _keys(root: Root, proof: mesh_pb2.MemberProof, record: MemberRecord, verify: Verifier) -> tuple[bytes, ...]:
    chain = check_chain(root, record.node_id, record.public_key, proof.key_changes, verify, None)
    return (*(held.change.public_key for held in reversed(chain)), record.public_key)


def _unsigned(node_id: str) -> PeerFault:
    return PeerFault(f"the record of {node_id}: its signature is not its issuer's", reason="BadSignature")
