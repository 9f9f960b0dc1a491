"""What the host side needs of an executor; `wasm.py` and `process.py` are two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.protocol.jobs.large import LARGE_INPUT_BYTES_MAX, OUTPUT_BYTES_MAX

__all__ = ["LARGE_INPUT_BYTES_MAX", "LOG_BYTES_MAX", "OUTPUT_BYTES_MAX", "Executor", "Outcome"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a piece of work ended.

    `error` is empty when it ran to its own end, whatever its exit code; otherwise one of JobTimeout, OutputTooLarge,
    ExecutionFailed (trap, out of memory, not startable), Cancelled. `executor` names the executor and its version.
    """

    output: bytes
    log: bytes
    exit_code: int
    error: str
    error_detail: str
    executor: str


class AtOnce(Protocol):
    """Does one kind of payload on the spot: work that takes less time than handing it over would."""

    @property
    def offers(self) -> tuple[str, ...]: ...

    def run_at_once(self, payload: jobs_pb2.JobPayload) -> Outcome: ...


class Executor(Protocol):
    """Runs one kind of payload. `offers` is what a host may advertise: labels such as "wasm" or "process:wc"."""

    @property
    def offers(self) -> tuple[str, ...]: ...

    async def run(self, payload: jobs_pb2.JobPayload, timeout_ms: int) -> Outcome:
        """Runs it. Cancelling the task kills the work. Never raises for what the work itself does."""
        ...

    def close(self) -> None:
        """Gives back what it holds, once nothing runs on it any more."""
        ...
