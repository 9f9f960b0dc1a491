"""What goes into a domain's machine and what may come out of it.

A machine is stepped with a batch of inputs and the time; it returns effects in order. The runtime commits every
Record, Put and Delete of a batch in one transaction and only then lets the calls, replies and executions leave
(etcd raft's `Ready`: durable before visible). Machines never call each other; `Raise` hands an event to another
domain's machine within the same batch. What comes by the thousand a second is a NamedTuple, which costs a third of a
frozen dataclass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.mail.errands import Serve
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.objects.errands import (
    Audit,
    Compare,
    Fetch,
    KeepSegment,
    Rebuild,
    Regain,
    Reseal,
    Rewrap,
    Ship,
)
from offgrid_node.protocol.rng import Rng

DOMAINS = ("mesh", "jobs", "objects", "quorum", "ledger", "state", "sessions", "memory", "mail")


# ---- inputs


class Asked(NamedTuple):
    """An RPC that a handler has checked: `command` is the domain's own input, `ticket` takes one Reply."""

    ticket: int
    caller: str
    command: object


class Answered(NamedTuple):
    """The end of a Call: either `reply` or `fault` is set. `tag` is what the Call carried; `reply` is the response, or
    what a handler made of it by checking it."""

    tag: object
    node: str
    reply: object | None
    fault: Fault | None


class Woke(msgspec.Struct, frozen=True):
    """The machine's own deadline has passed."""


class Executed(NamedTuple):
    """An execution has ended. `error` is empty when the work ran to its own end, whatever its exit code.

    To the machine it comes with nothing in clear that is another core's: `output` and `log` are empty then, `sealed`
    holds them for the core alone, and `digest` is the result's. An output that is too large for that is sealed in this
    node's blob store: `blob` is its Manifest body, or `added` the object that it becomes where this node is the core.
    What it used is 0 where that is not known. `files` are those it left, by name, in clear as `output` is; of them the
    machine gets the archive, as `files_blob` or `files_added`, and for this node's own jobs `result_files`.
    """

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
    digest: bytes = b""
    sealed: bytes = b""
    blob: bytes = b""
    added: ObjectAdded | None = None
    cpu_us: int = 0
    memory_peak_bytes: int = 0
    output_bytes: int = 0
    used_tokens: int = 0
    files: tuple[tuple[str, bytes], ...] = ()
    files_blob: bytes = b""
    files_added: ObjectAdded | None = None
    files_digest: bytes = b""
    result_files: tuple[jobs_pb2.ResultFile, ...] = ()

    def in_a_letter(self, digest: bytes, sealed: bytes) -> Executed:
        """The same with output and log sealed for its core; as `_replace` does it, in a quarter of the time."""
        core, job_id, attempt, _, _, *how, _, _ = self[:12]
        return Executed._make((core, job_id, attempt, b"", b"", *how, digest, sealed, *self[12:]))


class Filled(NamedTuple):
    """The end of a Fill: the payload as it will be carried, with its input in it; or why there is none."""

    job_id: str
    payload: bytes
    input_bytes: int
    error: str = ""


# ---- effects


class Record:
    """Append one event to the journal: `event` carries etype, subject and data; the runtime sets seq, time and type.

    One of a job may come as its bytes (`of_job`), without the seq: it is read from them once somebody looks, which of
    most events nobody does. `job` then is the job itself, as it is at the end of the step that tells of it."""

    __slots__ = ("_event", "encoded", "etype", "job", "seq", "subject")
    __match_args__ = ("event",)

    def __init__(self, event: state_pb2.Event) -> None:
        self._event: state_pb2.Event | None = event
        self.etype, self.subject = event.etype, event.subject
        self.encoded, self.seq = b"", 0
        self.job = event.job if event.HasField("job") else None

    @classmethod
    def of_job(cls, etype: int, job_id: str, job: jobs_pb2.Job, encoded: bytes) -> Record:
        """`encoded` is the whole event, its time and type included."""
        record = cls.__new__(cls)
        record._event, record.encoded, record.seq = None, encoded, 0
        record.etype, record.subject, record.job = etype, job_id, job
        return record

    @property
    def event(self) -> state_pb2.Event:
        """With its seq, where the event is durable."""
        event = self._event
        if event is None:
            event = self._event = state_pb2.Event.FromString(self.encoded)
        if self.seq:
            event.seq = self.seq
        return event

    def stamp(self, at_us: int, type_name: str) -> bytes:
        """Sets time and type, where they are not in it yet; returns its bytes for the journal."""
        if not self.encoded:
            event = self.event
            event.timestamp_us, event.type = at_us, type_name
            self.encoded = event.SerializeToString()
        return self.encoded


class Put(NamedTuple):
    """Write a row in the same transaction."""

    table: str
    key: bytes
    value: bytes


class Delete(NamedTuple):
    """Delete a row in the same transaction; a missing one is no error."""

    table: str
    key: bytes


class Call(NamedTuple):
    """Call another node; its end comes back as Answered with the same tag. The road is the client's business.

    `early`: it may leave before the commit. Only for what asserts nothing, binds nobody, and is not missed should the
    batch be lost."""

    domain: str
    node: str
    method: str
    request: Message
    tag: object
    timeout_ms: int
    early: bool = False


class Reply(NamedTuple):
    """Answer a ticket, with a response message or a fault. Exactly one per ticket."""

    ticket: int
    outcome: Message | Fault


class Execute(NamedTuple):
    """Start a job on this node's executors; its end comes back as Executed with the same core, job and attempt."""

    core: str
    job_id: str
    attempt: int
    payload: jobs_pb2.JobPayload
    timeout_ms: int
    files: tuple[tuple[str, bytes], ...] = ()  # name and bytes, once the input is there
    payload_digest: bytes = b""  # to be noted while it runs, where nothing durable says so


class Fill(NamedTuple):
    """Give a job's payload its input: the output of the job `source`, which has completed. It ends as Filled."""

    job_id: str
    payload: bytes
    source: str


class Stop(NamedTuple):
    """Stop work that was started with Execute: nobody waits for it any more. It ends as Executed all the same, and
    frees its place only then; work that has ended already needs no stopping."""

    core: str
    job_id: str
    attempt: int


class DropBlob(msgspec.Struct, frozen=True):
    """Delete a blob here unless a row wants it: an object's sealed copy, a shard of another's; a missing one is no
    error."""

    name: str


class DropEvents(NamedTuple):
    """The journal's events up to that number go, in the same transaction."""

    upto: int


class Raise(NamedTuple):
    """Hand an event to another domain's machine, in this very batch."""

    domain: str
    event: object


Outgoing = (
    Call
    | Reply
    | Execute
    | Stop
    | Fill
    | Ship
    | Rebuild
    | Fetch
    | DropBlob
    | KeepSegment
    | Compare
    | Audit
    | Rewrap
    | Reseal
    | Regain
    | Serve
)
Effect = Record | Put | Delete | DropEvents | Outgoing | Raise


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

    def wrapping_key(self, number: int) -> WrappingKey:
        """What others wrap object keys for, by the number of its rotation."""
        ...


class Verifier(Protocol):
    """Checks a signature; False for anything that is not one, small-order keys included."""

    def __call__(self, public_key: bytes, digest: bytes, signature: bytes) -> bool: ...
