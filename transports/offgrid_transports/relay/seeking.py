"""Ways looked for on a node's links: what `discovery` wants said is said, within the shares of links and neighbours."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from offgrid_transports.path import Path
from offgrid_transports.relay.discovery import Discovery
from offgrid_transports.relay.frames import Answer, Ask, Open, is_at, place
from offgrid_transports.relay.ground import Ground
from offgrid_transports.relay.link import RelayLink
from offgrid_transports.relay.metric import metric_of
from offgrid_transports.relay.neighbours import NEIGHBOUR_MS

ANSWER_TRIES = 3  # of an answer, until it is heard to go on
PASSED_MAX = 64  # of which that is waited for


class _Passed(NamedTuple):
    """An answer that was said to that hop, and how often."""

    answer: Answer
    hop: bytes
    tries: int


class Seeking:
    """`found` and `lost` learn of the ends of searches."""

    def __init__(
        self,
        ground: Ground,
        *,
        hands_on: bool,
        found: Callable[[bytes], None],
        lost: Callable[[bytes], None],
    ) -> None:
        self._ground, self._hands_on, self._found, self._lost = ground, hands_on, found, lost
        self._discovery = Discovery(ground.name, ground.rng, hands_on=hands_on)
        self._passed: dict[tuple[object, ...], _Passed] = {}

    @property
    def due_ms(self) -> float:
        return self._discovery.due_ms

    @property
    def suppressed(self) -> int:
        """Questions that were not handed on, because others had."""
        return self._discovery.suppressed

    @property
    def answers(self) -> int:
        """That are said until they are heard to go on."""
        return len(self._passed)

    @property
    def under_way(self) -> int:
        """Searches of this node, and questions whose turn will come."""
        return self._discovery.under_way

    def may_seek(self, name: bytes) -> bool:
        return self._discovery.may_seek(self._ground.now_ms(), name)

    def seek(self, name: bytes, *, fresh: bool) -> bool:
        """Whether that is under way."""
        ground = self._ground
        now_ms = ground.now_ms()
        avoided = ground.shunned.worst(now_ms)
        ask = self._discovery.seek(now_ms, name, ground.slot_ms, fresh=fresh, avoided=avoided)
        if ask is not None:
            ground.counts["searches"] += 1
            for link in ground.up:
                ground.flood(link, ask)
        return self._discovery.seeks(name)

    def fail(self, name: bytes) -> None:
        """It was found, and is not reached: it is looked for again later."""
        self._discovery.fail(self._ground.now_ms(), name)

    def reached(self, name: bytes) -> None:
        """A way there has opened."""
        self._discovery.reached(name)

    def on_ask(self, path: Path, link: RelayLink, ask: Ask, length: int) -> None:
        ground, before = self._ground, ask.hops[-1] if ask.hops else ask.source
        now_ms = ground.now_ms()
        if before in (ground.hop, ground.name):
            return
        if self._discovery.is_news(ask) and not self._may_ask(now_ms, before, path, length):
            return
        ground.neighbours.on_heard(now_ms, before, path)
        ask = ask._replace(cost_ms=ask.cost_ms + metric_of(path).cost_ms)
        if self._discovery.on_ask(now_ms, ask, link.place, ground.slot_ms, ground.route_to):
            ground.learn(ask.source, ask.hops[::-1], ask.cost_ms)

    def on_answer(self, path: Path, answer: Answer) -> None:
        self._discovery.on_answer_heard(answer)
        now_ms, ground = self._ground.now_ms(), self._ground
        self._gone_on(answer.source, answer.target, answer.to + 1)
        if not is_at(ground.name, ground.hop, answer):
            self._look_for_namesakes(answer)
            return
        if not (self._discovery.is_open(now_ms, answer) if answer.to == 0 else self._discovery.may_pass(answer)):
            ground.counts["answers_stale"] += 1
            return
        ground.neighbours.on_heard(now_ms, place(answer, answer.to + 1), path, NEIGHBOUR_MS)
        answer = answer._replace(cost_ms=answer.cost_ms + metric_of(path).cost_ms)
        ground.learn(answer.target, answer.hops[answer.to :], answer.cost_ms, asked=answer.to == 0)
        if answer.to == 0:
            self._discovery.on_found(now_ms, answer.target, ground.slot_ms)
            self._found(answer.target)
        elif self._hands_on:
            self._pass(_Passed(answer._replace(to=answer.to - 1), place(answer, answer.to - 1), 0))

    def on_open(self, said: Open) -> None:
        """Its source has the answer."""
        self._gone_on(said.source, said.target, 0)

    def on_time(self) -> None:
        ground = self._ground
        dues, lost = self._discovery.take_due(ground.now_ms(), ground.slot_ms)
        for said, not_on in dues:
            if isinstance(said, Answer):
                self._pass(_Passed(said, place(said, said.to), 0))
            else:
                for link in ground.up:
                    if link.place not in not_on:
                        ground.flood(link, said)
        for name in lost:
            ground.counts["searches_failed"] += 1
            self._lost(name)

    def on_timer(self, key: tuple[object, ...]) -> None:
        """An answer was not heard to go on."""
        if (passed := self._passed.pop(key, None)) is not None:
            self._pass(passed)

    # ---- inside

    def _look_for_namesakes(self, answer: Answer) -> None:
        """An answer of just now names this node's hop, did not go through here, and goes on with one not heard here."""
        ground = self._ground
        if ground.hop not in answer.hops or self._discovery.may_be_mine(answer):
            return
        if ground.next_path(place(answer, answer.hops.index(ground.hop) + 2)) is None:
            ground.rename()
            self._discovery.hop = ground.hop

    def _may_ask(self, now_ms: float, before: bytes, path: Path, length: int) -> bool:
        """No neighbour has this node say more for it than a share."""
        who, air_ms = self._ground.known_as(before, path), path.transport.airtime_ms(length)
        taken = self._ground.link(path.transport).asks.take(now_ms, who, air_ms)
        self._ground.counts["asks_refused"] += not taken
        return taken

    def _pass(self, passed: _Passed) -> None:
        answer, hop, tries = passed
        path = self._ground.next_path(hop)
        if path is None:
            return
        self._ground.say(path, answer)
        if path.shared and tries < (ANSWER_TRIES if answer.to else 1):
            transport = path.transport
            wait_ms = 2 * transport.airtime_ms(16 + 2 * len(answer.hops)) + 5 * transport.access_ms + 50
            key = ("answer", answer.source, answer.target, answer.to)
            self._passed[key] = _Passed(answer, hop, tries + 1)
            self._ground.set(key, self._ground.now_ms() + wait_ms)
            if len(self._passed) > PASSED_MAX:
                self._end(next(iter(self._passed)))

    def _gone_on(self, source: bytes, target: bytes, to: int) -> None:
        self._end(("answer", source, target, to))

    def _end(self, key: tuple[object, ...]) -> None:
        self._passed.pop(key, None)
        self._ground.timers.set(key, None)
