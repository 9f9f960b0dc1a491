"""How a node comes to have a mesh: by founding one, or by adopting the grant that answered its join.

Both end in rows for the node's store: {(table, key): value}, written in one batch before the node first runs. A store
serves one mesh and one node in its life; `held_directory` and `store_not_empty` are for whoever finds something in it.
"""

from __future__ import annotations

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.effects import Rows, Signer, Verifier
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, PeerFault
from offgrid_node.protocol.ids import NAME, NAME_RULE
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.held import GENESIS_KEY, CheckCertificate, RowKey
from offgrid_node.protocol.mesh.records import (
    GENESIS_KIND,
    MEMBER_KIND,
    ROLES_ALL,
    WEIGHT_MILLI_DEFAULT,
    Genesis,
    MemberRecord,
    open_genesis,
    signed,
)

MeshRows = dict[RowKey, bytes | None]


def issue_member(genesis: Genesis, record: MemberRecord, certificate: bytes, issuer: Signer) -> mesh_pb2.MemberProof:
    """A membership record signed by `issuer`: the root when `record.issuer` is "", otherwise that admin."""
    message = signed(MEMBER_KIND, genesis.salt, record.body, issuer)
    return mesh_pb2.MemberProof(record=message, certificate=b"" if record.removed else certificate)


def found_mesh(
    name: str,
    root: Signer,
    node: Signer,
    certificate: bytes,
    node_name: str,
    now_us: int,
    nonce: bytes,
    *,
    verify: Verifier,
    check_certificate: CheckCertificate,
    failure_domain: str = "",
) -> MeshRows:
    """The rows of a new mesh with `node` as its first member: root-signed, admin, every role.

    `nonce` is 16 random bytes. Raises InvalidRequest for a name that breaks the rule.
    """
    for field, value in (("mesh", name), ("name", node_name)):
        if not NAME.match(value):
            raise InvalidRequest.field(field, f"{value!r}: {NAME_RULE}")
    genesis = Genesis(name, root.public_key, now_us, nonce)
    record = MemberRecord(
        node_id=node.node_id,
        name=node_name,
        public_key=node.public_key,
        roles=ROLES_ALL,
        weight_milli=WEIGHT_MILLI_DEFAULT,
        failure_domain=failure_domain,
        epoch=1,
        admin=True,
    )
    directory = Directory(signed(GENESIS_KIND, genesis.salt, genesis.body, root), verify, check_certificate)
    directory.accept_member(issue_member(genesis, record, certificate, root))
    return all_rows(directory)


def adopt_grant(
    grant: mesh_pb2.JoinGrant,
    mesh_tag: bytes,
    node_id: str,
    *,
    verify: Verifier,
    check_certificate: CheckCertificate,
) -> MeshRows:
    """The rows of a mesh that this node was admitted to, everything verified from the token's tag upwards.

    Raises PeerFault when the genesis is not the one that the token names, when a record in the grant is bad, or when
    the grant does not make `node_id` a member.
    """
    genesis = open_genesis(grant.genesis, verify)
    if genesis.mesh_tag != mesh_tag:
        raise PeerFault("the inviter's genesis is not that of the mesh in the token", reason="WrongMesh")
    directory = Directory(grant.genesis, verify, check_certificate)
    directory.accept_root(grant.root)
    for proof in sorted(grant.members, key=lambda proof: not proof.key_changes):  # others are checked by these keys
        directory.accept_member(proof)
    for message in grant.peers:
        try:
            directory.accept_peer(message)
        except Fault:  # it may belong to a member that the grant had no room for; gossip brings it again
            continue
    if not directory.is_member(node_id):
        raise PeerFault("the inviter's answer does not admit this node", reason="NotAdmitted")
    return all_rows(directory)


def all_rows(directory: Directory) -> MeshRows:
    """Every row of a mesh, for an empty store."""
    rows: MeshRows = {("mesh", GENESIS_KEY): directory.signed_genesis.SerializeToString()}
    rows |= directory.take_root_row()
    for node_id in directory.all_ids():
        rows |= {key: value for key, value in directory.rows(node_id).items() if value is not None}
    return rows


def held_directory(rows: Rows, *, verify: Verifier, check_certificate: CheckCertificate) -> Directory | None:
    """The mesh that a store belongs to, None for a store of none. Raises as `Directory.load` does."""
    if rows.get("mesh", GENESIS_KEY) is None:
        return None
    return Directory.load(rows, verify, check_certificate)


def store_not_empty(directory: Directory) -> FailedPrecondition:
    """For whoever would make another node, or one of another mesh, out of a store that has served already."""
    return FailedPrecondition(
        f"this folder's store belongs to a node of mesh {directory.mesh_name!r} ({directory.mesh_id}). To go on with "
        "that node, restore its offgrid.toml and keys from a backup; to make a new one, take another folder: "
        "--dir ANOTHER-FOLDER",
        reason="StoreNotEmpty",
        metadata={"mesh": directory.mesh_id},
    )
