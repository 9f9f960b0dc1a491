"""Receipts as a core would write them into a file, signed with real keys of a mesh that is nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from offgrid.client.evidence import document
from offgrid.v1 import jobs_pb2, mesh_pb2
from offgrid_node.keys import NodeKey, identity_certificate
from offgrid_node.protocol.jobs.receipts import ReceiptBody, digest_with_files, result_digest, sign_receipts
from offgrid_node.protocol.mesh.keychange import KeyChange, sign_change
from offgrid_node.protocol.mesh.records import GENESIS_KIND, MEMBER_KIND, ROLES_ALL, Genesis, MemberRecord, signed

ROOT, ADMIN, HOST, OTHER = (NodeKey(letter * 32) for letter in (b"r", b"a", b"h", b"o"))
GENESIS = Genesis("home", ROOT.public_key, 5, bytes(16))
OUTPUT = b"out\n"


def record(key: NodeKey, name: str, **changes: Any) -> MemberRecord:
    made = {"node_id": key.node_id, "name": name, "public_key": key.public_key, "roles": ROLES_ALL,
            "weight_milli": 1_000, "failure_domain": "", "epoch": 1}  # fmt: skip
    return MemberRecord(**{**made, **changes})


def link(
    made: MemberRecord, by: NodeKey = ROOT, genesis: Genesis = GENESIS, changes: Sequence[mesh_pb2.KeyChange] = ()
) -> mesh_pb2.MemberProof:
    return mesh_pb2.MemberProof(record=signed(MEMBER_KIND, genesis.salt, made.body, by), key_changes=changes)


def follow(before: NodeKey, following: NodeKey, *, by: NodeKey | None = None) -> mesh_pb2.KeyChange:
    """The first change of a node's key; `by` the root where it is not the node's own word."""
    body = KeyChange(before.node_id, 1, before.public_key, following.public_key, 1, 1, 9, by_root=by is not None)
    return sign_change(GENESIS, body, by or before, following, identity_certificate(following))


BY_ADMIN = [link(record(HOST, "barn", issuer=ADMIN.node_id), ADMIN), link(record(ADMIN, "hub", admin=True))]
BY_ROOT = [link(record(HOST, "barn"))]


def file_of(chain: list[mesh_pb2.MemberProof] = BY_ADMIN, **made: Any) -> dict[str, Any]:
    """As `offgrid job receipt` writes it."""
    return document(*job_and_proof(chain, **made))


def job_and_proof(
    chain: list[mesh_pb2.MemberProof] = BY_ADMIN,
    *,
    by: NodeKey = HOST,
    exit_code: int = 0,
    files_digest: bytes = b"",
    count: int = 5,
    genesis: Genesis = GENESIS,
    root: Sequence[mesh_pb2.RootChange] = (),
) -> tuple[jobs_pb2.Job, mesh_pb2.GetMemberProofResponse]:
    """The third of `count` jobs whose receipts were signed together, and what vouches for their host."""
    digest = digest_with_files(result_digest(exit_code, OUTPUT), files_digest)
    bodies = [
        ReceiptBody(
            HOST.node_id, NodeKey(b"c" * 32).node_id, f"j-{number}", 1, bytes(32), digest,
            "failed" if exit_code else "completed", 12, 3400, 56, "wasm", 2100, 5 << 20, len(OUTPUT), 34,
        )
        for number in range(count)
    ]  # fmt: skip
    receipt = sign_receipts([body.encode() for body in bodies], by, genesis.salt)[2]
    receipt.facts.CopyFrom(bodies[2].facts())
    job = jobs_pb2.Job(job_id="j-2", payload_digest=bytes(32))
    job.result.receipt.CopyFrom(receipt)
    job.result.exit_code, job.result.output, job.result.files_digest = exit_code, OUTPUT, files_digest
    proof = mesh_pb2.GetMemberProofResponse(
        genesis=signed(GENESIS_KIND, genesis.salt, genesis.body, ROOT),
        records=chain,
        member=mesh_pb2.Member(name="barn"),
        mesh_id=genesis.mesh_id,
        root=mesh_pb2.RootChanges(changes=root),
    )
    return job, proof
