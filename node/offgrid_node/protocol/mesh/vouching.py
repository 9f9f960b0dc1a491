"""Whose key a key is, shown to somebody who knows no more of the mesh than its id: the chain of signed records from the
mesh's root to one member. It has two links at most (roll.py): the member's record, and that of the admin who issued it.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import common_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_of
from offgrid_node.protocol.mesh.records import MEMBER_KIND, Genesis, MemberRecord, decode_member
from offgrid_node.protocol.signing import digest_of

LINKS_MAX = 2


def vouched(genesis: Genesis, chain: Sequence[common_pb2.Signed], node_id: str, verify: Verifier) -> MemberRecord:
    """The record of `node_id`, which may be a tombstone: that tells whose key it was, too.

    `chain` is that record, then its issuer's where that is an admin. Raises PeerFault (BadChain, BadSignature) for
    whatever the root did not say, by itself or through an admin that it named.
    """
    if not 1 <= len(chain) <= LINKS_MAX:
        raise PeerFault(f"{len(chain)} records, a chain has 1 or {LINKS_MAX}", reason="BadChain")
    record = decode_member(chain[0].body)
    if record.node_id != node_id:
        raise PeerFault(f"the record is that of {record.node_id}, not of {node_id}", reason="BadChain")
    if len(chain) != (LINKS_MAX if record.issuer else 1):
        raise PeerFault(f"the record was issued by {record.issuer or 'the root'}: a link is missing or one too many",
                        reason="BadChain")  # fmt: skip
    key = genesis.root_key
    if record.issuer:
        key = _admin(genesis, chain[1], record.issuer, verify).public_key
        if record.admin:
            raise PeerFault(f"{node_id}: only the root names admins", reason="BadChain")
        if not record.removed and node_id_of(record.public_key) != node_id:
            raise PeerFault(f"{node_id}: only the root may give a node another key", reason="BadChain")
    _check(genesis, key, chain[0], f"the record of {node_id}", verify)
    return record


def _admin(genesis: Genesis, link: common_pb2.Signed, issuer: str, verify: Verifier) -> MemberRecord:
    admin = decode_member(link.body)
    if admin.node_id != issuer or not admin.admin or admin.issuer:
        raise PeerFault(f"the second record does not show the root naming {issuer} an admin", reason="BadChain")
    _check(genesis, genesis.root_key, link, f"the record of the admin {issuer}", verify)
    return admin


def _check(genesis: Genesis, key: bytes, link: common_pb2.Signed, what: str, verify: Verifier) -> None:
    if not verify(key, digest_of(MEMBER_KIND, genesis.salt, link.body), link.signature):
        raise PeerFault(f"{what}: its signature is not its issuer's", reason="BadSignature")
