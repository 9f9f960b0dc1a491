"""A receipt as a file that stands alone: what a job's host signed, and what shows whose key that was.

Whoever has the file and knows the mesh's id needs neither node nor mesh to check it: `offgrid job verify-receipt`, or
`offgrid_node.protocol.jobs.evidence`, which says what each field must be.
"""

from __future__ import annotations

from typing import Any

from offgrid.client.proofs import member_part, mesh_part
from offgrid.v1 import jobs_pb2, mesh_pb2

VERSION = 1


def document(job: jobs_pb2.Job, proof: mesh_pb2.GetMemberProofResponse) -> dict[str, Any]:
    """`job` has ended with a receipt, `proof` is that of its host (`client.mesh.proof`). Bytes are lower-case hex.

    Raises ValueError for a job that has no receipt.
    """
    if not job.result.HasField("receipt"):
        raise ValueError(f"job {job.job_id} has no receipt")
    receipt = job.result.receipt
    return {
        "offgrid_receipt": VERSION,
        "facts": _facts(job),
        "result": {"exit_code": job.result.exit_code, "files_digest": job.result.files_digest.hex()},
        "receipt": {
            "body": receipt.body.hex(),
            "index": receipt.index,
            "count": receipt.count,
            "path": [step.hex() for step in receipt.path],
            "root_signature": receipt.root_signature.hex(),
        },
        "host": member_part(proof),
        "mesh": mesh_part(proof),
    }


def _facts(job: jobs_pb2.Job) -> dict[str, Any]:
    """What the body says, for people; whoever checks the file compares the two."""
    facts = job.result.receipt.facts
    return {
        "node": facts.node_id,
        "core": facts.core_id,
        "job_id": facts.job_id,
        "attempt": facts.attempt,
        "status": facts.status,
        "executor": facts.executor,
        "payload_digest": job.payload_digest.hex(),
        "result_digest": facts.result_digest.hex(),
        "compute_tokens": round(facts.compute_tokens_m * 1e6),
        "latency_us": round(facts.latency_ms * 1e3),
        "cpu_us": round(facts.cpu_ms * 1e3),
        "memory_peak_bytes": facts.memory_peak_bytes,
        "output_bytes": facts.output_bytes,
        "price_micro": facts.price_micro,
    }
