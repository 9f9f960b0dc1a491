"""What a simulated executor does: it takes virtual time, and how it ends is a function of the payload alone, so that
the monitor knows what each job must come to, whichever host does it."""

from __future__ import annotations

import hashlib

from offgrid.v1 import jobs_pb2
from offgrid_node.executors.executor import Outcome
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX

EXECUTOR = "sim/1"
EXIT_CODE_FAILED = 3
# Of 256 jobs so many fail by themselves, trap, or run past their time-out.
FAILING, TRAPPING, LATE = 16, 8, 16
DEADLY_NAME = "deadly"  # of an input that kills the process of its host
LARGE_NAME = "large"  # of an input whose output is too large to travel inside its report
LARGE_REPEATS = INLINE_BYTES_MAX // 32 + 1


def outcome_of(payload: jobs_pb2.JobPayload) -> Outcome:
    """How this work ends, wherever it is done."""
    digest = hashlib.blake2b(payload.input, digest_size=32, person=b"og.sim.work").digest()
    draw = digest[0]
    output = digest * LARGE_REPEATS if payload.input_name == LARGE_NAME else digest
    if draw < FAILING:
        return Outcome(output, b"no", EXIT_CODE_FAILED, "", "", EXECUTOR)
    if draw < FAILING + TRAPPING:
        return Outcome(b"", b"", -1, "ExecutionFailed", "trap", EXECUTOR)
    if draw < FAILING + TRAPPING + LATE:
        return Outcome(b"", b"", -1, "JobTimeout", "it was stopped at its time-out", EXECUTOR)
    return Outcome(output, b"", 0, "", "", EXECUTOR)


def verdict_of(payload: jobs_pb2.JobPayload) -> str:
    """The error that a core must give such a job once a host has carried it out; empty when it must be completed."""
    outcome = outcome_of(payload)
    return outcome.error or ("ExecutionFailed" if outcome.exit_code else "")
