"""What shows, in a file that stands alone, which mesh it is of and whose key a member's is;
`protocol/mesh/documents.py` reads it. Bytes are lower-case hex.
"""

from __future__ import annotations

from typing import Any

from offgrid.v1 import common_pb2, mesh_pb2


def mesh_part(proof: mesh_pb2.GetMemberProofResponse) -> dict[str, Any]:
    return {
        "id": proof.mesh_id,
        "genesis": signed_part(proof.genesis),
        "root_changes": [
            {**_change(change), "kept": [digest.hex() for digest in change.kept]} for change in proof.root.changes
        ],
    }


def member_part(proof: mesh_pb2.GetMemberProofResponse) -> dict[str, Any]:
    return {"name": proof.member.name, "records": [_record(record) for record in proof.records]}


def _record(proof: mesh_pb2.MemberProof) -> dict[str, Any]:
    """The keys that followed the record's, without their certificates: those are for who meets the node."""
    return {**signed_part(proof.record), "key_changes": [_change(change) for change in proof.key_changes]}


def _change(message: mesh_pb2.KeyChange | mesh_pb2.RootChange) -> dict[str, Any]:
    return {**signed_part(message.change), "next_signature": message.next_signature.hex()}


def signed_part(message: common_pb2.Signed) -> dict[str, str]:
    return {"body": message.body.hex(), "signature": message.signature.hex()}
