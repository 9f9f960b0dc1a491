"""Gathering k shards of n: the same stripes of as many shards as give them back, from whichever hosts have them. Of
copies one is enough, and the stripes are spread over the hosts.

Data rows of trusted, living hosts are asked for first, since they need not be worked out; others where one fails, and
where one is slow (a hedged request: Dean and Barroso, "The Tail at Scale", 2013). First each gets a short time, so that
a frozen one costs little; only when there is nobody else to ask, a long one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import msgspec
from google.protobuf.message import Message

from offgrid.pieces import Buffer, as_a
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound, PeerFault
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.services.flow import Later, Step
from offgrid_node.services.objects.holders import AWAY_MS, Carrier, Holders, Trust

READ_REPLICA = "offgrid.v1.ObjectService/ReadReplica"
QUICK_MS, QUICK_BYTES_PER_S = 1_000, 1_000_000
PATIENT_MS, PATIENT_BYTES_PER_S = 5_000, 50_000
PROOF_BYTES_PER_S = 20_000_000  # the slowest disk and hash that a host's proof is given time for
ASKING_MS_MAX = 20_000  # after so long nobody else is asked
HEDGE_MS, HEDGE_BYTES_PER_S = 300, 10_000_000  # what takes longer is asked of others as well


class Piece(msgspec.Struct, frozen=True):
    """Rows of one shard, one behind the other, and who gave them."""

    data: Buffer
    host: str


class Span(msgspec.Struct, frozen=True):
    """`count` stripes from `first` on, of every shard alike."""

    manifest: Manifest
    first: int
    count: int
    prove: bool = False

    @property
    def bytes(self) -> tuple[int, int]:
        """Where it begins in a shard, and its length."""
        begin, (offset, length) = row_span(self.manifest, self.first)[0], row_span(self.manifest, self.last)
        return begin, offset + length - begin

    @property
    def is_copy(self) -> bool:
        return self.manifest.codec == COPY

    @property
    def last(self) -> int:
        return self.first + self.count - 1


Check = Callable[[int, objects_pb2.ReadReplicaResponse], "Step[Buffer]"]
"""What is taken of a shard's answer of the right length: its bytes, or what they turn out to be. The step may end with
a Fault; then they are not what was asked for."""


class Gathered(msgspec.Struct):
    """What there is at the end: k pieces, or fewer, and then why not more, by shard. Those of `silent` have not said
    that they have it no more, nor given something else: they may give it another time."""

    pieces: dict[int, Piece]
    refused: dict[tuple[int, str], str]
    silent: set[tuple[int, str]] = msgspec.field(default_factory=set)


class Gathering:
    """One span; `done` is called once."""

    def __init__(
        self,
        span: Span,
        holders: Holders,
        trust: Trust,
        carrier: Carrier,
        later: Later,
        check: Check,
        done: Callable[[Gathered], None],
    ) -> None:
        self._span, self._holders, self._trust, self._carrier = span, holders, trust, carrier
        self._later, self._check, self._done = later, check, done
        self._gathered, self._ended = Gathered({}, {}), False
        self._flying: dict[tuple[int, str], None] = {}
        self._asked: set[tuple[int, str]] = set()
        self._patient: deque[tuple[int, str]] = deque()  # who may answer if he gets more time
        self._hedges = 0  # requests beyond those that are needed
        self._until_ms = trust.now_ms() + ASKING_MS_MAX
        self._waiting = self._candidates(holders.of)
        self._former: set[tuple[int, str]] | None = None  # who may have it still, once nobody else is left to ask

    def start(self) -> None:
        length = self._span.bytes[1]
        self._ask_more()
        self._later(HEDGE_MS + length * 1_000 // HEDGE_BYTES_PER_S, self._hedge)

    def _candidates(self, of: Callable[[int], list[str]]) -> deque[tuple[int, str]]:
        shards, self_id = range(self._span.manifest.n), self._trust.self_id
        candidates = [(s, host) for s in shards for host in of(s) if host != self_id]
        turn = self._span.first % len(candidates) if candidates and self._span.is_copy else 0
        return deque(sorted(candidates[turn:] + candidates[:turn], key=self._order))

    def _order(self, candidate: tuple[int, str]) -> tuple[tuple[bool, bool, int], bool, int]:
        shard, host = candidate
        return self._trust.rank(host), shard >= self._span.manifest.k, shard

    def _ask_more(self) -> None:
        k = self._span.manifest.k
        while not self._ended and len(self._gathered.pieces) + len(self._flying) < k + self._hedges:
            following = self._next()
            if following is None:
                break
            self._ask(*following)
        if not self._ended and (len(self._gathered.pieces) >= k or not self._flying):
            self._end()

    def _next(self) -> tuple[tuple[int, str], int] | None:
        """Whom to ask now, and how long he gets; None when there is nobody."""
        if self._trust.now_ms() >= self._until_ms:
            for candidate in self._waiting:
                self._gathered.refused.setdefault(candidate, "was not asked any more")
                self._gathered.silent.add(candidate)
            return None
        length = self._span.bytes[1]
        busy = {shard for shard, _ in self._flying} if not (self._span.is_copy and self._hedges) else set()
        for queue, base_ms, bytes_per_s in (
            (self._waiting, QUICK_MS, QUICK_BYTES_PER_S),
            (self._patient, PATIENT_MS, PATIENT_BYTES_PER_S),
        ):
            for candidate in queue:
                if candidate[0] not in busy and candidate[0] not in self._gathered.pieces:
                    queue.remove(candidate)
                    return candidate, base_ms + length * 1_000 // bytes_per_s
        if self._former is None:
            self._waiting += (each for each in self._candidates(self._holders.formerly) if each not in self._asked)
            self._former = set(self._waiting)
            return self._next()
        return None

    def _ask(self, candidate: tuple[int, str], timeout_ms: int) -> None:
        shard, host = candidate
        patient = candidate in self._asked
        self._asked.add(candidate)
        self._flying[candidate] = None
        (offset, length), span = self._span.bytes, self._span
        request = objects_pb2.ReadReplicaRequest(
            object_id=span.manifest.object_id,
            shard=None if span.is_copy else shard,
            offset=offset,
            length=length,
            prove=span.prove,
        )
        if span.prove:
            timeout_ms += span.manifest.shard_bytes * 1_000 // PROOF_BYTES_PER_S
        self._carrier.request(
            host, READ_REPLICA, request, timeout_ms, lambda answer: self._on_answer(candidate, answer, patient=patient)
        )

    def _on_answer(self, candidate: tuple[int, str], answer: Message | Fault, *, patient: bool) -> None:
        def taken(outcome: Buffer | Fault) -> None:
            self._flying.pop(candidate, None)
            if not self._ended:
                self._on_taken(candidate, outcome, patient=patient)

        found = None if isinstance(answer, Fault) else as_a(objects_pb2.ReadReplicaResponse, answer)
        if isinstance(answer, Fault):
            taken(answer)
        elif found is None or len(found.data) != self._span.bytes[1]:
            taken(PeerFault("an answer of another kind or length", reason="WrongRow"))
        else:
            self._check(candidate[0], found)(taken)

    def _on_taken(self, candidate: tuple[int, str], outcome: Buffer | Fault, *, patient: bool) -> None:
        shard, host = candidate
        if isinstance(outcome, Fault):
            # Of former ones nobody ever said that they have it.
            if not (isinstance(outcome, NotFound) and candidate in (self._former or ())):
                self._trust.on_fault(host, outcome)
            self._gathered.refused[candidate] = self._trust.why(host, outcome)
            if isinstance(outcome, NotFound | Corrupt | PeerFault):
                self._gathered.silent.discard(candidate)
            else:
                self._gathered.silent.add(candidate)
            for named in self._trust.named(outcome, [node for at, node in self._asked if at == shard]):
                self._waiting.appendleft((shard, named))
            if not patient and self._trust.may_answer_later(host, outcome):
                self._patient.append(candidate)
        else:
            self._gathered.pieces.setdefault(shard, Piece(outcome, host))
            self._holders.learn(shard, host)
        self._ask_more()

    def _hedge(self) -> None:
        """As many others are asked as have not answered yet, and those are asked last for a while."""
        if self._ended:
            return
        self._hedges = len(self._flying)
        for _, host in self._flying:
            self._trust.shun(host, AWAY_MS)
        self._ask_more()

    def _end(self) -> None:
        self._ended = True
        # The hedge's timer keeps this for a while yet: not the pieces, nor who waited for them and has them now.
        gathered, self._gathered = self._gathered, Gathered({}, {})
        done, self._done = self._done, _nobody
        done(gathered)


def _nobody(gathered: Gathered) -> None:
    """Nobody waits for it any more."""
