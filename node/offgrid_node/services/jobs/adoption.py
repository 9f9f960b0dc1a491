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
from typing import Protocol, TypeVar

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
from offgrid_node.protocol.jobs.artifacts import archive_digest, listed, unpack
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.protocol.jobs.commands import Arriving
from offgrid_node.protocol.jobs.large import (
    ARCHIVE_BYTES_MAX,
    INLINE_BYTES_MAX,
    KEY_BYTES,
    OUTPUT_BYTES_MAX,
    ResultHash,
    report_context,
)
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.post import CALL_TIMEOUT_MS, transfer_ms
from offgrid_node.protocol.jobs.receipts import digest_with_files, result_digest
from offgrid_node.protocol.merkle import LEAVES_MAX
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, run, together
from offgrid_node.services.jobs.results import PULL_PREFIX, Letters, files_name, output_name
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.reading import READ_REPLICA, Carrier
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.storage.blobs import BlobStore

Taken = tuple[bytes, tuple[ObjectAdded, ...]]
"""The digest of a result, and the objects that its output and its files are to become."""
Pulled = tuple[bytes, list[jobs_pb2.ResultFile]]
"""Digest and, of an archive, the files in it."""

WINDOW = 3  # stripes of one output under way
RETRY_MS = 1_000
FULL_RETRY_MS = 60_000  # a full disk does not empty itself at once
REFUSED_MAX, NOTICES_MAX = 1_000, 8  # attempts remembered, and shown

T = TypeVar("T")

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Pull:
    """An output on its way here, and who waits for it: a host repeats what it is not answered in time."""

    waiting: list[Callable[[Pulled | Fault], None]] = field(default_factory=list)


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

    def open(self, host: str, report: jobs_pb2.AttemptReport) -> jobs_pb2.ResultSecret:
        """Puts output and log into the report's result; returns the whole secret, with the keys of its blobs.

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
        for blob, key in ((report.blob, secret.blob_key), (report.files_blob, secret.files_key)):
            if len(key) != (KEY_BYTES if blob else 0):
                raise PeerFault(f"report {report.job_id}: its blob and key do not fit", reason="MalformedReport")
        if report.blob and secret.output:
            raise PeerFault(f"report {report.job_id}: it has two outputs", reason="MalformedReport")
        report.result.output, report.result.log = secret.output, secret.log
        report.ClearField("sealed")
        return secret

    @contextmanager
    def vouch(self, host: str, report: jobs_pb2.AttemptReport) -> Iterator[None]:
        """While inside, the report's blobs are not deleted here: a host repeats a report while the first is still in
        its commit, and what a commit that fails takes back may be what the second has found here. From before `take`
        until the machine has answered. Raises as `take`, and Unavailable while one is just being deleted."""
        with ExitStack() as vouched:
            try:
                for manifest in _manifests_of(host, report):
                    vouched.enter_context(self._keeping.vouch(manifest.object_id))
            except FailedPrecondition as fault:
                raise Unavailable(fault.message, reason="BlobBusy", retry_ms=RETRY_MS) from fault
            yield

    def take(self, host: str, report: jobs_pb2.AttemptReport) -> Flow[Taken]:
        """The digest of a result of which something lies at its host, and the objects that it is to become; their bytes
        are durable here. The report names the objects instead of the blobs afterwards. Raises as `open`, and what the
        host or the disk raise."""
        manifests, result = _manifests_of(host, report), report.result
        secret = self.open(host, report)
        attempt, added = (report.job_id, report.attempt), list[ObjectAdded]()
        size_bytes = sum(manifest.size_bytes for manifest in manifests)
        self._runtime.deliver("jobs", Arriving(host, attempt, size_bytes))
        try:
            if report.blob:
                sink: Sink = OutputSink(result.exit_code)
                (digest, _), body = yield from self._adopted(
                    host, manifests[0], secret.blob_key, sink, attempt, output_name(report.job_id), added
                )
                result.output_object, result.output_bytes = body.object_id, body.size_bytes
            else:
                digest = result_digest(result.exit_code, result.output)
            if report.files_blob:
                (result.files_digest, files), body = yield from self._adopted(
                    host, manifests[-1], secret.files_key, ArchiveSink(), attempt, files_name(report.job_id), added
                )
                result.files_object = body.object_id
                result.files.extend(files)
        except Fault:
            for each in added:
                self.drop(each)
            raise
        self._refused.pop(attempt, None)
        report.ClearField("blob")
        report.ClearField("files_blob")
        return digest_with_files(digest, result.files_digest), tuple(added)

    def _adopted(
        self,
        host: str,
        manifest: Manifest,
        key: bytes,
        sink: Sink,
        attempt: AttemptKey,
        name: str,
        added: list[ObjectAdded],
    ) -> Flow[tuple[Pulled, Manifest]]:
        """One blob, fetched and this node's own; what it is to become is put into `added`."""
        pulled = yield self._pulled(host, manifest, key, sink, attempt)
        signed, body = self._sealer.adopt(manifest, key)
        added.append(ObjectAdded(signed, body, name, 0))
        return pulled, body

    def drop(self, added: ObjectAdded) -> None:
        """The machine has answered, or never will: the blob goes unless a row names it."""
        self._keeping.drop(added.body.object_id)

    # ---- one blob

    def _pulled(self, host: str, manifest: Manifest, key: bytes, sink: Sink, attempt: AttemptKey) -> Step[Pulled]:
        def start(done: Callable[[Pulled | Fault], None]) -> None:
            name = host, manifest.object_id
            under_way = self._pulls.get(name)
            if under_way is not None:
                under_way.waiting.append(done)
                return
            pull = self._pulls[name] = _Pull([done])

            def ended(outcome: Pulled | Fault) -> None:
                del self._pulls[name]
                for waiting in pull.waiting:
                    waiting(outcome)

            run(self._pull(host, manifest, key, sink, attempt), ended)

        return start

    def _pull(self, host: str, manifest: Manifest, key: bytes, sink: Sink, attempt: AttemptKey) -> Flow[Pulled]:
        name, staged = manifest.object_id, f"{PULL_PREFIX}{host}.{manifest.object_id}"
        check = _Check(manifest, key, sink, self._salt())
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
            pulled = yield from at_disk(check.end, staged)
            # What was here may be another report's whose fsync is under way: it is as durable only after one.
            settle = partial(self._blobs.sync, name) if here else partial(self._blobs.finish, staged, name)
            yield from at_disk(settle, name)
        except Fault:
            self._bulk.run(discard, key=staged)(lambda outcome: None)
            raise
        return pulled

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


