"""What hosts report, opened at the core: the letter that a result comes in, and the blob of a large output.

A large output is pulled from the host's blob store into this node's own and durable there before the machine hears of
the report: sealed as it came, every stripe opened once to see that it is what the receipt says. It then is an object of
this core. What the machine refuses is dropped again.

While this node's own disk refuses an output its report is not taken, so the host keeps the output and reports again
until the attempt's lease expires. The owner is told: once an attempt in the log, and in the node's notices meanwhile.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import (
    Corrupt,
    Exhausted,
    FailedPrecondition,
    Fault,
    FieldViolation,
    InvalidRequest,
    NotFound,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.protocol.jobs.commands import Arriving
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX, KEY_BYTES, OUTPUT_BYTES_MAX, ResultHash, report_context
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS, transfer_ms
from offgrid_node.protocol.merkle import LEAVES_MAX
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, run, together
from offgrid_node.services.jobs.results import PULL_PREFIX, Letters, output_name
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.reading import READ_REPLICA, Carrier
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.storage.blobs import BlobStore

Taken = tuple[bytes, ObjectAdded]
"""The digest of a result, and the object that its output is to become."""

WINDOW = 3  # stripes of one output under way
RETRY_MS = 1_000
FULL_RETRY_MS = 60_000  # a full disk does not empty itself at once
REFUSED_MAX, NOTICES_MAX = 1_000, 8  # attempts remembered, and shown

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pull:
    """An output on its way here, and who waits for it: a host repeats what it is not answered in time."""

    waiting: list[Callable[[bytes | Fault], None]] = field(default_factory=list)


class Adoption:
    """Opens reports, and takes over what they leave at their host."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        carrier: Carrier,
        letters: Letters,
        sealer: Sealer,
        blobs: BlobStore,
        bulk: Bulk,
        keeping: Keeping,
        salt: Callable[[], bytes],
    ) -> None:
        self._runtime, self._self_id, self._carrier, self._letters = runtime, self_id, carrier, letters
        self._sealer, self._blobs, self._bulk, self._keeping, self._salt = sealer, blobs, bulk, keeping, salt
        self._pulls: dict[tuple[str, str], _Pull] = {}
        self._refused: OrderedDict[AttemptKey, str] = OrderedDict()  # by this node's disk, and how

    @property
    def notices(self) -> tuple[str, ...]:
        """What an operator should know: results that this node's disk does not take. Raises as Runtime.machine."""
        jobs = self._runtime.machine("jobs", JobsMachine).core.jobs
        awaited = (text for key, text in self._refused.items() if jobs.current(key) is not None)
        return tuple(islice(awaited, NOTICES_MAX))

    def open(self, host: str, report: jobs_pb2.AttemptReport) -> bytes:
        """Puts output and log into the report's result; returns the key of its blob, empty where there is none.

        Raises PeerFault for what was not sealed for this node and this attempt, InvalidRequest for what is too large.
        """
        context = report_context(host, self._self_id, report.job_id, report.attempt)
        try:
            secret = jobs_pb2.ResultSecret.FromString(self._letters.open(report.sealed, context))
        except (Fault, DecodeError) as error:
            raise PeerFault(
                f"report {report.job_id}: its result is not sealed for this core and attempt", reason="NotSealedForUs"
            ) from error
        for name, value, most in (("output", secret.output, INLINE_BYTES_MAX), ("log", secret.log, LOG_BYTES_MAX)):
            if len(value) > most:
                text = f"{len(value)} bytes; at most {most} are allowed"
                raise InvalidRequest(f"{name}: {text}", violations=[FieldViolation(name, text)])
        if len(secret.blob_key) != (KEY_BYTES if report.blob else 0) or (report.blob and secret.output):
            raise PeerFault(f"report {report.job_id}: its blob and key do not fit", reason="MalformedReport")
        report.result.output, report.result.log = secret.output, secret.log
        report.ClearField("sealed")
        return secret.blob_key

    @contextmanager
    def vouch(self, host: str, report: jobs_pb2.AttemptReport) -> Iterator[None]:
        """While inside, the report's blob is not deleted here: a host repeats a report while the first is still in its
        commit, and what a commit that fails takes back may be what the second has found here. From before `take` until
        the machine has answered. Raises as `take`, and Unavailable while the blob is just being deleted."""
        with ExitStack() as vouched:
            try:
                vouched.enter_context(self._keeping.vouch(_manifest_of(host, report).object_id))
            except FailedPrecondition as fault:
                raise Unavailable(fault.message, reason="BlobBusy", retry_ms=RETRY_MS) from fault
            yield

    def take(self, host: str, report: jobs_pb2.AttemptReport) -> Flow[Taken]:
        """The digest of a result whose output is a blob, and the object that the blob is to become; its bytes are
        durable here. The report names the object instead of the blob afterwards. Raises as `open`, and what the host
        or the disk raise."""
        manifest = _manifest_of(host, report)
        key = self.open(host, report)
        attempt = report.job_id, report.attempt
        self._runtime.deliver("jobs", Arriving(host, attempt, manifest.size_bytes))
        digest = yield self._pulled(host, manifest, key, report.result.exit_code, attempt)
        self._refused.pop(attempt, None)
        signed, body = self._sealer.adopt(manifest, key)
        report.result.output_object, report.result.output_bytes = body.object_id, body.size_bytes
        report.ClearField("blob")
        return digest, ObjectAdded(signed, body, output_name(report.job_id), 0)

    def drop(self, added: ObjectAdded) -> None:
        """The machine has answered, or never will: the blob goes unless a row names it."""
        self._keeping.drop(added.body.object_id)

    # ---- one output

    def _pulled(self, host: str, manifest: Manifest, key: bytes, exit_code: int, attempt: AttemptKey) -> Step[bytes]:
        def start(done: Callable[[bytes | Fault], None]) -> None:
            name = host, manifest.object_id
            under_way = self._pulls.get(name)
            if under_way is not None:
                under_way.waiting.append(done)
                return
            pull = self._pulls[name] = _Pull([done])

            def ended(outcome: bytes | Fault) -> None:
                del self._pulls[name]
                for waiting in pull.waiting:
                    waiting(outcome)

            run(self._pull(host, manifest, key, exit_code, attempt), ended)

        return start

    def _pull(self, host: str, manifest: Manifest, key: bytes, exit_code: int, attempt: AttemptKey) -> Flow[bytes]:
        name, staged = manifest.object_id, f"{PULL_PREFIX}{host}.{manifest.object_id}"
        check = _Check(manifest, key, exit_code, self._salt())
        discard = partial(self._blobs.discard, staged)
        at_disk = partial(self._at_disk, attempt, manifest)
        yield from at_disk(discard, staged)
        here = yield from at_disk(partial(self._find, manifest), name)
        try:
            for start in range(0, manifest.stripes, WINDOW):
                indexes = range(start, min(manifest.stripes, start + WINDOW))
                sealed = yield from self._own(manifest, indexes) if here else self._window(host, manifest, indexes)
                add = partial(self._add, check, start, sealed, "" if here else staged)
                yield from at_disk(add, staged, 2 * sum(map(len, sealed)))
            digest = check.digest()
            # What was here may be another report's whose fsync is under way: it is as durable only after one.
            settle = partial(self._blobs.sync, name) if here else partial(self._blobs.finish, staged, name)
            yield from at_disk(settle, name)
        except Fault:
            self._bulk.run(discard, key=staged)(lambda outcome: None)
            raise
        return digest

    def _find(self, manifest: Manifest) -> bool:
        """In a thread: whether the output is here already. Raises Exhausted (reason DiskFull) where it is not and has
        no room, so that nothing is fetched in vain."""
        if self._blobs.size(manifest.object_id) is not None:
            return True
        free_bytes = self._blobs.free_bytes()
        if manifest.sealed_bytes > free_bytes:
            text = f"its {manifest.sealed_bytes} bytes are too much for this node's disk, which takes {free_bytes} more"
            raise Exhausted(text, reason="DiskFull", retry_ms=FULL_RETRY_MS)
        return False

    def _at_disk(
        self, attempt: AttemptKey, manifest: Manifest, work: Callable[[], T], key: str, size_bytes: int = 0
    ) -> Flow[T]:
        """Work in a thread at this node's disk; the owner is told when that refuses."""
        try:
            outcome: T = yield self._bulk.run(work, key=key, size_bytes=size_bytes)
        except Fault as fault:
            if fault.reason in ("DiskFull", "DiskError"):
                self._say_refused(attempt, manifest, fault)
            raise
        return outcome

    def _say_refused(self, attempt: AttemptKey, manifest: Manifest, fault: Fault) -> None:
        sentence = (
            f"the result of job {attempt[0]} cannot be kept here: {fault.message}; "
            f"{manifest.owner} keeps it until attempt {attempt[1]} expires"
        )
        if attempt not in self._refused:
            _log.warning("%s", sentence)
            trouble = f"its output cannot be kept here: {fault.message}"
            self._runtime.deliver("jobs", Arriving(manifest.owner, attempt, manifest.size_bytes, trouble))
        self._refused[attempt] = sentence
        if len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)

    def _window(self, host: str, manifest: Manifest, indexes: range) -> Flow[list[bytes]]:
        """A few stripes from the host, asked for at once."""
        answers = yield together([self._stripe(host, manifest, index) for index in indexes])
        return [_stripe_of(host, manifest, index, answer) for index, answer in zip(indexes, answers, strict=True)]

    def _own(self, manifest: Manifest, indexes: range) -> Flow[list[bytes]]:
        """The same from this node's own blob: an earlier report brought it, and its answer was lost."""
        spans = [stripe_span(manifest, index) for index in indexes]
        read = yield self._bulk.run(
            lambda: [self._blobs.read(manifest.object_id, *span) for span in spans], key=manifest.object_id
        )
        return list(read)

    def _stripe(self, host: str, manifest: Manifest, index: int) -> Step[Message]:
        offset, length = stripe_span(manifest, index)
        request = objects_pb2.ReadReplicaRequest(object_id=manifest.object_id, offset=offset, length=length)
        timeout_ms = CALL_TIMEOUT_MS + WINDOW * transfer_ms(length)
        return lambda done: self._carrier.request(host, READ_REPLICA, request, timeout_ms, done)

    def _add(self, check: _Check, start: int, sealed: list[bytes], staged: str) -> None:
        """In a thread. `staged` is empty where the bytes are here already."""
        for index, stripe in enumerate(sealed, start):
            check.add(index, stripe)
            if staged:
                self._blobs.append(staged, stripe_span(check.manifest, index)[0], stripe)


