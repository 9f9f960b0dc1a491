"""Parts of objects on their way from hosts: of each host as much at once as its road carries, in pieces, in the order
in which they were asked for.

A part is given up when nothing comes any more, not because all of it takes long; and what has come of it stays, so that
a further question to that host goes on behind it. Roads that are no free ones have turns of their own, and get a part
as one call.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from google.protobuf.message import Message

from offgrid.pieces import Buffer, as_a
from offgrid.pieces import Piece as Whole
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Fault, OutcomeUnknown, PeerFault, Unavailable
from offgrid_node.protocol.objects.congestion import (
    PATIENT_BYTES_PER_S,
    PATIENT_MS,
    QUICK_BYTES_PER_S,
    QUICK_MS,
    Congestion,
)
from offgrid_node.services.objects.holders import Carrier, Trust

READ_REPLICA = "offgrid.v1.ObjectService/ReadReplica"
SHARED_MS_MAX = 20_000  # that a piece may take longer for what others bring by the same road
PROOF_BYTES_PER_S = 20_000_000  # the slowest disk and hash that a host's proof is given time for

Done = Callable[["objects_pb2.ReadReplicaResponse | Fault"], None]


class Part(msgspec.Struct):
    """What one host is asked for, and what has come of it, by where that begins."""

    request: objects_pb2.ReadReplicaRequest
    come: dict[int, Buffer] = msgspec.field(default_factory=dict)
    asks: int = 0  # since anything of it came

    @property
    def end(self) -> int:
        return int(self.request.offset + self.request.length)

    def gap(self, begin: int, most_bytes: int) -> tuple[int, int] | None:
        """The next range from `begin` on that has not come: where it begins and ends. A small rest goes along."""
        while begin in self.come:
            begin += len(self.come[begin])
        following = min((at for at in self.come if at > begin), default=self.end)
        end = following if following - begin <= most_bytes + most_bytes // 8 else begin + most_bytes
        return (begin, end) if begin < self.end else None

    def take(self) -> Buffer:
        """All of it, which is held here no more."""
        pieces = [self.come.pop(at) for at in sorted(self.come)]
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Pull(msgspec.Struct, eq=False):
    """`at`: so far it is asked for. `fault` is how it ends, once nothing of it is under way any more."""

    part: Part
    patient: bool
    wanted: Callable[[], bool]
    done: Done
    at: int
    flying: int = 0
    fault: Fault | None = None


class _Lane(msgspec.Struct):
    congestion: Congestion
    queue: deque[_Pull] = msgspec.field(default_factory=deque)


class Pulls:
    """Of one node: its lanes are bounded by the mesh, and what waits in them by who reads."""

    def __init__(self, carrier: Carrier, trust: Trust) -> None:
        self._carrier, self._trust = carrier, trust
        self._lanes: dict[str, _Lane] = {}

    def pull(
        self, host: str, part: Part, done: Done, *, patient: bool, wanted: Callable[[], bool], shard_bytes: int
    ) -> None:
        """All of `part` that has not come; `patient` where nobody else is there to be asked instead. `done` is called
        once, unless it is not `wanted` any more."""
        if part.request.prove or not self._trust.has_free_road(host):
            self._whole(host, part, done, patient=patient, shard_bytes=shard_bytes)
            return
        lane = self._lanes.get(host)
        if lane is None:
            lane = self._lanes[host] = _Lane(Congestion(self._trust.now_ms()))
        lane.queue.append(_Pull(part, patient, wanted, done, part.request.offset))
        self._pump(host, lane)

    def stalls(self, host: str, after_ms: int) -> bool:
        """Whether nothing comes from a host that is asked for something."""
        lane = self._lanes.get(host)
        return lane is None or lane.congestion.stalls(self._trust.now_ms(), after_ms + self._shared_ms())

    def _shared_ms(self) -> int:
        """How long all that is under way takes, where all of it comes by one road, as fast as the fastest host's."""
        all_of = [lane.congestion for lane in self._lanes.values()]
        fastest = max((each.bytes_per_s for each in all_of), default=0)
        return 1_000 * sum(each.flying_bytes for each in all_of) // fastest if fastest else 0

    def heard_ms(self, host: str) -> int:
        """When anything came from there last, or was begun to be asked for."""
        lane = self._lanes.get(host)
        return lane.congestion.heard_ms if lane is not None else 0

    def bytes_per_s(self, host: str) -> int:
        """Of late; 0 where that is not known."""
        lane = self._lanes.get(host)
        return lane.congestion.bytes_per_s if lane is not None else 0

    def may_try(self, host: str) -> bool:
        """Whether nothing is known of how fast it is, nor about to be."""
        lane = self._lanes.get(host)
        return lane is None or not (lane.congestion.bytes_per_s or lane.congestion.flying_bytes)

    def _whole(self, host: str, part: Part, done: Done, *, patient: bool, shard_bytes: int) -> None:
        length = part.request.length
        timeout_ms = PATIENT_MS + length * 1_000 // PATIENT_BYTES_PER_S
        if not patient:
            timeout_ms = QUICK_MS + length * 1_000 // QUICK_BYTES_PER_S
        if part.request.prove:
            timeout_ms += shard_bytes * 1_000 // PROOF_BYTES_PER_S
        self._carrier.request(
            host, READ_REPLICA, part.request, timeout_ms, lambda answer: done(_checked(answer, length))
        )

    def _pump(self, host: str, lane: _Lane) -> None:
        while lane.queue:
            pull = lane.queue[0]
            gap = pull.part.gap(pull.at, lane.congestion.piece_bytes)
            if gap is None or pull.fault is not None or not pull.wanted():
                lane.queue.popleft()
            elif lane.congestion.has_room(gap[1] - gap[0]):
                self._ask(host, lane, pull, *gap)
            else:
                break

    def _ask(self, host: str, lane: _Lane, pull: _Pull, begin: int, end: int) -> None:
        began_ms, length = self._trust.now_ms(), end - begin
        request = objects_pb2.ReadReplicaRequest()
        request.CopyFrom(pull.part.request)
        request.offset, request.length = begin, length
        timeout_ms = lane.congestion.patience_ms(length, patient=pull.patient)
        timeout_ms += min(SHARED_MS_MAX, 2 * self._shared_ms())
        lane.congestion.on_asked(length, began_ms)
        pull.at, pull.flying = end, pull.flying + 1

        def ended(answer: Message | Fault) -> None:
            now_ms, outcome = self._trust.now_ms(), _checked(answer, length)
            pull.flying -= 1
            if not isinstance(outcome, Fault):
                lane.congestion.on_came(length, now_ms - began_ms, now_ms)
                pull.part.come[begin], pull.part.asks = outcome.data, 0
                self._on_come(pull, outcome)
            else:
                lane.congestion.on_lost(length)
                self._on_lost(lane, pull, outcome)
            self._pump(host, lane)

        self._carrier.request(host, READ_REPLICA, request, timeout_ms, ended)

    def _on_come(self, pull: _Pull, last: objects_pb2.ReadReplicaResponse) -> None:
        if pull.part.gap(pull.part.request.offset, 1) is None:
            answer = Whole(objects_pb2.ReadReplicaResponse(size_bytes=last.size_bytes), pull.part.take())
            pull.fault = None
            pull.done(as_a(objects_pb2.ReadReplicaResponse, answer) or last)
        elif pull.fault is not None and not pull.flying:
            pull.done(pull.fault)

    def _on_lost(self, lane: _Lane, pull: _Pull, fault: Fault) -> None:
        """A host that did not answer has not answered those who wait behind that either."""
        ended = [pull] if not pull.flying else []
        pull.fault = pull.fault or fault
        if isinstance(fault, Unavailable | OutcomeUnknown):
            for each in lane.queue:
                if each.fault is None and not each.flying and each is not pull and (pull.patient or not each.patient):
                    each.fault = fault
                    ended.append(each)
        for each in ended:
            assert each.fault is not None
            each.done(each.fault)


def _checked(answer: Message | Fault, length: int) -> objects_pb2.ReadReplicaResponse | Fault:
    if isinstance(answer, Fault):
        return answer
    found = as_a(objects_pb2.ReadReplicaResponse, answer)
    if found is None or len(found.data) != length:
        return PeerFault("an answer of another kind or length", reason="WrongRow")
    return found
