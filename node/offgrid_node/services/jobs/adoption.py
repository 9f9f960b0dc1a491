"""What hosts report, opened at the core: the letter that a result comes in, and the blob of a large output.

A large output is pulled into this node's own store (pulls.py) and durable there before the machine hears of the report.
It then is an object of this core. What the machine refuses is dropped again.

While this node's own disk refuses an output its report is not taken, so the host keeps the output and reports again.
The attempt waits for that: its host has done its part. The owner is told: once an attempt in the log, and in the node's
notices meanwhile.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice

from google.protobuf.message import DecodeError

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import (
    FailedPrecondition,
    Fault,
    FieldViolation,
    InvalidRequest,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.bounds import LOG_BYTES_MAX
from offgrid_node.protocol.jobs.commands import Arriving
from offgrid_node.protocol.jobs.large import (
    ARCHIVE_BYTES_MAX,
    INLINE_BYTES_MAX,
    KEY_BYTES,
    OUTPUT_BYTES_MAX,
    report_context,
)
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.orders import AttemptKey
from offgrid_node.protocol.jobs.receipts import digest_with_files, result_digest
from offgrid_node.protocol.merkle import LEAVES_MAX
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import stripe_span
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow
from offgrid_node.services.jobs.pulls import ArchiveSink, OutputSink, Pulled, Pulls, Sink
from offgrid_node.services.jobs.results import Letters, files_name, output_name
from offgrid_node.services.objects.holders import Carrier
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.replicas import PIECE_BYTES_MAX
from offgrid_node.services.objects.sealing import Sealer
from offgrid_node.storage.blobs import BlobStore

Taken = tuple[bytes, tuple[ObjectAdded, ...]]
"""The digest of a result, and the objects that its output and its files are to become."""

RETRY_MS = 1_000
REFUSED_MAX, NOTICES_MAX = 1_000, 8  # attempts remembered, and shown

_log = logging.getLogger(__name__)


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
        self._runtime, self._self_id, self._letters = runtime, self_id, letters
        self._sealer, self._keeping = sealer, keeping
        self._pulls = Pulls(carrier, blobs, bulk, salt)
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
        output, log, result = secret.output, secret.log, report.result
        _check_size("output", output, INLINE_BYTES_MAX)
        _check_size("log", log, LOG_BYTES_MAX)
        _check_blobs(report, secret)
        if output:
            result.output = output
        if log:
            result.log = log
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
        pulled = yield self._pulls.pull(host, manifest, key, sink, partial(self._say_refused, attempt, manifest))
        signed, body = self._sealer.adopt(manifest, key, objects_pb2.ObjectNote(name=name, for_job=True))
        added.append(ObjectAdded(signed, body, name, 0))
        return pulled, body

    def drop(self, added: ObjectAdded) -> None:
        """The machine has answered, or never will: the blob goes unless a row names it."""
        self._keeping.drop(added.body.object_id)

    def _say_refused(self, attempt: AttemptKey, manifest: Manifest, fault: Fault) -> None:
        sentence = (
            f"the result of job {attempt[0]} cannot be kept here: {fault.message}; "
            f"{manifest.owner} keeps that of attempt {attempt[1]}, and brings it again"
        )
        if attempt not in self._refused:
            _log.warning("a result cannot be kept here", extra=fields("result_refused", job=attempt[0], why=sentence))
        trouble = f"its output cannot be kept here: {fault.message}"
        self._runtime.deliver("jobs", Arriving(manifest.owner, attempt, manifest.size_bytes, trouble))
        self._refused[attempt] = sentence
        if len(self._refused) > REFUSED_MAX:
            self._refused.popitem(last=False)


def _check_size(name: str, value: bytes, most: int) -> None:
    if len(value) > most:
        text = f"{len(value)} bytes; at most {most} are allowed"
        raise InvalidRequest(f"{name}: {text}", violations=[FieldViolation(name, text)])


def _check_blobs(report: jobs_pb2.AttemptReport, secret: jobs_pb2.ResultSecret) -> None:
    """A blob comes with its key, and no key without a blob; one output is enough."""
    blob, files_blob = report.blob, report.files_blob
    for key, of in ((secret.blob_key, blob), (secret.files_key, files_blob)):
        if len(key) != (KEY_BYTES if of else 0):
            raise PeerFault(f"report {report.job_id}: its blob and key do not fit", reason="MalformedReport")
    if blob and secret.output:
        raise PeerFault(f"report {report.job_id}: it has two outputs", reason="MalformedReport")


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
    if manifest.sealed_size:
        raise InvalidRequest.field(field, "it is padded; a result has its own size")
    if manifest.stripes > LEAVES_MAX or stripe_span(manifest, 0)[1] > PIECE_BYTES_MAX:
        raise InvalidRequest.field(field, f"stripes of {manifest.stripe_bytes} bytes cannot be read in one piece")
    return manifest
