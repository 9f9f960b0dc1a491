"""From what a caller asks for to what the machine makes of it: one JobSpec, one NewJob."""

from __future__ import annotations

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.commands import NewJob
from offgrid_node.protocol.jobs.needs import estimate_tokens, needs_of
from offgrid_node.protocol.jobs.orders import payload_digest
from offgrid_node.protocol.jobs.terms import Terms


def job_of(spec: jobs_pb2.JobSpec, input_bytes: int, timeout_ms: int, terms: Terms) -> NewJob:
    """Of a spec that was checked and whose large input is an object by now. `input_bytes` is the input's size, wherever
    it is; `timeout_ms` is for a spec that names none."""
    payload = spec.payload
    payload.ClearField("input_job")  # the terms have it, by its id
    carried = payload.SerializeToString(deterministic=True)
    return NewJob(
        carried,
        payload_digest(carried),
        needs_of(payload),
        spec.size_tokens or (0 if terms.input_job else estimate_tokens(input_bytes, payload)),
        spec.timeout_ms or timeout_ms,
        payload.input_name,
        input_bytes,
        terms,
    )
