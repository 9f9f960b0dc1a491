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

from offgrid.pieces import Buffer
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Corrupt, Fault, NotFound, PeerFault
from offgrid_node.protocol.objects.manifest import COPY, Manifest
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.services.flow import Later, Step
from offgrid_node.services.objects.holders import AWAY_MS, Holders, Trust
from offgrid_node.services.objects.pulls import Part, Pulls

ASKING_MS_MAX = 20_000  # after so long without a byte from whom it was asked nobody else is asked
HEDGE_MS, HEDGE_BYTES_PER_S = 300, 10_000_000  # of whom nothing comes for longer others are asked as well
LOOK_MS_MAX = 5_000  # between two looks whether it is so
FRUITLESS_MAX = 4  # times that a host is asked which brings others their parts, and nothing of this one
SLOW_MS, MUCH_FASTER = 2_000, 8  # what takes longer is asked of a host that is known to be so many times as fast


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
        pulls: Pulls,
        later: Later,
        check: Check,
        done: Callable[[Gathered], None],
    ) -> None:
        self._span, self._holders, self._trust, self._pulls = span, holders, trust, pulls
        self._later, self._check, self._done = later, check, done
        self._gathered, self._ended = Gathered({}, {}), False
        self._flying: dict[tuple[int, str], int] = {}  # since when
        self._asked: dict[tuple[int, str], Part] = {}
        self._patient: deque[tuple[int, str]] = deque()  # who may answer if he gets more time
        self._hedges = 0  # requests beyond those that are needed
        self._until_ms = trust.now_ms() + ASKING_MS_MAX
        self._waiting = self._candidates(holders.of)
        self._former: set[tuple[int, str]] | None = None  # who may have it still, once nobody else is left to ask

    def start(self) -> None:
        self._ask_more()
        self._look_after(HEDGE_MS + self._span.bytes[1] * 1_000 // HEDGE_BYTES_PER_S)

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

    def _next(self) -> tuple[tuple[int, str], bool] | None:
        """Whom to ask now, and whether he gets a long time; None when there is nobody."""
        if self._trust.now_ms() >= self._until_ms:
            for candidate in self._waiting:
                self._gathered.refused.setdefault(candidate, "was not asked any more")
                self._gathered.silent.add(candidate)
            return None
        busy = {shard for shard, _ in self._flying} if not (self._span.is_copy and self._hedges) else set()
        alone = len(self._waiting) == 1 and not (self._flying or self._asked)
        for queue, patient in ((self._waiting, alone), (self._patient, True)):
            for candidate in queue:
                if candidate[0] not in busy and candidate[0] not in self._gathered.pieces:
                    queue.remove(candidate)
                    return candidate, patient
        if self._former is None:
            self._waiting += (each for each in self._candidates(self._holders.formerly) if each not in self._asked)
            self._former = set(self._waiting)
            return self._next()
        return None

    def _ask(self, candidate: tuple[int, str], patient: bool) -> None:
        shard, host = candidate
        span, began_ms = self._span, self._trust.now_ms()
        offset, length = span.bytes
        part = self._asked.get(candidate)
        if part is None:
            request = objects_pb2.ReadReplicaRequest(
                object_id=span.manifest.object_id,
                shard=None if span.is_copy else shard,
                offset=offset,
                length=length,
                prove=span.prove,
            )
            part = self._asked[candidate] = Part(request)
        self._flying[candidate] = began_ms
        part.asks += 1
        self._pulls.pull(
            host,
            part,
            lambda answer: self._on_answer(candidate, answer, patient=patient),
            patient=patient,
            wanted=lambda: not self._ended,
            shard_bytes=span.manifest.shard_bytes,
        )

    def _on_answer(
        self, candidate: tuple[int, str], answer: objects_pb2.ReadReplicaResponse | Fault, *, patient: bool
    ) -> None:
        if self._ended:
            return
        part = self._asked[candidate]

        def taken(outcome: Buffer | Fault) -> None:
            began_ms = self._flying.pop(candidate, 0)
            if not self._ended:
                came = part.asks <= FRUITLESS_MAX and self._pulls.heard_ms(candidate[1]) > began_ms
                if came:
                    self._until_ms = self._trust.now_ms() + ASKING_MS_MAX
                self._on_taken(candidate, outcome, once_more=not patient or came)

        if isinstance(answer, Fault):
            taken(answer)
        else:
            self._check(candidate[0], answer)(taken)

    def _on_taken(self, candidate: tuple[int, str], outcome: Buffer | Fault, *, once_more: bool) -> None:
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
            if once_more and self._trust.may_answer_later(host, outcome):
                self._patient.append(candidate)
        else:
            self._gathered.pieces.setdefault(shard, Piece(outcome, host))
            self._holders.learn(shard, host)
        self._ask_more()

    def _look_after(self, delay_ms: int) -> None:
        self._later(delay_ms, lambda: self._hedge(delay_ms))

    def _hedge(self, waited_ms: int) -> None:
        """As many others are asked as bring nothing, or far too little, and those are asked last for a while."""
        if self._ended:
            return
        slow = [candidate[1] for candidate in self._flying if self._is_slow(candidate)]
        self._hedges = len(slow)
        for host in slow:
            self._trust.shun(host, AWAY_MS)
        self._ask_more()
        if not self._ended:
            self._look_after(min(2 * waited_ms, LOOK_MS_MAX))

    def _is_slow(self, candidate: tuple[int, str]) -> bool:
        """One that brings something is where another may well bring it sooner: where the road is narrow for all, to ask
        for it twice helps nobody."""
        host, pulls = candidate[1], self._pulls
        if pulls.stalls(host, HEDGE_MS):
            return True
        if self._trust.now_ms() - self._flying[candidate] < SLOW_MS:
            return False
        others = {other for _, other in self._waiting if other != host}
        return any(
            pulls.bytes_per_s(other) > MUCH_FASTER * pulls.bytes_per_s(host) or pulls.may_try(other) for other in others
        )

    def _end(self) -> None:
        self._ended = True
        # The hedge's timer keeps this for a while yet: not the pieces, nor who waited for them and has them now.
        gathered, self._gathered, self._asked = self._gathered, Gathered({}, {}), {}
        done, self._done = self._done, _nobody
        done(gathered)


def _nobody(gathered: Gathered) -> None:
    """Nobody waits for it any more."""
