"""An owner audits: it asks all hosts of some objects at once, each with one call, and judges what they answer.

Nothing of an object has to be here for that. Where the answers do not tell who has other bytes, they are compared with
this node's own copy, and without one the shards are read and hashed: that costs their bytes, and names the right ones.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, Fault, PeerFault
from offgrid_node.protocol.merkle import Peaks
from offgrid_node.protocol.objects.audit import NAME_BYTES, NONCE_BYTES, answer_of, decode_answers, judge
from offgrid_node.protocol.objects.commands import Audited, Findings, TakeFindings
from offgrid_node.protocol.objects.errands import Audit
from offgrid_node.protocol.objects.hashing import wrong_shards
from offgrid_node.protocol.objects.manifest import COPY, Manifest, object_id_bytes, stripe_digest
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.rng import Rng
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, Step, asked, run, settled, together
from offgrid_node.services.objects.holders import LYING_MS, Carrier, Trust, call
from offgrid_node.services.objects.proving import AMBIGUOUS
from offgrid_node.services.objects.source import ShardSource

TIMEOUT_MS, READ_BYTES_PER_S = 10_000, 5_000_000  # of the slowest disk that is waited for
TIMEOUT_MS_MAX = 600_000
WINDOW_BYTES = 1 << 20  # of a shard that is read, in one call
CALL_BYTES = 71  # of a question and its answer beside the two: lanes, frames, and two TLS records of 22 bytes more
LANE = "audit"  # no object's name

Outcome = objects_pb2.AuditOutcome
WHOLE, WRONG, MISSING = Outcome.AUDIT_OUTCOME_WHOLE, Outcome.AUDIT_OUTCOME_WRONG, Outcome.AUDIT_OUTCOME_MISSING
SILENT, UNDECIDED = Outcome.AUDIT_OUTCOME_SILENT, Outcome.AUDIT_OUTCOME_UNDECIDED
GIVES_OTHER = "what it has is not what it acked"

_log = logging.getLogger(__name__)


class Report(msgspec.Struct):
    """An object that is audited: what each host acked of it, its answers, and what became of each of its shards."""

    manifest: Manifest
    epoch: int
    acked: Mapping[str, tuple[int, ...]]
    local: bool
    sums: dict[str, dict[int, bytes]] = msgspec.field(default_factory=dict)  # by host, of those that answered
    outcomes: dict[tuple[str, int], Outcome.ValueType] = msgspec.field(default_factory=dict)
    reasons: dict[str, str] = msgspec.field(default_factory=dict)
    own_bad: bool = False
    traffic_bytes: int = 0
    read_bytes: int = 0

    @property
    def answered(self) -> dict[tuple[str, int], bytes]:
        """Only what was acked: a host may have more by mistake, and that proves nothing."""
        return {
            (node, shard): sums[shard]
            for node, sums in self.sums.items()
            for shard in self.acked[node]
            if shard in sums
        }

    def of(self, *outcomes: Outcome.ValueType) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """By host, the shards of which one of these came."""
        found = {
            node: tuple(shard for shard in shards if self.outcomes.get((node, shard)) in outcomes)
            for node, shards in self.acked.items()
        }
        return tuple((node, shards) for node, shards in found.items() if shards)

    def findings(self) -> Findings:
        return Findings(self.manifest.object_id, self.epoch, self.of(WHOLE), self.of(WRONG, MISSING), self.own_bad)


class Auditing:
    """The carrier of Audit, and what AuditObject asks for."""

    def __init__(
        self,
        runtime: Runtime,
        carrier: Carrier,
        trust: Trust,
        rng: Rng,
        source: ShardSource,
        coder: Coder,
        bulk: Bulk,
        salt: Callable[[], bytes],
    ) -> None:
        self._runtime, self._carrier, self._trust, self._rng = runtime, carrier, trust, rng
        self._source, self._coder, self._bulk, self._salt = source, coder, bulk, salt
        self._going = False
        self.wrong_shards = 0  # or gone, since the start
        self.read_bytes = 0  # of shards, likewise

    def audit(self, work: Audit) -> None:
        """Its end enters the runtime as Audited. Machines that were loaded anew say it again: it goes on as it is."""
        if self._going:
            return
        self._going = True

        def ended(outcome: Sequence[Report] | Fault) -> None:
            self._going = False
            if isinstance(outcome, Fault):
                _log.warning("an audit came to nothing", extra=fields("audit_failed", why=outcome.message))
                outcome = ()
            self._runtime.deliver("objects", Audited(tuple(each.findings() for each in outcome)))

        rows = (self._runtime.store.get(OBJECTS, object_id.encode()) for object_id in work.object_ids)
        found = [objects_pb2.ObjectRow.FromString(value) for value in rows if value is not None]
        run(self._audit(found, thorough=False), ended)

    def now(self, caller: str, row: objects_pb2.ObjectRow) -> Flow[Message]:
        """Answered once what was found is durable."""
        (report,) = yield from self._audit([row], thorough=True)
        answer: objects_pb2.AuditObjectResponse = yield asked(
            self._runtime.ask("objects", caller, TakeFindings(report.findings()))
        )
        answer.hosts.extend(_told(report))
        answer.traffic_bytes, answer.read_bytes = report.traffic_bytes, report.read_bytes
        return answer

    # ---- inside

    def _audit(self, rows: Iterable[objects_pb2.ObjectRow], *, thorough: bool) -> Flow[Sequence[Report]]:
        """`thorough`: what too few answers leave open is read, however much that is."""
        reports = [_report(row) for row in rows]
        nonce = self._rng.randbytes(NONCE_BYTES)
        by_host: dict[str, list[Report]] = {}
        for report in reports:
            for node in report.acked:
                by_host.setdefault(node, []).append(report)
        yield together([settled(self._ask(node, nonce, theirs)) for node, theirs in by_host.items()])
        for report in reports:
            yield from self._judge(report, nonce, thorough)
            self.wrong_shards += sum(len(shards) for _, shards in report.of(WRONG, MISSING))
            self.read_bytes += report.read_bytes
        return reports

    def _ask(self, node: str, nonce: bytes, reports: Sequence[Report]) -> Flow[None]:
        left = list(reports)
        while left:
            try:
                found = yield from self._answers(node, nonce, left)
            except Fault as fault:
                self._trust.on_fault(node, fault)
                for report in left:
                    report.reasons[node] = self._trust.why(node, fault)
                return
            for report, sums in zip(left, found, strict=False):
                report.sums[node] = sums
            if not found:
                return
            left = left[len(found) :]

    def _answers(self, node: str, nonce: bytes, reports: Sequence[Report]) -> Flow[list[dict[int, bytes]]]:
        """Of the first of them, as far as the host goes."""
        ids = [object_id_bytes(report.manifest.object_id) for report in reports]
        names = b"".join(name[:NAME_BYTES] for name in ids)
        request = objects_pb2.AuditReplicasRequest(question=nonce + names)
        try:
            answer = yield from self._call(node, request, reports)
        except FailedPrecondition as fault:
            if fault.reason != AMBIGUOUS:
                raise
            request = objects_pb2.AuditReplicasRequest(question=nonce, object_ids=b"".join(ids))
            answer = yield from self._call(node, request, reports)
        return decode_answers(answer.answers, len(reports))

    def _call(
        self, node: str, request: objects_pb2.AuditReplicasRequest, reports: Sequence[Report]
    ) -> Flow[objects_pb2.AuditReplicasResponse]:
        kind, timeout_ms = objects_pb2.AuditReplicasResponse, _timeout_ms(node, reports)
        step: Step[objects_pb2.AuditReplicasResponse] = call(
            self._carrier, node, "AuditReplicas", request, kind, timeout_ms=timeout_ms
        )
        answer = yield step
        spent = (request.ByteSize() + answer.ByteSize() + CALL_BYTES) // len(reports)
        for report in reports:
            report.traffic_bytes += spent
        return answer  # type: ignore[no-any-return]

    def _judge(self, report: Report, nonce: bytes, thorough: bool) -> Flow[None]:
        """What each host's shards are."""
        for node, shards in report.acked.items():
            missing = MISSING if node in report.sums else SILENT
            report.outcomes.update({(node, shard): missing for shard in shards})
        answered = report.answered
        report.outcomes.update(dict.fromkeys(answered, UNDECIDED))
        k, n, numbered = _as_code(report.manifest, answered)
        told = False
        if len(numbered) > k:
            verdict = judge(k, n, {number: answered[held] for number, held in numbered.items()})
            told = verdict.whole or verdict.told_apart
            if told:
                outcomes = {held: WRONG if number in verdict.wrong else WHOLE for number, held in numbered.items()}
                report.outcomes.update(outcomes)
        if not told and answered:
            if report.local:
                told = yield from self._compare_with_own(report, nonce)
            if not told and (thorough or report.own_bad or len(numbered) > k):
                yield from self._read_all(report)
        for node, _ in report.of(WRONG):
            said = fields("audit_wrong", peer=node, object=report.manifest.object_id)
            _log.warning("a host has not the bytes that it acked", extra=said)
            self._trust.shun(node, LYING_MS)
            report.reasons[node] = GIVES_OTHER

    def _compare_with_own(self, report: Report, nonce: bytes) -> Flow[bool]:
        """Whether that tells: who has other bytes than this node is only wrong if these are right."""
        own = dict[int, bytes]()
        try:
            if not self._source.has(report.manifest):
                raise Corrupt("this node's own copy has gone", reason="BlobLost")
            for shard in sorted({shard for _, shard in report.answered}):
                own[shard] = yield self._own_answer(report.manifest, shard, nonce)
            others = sorted({shard for (_, shard), answer in report.answered.items() if answer != own[shard]})
            if others and (yield self._own_is_bad(report.manifest, others)):
                raise Corrupt("this node's own copy has other bytes", reason="WrongRoot")
        except Corrupt as fault:
            report.own_bad = self._wants_own(report.manifest.object_id)
            if report.own_bad:
                said = fields("own_copy_wrong", object=report.manifest.object_id, why=fault.message)
                _log.warning("this node's own copy of an object is damaged", extra=said)
            return False
        for held, answer in report.answered.items():
            report.outcomes[held] = WHOLE if answer == own[held[1]] else WRONG
        return True

    def _wants_own(self, object_id: str) -> bool:
        """Whether a copy is to be here still: it may have been dropped meanwhile."""
        value = self._runtime.store.get(OBJECTS, object_id.encode())
        return objects_pb2.ObjectRow.FromString(value or b"").object.local

    def _own_answer(self, manifest: Manifest, shard: int, nonce: bytes) -> Step[bytes]:
        def read(offset: int, length: int) -> bytes:
            self._bulk.check_going()
            return self._source.read(manifest, shard, offset, length)

        return self._bulk.run(lambda: answer_of(nonce, manifest.shard_bytes, read, self._coder.combine), key=LANE)

    def _own_is_bad(self, manifest: Manifest, shards: Sequence[int]) -> Step[bool]:
        def pieces() -> Iterator[tuple[int, bytes]]:
            for piece in self._source.pieces(manifest, shards):
                self._bulk.check_going()
                yield piece

        return self._bulk.run(lambda: bool(wrong_shards(manifest, shards, pieces(), self._salt())), key=LANE)

    # ---- where answers do not tell

    def _read_all(self, report: Report) -> Flow[None]:
        """One shard after another."""
        for node, shard in report.answered:
            try:
                root = yield from self._root(report, node, shard)
            except (Corrupt, PeerFault) as fault:
                report.outcomes[node, shard], report.reasons[node] = WRONG, self._trust.why(node, fault)
            except Fault as fault:
                report.reasons[node] = self._trust.why(node, fault)
            else:
                right = root == report.manifest.roots[shard]
                report.outcomes[node, shard] = WHOLE if right else WRONG

    def _root(self, report: Report, node: str, shard: int) -> Flow[bytes]:
        """Over what the host gives when it is read."""
        manifest, peaks = report.manifest, Peaks()
        stripes = max(1, WINDOW_BYTES // manifest.row_bytes)
        for first in range(0, manifest.stripes, stripes):
            spans = [row_span(manifest, index) for index in range(first, min(manifest.stripes, first + stripes))]
            data = yield from self._read(manifest, node, shard, spans)
            report.read_bytes += len(data)
            for leaf in (yield self._leaves(data, spans)):
                peaks.add(leaf)
        return peaks.root()

    def _read(self, manifest: Manifest, node: str, shard: int, spans: Sequence[tuple[int, int]]) -> Flow[bytes]:
        offset, length = spans[0][0], sum(length for _, length in spans)
        request = objects_pb2.ReadReplicaRequest(object_id=manifest.object_id, offset=offset, length=length)
        if manifest.codec != COPY:
            request.shard = shard
        timeout_ms = TIMEOUT_MS + length * 1_000 // READ_BYTES_PER_S
        step: Step[objects_pb2.ReadReplicaResponse] = call(
            self._carrier, node, "ReadReplica", request, objects_pb2.ReadReplicaResponse, timeout_ms=timeout_ms
        )
        answer = yield step
        if len(answer.data) != length:
            raise PeerFault(f"{node} gave {len(answer.data)} of {length} bytes", reason="WrongRow")
        return answer.data  # type: ignore[no-any-return]

    def _leaves(self, data: bytes, spans: Sequence[tuple[int, int]]) -> Step[list[bytes]]:
        salt, begin = self._salt(), spans[0][0]

        def work() -> list[bytes]:
            view = memoryview(data)
            return [stripe_digest(salt, view[at - begin : at - begin + length]) for at, length in spans]

        return self._bulk.run(work, key=LANE, size_bytes=len(data))


def _report(row: objects_pb2.ObjectRow) -> Report:
    manifest = Manifest.decode(row.object.manifest.signed.body)
    epoch = Epoch.decode(row.epoch.body).epoch if row.HasField("epoch") else 0
    acked = {ack.node_id: tuple(ack.shards) or (0,) for ack in row.object.acks}
    return Report(manifest, epoch, acked, row.object.local)


def _as_code(manifest: Manifest, answered: Iterable[tuple[str, int]]) -> tuple[int, int, dict[int, tuple[str, int]]]:
    """k, n, and what answered by its number in that code: copies are the code of 1 of as many as there are."""
    if manifest.codec != COPY:
        return manifest.k, manifest.n, {held[1]: held for held in answered}
    numbered = dict(enumerate(answered))
    return 1, max(2, len(numbered)), numbered


def _timeout_ms(node: str, reports: Sequence[Report]) -> int:
    read_bytes = sum(len(report.acked[node]) * report.manifest.shard_bytes for report in reports)
    return min(TIMEOUT_MS_MAX, TIMEOUT_MS + read_bytes * 1_000 // READ_BYTES_PER_S)


def _told(report: Report) -> list[objects_pb2.HostAudit]:
    return [
        objects_pb2.HostAudit(
            node_id=node,
            outcome=outcome,
            shards=shards if report.manifest.codec != COPY else (),
            reason=report.reasons.get(node, ""),
        )
        for outcome in (WHOLE, WRONG, MISSING, SILENT, UNDECIDED)
        for node, shards in report.of(outcome)
    ]
