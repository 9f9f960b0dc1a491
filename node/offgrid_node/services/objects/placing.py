"""ExplainPlacement: what every host would get of an object, or holds of it, and why. Nothing of it changes anything."""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.merkle import DIGEST_BYTES
from offgrid_node.protocol.objects.explaining import Outcome, Placed, Verdict, explain
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.manifest import (
    COPY,
    REED_SOLOMON,
    STRIPE_BYTES,
    Code,
    Manifest,
)
from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.preference import Facts, Host, Policy
from offgrid_node.protocol.objects.sizes import size_class
from offgrid_node.runtime import Runtime
from offgrid_node.services.objects.codes import CodePolicy, check_code

VERDICTS_MAX = 1_024
SIZE_BYTES_MAX = 2**50
POLICIES = {
    objects_pb2.PLACEMENT_POLICY_BALANCED: Policy.BALANCED,
    objects_pb2.PLACEMENT_POLICY_LATENCY: Policy.LATENCY,
    objects_pb2.PLACEMENT_POLICY_BANDWIDTH: Policy.BANDWIDTH,
}
POLICY_VALUES = {policy: value for value, policy in POLICIES.items()}


class Placing:
    """Asks the machine of now."""

    def __init__(self, runtime: Runtime, self_id: str, coding: CodePolicy, name_of: Callable[[str], str]) -> None:
        """`name_of` is what people call a node."""
        self._runtime, self._self_id, self._coding, self._name_of = runtime, self_id, coding, name_of

    def explain(
        self, request: objects_pb2.ExplainPlacementRequest, row: objects_pb2.ObjectRow | None
    ) -> objects_pb2.ExplainPlacementResponse:
        """Of the object of `row`, or of one as the request says. Raises InvalidRequest."""
        policy = self._policy(request)
        placed = self._of_row(row, policy) if row is not None else self._of_size(request, policy)
        parcel, now_ms = placed.parcel, self._runtime.clock.now().mono_ms
        verdicts = explain(placed, self._machine.hosts, now_ms)
        own = Verdict(Host(self._self_id, 0, "", alive=True), (), (), Outcome.OWNER, OWNER_REASON)
        return objects_pb2.ExplainPlacementResponse(
            object_id=parcel.object_id,
            code=objects_pb2.Code(needed=parcel.shards_needed, total=parcel.shards_total or 1),
            copies=0 if parcel.coded else parcel.copies,
            part_bytes=placed.part_bytes,
            policy=POLICY_VALUES[policy],
            hosts=[self._told(said) for said in [*verdicts[:VERDICTS_MAX], own]],
            hosts_left_out=max(0, len(verdicts) - VERDICTS_MAX),
            unplaced=unplaced(parcel, verdicts),
        )

    @property
    def _machine(self) -> ObjectsMachine:
        return self._runtime.machine("objects", ObjectsMachine)

    def _policy(self, request: objects_pb2.ExplainPlacementRequest) -> Policy:
        if not request.policy:
            return self._machine.settings.placement
        policy = POLICIES.get(request.policy)
        if policy is None:
            raise InvalidRequest.field("policy", f"{request.policy}; allowed: {', '.join(Policy)}")
        return policy

    def _of_size(self, request: objects_pb2.ExplainPlacementRequest, policy: Policy) -> Placed:
        if request.size_bytes > SIZE_BYTES_MAX:
            text = f"{request.size_bytes} bytes; at most {SIZE_BYTES_MAX} are allowed"
            raise InvalidRequest.field("size_bytes", text)
        padded = request.padded if request.HasField("padded") else None
        upload = objects_pb2.OpenUploadRequest(copies=request.copies, padded=padded)
        if request.HasField("code"):
            upload.code.CopyFrom(request.code)
        check_code(upload)
        settings, code = self._machine.settings, self._coding.code_for(upload, request.size_bytes)
        copies = request.copies or settings.copies
        size_bytes = size_class(request.size_bytes) if self._coding.pads(upload) else request.size_bytes
        part_bytes = _imagined(size_bytes, code).shard_bytes
        total = code.total if code.total > 1 else 0
        parcel = Parcel(0, "", settings.required_of(request.copies), copies, part_bytes, False, code.needed, total)
        return Placed(parcel, part_bytes, policy)

    def _of_row(self, row: objects_pb2.ObjectRow, policy: Policy) -> Placed:
        body = Manifest.decode(row.object.manifest.signed.body)
        return Placed(self._machine.parcel(row.object.object_id), body.shard_bytes, policy)

    def _told(self, said: Verdict) -> objects_pb2.PlacementVerdict:
        host = said.host
        told = objects_pb2.PlacementVerdict(
            node_id=host.node_id,
            name=self._name_of(host.node_id),
            failure_domain=host.domain,
            weight_milli=host.weight_milli,
            alive=host.alive,
            outcome=objects_pb2.PlacementOutcome.ValueType(said.outcome),
            gets=said.gets,
            holds=said.holds,
            reason=said.reason,
        )
        _add_facts(told, host.facts)
        return told


OWNER_REASON = "is this node itself, whose own copy does not count"


def unplaced(parcel: Parcel, verdicts: list[Verdict]) -> int:
    """How many shards, or copies, no host can take now."""
    placed = {(shard, said.host.node_id) for said in verdicts for shard in (*said.gets, *said.holds)}
    if parcel.coded:
        return parcel.shards_total - len({shard for shard, _ in placed})
    return max(0, parcel.copies - len(placed))


def _add_facts(told: objects_pb2.PlacementVerdict, facts: Facts) -> None:
    if facts.room_bytes is not None:
        told.room_bytes = facts.room_bytes
    if facts.round_trip_ms is not None:
        told.round_trip_ms = facts.round_trip_ms
    if facts.bytes_per_s is not None:
        told.bytes_per_s = facts.bytes_per_s


def _imagined(size_bytes: int, code: Code) -> Manifest:
    """Of an object that might be put, for its measures."""
    codec = REED_SOLOMON if code.total > 1 else COPY
    roots = (bytes(DIGEST_BYTES),) * code.total
    return Manifest("", b"", size_bytes, STRIPE_BYTES, code.needed, codec, roots, 0)
