"""What goes into a domain's machine and what may come out of it.

A machine is stepped with a batch of inputs and the time; it returns effects in order. The runtime commits every
Record, Put and Delete of a batch in one transaction and only then lets the calls, replies and executions leave
(etcd raft's `Ready`: durable before visible). Machines never call each other; `Raise` hands an event to another
domain's machine within the same batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.rng import Rng

DOMAINS = ("mesh", "jobs", "objects", "quorum", "ledger", "state")


# ---- inputs


@dataclass(frozen=True, slots=True)
class Asked:
    """An RPC that a handler has checked: `command` is the domain's own input, `ticket` takes one Reply."""

    ticket: int
    caller: str
    command: object


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of a Call: either `reply` or `fault` is set. `tag` is what the Call carried."""

    tag: object
    node: str
    reply: Message | None
    fault: Fault | None


@dataclass(frozen=True, slots=True)
class Woke:
    """The machine's own deadline has passed."""


@dataclass(frozen=True, slots=True)
class Executed:
    """An execution has ended. `error` is empty when the work ran to its own end, whatever its exit code."""

    core: str
    job_id: str
    attempt: int
    output: bytes
    log: bytes
    exit_code: int
    error: str
    error_detail: str
    latency_us: int
    executor: str


# ---- effects


@dataclass(frozen=True, slots=True)
class Record:
    """Append one event to the journal. `event` carries etype, subject and data; the runtime sets seq and time."""

    event: state_pb2.Event


@dataclass(frozen=True, slots=True)
class Put:
    """Write a row in the same transaction."""

    table: str
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete a row in the same transaction; a missing one is no error."""

    table: str
    key: bytes


@dataclass(frozen=True, slots=True)
class Call:
    """Call another node; its end comes back as Answered with the same tag. The road is the client's business."""

    domain: str
    node: str
    method: str
    request: Message
    tag: object
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Reply:
    """Answer a ticket, with a response message or a fault. Exactly one per ticket."""

    ticket: int
    outcome: Message | Fault


@dataclass(frozen=True, slots=True)
class Execute:
    """Start a job on this node's executors; its end comes back as Executed with the same core, job and attempt."""

    core: str
    job_id: str
    attempt: int
    payload: jobs_pb2.JobPayload
    timeout_ms: int


@dataclass(frozen=True, slots=True)
class Raise:
    """Hand an event to another domain's machine, in this very batch."""

    domain: str
    event: object


Effect = Record | Put | Delete | Call | Reply | Execute | Raise


# ---- what a machine needs and is


class Rows(Protocol):
    """Committed rows, as a machine reads them when it loads."""

    def get(self, table: str, key: bytes) -> bytes | None: ...

    def scan(self, table: str, start: bytes = b"", *, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]: ...


class Machine(Protocol):
    """A domain's pure machine.

    `load` forgets everything and rebuilds its memory from rows; it is called at start and after a failed commit.
    `step` may change its memory at once: if the commit fails the runtime discards the machine and loads a new one.
    """

    def load(self, rows: Rows, now: Now) -> None: ...

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]: ...

    def deadline_ms(self) -> int | None:
        """The monotonic instant at which it wants a Woke, or None."""
        ...


class Signer(Protocol):
    """This node's key; Ed25519 is deterministic, so signing keeps a machine pure."""

    @property
    def node_id(self) -> str: ...

    @property
    def public_key(self) -> bytes: ...

    def sign(self, digest: bytes) -> bytes: ...


class Verifier(Protocol):
    """Checks a signature; False for anything that is not one, small-order keys included."""

    def __call__(self, public_key: bytes, digest: bytes, signature: bytes) -> bool: ...
