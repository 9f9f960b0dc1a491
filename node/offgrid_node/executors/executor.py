"""What the host side needs of an executor; `wasm.py` and `process.py` are two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.protocol.jobs.large import LARGE_INPUT_BYTES_MAX, OUTPUT_BYTES_MAX

__all__ = [
    "LARGE_INPUT_BYTES_MAX",
    "LOG_BYTES_MAX",
    "OUTPUT_BYTES_MAX",
    "AtOnce",
    "Executor",
    "Outcome",
    "OutputFile",
    "Progress",
    "Usage",
    "Work",
    "well_formed",
]


class Progress(msgspec.Struct, frozen=True):
    """What work under way says: each field that is set is news, and `log` and `output` follow what was said before."""

    fraction: float | None = None
    message: str = ""
    log: bytes = b""
    output: bytes = b""


def well_formed(text: str) -> str:
    """The text without what UTF-8 cannot say: half of a surrogate pair, as JSON may hold one, fits into no message."""
    return text.encode(errors="replace").decode()


def say_nothing(progress: Progress) -> None:
    """For work that nobody listens to."""


class Work(msgspec.Struct, frozen=True):
    """A piece of work, whole: the input is in the payload, the bytes of its files in `files`, by their names.

    `say` may be called in any thread, at any time and as often as one likes: it is cheap, never blocks, and drops what
    is too much. `owner` is the core that it is for: what one owner's work leaves behind, another's must not meet.
    """

    payload: jobs_pb2.JobPayload
    timeout_ms: int
    files: Mapping[str, bytes] = msgspec.field(default_factory=dict)
    say: Callable[[Progress], None] = say_nothing
    owner: str = ""


class Usage(msgspec.Struct, frozen=True):
    """What work has used; 0 where it is not known. `used_tokens` is of a language model; 0: the order's size stands."""

    cpu_us: int = 0
    memory_peak_bytes: int = 0
    used_tokens: int = 0


class OutputFile(msgspec.Struct, frozen=True):
    """A file that belongs to the result; `name` is relative to the job's folder, with slashes, without ".."."""

    name: str
    data: bytes


class Outcome(msgspec.Struct, frozen=True):
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
    usage: Usage = Usage()
    files: tuple[OutputFile, ...] = ()


WASM_ISOLATION = {"wasm": "wasmtime"}  # of the one executor that may be made late


class AtOnce(Protocol):
    """Does one kind of payload on the spot: work that takes less time than handing it over would."""

    @property
    def offers(self) -> tuple[str, ...]: ...

    def run_at_once(self, payload: jobs_pb2.JobPayload) -> Outcome: ...


class Executor(Protocol):
    """Runs one kind of payload.

    `offers` is what a host may advertise: labels such as "wasm" or "process:wc". `problems` says, a sentence each, what
    the config asks for and this machine cannot do; it is not offered. `isolation` names what holds the work back, by
    kind of payload: {"wasm": "wasmtime"}, {"process": "bwrap"}, "rlimits", or "none". All three are found out at the
    start and stay; what was advertised is never weakened silently.
    """

    @property
    def offers(self) -> tuple[str, ...]: ...

    @property
    def problems(self) -> tuple[str, ...]: ...

    @property
    def isolation(self) -> Mapping[str, str]: ...

    async def run(self, work: Work) -> Outcome:
        """Runs it. Cancelling the task kills the work. Never raises for what the work itself does."""
        ...

    def close(self) -> None:
        """Gives back what it holds, once nothing runs on it any more."""
        ...
