"""SWIM over the carriers: probes, indirect probes and relays as calls, and what their ends mean.

`swim.py` decides who is alive and `probing.py` keeps count; here both meet the wire.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, Effect, Reply
from offgrid_node.protocol.errors import CONNECTION_REFUSED, NO_ROAD, Exhausted
from offgrid_node.protocol.mesh.probing import HELPERS, Prober
from offgrid_node.protocol.mesh.quiet import Quiet
from offgrid_node.protocol.mesh.swim import ALIVE, DEAD, NEWS_ACCEPTED_MAX, WATCHED, News, Swim
from offgrid_node.protocol.rng import Rng

PING = "offgrid.v1.MeshService/Ping"
PING_VIA = "offgrid.v1.MeshService/PingVia"
RELAYS_MAX = 256  # probes under way for others


class ProbeTag(msgspec.Struct, frozen=True):
    """A probe of our own."""

    number: int


class HelpTag(msgspec.Struct, frozen=True):
    """A probe that another member makes for us."""

    number: int
    target: str


class RelayTag(msgspec.Struct, frozen=True):
    """A probe that we make for another member."""

    ticket: int


def to_wire(news: Iterable[News]) -> list[mesh_pb2.LivenessNews]:
    return [
        mesh_pb2.LivenessNews(
            node_id=item.node_id,
            liveness=common_pb2.Liveness.ValueType(item.liveness),
            incarnation=item.incarnation,
        )
        for item in news
    ]


class LivenessCalls:
    """Turns ticks, requests and answers into calls and replies. `digest` is put on every ping, both ways."""

    def __init__(self, swim: Swim, interval_ms: int, quiet: Quiet | None = None) -> None:
        self._swim = swim
        self._quiet = quiet or Quiet()
        self._prober = Prober(interval_ms, self._quiet)
        self._relays: dict[int, int] = {}  # ticket → monotonic ms by which it is answered

    def deadline_ms(self) -> int:
        """When `tick` has something to do."""
        looks_ms, due_ms = self._prober.deadline_ms(), self._swim.deadline_ms()
        return due_ms if looks_ms is None else min(looks_ms, due_ms)

    # ---- inputs

    def tick(self, digest: bytes, now: Now, rng: Rng) -> list[Effect]:
        """Ends what got lost and probes whom SWIM wants probed."""
        effects: list[Effect] = []
        for number, target, others_asked in self._prober.overdue(now.mono_ms):
            if others_asked:
                self._give_up(number, target, now)
            else:
                effects += self._direct_failed(number, target, now, rng)
        for ticket in [ticket for ticket, due_ms in self._relays.items() if due_ms <= now.mono_ms]:
            del self._relays[ticket]
            effects.append(Reply(ticket, mesh_pb2.PingViaResponse(answered=False)))
        for target in dict.fromkeys(self._prober.take_looks(now.mono_ms) + self._swim.tick(now.mono_ms, rng)):
            effects += self._probe(target, digest, now)
        return effects

    def road_lost(self, target: str, digest: bytes, now: Now) -> list[Effect]:
        """The connection to a member has ended: it is probed now, not in its turn. A process that was killed is known
        to be gone so in a moment; one that merely hung up has cost a probe."""
        if self._swim.liveness(target) not in WATCHED:
            return []
        self._prober.road_lost(target)
        self._swim.road_lost(target)
        return self._probe(target, digest, now)

    def road_refused(self, target: str, now: Now) -> None:
        """Nobody listens where it was reached, and a slow road has still to answer. Where the connection there has only
        just ended its process is gone; else the address may be one of before, and the slow road has the last word."""
        if self._prober.is_looking(target):
            self._prober.known(target)
            self._swim.silent(target, now.mono_ms, refused=True)

    def asked_ping(self, caller: str, request: mesh_pb2.PingRequest, digest: bytes, now: Now) -> mesh_pb2.PingResponse:
        """A member probes us, which shows that it lives itself."""
        self._hear(caller, request.news, now)
        return mesh_pb2.PingResponse(news=to_wire(self._swim.news_for(caller)), members_digest=digest)

    def asked_ping_via(self, ticket: int, request: mesh_pb2.PingViaRequest, digest: bytes, now: Now) -> list[Effect]:
        """A member asks us to probe another. Raises Exhausted at RELAYS_MAX."""
        if len(self._relays) >= RELAYS_MAX:
            raise Exhausted(f"{RELAYS_MAX} probes for others are under way", reason="TooManyProbes", retry_ms=1_000)
        timeout_ms = max(1, min(request.timeout_ms or self._prober.direct_ms, self._prober.direct_ms))
        self._relays[ticket] = now.mono_ms + 2 * (timeout_ms + self._quiet.longer_ms(request.target))
        return [self._ping(request.target, digest, RelayTag(ticket), timeout_ms)]

    def answered(self, answer: Answered, digest: bytes, now: Now, rng: Rng) -> list[Effect]:
        """The end of a Ping or PingVia of ours; late and unknown ones still show that somebody lives."""
        if isinstance(answer.reply, mesh_pb2.PingResponse):
            self._hear(answer.node, answer.reply.news, now)
        match answer.tag:
            case ProbeTag(number) if isinstance(answer.reply, mesh_pb2.PingResponse):
                self._prober.end(number)
                self._prober.known(answer.node)
            case ProbeTag(number) if self._prober.is_open(number):
                instead = self._swim.instead_of(answer.node, rng) if _has_no_road(answer) else []
                effects = self._direct_failed(number, answer.node, now, rng, refused=_is_refused(answer))
                return [*effects, *(call for target in instead for call in self._probe(target, digest, now))]
            case HelpTag(number, target):
                self._helped(number, target, answer.node, answer.reply, now)
            case RelayTag(ticket) if self._relays.pop(ticket, None) is not None:
                reached, refused = isinstance(answer.reply, mesh_pb2.PingResponse), _is_refused(answer)
                if refused and self._swim.liveness(answer.node) == ALIVE:  # who is refused for another looks for itself
                    self._prober.look_now(answer.node, now.mono_ms)
                return [Reply(ticket, mesh_pb2.PingViaResponse(answered=reached, refused=refused))]
        return []

    # ---- inside

    def _probe(self, target: str, digest: bytes, now: Now) -> list[Effect]:
        number = self._prober.start(target, now.mono_ms)
        return [] if number is None else [self._ping(target, digest, ProbeTag(number), self._prober.direct_ms)]

    def _ping(self, target: str, digest: bytes, tag: object, timeout_ms: int) -> Call:
        request = mesh_pb2.PingRequest(news=to_wire(self._swim.news_for(target)), members_digest=digest)
        return Call("mesh", target, PING, request, tag, timeout_ms)

    def _hear(self, speaker: str, news: Iterable[mesh_pb2.LivenessNews], now: Now) -> None:
        claims = [News(item.node_id, item.liveness, item.incarnation) for item in list(news)[:NEWS_ACCEPTED_MAX]]
        for claim in claims:
            if claim.node_id == speaker:
                self._swim.heard(speaker, claim.incarnation, now.mono_ms)
        self._swim.learn((claim for claim in claims if claim.node_id != speaker), now.mono_ms)

    def _direct_failed(self, number: int, target: str, now: Now, rng: Rng, *, refused: bool = False) -> list[Effect]:
        helpers = [] if self._swim.liveness(target) == DEAD else self._swim.helpers(target, HELPERS, rng)
        self._prober.ask_others(number, helpers, now.mono_ms, refused=refused)
        if not helpers:
            self._give_up(number, target, now)
            return []
        request = mesh_pb2.PingViaRequest(target=target, timeout_ms=self._prober.direct_ms)
        tag = HelpTag(number, target)
        return [Call("mesh", helper, PING_VIA, request, tag, self._prober.indirect_ms) for helper in helpers]

    def _helped(self, number: int, target: str, helper: str, reply: object | None, now: Now) -> None:
        if isinstance(reply, mesh_pb2.PingViaResponse) and reply.answered:
            self._prober.end(number)
            self._prober.known(target)
        else:
            refused = isinstance(reply, mesh_pb2.PingViaResponse) and reply.refused
            if self._prober.other_failed(number, helper, refused=refused):
                self._give_up(number, target, now)

    def _give_up(self, number: int, target: str, now: Now) -> None:
        refused = self._prober.was_refused(number)
        self._prober.end(number)
        if refused:
            self._prober.known(target)
        else:
            self._prober.look_again(target, now.mono_ms)
        self._swim.silent(target, now.mono_ms, refused=refused)


def _is_refused(answer: Answered) -> bool:
    return answer.fault is not None and answer.fault.reason == CONNECTION_REFUSED


def _has_no_road(answer: Answered) -> bool:
    return answer.fault is not None and answer.fault.reason == NO_ROAD