class Sink(Protocol):
    """Where opened bytes go, in their order, in a thread."""

    def add(self, data: bytes) -> None: ...

    def end(self) -> Pulled:
        """Raises PeerFault for what no honest host would have sealed."""
        ...


class OutputSink:
    """A large output: of it only the digest, with the exit code's."""

    def __init__(self, exit_code: int) -> None:
        self._hash = ResultHash(exit_code)

    def add(self, data: bytes) -> None:
        self._hash.add(data)

    def end(self) -> Pulled:
        return self._hash.digest(), []


class ArchiveSink:
    """The files of a result: digest and list are made here, of the bytes themselves, and nothing is believed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def add(self, data: bytes) -> None:
        self._parts.append(data)

    def end(self) -> Pulled:
        archive = b"".join(self._parts)
        self._parts.clear()
        try:
            return archive_digest(archive), listed(unpack(archive))
        except Corrupt as error:
            raise PeerFault(error.message, reason="WrongOutput") from error


class _Check:
    """Whether sealed stripes are the manifest's, and what they open to."""

    def __init__(self, manifest: Manifest, key: bytes, sink: Sink, salt: bytes) -> None:
        self.manifest = manifest
        self._key, self._salt, self._sink = key, salt, sink
        self._digests: list[bytes] = []

    def add(self, index: int, sealed: bytes) -> None:
        """Raises PeerFault for a stripe that does not open in its place."""
        last = index == self.manifest.stripes - 1
        try:
            self._sink.add(open_stripe(self._key, self.manifest.nonce, index, last, sealed))
        except Corrupt as error:
            raise PeerFault(f"the output's {error.message}", reason="WrongOutput") from error
        self._digests.append(stripe_digest(self._salt, sealed))

    def end(self) -> Pulled:
        """What came of them. Raises PeerFault when the stripes are not those of the manifest's root."""
        if (shard_root(self._digests),) != self.manifest.roots:
            raise PeerFault("the output is not what its manifest says", reason="WrongOutput")
        return self._sink.end()


def _manifests_of(host: str, report: jobs_pb2.AttemptReport) -> list[Manifest]:
    """Of what the report has left at its host: of a large output, of an archive of files. Raises PeerFault and
    InvalidRequest."""
    kinds = (
        ("blob", report.blob, INLINE_BYTES_MAX + 1, OUTPUT_BYTES_MAX),
        ("files_blob", report.files_blob, 1, ARCHIVE_BYTES_MAX),
    )
    return [_manifest_of(host, field, blob, least, most) for field, blob, least, most in kinds if blob]


def _manifest_of(host: str, field: str, blob: bytes, least: int, most: int) -> Manifest:
    manifest = Manifest.decode(blob)
    if manifest.owner != host:
        raise PeerFault(f"{host} reported a blob of {manifest.owner}", reason="ForgedManifest")
    if not least <= manifest.size_bytes <= most:
        raise InvalidRequest.field(field, f"{manifest.size_bytes} bytes; {least} to {most} are allowed")
    if manifest.stripes > LEAVES_MAX or stripe_span(manifest, 0)[1] > PIECE_BYTES_MAX:
        raise InvalidRequest.field(field, f"stripes of {manifest.stripe_bytes} bytes cannot be read in one piece")
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
