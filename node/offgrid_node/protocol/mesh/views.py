"""The mesh as messages that people read: members and peers of the directory in the wire's words."""

from __future__ import annotations

from offgrid.v1 import common_pb2, ledger_pb2, mesh_pb2
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.invites import Invite
from offgrid_node.protocol.mesh.records import MemberRecord

Roles = list[common_pb2.Role.ValueType]


def role_list(roles: frozenset[int]) -> Roles:
    """Sorted, as the wire's enum."""
    return [common_pb2.Role.ValueType(role) for role in sorted(roles)]


def member_message(record: MemberRecord, key_number: int = 0) -> mesh_pb2.Member:
    return mesh_pb2.Member(
        node_id=record.node_id,
        name=record.name,
        roles=role_list(record.roles),
        weight_milli=record.weight_milli,
        failure_domain=record.failure_domain,
        epoch=record.epoch,
        admin=record.admin,
        removed=record.removed,
        key_number=key_number,
    )


def peer_message(
    directory: Directory, node_id: str, *, liveness: int, incarnation: int, self_id: str
) -> mesh_pb2.Peer | None:
    """A member as seen from here; None for a stranger."""
    record, peer = directory.member(node_id), directory.peer(node_id)
    if record is None:
        return None
    return mesh_pb2.Peer(
        member=member_message(record, directory.key_number(node_id)),
        liveness=common_pb2.Liveness.ValueType(liveness),
        incarnation=incarnation,
        roles_in_force=role_list(directory.roles_in_force(node_id)),
        addresses=directory.addresses(node_id),
        version=peer.software if peer else "",
        self=node_id == self_id,
    )


def genesis_message(directory: Directory) -> ledger_pb2.GetGenesisResponse:
    """The mesh's own beginning; the ledger's is told by the ledger."""
    genesis = directory.genesis
    return ledger_pb2.GetGenesisResponse(
        mesh=genesis.mesh_name,
        mesh_id=genesis.mesh_id,
        root_key=directory.root.key,
        genesis=directory.signed_genesis,
    )


def invite_message(invite: Invite) -> mesh_pb2.Invite:
    """As it is shown: without its secret."""
    return mesh_pb2.Invite(
        invite_id=base32(invite.invite_id),
        roles=role_list(invite.roles),
        weight_milli=invite.weight_milli,
        failure_domain=invite.failure_domain,
        created_us=invite.created_us,
        used_by=invite.used_by,
        used_us=invite.used_us,
    )