class _Check:
    """Whether sealed stripes are the manifest's, and what result they open to."""

    def __init__(self, manifest: Manifest, key: bytes, exit_code: int, salt: bytes) -> None:
        self.manifest = manifest
        self._key, self._salt, self._hash = key, salt, ResultHash(exit_code)
        self._digests: list[bytes] = []

    def add(self, index: int, sealed: bytes) -> None:
        """Raises PeerFault for a stripe that does not open in its place."""
        last = index == self.manifest.stripes - 1
        try:
            self._hash.add(open_stripe(self._key, self.manifest.nonce, index, last, sealed))
        except Corrupt as error:
            raise PeerFault(f"the output's {error.message}", reason="WrongOutput") from error
        self._digests.append(stripe_digest(self._salt, sealed))

    def digest(self) -> bytes:
        """Of exit code and output. Raises PeerFault when the stripes are not those of the manifest's root."""
        if (shard_root(self._digests),) != self.manifest.roots:
            raise PeerFault("the output is not what its manifest says", reason="WrongOutput")
        return self._hash.digest()


def _manifest_of(host: str, report: jobs_pb2.AttemptReport) -> Manifest:
    manifest = Manifest.decode(report.blob)
    if manifest.owner != host:
        raise PeerFault(f"{host} reported a blob of {manifest.owner}", reason="ForgedManifest")
    if not INLINE_BYTES_MAX < manifest.size_bytes <= OUTPUT_BYTES_MAX:
        text = f"{manifest.size_bytes} bytes; {INLINE_BYTES_MAX + 1} to {OUTPUT_BYTES_MAX} are allowed"
        raise InvalidRequest.field("blob", text)
    if manifest.stripes > LEAVES_MAX or stripe_span(manifest, 0)[1] > PIECE_BYTES_MAX:
        raise InvalidRequest.field("blob", f"stripes of {manifest.stripe_bytes} bytes cannot be read in one piece")
    return manifest


def _stripe_of(host: str, manifest: Manifest, index: int, answer: object) -> bytes:
    """Raises the fault that the answer is, PeerFault for an answer of another length, and NotFound as it came: the host
    has lost the blob, and says so."""
    if isinstance(answer, NotFound):
        raise PeerFault(f"{host} has lost the output that it reported", reason="OutputLost") from answer
    if isinstance(answer, Fault):
        raise answer
    if not isinstance(answer, objects_pb2.ReadReplicaResponse) or len(answer.data) != stripe_span(manifest, index)[1]:
        raise PeerFault(f"{host} gave a stripe of another length", reason="WrongStripe")
    return answer.data
